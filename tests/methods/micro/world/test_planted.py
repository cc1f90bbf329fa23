"""The planted population: real texts, made-up people, and probabilities that are exact."""

import numpy as np

from prefcore.methods.micro import criteria
from prefcore.methods.micro.world import planted


def test_worked_planted_rewards():
    """Group 0 wants positive (0.8) and long (0.6), group 1 negative (0.8) and plain (0.6); beta 2."""
    levels = np.array([[1.0, 0.5, 2.0, -1.0, 0.0, 0.0]])  # rating, agreement, length, plainness, punctuation, person
    found = planted.rewards(levels, 2.0)
    assert found.shape == (1, 6)
    assert np.allclose(found[0, :2], [2 * (0.8 + 1.2), 2 * (-0.8 - 0.6)])
    assert np.allclose(found[0, 2], 2 * (0.8 * -2.0 + 0.6 * 0.5))


def test_planted_probabilities_are_those_of_the_rewards_and_linear_in_what_heads_read(pools):
    pairs = criteria.split_pairs(pools["test"], 0)
    people = planted.make(pools["test"], pairs, 2.0)
    assert people.shares.shape == people.preferences.shape == (80, 6)
    weights = planted.rewards(np.eye(6), 2.0)  # of the unit levels: it is linear
    gaps = people.difference(np.arange(80), np.zeros(80, int)).astype(float)
    assert np.allclose(people.preferences, 1 / (1 + np.exp(-gaps @ weights)), atol=1e-5)


def test_planted_shares_are_those_of_the_pairs_domain(pools):
    pairs = criteria.split_pairs(pools["test"], 0)
    people = planted.make(pools["test"], pairs, 2.0)
    assert len(np.unique(people.shares, axis=0)) == 4
    assert np.array_equal(people.domain, pools["test"].domain[pairs[:, 1]])


def test_what_is_made_up_is_what_groups_want_and_how_they_vote():
    own = {name for name, value in vars(planted).items() if getattr(value, "__module__", None) == planted.__name__}
    assert own == {"rewards", "make"}
    assert {quality for group in planted.GROUPS for quality in group} <= set(criteria.QUALITIES)
