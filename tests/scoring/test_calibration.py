"""Measures of a probability: worked numbers, edges of bins, a slow twin, and which of them are proper."""

import math

import numpy as np
import pytest

from prefcore.scoring import calibration, metrics

P = np.array([0.9, 0.6, 0.5, 0.2, 0.0])
SHARE = np.array([0.8, 0.4, 0.7, 0.5, 0.1])


def ece_soft(p, share, *, bins):
    """Against the share of raters."""
    return calibration.expected_calibration_error(p, share, bins=bins)


def ece_p(p, share, *, bins):
    """The paper's error of the probability, against the majority of the raters."""
    return calibration.expected_calibration_error(*calibration.against_majority(p, share), bins=bins)


def ece_conf(p, share, *, bins):
    """The paper's error of the confidence."""
    decided = calibration.against_majority(p, share)
    return calibration.expected_calibration_error(*calibration.as_confidence(*decided), bins=bins)


def brier_majority(p, share):
    return calibration.brier(*calibration.against_majority(p, share))


# --- the curve, the error, Brier --------------------------------------------------------------------------------


def test_brier_worked_by_hand():
    """(0.1^2 + 0.4^2) / 2; a constant one half gives 0.25."""
    assert calibration.brier([0.9, 0.4], [1, 0]) == pytest.approx(0.085)
    assert calibration.brier([0.5, 0.5, 0.5], [1, 0, 1]) == 0.25


def test_a_curve_and_an_error_worked_by_hand():
    """Two bins: {0.1, 0.3} observed 1/2 against 0.2, {0.6, 0.8} observed 1 against 0.7: (2 * 0.3 + 2 * 0.3) / 4."""
    assert calibration.expected_calibration_error([0.1, 0.3, 0.6, 0.8], [0, 1, 1, 1], bins=2) == pytest.approx(0.3)


def test_calibration_error_is_zero_for_a_calibrated_forecast():
    assert calibration.expected_calibration_error([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 1, 0], bins=10) == 0


def test_reliability_equals_a_loop_over_bins_and_an_edge_belongs_below():
    rng = np.random.default_rng(2)
    probability = np.concatenate([rng.random(200), [0.0, 0.2, 0.4, 1.0]])
    outcome = rng.integers(0, 2, size=probability.size)
    rows = []
    for k in range(5):
        low, high = k / 5 if k else -1, (k + 1) / 5
        inside = [(p, y) for p, y in zip(probability, outcome, strict=True) if low < p <= high]
        rows.append((np.mean([p for p, _ in inside]), np.mean([y for _, y in inside]), len(inside)))
    found = calibration.reliability_curve(probability, outcome, bins=5)
    np.testing.assert_allclose(np.array(found).T, rows, atol=1e-12)


def test_empty_bins_are_left_out():
    curve = calibration.reliability_curve([0.05, 0.95], [0, 1], bins=10)
    assert curve.predicted.tolist() == [0.05, 0.95] and curve.count.tolist() == [1, 1]


# --- what papers feed them with ---------------------------------------------------------------------------------

def test_worked_squared_errors():
    """(0.01 + 0.04 + 0.04 + 0.09 + 0.01) / 5 = 0.038; mean share x (1 - share) = (.16 + .24 + .21 + .25 + .09) / 5."""
    assert calibration.brier(P, SHARE) == pytest.approx(0.038)
    assert calibration.brier_of_single_votes(P, SHARE) == pytest.approx(0.038 + 0.19)


def test_worked_brier_of_the_majority_leaves_ties_out():
    """Majorities 1, 0, 1, tie, 0: (0.01 + 0.36 + 0.25 + 0) / 4 = 0.155."""
    assert brier_majority(P, SHARE) == pytest.approx(0.155)


