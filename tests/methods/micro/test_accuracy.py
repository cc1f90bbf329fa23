"""Accuracy of heads and mixtures, and the tables and claims that are made of it."""

import numpy as np
import pandas as pd
import pytest
import torch

from prefcore.lab import verdicts
from prefcore.methods.micro import accuracy
from prefcore.methods.micro.mixture import Mixture, Rows


def rows_of(difference, attribute, pair):
    n = len(difference)
    return Rows(difference, *(torch.zeros(n, 2),) * 3, torch.tensor(attribute), torch.tensor(pair))


def heads_of(weight):
    """A mixture with these heads and a router that is even."""
    heads, router = torch.nn.Linear(len(weight[0]), len(weight), bias=False), torch.nn.Linear(2, len(weight))
    with torch.no_grad():
        heads.weight.copy_(torch.tensor(weight))
        router.bias.zero_()
    return Mixture(heads, router)


def predict(router_logits, margins):
    return (router_logits.softmax(1) * margins.sigmoid()).sum(1)


def test_the_best_head_of_an_attribute_is_right_most_often_there():
    """Three attributes, three heads of which each is right on one of them."""
    difference = torch.eye(3).repeat(4, 1)
    rows = Rows(difference, *(torch.zeros(12, 2),) * 3, torch.arange(3).repeat(4), torch.arange(12))
    heads = torch.nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        heads.weight.copy_(torch.tensor([[-1.0, 1, -1], [-1, -1, 1], [1, -1, -1]]))
    model = Mixture(heads, torch.nn.Linear(2, 3))
    assert accuracy.of_heads(model, rows, 3).argmax(1).tolist() == [2, 0, 1]
    assert accuracy.best_head_correct(model, rows, rows, 3).tolist() == [1.0] * 12
    swapped = rows._replace(attribute=torch.tensor([1, 2, 0]).repeat(4))  # other criteria: other heads are chosen
    assert accuracy.best_head_correct(model, rows, swapped, 3).tolist() == [0.0] * 12


def test_means_by_attribute_and_by_pair():
    values, attribute = torch.tensor([1.0, 0.0, 1.0, 0.5]), torch.tensor([0, 0, 2, 2])
    assert accuracy.by_attribute(values[:, None], attribute, 3).tolist() == [[0.5], [0.0], [0.75]]
    assert accuracy.by_attribute(torch.stack([values, 1 - values], 1), attribute, 3)[2].tolist() == [0.75, 0.25]
    assert accuracy.by_pair(values, torch.tensor([7, 7, 3, 9])).tolist() == [1.0, 0.5, 0.5]


def test_an_even_head_is_half_right():
    assert accuracy.heads_correct(torch.tensor([[2.0, 0.0, -1.0]])).tolist() == [[1.0, 0.5, 0.0]]


def test_an_even_prediction_is_half_right():
    assert accuracy.correct(torch.tensor([0.7, 0.5, 0.2])).tolist() == [1.0, 0.5, 0.0]


def test_a_score_is_one_row_a_pair_and_the_mean_of_its_rows():
    rows = rows_of(torch.tensor([[1.0], [-1.0], [1.0]]), [0, 1, 0], [4, 4, 2])
    found = accuracy.evaluate(heads_of([[3.0]]), rows, predict, world="w", arm="a", seed=0)
    assert found["id"].tolist() == [2, 4] and found["accuracy"].tolist() == [1.0, 0.5]


def test_hyre_weights_are_those_of_the_rows_own_attribute():
    """Two heads of opposite taste; the labelled rows of attribute 0 favour the first, those of 1 the second."""
    few = rows_of(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), [0, 0, 1, 1], [0, 1, 2, 3])
    model = heads_of([[5.0], [-5.0]])
    how = (lambda m: m.sum(0).softmax(0)), predict
    found = accuracy.evaluate_weighted(model, few, few, *how, world="w", arm="a", seed=0)
    assert found["accuracy"].tolist() == [1.0] * 4
    other = few._replace(difference=-few.difference)
    found = accuracy.evaluate_weighted(model, other, few, *how, world="w", arm="a", seed=0)
    assert found["accuracy"].tolist() == [0.0] * 4


def test_heads_are_chosen_on_validation_rows_and_the_paper_way_is_marked():
    """Validation says head 0, test rows say head 1: only what is picked on test looks perfect."""
    held, test = (rows_of(torch.full((4, 1), sign), [0] * 4, range(4)) for sign in (1.0, -1.0))
    found = accuracy.evaluate_heads(heads_of([[1.0], [-1.0]]), {"validation": held, "test": test}, predict,
                              world="w", arm="a", seed=0).groupby("arm")["accuracy"].mean()  # fmt: skip
    assert found.to_dict() == {"a": 0.5, "a: best head": 0.0, "a: best head, picked on test": 1.0}


@pytest.fixture
def scores():
    rng, frames = np.random.default_rng(0), []
    for arm, level in (("low", 0.4), ("high", 0.8)):
        for seed in range(3):
            values = torch.from_numpy((rng.random(200) < level).astype(float))
            rows = rows_of(torch.zeros(200, 1), [0] * 200, range(200))
            frames.append(accuracy.score_pairs(values, rows, world="w", arm=arm, seed=seed))
    return pd.concat(frames)


def test_the_summary_has_one_row_an_arm_with_an_interval_around_its_mean(scores):
    found = accuracy.summarise(scores, 0)
    assert found["arm"].tolist() == ["low", "high"]
    assert ((found["low"] < found["estimate"]) & (found["estimate"] < found["high"])).all()
    assert abs(found["estimate"][1] - 0.8) < 0.05
    assert set(accuracy.as_metrics(found)) == {"w: low", "w: high"}


def test_a_claim_is_a_paired_difference_with_its_verdict(scores):
    low, high = (accuracy.table(scores, "w", arm) for arm in ("low", "high"))
    assert low.shape == (3, 200)
    assert verdicts.paired("more is more", "accuracy", high, low, seed=0)["verdict"] == "held"
    assert verdicts.paired("less is more", "accuracy", low, high, seed=0)["verdict"] == "not held"
    assert verdicts.paired("the same", "accuracy", low, low[:, ::-1], seed=0)["verdict"] == "undecided"


def test_a_change_is_an_arm_less_the_main_one_in_the_worlds_that_are_asked_for(scores):
    """People, whom no ablation was tried on, stand in the same scores."""
    both = pd.concat([scores, scores[scores["arm"] == "high"].assign(world="people")])
    (change,) = accuracy.changes(both, ["w"], {"lower": "low"}, "high", 0)
    assert change["world"] == "w" and change["ablation"] == "lower" and change["high"] < 0
    assert accuracy.changes(both, [], {"lower": "low"}, "high", 0) == []


def test_an_arm_without_scores_is_named(scores):
    with pytest.raises(KeyError, match="no scores of 'none' in 'w': there are .'high', 'low'."):
        accuracy.table(scores, "w", "none")
