"""What a category chooses: worked signatures, the merge beside a slow twin, and that it finds what words cannot."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from prefcore.methods.canonical_basis import signature


def test_a_signature_is_the_mean_of_winner_minus_loser_over_the_mentions():
    change = np.array([[1.0, 0.0], [3.0, 2.0], [0.0, 8.0]])
    found = signature.signatures(change, np.array([0, 1, 1, 2]), np.array([0, 0, 1, -1]), categories=3)
    assert found.tolist() == [[2, 1], [3, 2], [0, 0]]


def test_worked_distance():
    """Three mentions and one, one apart: 3 x 1 / 4 x 1 = 0.75."""
    found = signature.distances(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([3.0, 1.0]))
    assert found[0, 1] == found[1, 0] == 0.75 and found[0, 0] == np.inf


def test_a_choice_is_explained_where_the_categories_that_it_mentions_point_at_the_winner():
    """Choice 1 mentions both: -2 - 2 points at the loser. Choice 2 mentions nothing that counts."""
    change, pointers = np.array([[1.0, 0], [0, -2], [5, 5]]), np.array([[1.0, 1], [0, 1]])
    found = signature.explained(change, np.array([0, 1, 1, 2]), np.array([0, 0, 1, -1]), pointers)
    assert found.tolist() == [1, -1, 0]


def test_the_merge_agrees_with_a_slow_twin(rng):
    means, weight = rng.normal(size=(9, 3)), rng.integers(1, 6, 9).astype(float)
    groups = [[i] for i in range(9)]

    def cost(a, b):
        (n, s), (m, t) = ((weight[g].sum(), weight[g] @ means[g] / weight[g].sum()) for g in (a, b))
        return n * m / (n + m) * ((s - t) ** 2).sum()

    while len(groups) > 4:
        a, b = min(combinations(range(len(groups)), 2), key=lambda pair: cost(groups[pair[0]], groups[pair[1]]))
        groups[a] = groups[a] + groups.pop(b)
    found = signature.ward(means, weight, [4])[4]
    sets = {frozenset(np.flatnonzero(found == c).tolist()) for c in range(4)}
    assert sets == {frozenset(group) for group in groups}


def test_all_stay_apart_where_as_many_are_asked_for_and_the_heaviest_is_number_0(rng):
    found = signature.ward(rng.normal(size=(5, 2)), np.array([1.0, 9, 2, 3, 4]), [5, 99, 1])
    assert sorted(found[5].tolist()) == sorted(found[99].tolist()) == [0, 1, 2, 3, 4] and found[5][1] == 0
    assert set(found[1].tolist()) == {0}


def test_a_category_without_mentions_costs_nothing_and_joins_first():
    found = signature.ward(np.array([[0.0], [9.0], [100.0]]), np.array([5.0, 5.0, 0.0]), [2])[2]
    assert found[0] != found[1]


@pytest.fixture
def synonyms(rng):
    """3,000 choices in 8 dimensions by four wishes, each under five names: (change, owner, name [M], wish [M])."""
    wish = rng.integers(4, size=3000)
    change = rng.normal(size=(3000, 8))
    change[np.arange(3000), wish] = np.abs(change[np.arange(3000), wish]) * rng.choice([1, -1], 3000, p=[0.85, 0.15])
    return change, np.arange(3000), 5 * wish + rng.integers(5, size=3000), wish


def test_names_that_choose_alike_become_one_whatever_they_are_called(synonyms):
    change, owner, name, wish = synonyms
    means = signature.signatures(change, owner, name, categories=20)
    found = signature.ward(means, np.bincount(name).astype(float), [4])[4]
    assert adjusted_rand_score(wish, found[name]) > 0.95 > 0.3 > adjusted_rand_score(wish, name)


def test_held_out_choices_choose_the_number_of_wishes_and_not_one_for_everything(synonyms):
    """A basis of four: four merged names cover all choices; four of twenty cover a fifth; one points nowhere."""
    change, owner, name, _ = synonyms
    learns = np.arange(3000) % 2 == 0
    merged, worth = signature.choose_size(change, owner, name, learns, ~learns, sizes=[1, 2, 4, 8, 20], basis=4)
    assert max(worth, key=worth.get) == 4 and worth[4] > 0.5
    assert worth[20] < 0.3 and worth[1] < worth[4] - 0.2 and set(merged) == {1, 2, 4, 8, 20}


def test_over_merging_gains_nothing_where_wishes_point_to_opposite_sides(rng):
    """Two opposite wishes under one name have no signature: all mentions are covered, and nothing is explained."""
    wish = rng.integers(2, size=4000)
    change = rng.normal(size=(4000, 3))
    change[:, 0] = np.abs(change[:, 0]) * np.where(wish == 0, 1, -1)
    early, rows = np.arange(4000) < 2000, np.arange(4000)
    for category, low, high in ((np.zeros(4000, int), -0.1, 0.1), (wish, 0.9, 1.01)):
        pointers = signature.signatures(change, rows, np.where(early, category, -1), categories=2)
        late = signature.explained(change, rows, np.where(early, -1, category), pointers)[~early]
        assert low < late.mean() < high


def test_the_whitened_space_has_variance_one_in_every_direction_and_as_many_as_are_there(rng):
    vectors = rng.normal(size=(400, 6)) * [9, 5, 3, 2, 1, 0.1] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    placed = signature.whiten(vectors, dims=4).place(vectors)
    np.testing.assert_allclose(placed.T @ placed / 400, np.eye(4), atol=1e-8)
    with pytest.raises(ValueError, match="signature_dims is 7; 400 vectors of 6 allow 1 to 6"):
        signature.whiten(vectors, dims=7)
