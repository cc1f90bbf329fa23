"""Heads and router on cached vectors: the same seed gives the same numbers, and only what should learn does."""

import pytest
import torch
from torch.nn.functional import logsigmoid

from prefcore.methods.micro import mixture
from prefcore.methods.micro.mixture import Recipe, Rows, Schedule

QUICK = Schedule(epochs=3, batch_size=16, learning_rate=0.05)


def make_rows(n=60, width=5, attributes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    difference = torch.randn(n, width, generator=g) + torch.tensor([1.0] + [0.0] * (width - 1))
    prompt, seen, unseen = torch.randn(3, n, 4, generator=g)
    return Rows(difference, prompt, seen, unseen, torch.arange(n) % attributes, torch.arange(n) // 2)


def mean_loss(router_logits, margins):
    return -(router_logits.log_softmax(1) + logsigmoid(margins)).logsumexp(1)


def how(heads=3, router=mixture.linear_router, head=mixture.linear_heads, reads="prompt", loss=mean_loss):
    return Recipe(loss, heads, router, head, reads)


def weights(model):
    return [p.detach().clone() for p in [*model.heads.parameters(), *model.router.parameters()]]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    rows, found = make_rows(), []
    for seed in (0, 0, 1):
        model, history = mixture.train(rows, how(), QUICK, seed)
        found.append((weights(model), history))
        torch.randn(7)  # the global stream plays no part
    assert same(found[0][0], found[1][0]) and found[0][1].equals(found[1][1])
    assert not same(found[0][0], found[2][0])


def test_making_a_mixture_leaves_the_global_stream_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    mixture.make(make_rows(), how(), 0)
    assert torch.equal(torch.rand(2), expected)


def test_training_lowers_the_loss_and_has_one_history_row_a_step():
    rows = make_rows()
    model = mixture.make(rows, how(), 0)
    before = mean_loss(*mixture.outputs(model, rows)).mean()
    history = mixture.fit(model, rows, mean_loss, QUICK, seed=0)
    assert list(history) == ["step", "loss"] and history["step"].tolist() == list(range(1, 13))  # 3 x ceil(60 / 16)
    assert mean_loss(*mixture.outputs(model, rows)).mean() < before - 0.1


def test_heads_start_apart_and_the_router_starts_even():
    rows = make_rows()
    for router in (mixture.linear_router, mixture.mlp_router, mixture.constant_router):
        model = mixture.make(rows, how(4, router), 0)
        logits, margins = mixture.outputs(model, rows)
        assert torch.equal(logits, torch.zeros(60, 4))
        assert margins.std(1).min() > 0.01


@pytest.mark.parametrize("head", [mixture.linear_heads, mixture.deep_heads])
def test_swapping_the_texts_turns_the_sign_of_every_head(head):
    rows = make_rows()
    model = mixture.make(rows, how(head=head), 0)
    swapped = rows._replace(difference=-rows.difference)
    torch.testing.assert_close(mixture.outputs(model, swapped)[1], -mixture.outputs(model, rows)[1])


def test_deep_heads_can_do_what_no_linear_one_can():
    """The label is the sign of x1^3 - x1: odd, with three zeros. A linear head is right on the outer or inner part."""
    g = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(1000, 1, generator=g) - 2
    sign = (x**3 - x).sign()
    rows = make_rows(1000)._replace(difference=torch.cat([x * sign, torch.zeros(1000, 1)], 1))
    # the difference of the preferred text is x or -x, so an odd function must be positive there
    right = {}
    for head in (mixture.linear_heads, mixture.deep_heads):
        recipe = how(1, head=head, loss=lambda g, m: -logsigmoid(m[:, 0]))
        model, _ = mixture.train(rows, recipe, Schedule(15, 50, 0.03), 0)
        right[head.__name__] = float((mixture.outputs(model, rows)[1] > 0).float().mean())
    assert right["deep_heads"] > right["linear_heads"] + 0.1


def test_a_constant_router_never_learns_to_read():
    rows = make_rows()
    model = mixture.make(rows, how(router=mixture.constant_router), 0)
    mixture.fit(model, rows, mean_loss, QUICK, seed=0)
    logits, _ = mixture.outputs(model, rows)
    assert torch.equal(logits, logits[:1].expand(60, 3)) and logits.std() > 0


@pytest.mark.parametrize("by", ["loss", "targets"])
def test_training_the_router_leaves_the_heads_and_the_first_mixture_as_they_are(by):
    rows = make_rows()
    first = mixture.make(rows, how(), 0)
    before, second = weights(first), mixture.copy_with(first, reads="seen")
    if by == "loss":
        mixture.fit_router(second, rows, mean_loss, QUICK, seed=0)
    else:
        mixture.fit_router_to_targets(
            second, rows, lambda g, m: (g + m).softmax(1), lambda g, t: -(t * g.log_softmax(1)).sum(1), QUICK, seed=0
        )
    assert same(weights(first), before)
    assert torch.equal(second.heads.weight, first.heads.weight)
    assert not torch.equal(second.router.weight, first.router.weight)


def test_targets_are_made_once_an_epoch_on_all_rows_with_the_router_of_that_moment():
    rows, calls = make_rows(), []
    model = mixture.make(rows, how(), 0)

    def targets(logits, margins):
        calls.append(logits.clone())
        return margins.softmax(1)

    mixture.fit_router_to_targets(model, rows, targets, lambda g, t: -(t * g.log_softmax(1)).sum(1), QUICK, seed=0)
    assert [len(c) for c in calls] == [60] * 3
    assert not calls[0].any() and calls[1].any() and not torch.equal(calls[1], calls[2])


def test_the_router_reads_the_column_that_the_mixture_names():
    rows = make_rows()
    model = mixture.make(rows, how(2, reads="seen"), 0)
    with torch.no_grad():
        model.router.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(mixture.outputs(model, rows)[0], model.router(rows.seen).detach())
    assert torch.equal(mixture.outputs(model, rows, "unseen")[0], model.router(rows.unseen).detach())


def test_a_response_never_reaches_the_router():
    """Other texts, the same prompts and contexts: the same weights of the heads."""
    rows = make_rows()
    model = mixture.make(rows, how(reads="seen"), 0)
    mixture.fit(model, rows, mean_loss, QUICK, seed=0)
    other = rows._replace(difference=torch.randn(60, 5))
    assert torch.equal(mixture.outputs(model, rows)[0], mixture.outputs(model, other)[0])


def test_more_rows_of_an_attribute_hold_the_fewer_and_each_attribute_has_as_many():
    rows = make_rows()
    small, large = (mixture.take(rows, size, 5) for size in (3, 10))
    assert small.attribute.bincount().tolist() == [3, 3, 3] and large.attribute.bincount().tolist() == [10, 10, 10]
    kept = {tuple(x.tolist()) for x in large.difference}
    assert {tuple(x.tolist()) for x in small.difference} <= kept


def test_too_many_rows_of_an_attribute_and_too_many_heads_raise():
    rows = make_rows()
    with pytest.raises(ValueError, match="attribute 0 has 20 rows; 21 of each are asked for"):
        mixture.take(rows, 21, 0)
    for heads in (0, 61):
        with pytest.raises(ValueError, match=f"heads is {heads}; with 60 rows it must be from 1 to 60"):
            mixture.make(rows, how(heads), 0)


def test_a_loss_that_is_not_finite_stops_with_its_step_and_no_rows_raise():
    rows = make_rows()
    with pytest.raises(ValueError, match="the loss is nan at step 1: lower"):
        mixture.fit(mixture.make(rows, how(2), 0), rows, lambda g, m: m[:, 0] * float("nan"), QUICK, seed=0)
    with pytest.raises(ValueError, match="no rows"):
        mixture.descend([torch.zeros(1)], None, 0, QUICK, seed=0)


def test_the_rate_warms_up_and_ends_at_nothing():
    assert mixture._pace(0, 100) == 0.2 and mixture._pace(4, 100) == 1.0  # 5 steps of warm-up
    assert mixture._pace(5, 100) == 1.0 and mixture._pace(99, 100) < 0.001
    assert mixture._pace(0, 1) == 1.0


def test_a_told_router_puts_all_weight_on_the_head_of_the_rows_own_attribute_and_never_learns():
    rows = make_rows()
    model, _ = mixture.train(rows, how(3, mixture.told_router, reads="attribute"), QUICK, 0)
    logits, _ = mixture.outputs(model, rows)
    assert torch.equal(logits.softmax(1), torch.eye(3)[rows.attribute])
    before = mixture.make(rows, how(3, mixture.told_router, reads="attribute"), 0)
    assert not torch.equal(model.heads.weight, before.heads.weight)
