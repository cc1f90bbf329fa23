"""Ratings for one preference: worked fits, planted strengths, and what seeing the winner does to them."""

from math import log, log10

import numpy as np
import pytest

from prefcore.methods.canonical_basis import elo
from prefcore.scoring import metrics

FIT = {"ridge": 1e-9, "base": 1000.0}


def test_worked_ratings():
    """Three wins to one: 400 log10(3) = 190.85 points apart, so 1095.42 and 904.58."""
    found = elo.bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), **FIT)
    np.testing.assert_allclose(found, [1000 + 200 * log10(3), 1000 - 200 * log10(3)], atol=1e-4)


def test_the_slope_at_the_fit_is_zero(rng):
    wins = rng.integers(1, 9, size=(5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    ratings = elo.bradley_terry(wins, **FIT)
    expected = sum((wins[:, j] + wins[j]) / (1 + 10 ** ((ratings[j] - ratings) / 400)) for j in range(5))
    np.testing.assert_allclose(wins.sum(1), expected - 0.5 * np.diag(wins + wins.T), atol=1e-5)


def test_an_unbeaten_model_has_a_finite_rating_and_models_without_pairs_the_base():
    wins = np.zeros((3, 3))
    wins[0, 1] = 5
    found = elo.bradley_terry(wins, ridge=0.1, base=1000.0)
    assert np.isfinite(found).all() and found[0] > found[2] > found[1] and abs(found[2] - 1000) < 1e-6
    with pytest.raises(ValueError, match="ridge is 0"):
        elo.bradley_terry(wins, ridge=0, base=1000.0)


def duels(rng, theta, n):
    pair = np.stack([rng.permutation(len(theta))[:2] for _ in range(n)])
    first = rng.random(n) < 1 / (1 + np.exp(theta[pair[:, 1]] - theta[pair[:, 0]]))
    return np.where(first, pair[:, 0], pair[:, 1]), np.where(first, pair[:, 1], pair[:, 0])


def test_planted_strengths_are_recovered(rng):
    theta = np.array([1.0, 0.4, -0.2, -1.2])
    wins = elo.win_counts(*duels(rng, theta, 3000), models=4)
    truth = 1000 + 400 / log(10) * (theta - theta.mean())
    np.testing.assert_allclose(elo.bradley_terry(wins, **FIT), truth, atol=40)


def test_random_subsets_scatter_around_the_overall_ratings(rng):
    winner, loser = duels(rng, np.array([0.8, 0.0, -0.8]), 2000)
    overall = elo.bradley_terry(elo.win_counts(winner, loser, models=3), **FIT)
    found = elo.random_subsets(winner, loser, size=400, draws=60, models=3, **FIT, seed=0)
    np.testing.assert_allclose(found.mean(0), overall, atol=12)
    assert found.std(0).min() > 2
    with pytest.raises(ValueError, match="a subset of 2001 pairs is asked for, but there are 2000"):
        elo.random_subsets(winner, loser, size=2001, draws=1, models=3, **FIT, seed=0)


def test_an_assignment_that_knows_the_winner_favours_models_that_win_for_other_reasons(rng):
    """Model 0 wins by a trait that has nothing to do with category j. Who sees the winner assigns a pair to j only if
    the winner has more of j; who does not, whenever the two differ in j."""
    theta, skill = np.array([1.5, 0.0, 0.0]), rng.normal(size=(4000, 2))
    winner, loser = duels(rng, theta, 4000)
    differs = np.abs(skill[:, 0] - skill[:, 1]) > 0.5
    seen = differs & (skill[:, 0] > skill[:, 1])  # column 0 is the winner's amount of j
    blind_ahead = np.where(skill[:, 0] > skill[:, 1], winner, loser)[differs]  # who has more of j, winner or not
    blind_behind = np.where(skill[:, 0] > skill[:, 1], loser, winner)[differs]
    knowing = elo.bradley_terry(elo.win_counts(winner[seen], loser[seen], models=3), **FIT)
    blind = elo.bradley_terry(elo.win_counts(blind_ahead, blind_behind, models=3), **FIT)
    assert knowing[0] - knowing[1] > 200 and abs(blind[0] - blind[1]) < 40


def test_many_fits_at_once_are_the_fits_one_by_one(rng):
    wins = rng.integers(0, 9, size=(5, 4, 4)).astype(float) * (1 - np.eye(4))
    together = elo.bradley_terry(wins, ridge=0.1, base=1000.0)
    np.testing.assert_allclose(together, [elo.bradley_terry(w, ridge=0.1, base=1000.0) for w in wins], atol=1e-6)


def test_rank_correlations_are_spearman_row_by_row(rng):
    ratings, target = rng.normal(size=(6, 8)), rng.normal(size=8)
    expected = [metrics.spearman(row, target) for row in ratings]
    np.testing.assert_allclose(elo.rank_correlation(ratings, target), expected)


def test_a_category_is_compared_with_overall_blind_and_random_ratings_and_left_out_where_it_is_rare(rng):
    """What decides a choice of category 0 is theta; the blind annotator's trait 0 is the opposite order."""
    theta = np.array([1.0, 0.0, -1.0])
    winner, loser = duels(rng, theta, 900)
    knows = np.stack([np.arange(900) % 2 == 0, np.arange(900) < 20], 1)
    ahead, behind = duels(rng, -theta, 900)
    several = elo.Duels(winner, loser, knows, ahead, behind, np.zeros(900, int))
    how = {"models": 3, "draws": 40, "ridge": 0.01, "base": 1000.0, "seed": 0}
    found = elo.compare(several, 0, 0, **how)
    assert {way: len(rated) for way, rated in found.items()} == {
        "per preference": 1, "blind": 1, "overall": 1, "random subset": 40}  # fmt: skip
    assert elo.rank_correlation(found["per preference"], theta) > 0.95
    assert elo.rank_correlation(found["blind"], theta) < -0.95
    assert elo.compare(several, 1, 0, **how) == elo.compare(several, 0, 7, **how) == {}


def test_a_model_cannot_beat_itself_and_counts_are_counts():
    with pytest.raises(ValueError, match="no model can beat itself"):
        elo.win_counts(np.array([0, 1]), np.array([1, 1]), models=2)
    with pytest.raises(ValueError, match="must be square matrices"):
        elo.bradley_terry(np.ones((2, 3)), **FIT)
