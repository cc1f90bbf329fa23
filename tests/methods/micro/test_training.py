"""Both stages learn: the same seed gives the same numbers, and only what should learn does."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from prefcore.methods.micro import mixture, training
from prefcore.methods.micro.mixture import Recipe
from prefcore.methods.micro.training import Schedule

QUICK = Schedule(epochs=3, batch_size=16, learning_rate=0.05)


def mean_loss(router_logits, margins):
    return -(router_logits.log_softmax(1) + logsigmoid(margins)).logsumexp(1)


def recipe(heads=3, loss=mean_loss, **parts):
    return Recipe(loss, heads, **parts)


def weights(model):
    return [p.detach().clone() for p in [*model.heads.parameters(), *model.router.parameters()]]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(rows):
    found = []
    for seed in (0, 0, 1):
        model, history = training.train(rows, recipe(), QUICK, seed)
        found.append((weights(model), history))
        torch.randn(7)  # the global stream plays no part
    assert same(found[0][0], found[1][0]) and found[0][1].equals(found[1][1])
    assert not same(found[0][0], found[2][0])


def test_training_lowers_the_loss_and_has_one_history_row_a_step(rows):
    model = mixture.make(rows, recipe(), 0)
    before = mean_loss(*mixture.outputs(model, rows)).mean()
    history = training.fit(model, rows, mean_loss, QUICK, seed=0)
    assert list(history) == ["step", "loss"] and history["step"].tolist() == list(range(1, 13))  # 3 x ceil(60 / 16)
    assert mean_loss(*mixture.outputs(model, rows)).mean() < before - 0.1


def test_the_loop_is_plain_adamw_over_shuffled_batches_with_this_pace_bit_for_bit(rows):
    """A twin written out: no clipping, no weight decay, orders from (seed, epoch)."""
    ours, twin = (mixture.make(rows, recipe(), 0) for _ in range(2))
    history = training.fit(ours, rows, mean_loss, QUICK, seed=2)
    parameters = [*twin.heads.parameters(), *twin.router.parameters()]
    optimiser, values = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.0), []
    for epoch in range(3):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(2_000_006 + epoch))
        for index in order.split(16):
            share = 0.5 * (1 + math.cos(math.pi * (len(values) - 1) / 11)) if values else 1.0  # one step of warm-up
            optimiser.param_groups[0]["lr"] = 0.05 * share
            loss = mean_loss(twin.router(rows.prompt[index]), twin.heads(rows.difference[index])).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
    assert history["loss"].tolist() == values
    assert same(weights(ours), weights(twin))


def test_deep_heads_can_do_what_no_linear_one_can(make_rows):
    """The label is the sign of x1^3 - x1: odd, with three zeros. A linear head is right on the outer or inner part."""
    g = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(1000, 1, generator=g) - 2
    sign = (x**3 - x).sign()
    rows = make_rows(1000)._replace(difference=torch.cat([x * sign, torch.zeros(1000, 1)], 1))
    # the difference of the preferred text is x or -x, so an odd function must be positive there
    right = {}
    for head in (mixture.linear_heads, mixture.deep_heads):
        single = recipe(1, head=head, loss=lambda g, m: -logsigmoid(m[:, 0]))
        model, _ = training.train(rows, single, Schedule(15, 50, 0.03), 0)
        right[head.__name__] = float((mixture.outputs(model, rows)[1] > 0).float().mean())
    assert right["deep_heads"] > right["linear_heads"] + 0.1


def test_a_constant_router_never_learns_to_read(rows):
    model = mixture.make(rows, recipe(router=mixture.constant_router), 0)
    training.fit(model, rows, mean_loss, QUICK, seed=0)
    logits, _ = mixture.outputs(model, rows)
    assert torch.equal(logits, logits[:1].expand(60, 3)) and logits.std() > 0


@pytest.mark.parametrize("by", ["loss", "targets"])
def test_training_the_router_leaves_the_heads_and_the_first_mixture_as_they_are(by, rows):
    first = mixture.make(rows, recipe(), 0)
    before, second = weights(first), mixture.copy_with(first, reads="seen")
    if by == "loss":
        training.fit_router(second, rows, mean_loss, QUICK, seed=0)
    else:
        training.fit_router_to_targets(
            second, rows, lambda g, m: (g + m).softmax(1), lambda g, t: -(t * g.log_softmax(1)).sum(1), QUICK, seed=0
        )
    assert same(weights(first), before)
    assert torch.equal(second.heads.weight, first.heads.weight)
    assert not torch.equal(second.router.weight, first.router.weight)


def test_targets_are_made_once_an_epoch_on_all_rows_with_the_router_of_that_moment(rows):
    calls = []
    model = mixture.make(rows, recipe(), 0)

    def targets(logits, margins):
        calls.append(logits.clone())
        return margins.softmax(1)

    training.fit_router_to_targets(model, rows, targets, lambda g, t: -(t * g.log_softmax(1)).sum(1), QUICK, seed=0)
    assert [len(c) for c in calls] == [60] * 3
    assert not calls[0].any() and calls[1].any() and not torch.equal(calls[1], calls[2])


def test_a_response_never_reaches_the_router(rows):
    """Other texts, the same prompts and contexts: the same weights of the heads."""
    model = mixture.make(rows, recipe(reads="seen"), 0)
    training.fit(model, rows, mean_loss, QUICK, seed=0)
    other = rows._replace(difference=torch.randn(60, 5))
    assert torch.equal(mixture.outputs(model, rows)[0], mixture.outputs(model, other)[0])


def test_a_loss_that_is_not_finite_stops_with_its_step_and_no_rows_raise(rows):
    with pytest.raises(ValueError, match="the loss is nan at step 1: lower"):
        training.fit(mixture.make(rows, recipe(2), 0), rows, lambda g, m: m[:, 0] * float("nan"), QUICK, seed=0)
    with pytest.raises(ValueError, match="no rows"):
        training.minimise([torch.zeros(1)], None, 0, QUICK, seed=0)


def test_the_rate_warms_up_and_ends_at_nothing():
    assert training.pace(0, 100) == 0.2 and training.pace(4, 100) == 1.0  # 5 steps of warm-up
    assert training.pace(5, 100) == 1.0 and training.pace(99, 100) < 0.001
    assert training.pace(0, 1) == 1.0


def test_a_oracle_router_puts_all_weight_on_the_head_of_the_rows_own_attribute_and_never_learns(rows):
    model, _ = training.train(rows, recipe(router=mixture.oracle_router, reads="attribute"), QUICK, 0)
    logits, _ = mixture.outputs(model, rows)
    assert torch.equal(logits.softmax(1), torch.eye(3)[rows.attribute])
    before = mixture.make(rows, recipe(router=mixture.oracle_router, reads="attribute"), 0)
    assert not torch.equal(model.heads.weight, before.heads.weight)
