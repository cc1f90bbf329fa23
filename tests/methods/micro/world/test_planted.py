"""The planted population: real texts, made-up people, and probabilities that are exact."""

import numpy as np
import pytest
import torch

from prefcore.methods.micro import criteria
from prefcore.methods.micro.world import planted


@pytest.fixture
def contexts(embed):
    return criteria.embed_contexts(planted.GROUPS, embed)


def test_planted_shares_are_distributions_with_a_floor_that_differ_between_domains():
    shares = planted.shares(0)
    assert shares.shape == (4, 6) and np.allclose(shares.sum(1), 1)
    assert shares.min() >= planted.LEAST_SHARE
    assert abs(shares[0] - shares[1]).max() > 0.05


def test_worked_planted_rewards():
    """Group 0 wants positive (0.8) and long (0.6), group 1 negative (0.8) and plain (0.6); beta 2."""
    levels = np.array([[1.0, 0.5, 2.0, -1.0, 0.0, 0.0]])  # rating, agreement, length, plainness, punctuation, person
    found = planted.rewards(levels, 2.0)
    assert found.shape == (1, 6)
    assert np.allclose(found[0, :2], [2 * (0.8 + 1.2), 2 * (-0.8 - 0.6)])
    assert np.allclose(found[0, 2], 2 * (0.8 * -2.0 + 0.6 * 0.5))


def test_planted_probabilities_are_those_of_the_rewards_and_linear_in_the_vectors(pools, contexts):
    found = planted.make_exact(pools["test"], contexts, 50, 2.0, seed=0)
    assert found.shares.shape == found.preferences.shape == (50, 6) and len(found.rows.pair) == 300
    assert found.rows.pair[:7].tolist() == [0] * 6 + [1] and found.rows.attribute[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    weights = torch.from_numpy(planted.rewards(np.eye(6), 2.0))  # of the unit levels: it is linear
    expected = (found.rows.difference[::6].double() @ weights).sigmoid()
    torch.testing.assert_close(found.preferences, expected, atol=1e-6, rtol=0)


def test_planted_votes_follow_the_exact_probabilities(pools, contexts):
    """20,000 votes on pairs drawn anew: the mean vote and the mean group share agree with the exact means to 0.015."""
    exact = planted.make_exact(pools["train"], contexts, 20000, 2.0, seed=1)
    rows = planted.draw_votes(pools["train"], contexts, 20000, 2.0, seed=1)
    first = (rows.difference * exact.rows.difference[::6]).sum(1) > 0
    assert abs(first.double().mean() - (exact.shares * exact.preferences).sum(1).mean()) < 0.015
    counts = torch.bincount(rows.attribute, minlength=6) / 20000
    assert (counts - exact.shares.mean(0)).abs().max() < 0.015
    chosen = exact.preferences.gather(1, rows.attribute[:, None])[:, 0]
    sure = chosen > 0.95
    assert first[sure].double().mean() > 0.95


def test_the_planted_cross_entropy_is_exact(pools, contexts):
    """The true probabilities cost the entropy H(y | z); the groups' mean costs H(y), for each pair."""
    found = planted.make_exact(pools["test"], contexts, 40, 2.0, seed=0)
    truth = found.preferences.reshape(-1)
    cost = planted.cross_entropy(truth.log(), (1 - truth).log(), found)
    entropy = torch.special.entr(found.preferences) + torch.special.entr(1 - found.preferences)
    torch.testing.assert_close(cost, (found.shares * entropy).sum(1))
    mean = (found.shares * found.preferences).sum(1)
    spread = mean.repeat_interleave(6)
    floor = torch.special.entr(mean) + torch.special.entr(1 - mean)
    torch.testing.assert_close(planted.cross_entropy(spread.log(), (1 - spread).log(), found), floor)


def test_planted_pairs_are_two_texts_of_one_domain_and_repeat_with_the_seed(pools, contexts):
    first, again = (planted.draw_votes(pools["train"], contexts, 30, 2.0, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert (first.difference.abs().sum(1) > 0).all()


def test_what_is_made_up_is_what_groups_want_how_often_they_occur_and_how_they_vote():
    own = {name for name, value in vars(planted).items() if getattr(value, "__module__", None) == planted.__name__}
    assert own == {"Exact", "shares", "rewards", "draw_votes", "make_exact", "cross_entropy"}
    assert {quality for group in planted.GROUPS for quality in group} <= set(criteria.QUALITIES)
