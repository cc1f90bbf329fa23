"""Precision and recall of an extractor, less what chance gives, and the agreement of two."""

import numpy as np

from prefcore.methods.canonical_basis import fidelity
from prefcore.methods.canonical_basis.extraction import Extraction


def test_worked_precision_and_recall():
    """Right 1 + 0 + 1 = 2; named 2 + 1 + 1 = 4; planted 1 + 2 + 1 = 4 (doubles count once): both 2/4."""
    found = fidelity.score([[0, 5], [3], [2, 2]], [[0], [1, 4], [2, 2]], seed=0)
    assert found["precision"].estimate == found["recall"].estimate == 0.5
    assert found["answered"] == 1.0 and found["choices"] == 3


def test_answers_that_do_not_depend_on_the_choice_are_not_above_chance():
    planted = [[i % 4] for i in range(40)]
    blind = fidelity.score([[0]] * 40, planted, seed=0)["precision_above_chance"]
    assert blind.low <= 0 <= blind.high and abs(blind.estimate) < 0.02
    seeing = fidelity.score(planted, planted, seed=0)
    assert seeing["precision"].estimate == 1 and seeing["precision_above_chance"].low > 0.6


def test_an_extractor_that_never_keeps_to_the_form_has_no_precision_and_no_recall_above_nothing():
    found = fidelity.score([[]] * 5, [[1]] * 5, seed=0)
    assert found["answered"] == 0 and found["precision"] is None and found["recall"].estimate == 0


def test_worked_kappa():
    """Agreement 3/4; by chance 1/2 x 3/4 + 1/2 x 1/4 = 1/2; (3/4 - 1/2) / (1 - 1/2) = 1/2."""
    assert fidelity.kappa([0, 0, 1, 1], [0, 0, 0, 1]) == 0.5
    assert fidelity.kappa([0, 1, 2], [0, 1, 2]) == 1.0
    assert fidelity.kappa([0, 0], [0, 0]) is None


def test_a_phrase_counts_as_the_category_of_the_nearest_planted_one():
    planted, category = np.eye(3), np.array([7, 8, 9])
    near = {"b": [0.1, 0.9, 0.0], "c": [0.0, 0.2, 0.8], "a": [1.0, 0.0, 0.0]}
    answers = [Extraction("t", ("b", "c")), None, Extraction("t", ("a",))]
    found = fidelity.nearest(answers, lambda phrases: np.array([near[phrase] for phrase in phrases]), planted, category)
    assert found == [[8, 9], [], [7]]


def test_a_report_says_how_often_both_orders_name_one_in_common_and_how_styles_agree():
    named = {("quality", "as shown"): [[0], [1], [2]], ("quality", "swapped"): [[0], [2], [2, 5]],
             ("reason", "as shown"): [[0], [1], []], ("reason", "swapped"): [[], [], []]}  # fmt: skip
    found = fidelity.report(named, [[0], [1], [2]], seed=0)
    assert found["quality, swapped"]["same_in_both_orders"] == 2 / 3
    assert found["reason, as shown"]["same_in_both_orders"] == 0.0
    assert list(fidelity.agreement(named)) == ["quality, reason"]
