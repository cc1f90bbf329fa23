"""Linear rewards of cached vectors: the least of the objective, a slow twin, and what more votes are worth."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Pair
from prefcore.methods.margin_rm import linear, losses
from prefcore.scoring.votes import VotedPair


def margin_objective(rewards, columns):
    return losses.loss(rewards, columns["margin"])


def label_objective(rewards, columns):
    return losses.loss(rewards, 0 * columns["margin"])


def soft_objective(rewards, columns):
    return losses.soft_loss(rewards, columns["strength"])


@pytest.fixture
def world():
    """(vectors of 400 texts in 8 dimensions, true weights): P(a) = sigmoid of the true rewards' difference."""
    rng = np.random.default_rng(0)
    return {f"t{i}": rng.normal(size=8) for i in range(400)}, 0.7 * rng.normal(size=8)


def rows_of(world, rng, votes=1):
    """200 pairs that share no text; the label is the first of so many votes, the strength the share of them all."""
    vectors, truth = world
    rows = []
    for i in range(0, 400, 2):
        share = 1 / (1 + np.exp(-(vectors[f"t{i}"] - vectors[f"t{i + 1}"]) @ truth))
        cast = rng.random(votes) < share
        ends = (f"t{i}", f"t{i + 1}") if cast[0] else (f"t{i + 1}", f"t{i}")
        rows.append(Pair(f"p{i}", "", *ends, margin=0.3, strength=float(np.mean(cast == cast[0]))))
    return rows


def test_the_fit_is_where_the_gradient_of_loss_and_penalty_is_zero(world):
    vectors, _ = world
    rows = rows_of(world, np.random.default_rng(1))
    weight = linear.fit(rows, vectors, margin_objective, ridge=0.01)
    sides = np.array([vectors[row.chosen] - vectors[row.rejected] for row in rows])
    slope = -(1 / (1 + np.exp(sides @ weight - 0.3))) @ sides / len(rows) + 0.01 * weight
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_with_soft_labels_that_are_exact_the_true_weights_come_back(world):
    vectors, truth = world
    rows = []
    for i in range(0, 400, 2):
        share = 1 / (1 + np.exp(-(vectors[f"t{i}"] - vectors[f"t{i + 1}"]) @ truth))
        rows.append(Pair(f"p{i}", "", f"t{i}", f"t{i + 1}", margin=0.0, strength=float(share)))
    np.testing.assert_allclose(linear.fit(rows, vectors, soft_objective, ridge=0.0), truth, atol=1e-4)


def test_votes_as_soft_labels_come_nearer_to_the_truth_than_single_labels(world):
    """The same 200 pairs, ten votes each, ten draws of them."""
    vectors, truth = world
    gaps = {"label": [], "soft": []}
    for seed in range(10):
        rows = rows_of(world, np.random.default_rng(seed), votes=10)
        gaps["label"].append(
            linear.fit(rows, vectors, lambda r, c: losses.loss(r, 0 * c["margin"]), ridge=0.01) - truth
        )
        gaps["soft"].append(linear.fit(rows, vectors, soft_objective, ridge=0.01) - truth)
    label, soft = (np.mean(np.square(gaps[name])) for name in ("label", "soft"))
    assert soft < 0.5 * label


def test_a_preference_is_the_sigmoid_of_the_difference(world):
    vectors, truth = world
    pair = VotedPair("p", "", "t0", "t1", (1.0,), (), 1.0, "", "all", "test")
    (found,) = linear.preference([pair], vectors, truth)
    gap = torch.tensor((vectors["t0"] - vectors["t1"]) @ truth)
    assert found == pytest.approx(gap.sigmoid().item())
