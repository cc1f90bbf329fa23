"""The cheap twin: it starts as the model, learns as a plain loop, and a rollout really is used more than once."""

import numpy as np
import pytest
import torch

from prefcore.methods.autoraters import losses, tree, twin
from prefcore.methods.autoraters.labels import Labels
from prefcore.methods.autoraters.tree import ANSWERS, States


@pytest.fixture
def states():
    """States of 8 pairs in both orders, 6 numbers wide; the first number is the strength of the second text."""
    rng = np.random.default_rng(0)
    strength = np.linspace(-1, 1, 8)
    digits = rng.normal(size=(16, 11, 6)) * 0.1
    digits[:, :, 0] = np.concatenate([strength, -strength])[:, None]
    digits[:, np.arange(11), 1] = 1.0
    digits = torch.from_numpy(digits).float()
    return States(digits[:, 0], digits[:, 0], digits, torch.zeros(16, 11))


@pytest.fixture
def head():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(10, 6)) * 0.5).float()


NONE = torch.zeros(6, 10)


def brier(logps, answers, label, start):
    return losses.expected_loss(logps, answers, losses.brier(answers, label), start, kl_weight=0.05)


def plan(labels, steps, pairs=4):
    return twin.batches(labels, 8, pairs=pairs, steps=steps)


def votes(seed):
    return Labels(np.arange(8), np.random.default_rng(seed).integers(0, 2, 8).astype(float))


def test_an_unchanged_twin_writes_what_the_model_writes(model, pairs, shown):
    tokenizer, policy = model
    cached = tree.read_states(shown(tokenizer, pairs), policy, tokenizer)
    digits = tree.head_rows(policy, torch.tensor(tree.digit_ids(tokenizer))).detach()
    found = twin.write_all(cached, digits, torch.zeros(digits.shape[1], 10))
    torch.testing.assert_close(found, tree.read_answers(shown(tokenizer, pairs), policy, tokenizer), rtol=0, atol=1e-3)


def test_twins_side_by_side_learn_what_each_learns_alone(states, head):
    own = [votes(0), votes(1)]
    both = twin.learn(states, head, plan(own, 12), brier, NONE, rate=0.05)[12]
    first = twin.learn(states, head, plan(own[:1], 12), brier, NONE, rate=0.05)[12]
    torch.testing.assert_close(both[0], first[0], rtol=0, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_each_batch_holds_pairs_in_both_orders(states):
    rows, share = plan([votes(0)], 2)
    assert rows.shape == share.shape == (2, 1, 8)
    assert torch.equal(rows[..., :4] + 8, rows[..., 4:])
    assert torch.equal(share[..., :4] + share[..., 4:], torch.ones(2, 1, 4))
    alone, _ = twin.batches([votes(0)], 8, pairs=4, steps=1, both=False)
    assert sorted(alone.flatten().tolist()) == list(range(8))


def test_a_path_passes_through_its_marks(states, head):
    kept = twin.learn(states, head, plan([votes(0)], 9), brier, NONE, rate=0.05, marks=[3, 9])
    short = twin.learn(states, head, tuple(part[:3] for part in plan([votes(0)], 9)), brier, NONE, rate=0.05)
    assert list(kept) == [3, 9] and torch.equal(kept[3], short[3])


def test_it_learns_the_shares(states, head):
    truth = np.linspace(0.1, 0.9, 8)
    labels = [Labels(np.arange(8), truth)]
    learnt = twin.learn(states, head, plan(labels, 150), brier, NONE, rate=0.1)[150]
    before, after = (twin.errors(twin.say(states, head, one), truth)[0] for one in (NONE[None], learnt))
    assert after < 0.5 * before
    assert twin.spread(twin.say(states, head, learnt))[0] > 0.1


def test_errors_and_spread_count_both_orders():
    """Says 0.7 and, exchanged, 0.5 of one pair and 0.1, 0.9 of another; shares 0.6 and 0.1."""
    said = np.array([[[0.7, 0.1], [0.5, 0.9]]])
    assert twin.errors(said, np.array([0.6, 0.1]))[0] == pytest.approx((0.1**2 + 0.1**2) / 4)
    assert twin.spread(said)[0] == pytest.approx(np.std([0.6, 0.1]))


def test_pairs_that_all_pull_one_way_agree_and_showing_both_orders_takes_the_place_out(states, head):
    """All votes for the second text: in one order each pair says "more"; in both orders its mirror says "less"."""
    alike, states = Labels(np.arange(8), np.ones(8)), states._replace(other=torch.full((16, 11), -20.0))  # never silent
    alone, paired = (twin.agreement(states, head, NONE, brier, alike, both=both) for both in (False, True))
    assert 1 >= alone > paired > 0
    one = Labels(np.array([3]), np.array([1.0]))
    assert twin.agreement(states, head, NONE, brier, one, both=False) == pytest.approx(1)


# --- rollouts ---------------------------------------------------------------------------------------------------


def rolled(samples=2_000):
    """A rollout of two rows from a flat policy, and that policy."""
    logps = torch.log(torch.full((2, 99), 0.95 / 99))
    return twin.draw(logps, torch.tensor([1.0, 0.0]), samples, torch.Generator().manual_seed(0)), logps


def test_a_rollout_follows_the_chances_and_depends_on_its_generator_alone():
    rollout, _ = rolled(20_000)
    assert (rollout.drawn == 99).double().mean().item() == pytest.approx(0.05, abs=0.01)
    assert torch.equal(rollout.drawn, rolled(20_000)[0].drawn)
    assert rollout.gain.mean(1).abs().max() < 1e-4


def test_after_a_step_the_ratio_leaves_one_and_the_clip_acts():
    """At the first update no clip matters; for a policy that has moved far the clipped loss has a smaller slope."""
    rollout, old = rolled()
    moved = (torch.log(torch.linspace(0.1, 1.9, 99)) + old).log_softmax(1) + np.log(0.95)
    for logps, acts in ((old, False), (moved, True)):
        slopes = []
        for clip in (0.2, 1e6):
            own = logps.clone().requires_grad_()
            found = twin.sampled(own, ANSWERS, None, old, rollout, clip=clip, kl_weight=0.0)
            found.losses.sum().backward()
            slopes.append(own.grad)
        assert (not torch.allclose(*slopes)) == acts


def test_several_updates_learn_more_from_one_rollout_than_one_and_the_clip_bounds_them(states, head):
    how = {"samples": 32, "kl_weight": 0.0, "rate": 0.05, "seed": 0}
    batch = plan([votes(0)], 1)
    moved = {}
    for updates, clip in ((1, 0.2), (8, 0.2), (8, 1e6)):
        change = twin.learn_from_rollouts(states, head, batch, NONE, updates=updates, clip=clip, **how)[1]
        there, back = (twin.write_all(states, head, x).exp() for x in (change[0], NONE))
        moved[updates, clip] = (there - back).abs().sum(1).mean().item()
    assert moved[1, 0.2] < moved[8, 0.2] < moved[8, 1e6]
