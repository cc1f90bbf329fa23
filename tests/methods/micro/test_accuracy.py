"""Accuracy of heads and mixtures: for an attribute, and for a pair of texts over all votes that can be cast on it."""

import math

import pytest
import torch

from prefcore.methods.micro import accuracy, losses
from prefcore.methods.micro.accuracy import Held
from prefcore.methods.micro.mixture import Mixture, Rows


def held(difference, attribute, pair, label=None, share=None):
    n, blank = len(difference), (torch.zeros(len(difference), 2),) * 3
    chances = (torch.ones(n) if x is None else torch.tensor(x) for x in (label, share))
    pairs = len(set(pair))
    floor = losses.irreducible(torch.full((pairs, 2), 0.5), torch.full((pairs, 2), 0.5))
    return Held(Rows(torch.tensor(difference), *blank, torch.tensor(attribute), torch.tensor(pair), *chances), floor)


def heads_of(weight):
    """A mixture with these heads and a router that is even."""
    heads, router = torch.nn.Linear(len(weight[0]), len(weight), bias=False), torch.nn.Linear(2, len(weight))
    with torch.no_grad():
        heads.weight.copy_(torch.tensor(weight))
        router.bias.zero_()
    return Mixture(heads, router)


def test_the_best_head_of_an_attribute_is_right_most_often_there():
    """Three attributes, three heads of which each is right on one of them."""
    model = heads_of([[-1.0, 1, -1], [-1, -1, 1], [1, -1, -1]])
    known = held(torch.eye(3).repeat(4, 1).tolist(), [0, 1, 2] * 4, list(range(12)))
    assert accuracy.of_heads(model, known.rows, 3).argmax(1).tolist() == [2, 0, 1]
    assert accuracy.best_heads(model, known, known).tolist() == [1.0] * 12
    other = Held(known.rows._replace(attribute=torch.tensor([1, 2, 0]).repeat(4)), known.floor)
    assert accuracy.best_heads(model, known, other).tolist() == [0.0] * 12  # other votes choose other heads


def test_a_mean_weighs_its_rows_and_is_0_where_there_are_none():
    values, groups = torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([0, 0, 2])
    found = accuracy.mean_by(values, torch.tensor([0.75, 0.25, 0.5]), groups, 3)
    assert found[:, 0].tolist() == [0.75, 0.0, 1.0]


def test_an_even_prediction_and_an_even_head_are_half_right():
    assert accuracy.correct(torch.tensor([0.7, 0.5, 0.2])).tolist() == [1.0, 0.5, 0.0]
    assert accuracy.heads_correct(torch.tensor([[2.0, 0.0, -1.0]])).tolist() == [[1.0, 0.5, 0.0]]


def test_a_pair_is_measured_over_all_votes_by_their_probability():
    """Two groups, shares 0.75 and 0.25; the first prefers the first text with 0.8, the second with 0.4.

    The head has margin log 3, so P(first) = 0.75: right with 0.75 x 0.8 + 0.25 x 0.4 = 0.7, and the cross-entropy is
    0.7 log(4/3) + 0.3 log 4. The floor of the fixture is log 2.
    """
    known = held([[1.0], [-1.0], [1.0], [-1.0]], [0, 0, 1, 1], [0] * 4, [0.8, 0.2, 0.4, 0.6], [0.75] * 2 + [0.25] * 2)
    (row,) = accuracy.measure(heads_of([[math.log(3)]]), known, arm="x", seed=0).to_dict("records")
    assert row["accuracy"] == pytest.approx(0.7)
    assert row["nats"] == pytest.approx(math.log(2) - 0.7 * math.log(4 / 3) - 0.3 * math.log(4))
    assert (row["arm"], row["seed"], row["id"]) == ("x", 0, 0)


def test_attributes_count_alike_for_the_best_head_however_rare_one_is():
    """Head 0 is right for attribute 0, no head for attribute 1, which has a share of 0.1: 0.5, not 0.9."""
    known = held([[1.0], [1.0]], [0, 1], [0, 0], None, [0.9, 0.1])
    chooses = held([[1.0], [-1.0]], [0, 1], [0, 1])
    assert accuracy.best_heads(heads_of([[1.0], [-1.0]]), known, chooses).tolist() == [0.5]


def test_weights_are_those_of_the_rows_of_an_attribute_and_even_where_it_has_none():
    """Two heads of opposite taste; the labelled rows of attribute 0 favour the first, those of 1 the second."""
    few = held([[1.0], [1.0], [-1.0]], [0, 0, 1], [0, 1, 2]).rows
    weights = accuracy.attribute_weights(heads_of([[5.0], [-5.0]]), few, 3, losses.hyre_weights).exp()
    assert weights[0, 0] > 0.99 and weights[1, 1] > 0.99 and weights[2].tolist() == pytest.approx([0.5, 0.5])
