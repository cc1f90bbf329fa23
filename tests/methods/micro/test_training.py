"""Both stages learn: the same seed gives the same numbers, and only what should learn does."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from prefcore.methods.micro import mixture, training
from prefcore.methods.micro.mixture import Recipe, Rows
from prefcore.methods.micro.training import Schedule

QUICK = Schedule(epochs=3, batch_size=16, learning_rate=0.05, router_rate=0.02)


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
    parts = [{"params": list(part.parameters())} for part in (twin.heads, twin.router)]
    optimiser, values = torch.optim.AdamW(parts, lr=1.0, weight_decay=0.0), []
    for epoch in range(3):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(2_000_006 + epoch))
        for index in order.split(16):
            share = 0.5 * (1 + math.cos(math.pi * (len(values) - 1) / 11)) if values else 1.0  # one step of warm-up
            for part, rate in zip(optimiser.param_groups, (0.05, 0.02), strict=True):
                part["lr"] = rate * share
            loss = mean_loss(twin.router(rows.prompt[index]), twin.heads(rows.difference[index])).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
    assert history["loss"].tolist() == values
    assert same(weights(ours), weights(twin))


def test_the_first_step_moves_every_weight_by_the_rate_of_its_own_part(rows):
    """AdamW's first step is the rate, whatever the gradient: heads by 0.05, the router by 0.02."""
    model = mixture.make(rows, recipe(), 0)
    before = weights(model)
    training.fit(model, rows, mean_loss, QUICK._replace(epochs=1, batch_size=60), seed=0)
    heads, router, bias = (abs(a - b) for a, b in zip(weights(model), before, strict=True))
    for moved, rate in ((heads, 0.05), (router, 0.02), (bias, 0.02)):
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=0)


def test_a_router_at_the_rate_of_narrow_heads_does_not_learn_who_asks_and_at_its_own_rate_it_does():
    """Two groups of opposite taste on one number; a sentence of 384 entries of unit size says which group votes.

    At the heads' rate a logit moves by up to 0.05 x 384 x 0.8, about 15 nats, in one step, and new sentences are judged
    worse than by a coin (log 2); at its own rate the router tells the groups apart.
    """
    g = torch.Generator().manual_seed(0)

    def votes(n):
        group = torch.randint(2, (n,), generator=g)
        sentence = torch.randn(n, 384, generator=g)
        sentence[:, :16] += 0.3 * (2.0 * group - 1)[:, None]
        first = torch.rand(n, generator=g) < torch.where(group == 1, 0.9, 0.1)
        difference = torch.where(first, 1.0, -1.0)[:, None]
        return Rows(difference, sentence, sentence, sentence, group, torch.arange(n), torch.ones(n), torch.ones(n))

    learned, held = votes(200), votes(2000)
    found = {}
    for rate in (0.05, 0.002):
        schedule = Schedule(epochs=10, batch_size=32, learning_rate=0.05, router_rate=rate)
        model, _ = training.train(learned, recipe(4), schedule, 0)
        found[rate] = float(mean_loss(*mixture.outputs(model, held)).mean())
    assert found[0.05] > math.log(2) > found[0.002] + 0.02


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
