"""A basis and what it covers, by mass and by pairs: worked numbers, bounds, and what is refused."""

from itertools import combinations

import numpy as np
import pytest

from prefcore.methods.canonical_basis import coverage, shares, variance

COUNTS = np.array([[3.0, 1.0, 0.0], [1.0, 0.0, 4.0]])


def test_worked_mass():
    """Categories 0 and 2: 3 of 4 mentions of the first person, 5 of 5 of the second: 8 of 9."""
    share = coverage.mass(COUNTS, np.array([0, 2]))
    assert share.covered.tolist() == [3, 5] and share.value == 8 / 9
    assert coverage.greedy_mass(COUNTS, size=2).tolist() == [0, 2]


def test_worked_pairs():
    """Categories 0 and 1 explain choices 0, 1 and 2 of four: person 0 has two of two, person 1 one of two."""
    explains = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)
    share = coverage.pairs(explains, np.array([0, 0, 1, 1]), np.array([0, 1]))
    assert share.covered.tolist() == [2, 1] and share.value == 0.75


def test_pairs_are_covered_greedily_by_what_is_new():
    """Category 0 explains three; 1 explains two of the same; 2 explains another one: 2 comes second."""
    explains = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], bool)
    assert coverage.greedy_pairs(explains, size=3).tolist() == [0, 2, 1]


def test_greedy_pairs_reach_the_bound_of_the_best_set(rng):
    """At least 1 - 1/e of the best of all sets of three, which are tried one by one."""
    explains = rng.random((60, 8)) < 0.15
    person = np.zeros(60, int)
    best = max(coverage.pairs(explains, person, np.array(c)).value for c in combinations(range(8), 3))
    found = coverage.pairs(explains, person, coverage.greedy_pairs(explains, size=3)).value
    assert (1 - np.exp(-1)) * best <= found <= best


@pytest.mark.parametrize("size", [0, 4])
def test_a_basis_larger_than_the_data_allow_raises(size, rng):
    for choose in (lambda: coverage.greedy_mass(COUNTS, size=size),
                   lambda: coverage.greedy_pairs(COUNTS > 0, size=size),
                   lambda: coverage.random_bases(3, size=size, draws=2, seed=0),
                   lambda: variance.greedy(variance.moments(COUNTS, prior=0), size=size, noise=1.0),
                   lambda: variance.principal(variance.moments(COUNTS, prior=0), size=size)):  # fmt: skip
        with pytest.raises(ValueError, match=f"{size}.*the data allow 1 to 3"):
            choose()


def test_coverage_never_falls_with_k_and_ends_at_all(rng):
    counts = rng.poisson(2.0, size=(20, 6)).astype(float)
    values = [coverage.mass(counts, coverage.greedy_mass(counts, size=k)).value for k in range(1, 7)]
    assert values == sorted(values) and values[-1] == 1.0


def test_the_most_frequent_categories_beat_random_ones_under_zipf(rng):
    counts = rng.multinomial(100, 1 / np.arange(1, 41) / (1 / np.arange(1, 41)).sum(), size=30).astype(float)
    best = coverage.mass(counts, coverage.greedy_mass(counts, size=8))
    drawn = [coverage.mass(counts, basis) for basis in coverage.random_bases(40, size=8, draws=20, seed=0)]
    assert shares.difference(best, shares.average(drawn), seed=0).low > 0.2
    assert abs(shares.average(drawn).value - 8 / 40) < 0.1


def test_a_mention_without_category_counts_nowhere():
    found = coverage.count(np.array([0, 0, 1]), np.array([2, -1, 0]), 2, 3)
    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_worked_topics():
    """Topic 0: one of two mentions in category 0; topic 1: both of person 1's."""
    person, topic, category = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0])
    found = coverage.by_topic(person, topic, category, np.array([0]), people=2, categories=2)
    assert [share.value for share, _ in found] == [0.5, 1.0]
    assert [counts.tolist() for _, counts in found] == [[1, 1], [2, 0]]


def test_a_curve_has_each_size_for_the_greedy_order_and_for_random_bases():
    how = {"categories": 3, "sizes": [1, 3], "draws": 4, "seed": 0}
    rows = coverage.curve(lambda s: coverage.mass(COUNTS, s), np.array([0, 2, 1]), **how)
    assert list(rows) == [("greedy", 1), ("greedy", 3), ("random", 1), ("random", 3)]
    assert rows["greedy", 3].value == rows["random", 3].value == 1.0
    assert rows["greedy", 1].value == 4 / 9


def test_the_size_at_which_a_level_is_reached():
    assert coverage.reached({1: 0.5, 5: 0.81, 9: 0.9}, (0.8, 0.89, 0.95)) == {"0.8": 5, "0.89": 9, "0.95": None}


@pytest.mark.parametrize("chosen", [[0, 0], [3], [-1]])
def test_a_basis_that_is_none_raises(chosen):
    with pytest.raises(ValueError, match="distinct categories of 0 ... 2"):
        coverage.mass(COUNTS, np.array(chosen))


def test_a_basis_is_chosen_by_one_half_of_the_people_and_judged_on_the_other():
    """Those who choose mention category 0 alone, those who judge category 1: nothing of what was chosen is covered."""
    counts, judges = np.array([[4.0, 1.0], [4.0, 1.0], [0.0, 6.0]]), np.array([False, False, True])
    person, explains = np.array([0, 1, 2, 2]), np.array([[1, 0], [1, 0], [0, 1], [1, 1]], bool)
    found = coverage.cross_halves(counts, explains, person, judges, sizes=[1, 2], draws=3, seed=0)
    assert {of: order.tolist() for of, order in found.order.items()} == {"mass": [0, 1], "pairs": [0, 1]}
    assert found.share["mass"]["greedy", 1].value == 0.0 and found.share["mass"]["greedy", 2].value == 1.0
    assert found.share["pairs"]["greedy", 1].value == 0.5 and found.cover["pairs"](np.array([1])).value == 1.0
