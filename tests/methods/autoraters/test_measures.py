"""Measures of a judge: worked numbers, ties, both orders, and the rows of pairs that they are made from."""

import numpy as np
import pandas as pd
import pytest

from prefcore.lab import runs
from prefcore.methods.autoraters import measures
from prefcore.scoring import calibration

P = np.array([0.9, 0.6, 0.5, 0.2, 0.0])
SHARE = np.array([0.8, 0.4, 0.7, 0.5, 0.1])


def test_worked_agreement_and_f1():
    """Said 2nd, 2nd, tie, 1st, 1st; raters 2nd, 1st, 2nd, tie, 1st: 2 of 5 agree; F1: 1st 2/4, tie 0/2, 2nd 2/4."""
    assert measures.agreement(P, SHARE) == pytest.approx(0.4)
    assert measures.macro_f1(P, SHARE) == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_a_band_turns_near_halves_into_ties():
    """With a band of 0.3 also 0.6 and 0.2 are ties; the raters' own tie (0.5) is then met once more."""
    assert calibration.classes([0.9, 0.6, 0.5, 0.2, 0.0], band=0.3).tolist() == [1, 0, 0, 0, -1]
    assert measures.agreement(P, SHARE, band=0.3) == pytest.approx(0.6)
    assert calibration.classes([0.45, 0.55, 0.4499, 0.5501], band=0.05).tolist() == [0, 0, -1, 1]


def test_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(2)
    p, share = rng.integers(0, 11, 200) / 10, rng.integers(0, 11, 200) / 10
    expected = f1_score(calibration.classes(share), calibration.classes(p), average="macro")
    assert measures.macro_f1(p, share) == pytest.approx(expected)


def test_a_class_that_nobody_names_is_left_out_of_f1():
    assert measures.macro_f1([0.9, 0.1], [0.8, 0.2]) == 1.0


def test_position_shift_is_positive_for_a_judge_who_likes_the_second_place():
    """0.7 for the second text whichever it is: 0.7 + 0.7 - 1 = 0.4; for the first: -0.4."""
    assert measures.position_shift([0.7, 0.3], [0.7, 0.3]).tolist() == pytest.approx([0.4, -0.4])
    assert measures.position_bias([0.7, 0.3], [0.7, 0.3]) == pytest.approx(0.4)


def test_a_judge_without_a_taste_for_a_place_has_no_shift_and_is_consistent():
    p = np.array([0.9, 0.2, 0.5, 0.0])
    assert measures.position_bias(p, 1 - p) == 0
    assert measures.consistency(p, 1 - p) == 1


def test_consistency_is_about_verdicts_not_numbers():
    """0.9 and 0.4 are no mirror but agree; 0.6 and 0.7 both favour the second place; a tie agrees with a tie only."""
    assert measures.consistency([0.9, 0.6, 0.5, 0.5], [0.4, 0.7, 0.5, 0.3]) == 0.5


def test_the_report_does_not_depend_on_which_text_is_called_the_first():
    rng = np.random.default_rng(3)
    p, swapped, share = rng.random((3, 50)).round(2)
    there = measures.report(p, swapped, share, bins=10, band=0.05)
    back = measures.report(swapped, p, 1 - share, bins=10, band=0.05)
    assert there == pytest.approx(back)
    assert there["mse"] == pytest.approx((np.mean((p - share) ** 2) + np.mean((1 - swapped - share) ** 2)) / 2)


def test_where_all_are_tied_the_majority_measures_are_left_out():
    report = measures.report([0.4, 0.6], [0.6, 0.4], [0.5, 0.5], bins=10, band=0.05)
    assert "brier" not in report and report["mse"] == pytest.approx(0.01)


def test_the_reports_errors_are_the_one_error_of_other_forecasts():
    """The worked numbers of scoring's tests, each order an item of its own: the mirrored judge doubles the items."""
    found = measures.report(P, 1 - P, SHARE, bins=2, band=0.05)
    both, shares = calibration.both_sides(P, SHARE)
    decided = calibration.against_majority(both, shares)
    assert found["ece_soft"] == calibration.expected_calibration_error(both, shares, bins=2)
    assert found["ece_p"] == calibration.expected_calibration_error(*decided, bins=2)
    assert found["ece_conf"] == calibration.expected_calibration_error(*calibration.as_confidence(*decided), bins=2)
    assert found["mse"] == pytest.approx(0.038) and found["brier"] == pytest.approx(0.155)
    assert found["brier_soft"] == pytest.approx(0.038 + 0.19)
    assert found["ece_conf"] == pytest.approx(0.125)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_raises(bad):
    for measure in (measures.agreement, measures.macro_f1, measures.consistency, measures.position_bias):
        with pytest.raises(ValueError):
            measure([0.5, bad], [0.5, 0.6])
        with pytest.raises(ValueError):
            measure([0.5, 0.6], [0.4, bad])


