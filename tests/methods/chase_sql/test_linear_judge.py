"""The linear judge: that it learns, that the order decides nothing, and how it is kept."""

import numpy as np
import pytest

from prefcore.methods.chase_sql import features, linear_judge, selector
from prefcore.methods.chase_sql.selector import Comparison


def planted(seed, pools=60, size=4, width=5):
    """Tables of numbers in which the candidate with the larger first number is right; the others are noise."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(size, width)) for _ in range(pools)]
    pairs = [Comparison(b, *map(int, rng.choice(size, 2, replace=False))) for b in range(pools)]
    labels = np.array([float(tables[a.pool][a.first, 0] > tables[a.pool][a.second, 0]) for a in pairs])
    return tables, pairs, labels, [f"d{b % 3}" for b in range(pools)]


NAMES = tuple("abcde")


def test_it_learns_and_holds_on_new_pools():
    tables, pairs, labels, groups = planted(0)
    model = linear_judge.fit(tables, NAMES, pairs, labels, groups)
    others, new, truth, _ = planted(1)
    verdicts = linear_judge.judge(model, others)(new)
    assert ((verdicts > 0.5) == truth).mean() > 0.9 and abs(model.weights[0]) > 5 * np.abs(model.weights[1:]).max()


def test_a_verdict_is_the_complement_of_the_swapped_one():
    tables, pairs, labels, groups = planted(0)
    judge = linear_judge.judge(linear_judge.fit(tables, NAMES, pairs, labels, groups), tables)
    back = judge([Comparison(a.pool, a.second, a.first) for a in pairs])
    np.testing.assert_allclose(judge(pairs) + back, 1, atol=1e-12)


def test_which_side_of_a_training_pair_is_first_changes_nothing():
    tables, pairs, labels, groups = planted(0)
    model = linear_judge.fit(tables, NAMES, pairs, labels, groups)
    turned = linear_judge.fit(tables, NAMES, [Comparison(a.pool, a.second, a.first) for a in pairs], 1 - labels, groups)
    np.testing.assert_allclose(model.weights, turned.weights, atol=1e-5)


def test_a_question_counts_once_however_many_pairs_it_has():
    """In pool 0 more is right, in pool 1 less is; ten copies of the one pair do not outvote the other."""
    tables = [np.array([[1.0], [0.0]])] * 2
    pairs, labels = [Comparison(0, 0, 1)] * 10 + [Comparison(1, 0, 1)], np.array([1.0] * 10 + [0.0])
    assert linear_judge.fit(tables, ["a"], pairs, labels, ["d", "d"]).weights == pytest.approx([0], abs=1e-6)


def test_the_gradient_of_the_fit_is_zero():
    """At the minimum C x sum of w (1 - p) s g = weights, with the ridge's 1/2 |weights|^2."""
    tables, pairs, labels, groups = planted(2)
    model = linear_judge.fit(tables, NAMES, pairs, labels, groups)
    gaps = np.array([tables[a.pool][a.first] - tables[a.pool][a.second] for a in pairs]) / model.scale
    signs = np.where(labels > 0.5, 1.0, -1.0)
    rest = 1 / (1 + np.exp(signs * (gaps @ model.weights)))
    np.testing.assert_allclose(model.strength * ((rest * signs) @ gaps), model.weights, atol=1e-4)


def test_without_a_pair_nothing_can_be_learnt():
    with pytest.raises(ValueError, match="no pair to learn from"):
        linear_judge.fit([], NAMES, [], np.array([]), [])


def test_it_is_kept_without_pickle_and_comes_back_the_same(tmp_path):
    tables, pairs, labels, groups = planted(0)
    model = linear_judge.fit(tables, NAMES, pairs, labels, groups)
    linear_judge.save(model, tmp_path / "model" / "selector.safetensors")
    back = linear_judge.load(tmp_path / "model" / "selector.safetensors", NAMES)
    assert back.names == model.names and back.strength == model.strength
    assert linear_judge.judge(back, tables)(pairs).tolist() == linear_judge.judge(model, tables)(pairs).tolist()
    with pytest.raises(ValueError, match="was taught other features than these.*train it anew"):
        linear_judge.load(tmp_path / "model" / "selector.safetensors", ("a", "b", "c", "d", "other"))


def test_the_same_fit_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        linear_judge.save(linear_judge.fit(*planted(0)[:1], NAMES, *planted(0)[1:]), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# --- what it sees -----------------------------------------------------------------------------------------------


def test_on_databases_that_it_has_not_seen_it_finds_the_right_candidate_against_the_majority(executed, embed):
    """Two of three that run are wrong; what is right follows from the question, in words seen on other databases."""
    tables, names = features.describe(executed.pools, embed), features.NAMES
    pairs, labels = selector.training_pairs(executed.pools[:15], executed.correct[:15], seed=0, per_question=4)
    model = linear_judge.fit(tables[:15], names, pairs, labels, [pool.db_id for pool in executed.pools[:15]])
    chosen = selector.select(executed.pools[15:], linear_judge.judge(model, tables[15:]))
    right = [truth[choice.index] for truth, choice in zip(executed.correct[15:], chosen, strict=True)]
    assert np.mean(right) >= 0.8
