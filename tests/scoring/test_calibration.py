"""Measures of a probability: worked numbers, edges of bins, a slow twin, and which of them are proper."""

import numpy as np
import pytest

from prefcore.scoring import calibration, metrics

P = np.array([0.9, 0.6, 0.5, 0.2, 0.0])
SHARE = np.array([0.8, 0.4, 0.7, 0.5, 0.1])


def test_worked_squared_errors():
    """(0.01 + 0.04 + 0.04 + 0.09 + 0.01) / 5 = 0.038; mean share x (1 - share) = (.16 + .24 + .21 + .25 + .09) / 5."""
    assert calibration.mse(P, SHARE) == pytest.approx(0.038)
    assert calibration.brier_soft(P, SHARE) == pytest.approx(0.038 + 0.19)


def test_worked_brier_of_the_majority_leaves_ties_out():
    """Majorities 1, 0, 1, tie, 0: (0.01 + 0.36 + 0.25 + 0) / 4 = 0.155."""
    assert calibration.brier_majority(P, SHARE) == pytest.approx(0.155)


def test_worked_calibration_errors():
    """Two bins. ece_p: bin 1 holds 0.5 (1) and 0 (0): |0.25 - 0.5|; bin 2 holds 0.9 (1), 0.6 (0): |0.75 - 0.5|; 0.25.

    ece_conf: confidences 0.9, 0.6, 0.5, 1 with 1, 0, 1/2, 1 right: bin 1 |0.5 - 0.5|, bin 2 |2.5 - 2| / 3: 0.125.
    ece_soft: bin 1 0.5, 0.2, 0 against 0.7, 0.5, 0.1: |0.7 - 1.3|; bin 2 |1.5 - 1.2|: (0.6 + 0.3) / 5 = 0.18.
    """
    assert calibration.ece_p(P, SHARE, bins=2) == pytest.approx(0.25)
    assert calibration.ece_conf(P, SHARE, bins=2) == pytest.approx(0.125)
    assert calibration.ece_soft(P, SHARE, bins=2) == pytest.approx(0.18)


def test_bins_are_open_below_and_closed_above_and_zero_goes_to_the_first():
    edges = [0.0, 1e-9, 0.1, 0.1 + 1e-9, 0.2, 0.3, 0.6, 0.7, 1 - 0.3, 0.9, 0.9 + 1e-9, 1.0]
    assert calibration.bin_of(edges, 10).tolist() == [0, 0, 0, 1, 1, 2, 5, 6, 6, 8, 9, 9]
    assert calibration.bin_of([k / 100 for k in range(1, 101)], 10).tolist() == [(k - 1) // 10 for k in range(1, 101)]
    assert calibration.bin_of([0.0, 0.3, 1.0], 1).tolist() == [0, 0, 0]


def test_a_probability_of_zero_is_counted():
    assert calibration.curve([0.0, 1.0], [0.2, 0.9], bins=10).count.tolist() == [1, 1]
    assert calibration.ece_soft([0.0], [0.25], bins=10) == pytest.approx(0.25)


def test_errors_that_cancel_in_confidence_show_in_the_probability():
    """Always 0.8 for the second text, which wins half of the time: 0.3 in both. But 0.3 where it wins half of the time
    and 0.7 where it always wins: (0.2 + 0.3) / 2 in ece_p, while confidence 0.7 is right 3 times of 4: 0.05."""
    share = np.array([1.0, 0.0] * 5)
    assert calibration.ece_p([0.8] * 10, share, bins=10) == pytest.approx(0.3)
    assert calibration.ece_conf([0.8] * 10, share, bins=10) == pytest.approx(0.3)
    lopsided = np.array([0.3, 0.3, 0.7, 0.7]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration.ece_p(*lopsided, bins=10) == pytest.approx(0.25)
    assert calibration.ece_conf(*lopsided, bins=10) == pytest.approx(0.05)


def slow_ece(p, outcome, bins):
    total = 0.0
    for k in range(bins):
        inside = [i for i in range(len(p)) if k / bins < p[i] <= (k + 1) / bins or (k == 0 and p[i] == 0)]
        if inside:
            gap = sum(p[i] for i in inside) / len(inside) - sum(outcome[i] for i in inside) / len(inside)
            total += len(inside) / len(p) * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 3, 10])
def test_plain_python_twin(bins):
    rng = np.random.default_rng(0)
    p, share = rng.integers(0, 101, 300) / 100, rng.integers(0, 11, 300) / 10
    kept = [(a, float(s > 0.5)) for a, s in zip(p, share, strict=True) if s != 0.5]
    firsts, wins = [a for a, _ in kept], [y for _, y in kept]
    assert calibration.ece_p(p, share, bins=bins) == pytest.approx(slow_ece(firsts, wins, bins))
    assert calibration.ece_soft(p, share, bins=bins) == pytest.approx(slow_ece(p, share, bins))
    right = [0.5 if a == 0.5 else float((a > 0.5) == (y == 1)) for a, y in kept]
    sure = [max(a, 1 - a) for a in firsts]
    assert calibration.ece_conf(p, share, bins=bins) == pytest.approx(slow_ece(sure, right, bins))
    assert calibration.brier_majority(p, share) == pytest.approx(np.mean([(a - y) ** 2 for a, y in kept]))


def test_soft_measures_are_best_for_who_reports_the_share_and_the_papers_for_who_exaggerates():
    rng = np.random.default_rng(1)
    share = rng.beta(2, 2, 20_000)
    sharp = (share > 0.5).astype(float)
    assert calibration.brier_soft(share, share) < calibration.brier_soft(sharp, share)
    assert calibration.ece_soft(share, share, bins=10) < 1e-12 < calibration.ece_soft(sharp, share, bins=10)
    assert calibration.brier_majority(sharp, share) < calibration.brier_majority(share, share)
    assert calibration.ece_p(sharp, share, bins=10) < 0.001 < 0.1 < calibration.ece_p(share, share, bins=10)


