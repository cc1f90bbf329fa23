"""Algorithm 3: what a coin, an oracle, a lazy and any judge do to the points."""

import itertools

import numpy as np
import pytest

from prefcore.methods.chase_sql import tournament
from prefcore.methods.chase_sql.execution import FAILED


def slow(clusters, first_wins):
    """The paper's loop, word for word, with failed candidates as a cluster that loses."""
    points = [0.0] * len(clusters)
    for i, j in itertools.permutations(range(len(clusters)), 2):
        if clusters[i] == clusters[j]:
            points[i] += 1
        elif FAILED in (clusters[i], clusters[j]):
            points[j if clusters[i] == FAILED else i] += 1
        elif first_wins[i, j] == 0.5:
            points[i] += 0.5
            points[j] += 0.5
        else:
            points[i if first_wins[i, j] > 0.5 else j] += 1
    return points


def worlds(seed, count=50):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n = int(rng.integers(2, 9))
        yield rng, rng.integers(-1, 4, size=n)


def oracle(clusters, right):
    """The right cluster wins against every other; two wrong ones are told apart by their number."""
    value = np.where(clusters == right, 99, clusters)
    return np.where(value[:, None] > value[None, :], 1.0, 0.0)


def test_points_equal_the_loop_over_ordered_pairs():
    for rng, clusters in worlds(1):
        wins = rng.choice([0.0, 0.3, 0.5, 0.8, 1.0], size=(len(clusters),) * 2)
        assert tournament.points(clusters, wins).tolist() == slow(clusters, wins)


def test_all_points_together_are_one_for_each_ordered_pair():
    for rng, clusters in worlds(2):
        n = len(clusters)
        assert tournament.points(clusters, rng.random((n, n))).sum() == n * (n - 1)


def test_a_coin_gives_every_candidate_n_minus_1_in_expectation():
    """Clusters 0, 0, 1, 2: ten ordered pairs are asked about; the mean over all 2^10 outcomes is 3."""
    clusters = np.array([0, 0, 1, 2])
    asked = [(i, j) for i, j in itertools.permutations(range(4), 2) if clusters[i] != clusters[j]]
    assert len(asked) == 10
    total = np.zeros(4)
    for outcome in itertools.product((0.0, 1.0), repeat=len(asked)):
        wins = np.full((4, 4), 0.5)
        for pair, won in zip(asked, outcome, strict=True):
            wins[pair] = won
        total += tournament.points(clusters, wins)
    assert (total / 2**10).tolist() == [3, 3, 3, 3]


def test_a_coin_does_not_favour_the_largest_cluster():
    rng, clusters = np.random.default_rng(0), np.array([0] * 5 + [1])
    found = [tournament.points(clusters, rng.integers(2, size=(6, 6)).astype(float)) for _ in range(4000)]
    spread = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - 5) < 5 * spread).all()


def test_an_oracle_reaches_the_upper_bound():
    """A right candidate has 2 (n - m) + m - 1 points, a wrong one at most 2 (n - m) - m_w - 1."""
    for _, clusters in worlds(3, 200):
        right = int(clusters.max())
        if right == FAILED:
            continue
        n, m = len(clusters), int((clusters == right).sum())
        points = tournament.points(clusters, oracle(clusters, right))
        for i, cluster in enumerate(clusters):
            own = int((clusters == cluster).sum())
            assert points[i] == 2 * (n - m) + m - 1 if cluster == right else points[i] <= 2 * (n - m) - own - 1
        assert clusters[tournament.winner(points, [str(i) for i in range(n)])] == right


def test_a_judge_that_always_says_the_first_gives_all_the_same():
    for clusters in ([0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 1]):
        assert set(tournament.points(np.array(clusters), np.ones((len(clusters),) * 2))) == {len(clusters) - 1}


def test_the_order_of_candidates_does_not_matter():
    for rng, clusters in worlds(4):
        n = len(clusters)
        strength = rng.normal(size=n)
        wins = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        sqls = [f"SELECT {i}" for i in range(n)]
        chosen = sqls[tournament.winner(tournament.points(clusters, wins), sqls)]
        order = rng.permutation(n)
        points = tournament.points(clusters[order], wins[np.ix_(order, order)])
        assert [sqls[k] for k in order][tournament.winner(points, [sqls[k] for k in order])] == chosen


def test_beating_a_large_cluster_counts_for_more():
    """Sizes 3, 1, 1. A single one beats the three: 6; it loses to the other, which loses to the three: 2."""
    clusters = np.array([0, 0, 0, 1, 2])
    wins = np.full((5, 5), 0.5)
    for i, j, won in [(3, k, 1) for k in range(3)] + [(4, k, 0) for k in range(3)] + [(3, 4, 0)]:
        wins[i, j], wins[j, i] = won, 1 - won
    assert tournament.points(clusters, wins).tolist() == [4, 4, 4, 6, 2]


def test_what_fails_loses_to_everything_that_runs_whatever_the_judge_says():
    clusters = np.array([FAILED, FAILED, FAILED, 0])
    points = tournament.points(clusters, np.array([[1.0] * 4] * 3 + [[0.0] * 4]))
    assert points.tolist() == [2, 2, 2, 6]
    assert tournament.winner(points, ["", "", "", "a long query"]) == 3


def test_of_equal_points_the_shortest_query_wins_and_then_the_alphabet():
    assert tournament.winner(np.array([1.0, 1.0, 0.0]), ["SELECT b", "SELECT a", "x"]) == 1
    assert tournament.winner(np.array([1.0, 1.0]), ["SELECT  b", "SELECT c"]) == 1


def test_a_table_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2\); 3 candidates need \(3, 3\)"):
        tournament.points(np.array([0, 1, 1]), np.ones((2, 2)))