# --- rows -------------------------------------------------------------------------------------------------------


def test_rows_measure_both_orders_against_held_out_raters(pair):
    """Share for the second 0.25; judged 0.3 and, exchanged, 0.6: ((0.05)^2 + (0.15)^2) / 2, both for the first text."""
    frame = measures.score_pairs("x", [pair()], np.array([[0.3], [0.6]]), no_answer=0.1)
    row = frame.iloc[0]
    assert row["error"] == pytest.approx((0.05**2 + 0.15**2) / 2)
    assert (row["right"], row["consistent"], row["no_answer"]) == (1.0, 1.0, 0.1)
    assert row["bias"] == pytest.approx(0.1)
    assert row["excess"] == pytest.approx((0.7 + 0.6) / 2 - 0.75)  # sure by 0.7 and 0.6
    wrong = measures.score_pairs("x", [pair()], np.array([[0.7], [0.6]])).iloc[0]
    assert (wrong["right"], wrong["consistent"]) == (0.5, 0.0)
    assert wrong["excess"] == pytest.approx((0.7 - 0.25 + 0.6 - 0.75) / 2)


def test_a_summary_tells_sure_pairs_apart(pair):
    pairs = [pair(share=1.0), pair(1, 2, share=0.0), pair(2, 3, share=0.6)]
    frame = measures.score_pairs("x", pairs, np.array([[0.2, 0.3, 0.4], [0.8, 0.3, 0.7]]))
    found = measures.summarise(frame, bins=10, band=0.05)["x"]
    assert found["objective_pairs"] == 2
    assert found["objective_right"] == pytest.approx((1.0 + 0.5) / 2)  # the second pair is judged right once
    nobody = measures.score_pairs("x", pairs[2:] * 2, np.array([[0.4, 0.4], [0.7, 0.7]]))
    assert measures.summarise(nobody, bins=10, band=0.05)["x"]["objective_right"] is None


def test_a_constant_has_no_spread_and_no_correlation_and_earns_no_verdict(pair):
    """Always 0.5 against shares 1, 0 and 0.4: error 0.25, 0.25 and 0.01. It is a row of the table like any other."""
    pairs = [pair(share=0.0), pair(1, 2, share=1.0), pair(2, 3, share=0.6)]
    frame = measures.score_pairs("half", pairs, np.full((2, 3), 0.5))
    found = measures.summarise(frame, bins=10, band=0.05)["half"]
    assert (found["spread"], found["r"], found["position_bias"]) == (0, 0, 0)
    assert found["mse"] == pytest.approx((0.25 + 0.25 + 0.01) / 3)
    rows = measures.guards(frame, ["half"], spread=0.03, no_answer=0.05)
    assert [row["passed"] for row in rows] == [False, True]
    moving = measures.score_pairs("half", pairs, np.array([[0.6, 0.4, 0.5], [0.4, 0.6, 0.5]]), no_answer=0.1)
    assert [row["passed"] for row in measures.guards(moving, ["half"], spread=0.03, no_answer=0.05)] == [True, False]


def test_the_mean_of_what_would_be_written_has_an_error_of_its_own(pair):
    """Chances 0.5 each of .10 and .50, share 0.25: greedy writes .10 (the lower of two equals), the mean is .30."""
    chances = np.zeros((2, 1, 99))
    chances[:, :, [9, 49]] = 0.5
    chances[1] = chances[1, :, ::-1]  # exchanged: .90 and .50
    row = measures.score_answers("x", [pair()], chances).iloc[0]
    assert (row["p"], row["error_mean"]) == (pytest.approx(0.1), pytest.approx(0.05**2))
    assert measures.score_pairs("y", [pair()], np.array([[0.3], [0.7]])).iloc[0]["error_mean"] == pytest.approx(0.05**2)


def test_committed_measures_give_the_same_interval_as_the_rows_that_were_saved(pair, tmp_path):
    pairs = [pair(share=share, domain="Tweet") for share in (0.1, 0.5, 0.8, 1.0)]
    rng = np.random.default_rng(0)
    frames = [measures.score_pairs("x", pairs, rng.random((2, 4)).round(4), seed=seed) for seed in range(3)]
    table = measures.measured(pd.concat(frames))
    runs.save_measures(table, "smoke", "autoraters", tmp_path)
    read = runs.read_measures("smoke", "autoraters", tmp_path)
    for measure in ("error", "bias", "rho", "right_agreed"):
        there, back = (measures.intervals(t, measure, ["x"], seed=0) for t in (table, read))
        pd.testing.assert_frame_equal(there, back)