def test_soft_brier_is_the_mean_over_fresh_votes():
    votes = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    alone = np.mean((0.7 - votes) ** 2)
    assert calibration.brier_soft([0.7], [votes.mean()]) == pytest.approx(alone)


def test_worked_agreement_and_f1():
    """Said 2nd, 2nd, tie, 1st, 1st; raters 2nd, 1st, 2nd, tie, 1st: 2 of 5 agree; F1: 1st 2/4, tie 0/2, 2nd 2/4."""
    assert calibration.agreement(P, SHARE) == pytest.approx(0.4)
    assert calibration.macro_f1(P, SHARE) == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_a_band_turns_near_halves_into_ties():
    """With a band of 0.3 also 0.6 and 0.2 are ties; the raters' own tie (0.5) is then met once more."""
    assert calibration.classes([0.9, 0.6, 0.5, 0.2, 0.0], band=0.3).tolist() == [1, 0, 0, 0, -1]
    assert calibration.agreement(P, SHARE, band=0.3) == pytest.approx(0.6)
    assert calibration.classes([0.45, 0.55, 0.4499, 0.5501], band=0.05).tolist() == [0, 0, -1, 1]


def test_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(2)
    p, share = rng.integers(0, 11, 200) / 10, rng.integers(0, 11, 200) / 10
    expected = f1_score(calibration.classes(share), calibration.classes(p), average="macro")
    assert calibration.macro_f1(p, share) == pytest.approx(expected)


def test_a_class_that_nobody_names_is_left_out_of_f1():
    assert calibration.macro_f1([0.9, 0.1], [0.8, 0.2]) == 1.0


def test_position_shift_is_positive_for_a_judge_who_likes_the_second_place():
    """0.7 for the second text whichever it is: 0.7 + 0.7 - 1 = 0.4; for the first: -0.4."""
    assert calibration.position_shift([0.7, 0.3], [0.7, 0.3]).tolist() == pytest.approx([0.4, -0.4])
    assert calibration.position_bias([0.7, 0.3], [0.7, 0.3]) == pytest.approx(0.4)


def test_a_judge_without_a_taste_for_a_place_has_no_shift_and_is_consistent():
    p = np.array([0.9, 0.2, 0.5, 0.0])
    assert calibration.position_bias(p, 1 - p) == 0
    assert calibration.consistency(p, 1 - p) == 1


def test_consistency_is_about_verdicts_not_numbers():
    """0.9 and 0.4 are no mirror but agree; 0.6 and 0.7 both favour the second place; a tie agrees with a tie only."""
    assert calibration.consistency([0.9, 0.6, 0.5, 0.5], [0.4, 0.7, 0.5, 0.3]) == 0.5


def test_the_report_does_not_depend_on_which_text_is_called_the_first():
    rng = np.random.default_rng(3)
    p, swapped, share = rng.random((3, 50)).round(2)
    there = calibration.report(p, swapped, share, bins=10, band=0.05)
    back = calibration.report(swapped, p, 1 - share, bins=10, band=0.05)
    assert there == pytest.approx(back)
    assert there["mse"] == pytest.approx((np.mean((p - share) ** 2) + np.mean((1 - swapped - share) ** 2)) / 2)


def test_where_all_are_tied_the_majority_measures_are_left_out_or_say_so():
    report = calibration.report([0.4, 0.6], [0.6, 0.4], [0.5, 0.5], bins=10, band=0.05)
    assert "brier" not in report and report["mse"] == pytest.approx(0.01)
    with pytest.raises(metrics.Undefined, match="all 2 items are tied"):
        calibration.brier_majority([0.4, 0.6], [0.5, 0.5])


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_raises(bad):
    for measure in (calibration.mse, calibration.brier_soft, calibration.brier_majority, calibration.consistency):
        with pytest.raises(ValueError):
            measure([0.5, bad], [0.5, 0.6])
        with pytest.raises(ValueError):
            measure([0.5, 0.6], [0.4, bad])
    with pytest.raises(ValueError, match="bins is 0"):
        calibration.ece_soft([0.5], [0.5], bins=0)


def test_temperature_is_recovered_and_cooling_by_it_undoes_it():
    rng = np.random.default_rng(4)
    truth = 1 / (1 + np.exp(-rng.normal(size=4_000)))
    hot = calibration.cool(truth, 0.4)  # over-confident: logits times 2.5
    t = calibration.temperature(hot, truth)
    assert t == pytest.approx(2.5, abs=1e-3)
    np.testing.assert_allclose(calibration.cool(hot, t), truth, atol=1e-3)


def test_cooling_keeps_order_and_half_and_survives_the_ends():
    p = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    cooled = calibration.cool(p, 3.0)
    assert np.all(np.diff(cooled) > 0) and cooled[2] == pytest.approx(0.5) and np.all((0 < cooled) & (cooled < 1))
    np.testing.assert_allclose(calibration.cool(p[1:4], 1.0), p[1:4])


def test_dividing_out_a_bias_makes_the_empty_pair_even():
    """p = 0.8 where an empty pair gets 0.6: (0.8 / 0.6) / (0.8 / 0.6 + 0.2 / 0.4) = 0.72727."""
    assert calibration.divide_out(np.array([0.6, 0.8, 0.0, 1.0]), 0.6) == pytest.approx([0.5, 8 / 11, 0.0, 1.0])
    assert calibration.divide_out(np.array([0.3]), 0.5) == pytest.approx([0.3])
