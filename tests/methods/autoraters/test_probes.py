"""Linear readers of states: they find what is there, and have no taste for a place."""

import numpy as np
import pytest
import torch

from prefcore.methods.autoraters import probes
from prefcore.methods.autoraters.tree import States


def world(n, seed, votes=1, width=12):
    """x [n, width] and the mean of `votes` votes of people with P = sigmoid(2 x_0)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    truth = 1 / (1 + np.exp(-2 * x[:, 0]))
    return x, rng.binomial(votes, truth) / votes, truth


@pytest.mark.parametrize("rule", ["log", "brier"])
def test_both_rules_find_the_shares_from_single_votes(rule):
    x, vote, _ = world(1_500, 0)
    known, asked = world(300, 1, votes=10), world(500, 2)
    p = probes.predict((x, vote), known[:2], asked[0], rule=rule, penalties=[1e-5, 1e-4, 1e-3, 1e-2])
    assert np.mean((p[0] - asked[2]) ** 2) < 0.005 < np.mean((0.5 - asked[2]) ** 2)
    np.testing.assert_allclose(p[0] + p[1], 1)  # exchanged, it says the opposite


def test_the_log_rule_is_scikit_learns_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    x, vote, _ = world(400, 3)
    twin = LogisticRegression(C=1 / (400 * 0.01), fit_intercept=False, tol=1e-8).fit(x, vote)
    np.testing.assert_allclose(probes.fit(x, vote, rule="log", penalty=0.01), twin.coef_[0], atol=1e-3)


def test_an_unknown_rule_is_said():
    with pytest.raises(ValueError, match="'linear'.*brier"):
        probes.fit(np.zeros((2, 1)), np.zeros(2), rule="linear", penalty=0.1)


def test_a_reward_reads_each_text_alone_and_a_probe_what_both_orders_differ_in():
    """Two pairs in both orders: rows 0, 1 as they are, 2, 3 exchanged."""
    rows = torch.tensor([[1.0], [2.0], [5.0], [8.0]])
    states = States(rows, 10 * rows, rows, rows)
    assert probes.differences(states, "text").tolist() == [[4.0], [6.0]]  # second text less first
    assert probes.differences(states, "question").tolist() == [[-40.0], [-60.0]]