def test_worked_calibration_errors():
    """Two bins. ece_p: bin 1 holds 0.5 (1) and 0 (0): |0.25 - 0.5|; bin 2 holds 0.9 (1), 0.6 (0): |0.75 - 0.5|; 0.25.

    ece_conf: confidences 0.9, 0.6, 0.5, 1 with 1, 0, 1/2, 1 right: bin 1 |0.5 - 0.5|, bin 2 |2.5 - 2| / 3: 0.125.
    ece_soft: bin 1 0.5, 0.2, 0 against 0.7, 0.5, 0.1: |0.7 - 1.3|; bin 2 |1.5 - 1.2|: (0.6 + 0.3) / 5 = 0.18.
    """
    assert ece_p(P, SHARE, bins=2) == pytest.approx(0.25)
    assert ece_conf(P, SHARE, bins=2) == pytest.approx(0.125)
    assert ece_soft(P, SHARE, bins=2) == pytest.approx(0.18)


def test_bins_are_open_below_and_closed_above_and_zero_goes_to_the_first():
    edges = [0.0, 1e-9, 0.1, 0.1 + 1e-9, 0.2, 0.3, 0.6, 0.7, 1 - 0.3, 0.9, 0.9 + 1e-9, 1.0]
    assert calibration.bin_of(edges, 10).tolist() == [0, 0, 0, 1, 1, 2, 5, 6, 6, 8, 9, 9]
    assert calibration.bin_of([k / 100 for k in range(1, 101)], 10).tolist() == [(k - 1) // 10 for k in range(1, 101)]
    assert calibration.bin_of([0.0, 0.3, 1.0], 1).tolist() == [0, 0, 0]


def test_a_probability_of_zero_is_counted():
    assert calibration.reliability_curve([0.0, 1.0], [0.2, 0.9], bins=10).count.tolist() == [1, 1]
    assert ece_soft([0.0], [0.25], bins=10) == pytest.approx(0.25)


def test_errors_that_cancel_in_confidence_show_in_the_probability():
    """Always 0.8 for the second text, which wins half of the time: 0.3 in both. But 0.3 where it wins half of the time
    and 0.7 where it always wins: (0.2 + 0.3) / 2 in ece_p, while confidence 0.7 is right 3 times of 4: 0.05."""
    share = np.array([1.0, 0.0] * 5)
    assert ece_p([0.8] * 10, share, bins=10) == pytest.approx(0.3)
    assert ece_conf([0.8] * 10, share, bins=10) == pytest.approx(0.3)
    lopsided = np.array([0.3, 0.3, 0.7, 0.7]), np.array([1.0, 0.0, 1.0, 1.0])
    assert ece_p(*lopsided, bins=10) == pytest.approx(0.25)
    assert ece_conf(*lopsided, bins=10) == pytest.approx(0.05)


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
    assert ece_p(p, share, bins=bins) == pytest.approx(slow_ece(firsts, wins, bins))
    assert ece_soft(p, share, bins=bins) == pytest.approx(slow_ece(p, share, bins))
    right = [0.5 if a == 0.5 else float((a > 0.5) == (y == 1)) for a, y in kept]
    sure = [max(a, 1 - a) for a in firsts]
    assert ece_conf(p, share, bins=bins) == pytest.approx(slow_ece(sure, right, bins))
    assert brier_majority(p, share) == pytest.approx(np.mean([(a - y) ** 2 for a, y in kept]))


def test_soft_measures_are_best_for_who_reports_the_share_and_the_papers_for_who_exaggerates():
    rng = np.random.default_rng(1)
    share = rng.beta(2, 2, 20_000)
    sharp = (share > 0.5).astype(float)
    assert calibration.brier_of_single_votes(share, share) < calibration.brier_of_single_votes(sharp, share)
    assert ece_soft(share, share, bins=10) < 1e-12 < ece_soft(sharp, share, bins=10)
    assert brier_majority(sharp, share) < brier_majority(share, share)
    assert ece_p(sharp, share, bins=10) < 0.001 < 0.1 < ece_p(share, share, bins=10)


def test_soft_brier_is_the_mean_over_fresh_votes():
    votes = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    alone = np.mean((0.7 - votes) ** 2)
    assert calibration.brier_of_single_votes([0.7], [votes.mean()]) == pytest.approx(alone)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_raises(bad):
    for measure in (
        calibration.brier, calibration.brier_of_single_votes, brier_majority, calibration.both_sides,
        calibration.as_confidence, lambda p, y: calibration.reliability_curve(p, y, bins=2),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            measure([0.5, bad], [0.5, 0.6])
        with pytest.raises(ValueError):
            measure([0.5, 0.6], [0.4, bad])
    with pytest.raises(ValueError, match="bins is 0"):
        ece_soft([0.5], [0.5], bins=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_numbers_are_refused_with_their_count(bad):
    for measure in (calibration.brier, lambda p, y: calibration.expected_calibration_error(p, y, bins=2)):
        with pytest.raises(ValueError, match="2 of 3 values are NaN or infinite"):
            measure([0.5, bad, bad], [1, 0, 1])


def test_probabilities_out_of_range_are_refused_with_their_name():
    with pytest.raises(ValueError, match="probability: 1 of 2 values are outside"):
        calibration.brier([1.2, 0.5], [1, 0])
    with pytest.raises(ValueError, match="outcome: 1 of 2 values are outside"):
        calibration.brier([0.2, 0.5], [1, -1])


def test_where_all_are_tied_there_is_no_majority():
    with pytest.raises(metrics.Undefined, match="all 2 items are tied"):
        brier_majority([0.4, 0.6], [0.5, 0.5])


def test_seen_from_both_sides_the_error_does_not_depend_on_which_text_comes_first_nor_on_the_edge_of_the_bins():
    """Mirrored items turn (low, high] into [low, high), so on edges, too, both rules give one error."""
    rng = np.random.default_rng(5)
    p, share = rng.integers(0, 21, 200) / 20, rng.integers(0, 11, 200) / 10
    both = calibration.both_sides(p, share)
    found = calibration.expected_calibration_error(*both, bins=10)
    assert found == pytest.approx(
        calibration.expected_calibration_error(*calibration.both_sides(1 - p, 1 - share), bins=10))
    total = 0.0
    for k in range(10):  # bins [low, high), 1 in the last
        total += abs(sum(a - y for a, y in zip(*both, strict=True) if min(round(20 * a) // 2, 9) == k))
    assert found == pytest.approx(total / len(both[0]))


# --- mending ------------------------------------------------------------------------------------------------------


def test_temperature_is_recovered_and_cooling_by_it_undoes_it():
    rng = np.random.default_rng(4)
    truth = 1 / (1 + np.exp(-rng.normal(size=4_000)))
    hot = calibration.apply_temperature(truth, 0.4)  # over-confident: logits times 2.5
    t = calibration.fit_temperature(hot, truth)
    assert t == pytest.approx(2.5, abs=1e-3)
    np.testing.assert_allclose(calibration.apply_temperature(hot, t), truth, atol=1e-3)


def test_cooling_keeps_order_and_half_and_survives_the_ends():
    p = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    cooled = calibration.apply_temperature(p, 3.0)
    assert np.all(np.diff(cooled) > 0) and cooled[2] == pytest.approx(0.5) and np.all((0 < cooled) & (cooled < 1))
    np.testing.assert_allclose(calibration.apply_temperature(p[1:4], 1.0), p[1:4])


def test_dividing_out_a_bias_makes_the_empty_pair_even():
    """p = 0.8 where an empty pair gets 0.6: (0.8 / 0.6) / (0.8 / 0.6 + 0.2 / 0.4) = 0.72727."""
    assert calibration.divide_by_prior(np.array([0.6, 0.8, 0.0, 1.0]), 0.6) == pytest.approx([0.5, 8 / 11, 0.0, 1.0])
    assert calibration.divide_by_prior(np.array([0.3]), 0.5) == pytest.approx([0.3])
