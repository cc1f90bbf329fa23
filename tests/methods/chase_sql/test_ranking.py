"""The softmax over options: it learns, its optimum is where the slope is 0, and it agrees with SciPy's."""

import numpy as np
import pytest
from scipy import special

from prefcore.methods.chase_sql import ranking


def test_the_softmax_learns_which_feature_tells_right_from_wrong():
    rng = np.random.default_rng(0)
    options = [rng.normal(size=(8, 3)) for _ in range(60)]
    right = [np.arange(8) == x[:, 1].argmax() for x in options]
    weights = ranking.fit(options, right, ridge=0.01)
    assert abs(weights.weights[1]) > 5 * max(abs(weights.weights[0]), abs(weights.weights[2]))
    fresh = [rng.normal(size=(8, 3)) for _ in range(50)]
    hits = [ranking.logits(x, weights).argmax() == x[:, 1].argmax() for x in fresh]
    assert np.mean(hits) > 0.9


def test_the_ridge_pulls_weights_to_0_and_nothing_to_learn_is_an_error():
    options, right = [np.array([[1.0], [0.0]])], [np.array([True, False])]
    loose, tight = (ranking.fit(options, right, ridge=r).weights[0] for r in (0.01, 100.0))
    assert loose > tight > 0
    with pytest.raises(ValueError, match="none of 1 questions has both"):
        ranking.fit(options, [np.array([True, True])], ridge=0.1)


def test_the_weights_are_where_the_slope_is_0():
    """Two options, one feature: log-likelihood is log sigmoid(d w), so at the optimum d sigmoid(-d w) = ridge w; with
    features 1 and 0 the spread is 1/2 and d = 2."""
    weights = ranking.fit([np.array([[1.0], [0.0]])], [np.array([True, False])], ridge=0.5)
    w = weights.weights[0]
    assert weights.spread[0] == 0.5 and 2 / (1 + np.exp(2 * w)) == pytest.approx(0.5 * w, abs=1e-4)


def test_the_softmax_within_groups_is_scipys_group_by_group_and_bears_large_logits():
    rng, sizes = np.random.default_rng(0), np.array([1, 4, 2])
    logits = np.concatenate([rng.normal(size=n) + 800 * (n - 2) for n in sizes])
    total, chances = ranking.softmax(logits, sizes)
    for group, one, part in zip(np.split(logits, [1, 5]), total, np.split(chances, [1, 5]), strict=True):
        assert one == pytest.approx(special.logsumexp(group)) and part == pytest.approx(special.softmax(group))
