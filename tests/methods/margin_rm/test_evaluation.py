"""Reward models held against people's votes: paired intervals over pairs and runs."""

import numpy as np
import pandas as pd
import pytest

from prefcore.methods.margin_rm import evaluation, labels
from prefcore.scoring import metrics
from prefcore.scoring.votes import VotedPair


def test_accuracy_counts_pairs_with_a_majority_alone():
    assert evaluation.accuracy(np.array([0.9, 0.4, 0.6, 0.1]), np.array([0.8, 0.3, 0.2, 0.5])) == pytest.approx(2 / 3)
    with pytest.raises(metrics.Undefined, match="no majority"):
        evaluation.accuracy(np.array([0.9]), np.array([0.5]))


def test_calibration_error_does_not_depend_on_which_text_is_called_a():
    """0.95 where 0.7 of the people agree is off by 0.25 on either side; 0.55 where 0.55 do is off by nothing."""
    probability, share = np.array([0.95, 0.55]), np.array([0.7, 0.55])
    assert evaluation.ece(probability, share) == pytest.approx(0.125)
    assert evaluation.ece(np.array([0.05, 0.55]), np.array([0.3, 0.55])) == pytest.approx(0.125)


@pytest.fixture
def judged():
    """(good [2, 80], noisy [2, 80], share [80]): two runs of a close and of a loose guess of the share."""
    rng = np.random.default_rng(0)
    share = rng.random(80)
    good, noisy = (np.clip(share + scale * rng.normal(size=(2, 80)), 0, 1) for scale in (0.05, 0.5))
    return good, noisy, share


def test_a_better_arm_has_an_interval_above_zero_and_equal_arms_have_none(judged):
    good, noisy, share = judged
    how = {"seed": 0, "draws": 300}
    gain = evaluation.compare(good, noisy, share, evaluation.correlation, **how)
    means = [np.mean([np.corrcoef(run, share)[0, 1] for run in arm]) for arm in (good, noisy)]
    expected = means[0] - means[1]
    assert gain.estimate == pytest.approx(expected) and 0 < gain.low < gain.estimate < gain.high
    assert evaluation.compare(good, good, share, evaluation.correlation, **how) == metrics.Interval(0.0, 0.0, 0.0)
    assert gain == evaluation.compare(good, noisy, share, evaluation.correlation, **how)


def test_pairs_are_drawn_together_so_that_a_common_error_cancels(judged):
    _, noisy, share = judged
    shifted = np.clip(noisy * 0.999, 0, 1)
    paired = evaluation.compare(shifted, noisy, share, evaluation.correlation, seed=0, draws=300)
    alone = evaluation.compare(noisy, None, share, evaluation.correlation, seed=0, draws=300)
    assert alone.high - alone.low > 50 * (paired.high - paired.low)


def test_pairs_on_which_a_run_has_no_say_are_left_out_of_that_run(judged):
    good, _, share = judged
    part = good.copy()
    part[0, :40], part[1, 40:] = np.nan, np.nan
    found = evaluation.compare(part, None, share, evaluation.correlation, seed=0, draws=300)
    expected = (np.corrcoef(good[0, 40:], share[40:])[0, 1] + np.corrcoef(good[1, :40], share[:40])[0, 1]) / 2
    assert found.estimate == pytest.approx(expected)


def test_too_few_or_constant_values_have_no_interval(judged):
    good, _, share = judged
    with pytest.raises(metrics.Undefined, match="at least three pairs; there are 2"):
        evaluation.compare(good[:, :2], None, share[:2], evaluation.correlation, seed=0, draws=50)
    with pytest.raises(metrics.Undefined, match="undefined on 50 of 50 draws"):
        evaluation.compare(np.full((1, 80), 0.5), None, share, evaluation.correlation, seed=0, draws=50)


def held_out_scores():
    """Two arms, two folds: a run says something of all four pairs, and two of these are of its held-out domain."""
    rows = [
        {"arm": arm, "fold": fold, "seed": 0, "id": f"{kind}{n}{domain}", "stratum": kind, "held_out": domain == fold,
         "probability": n / 10 + fold / 100 + (arm == "b") / 1000, "share": n / 10}
        for arm in "ab" for fold in (0, 1) for domain in (0, 1) for kind in ("clear", "plural") for n in range(8)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_region_holds_its_pairs_and_a_run_is_heard_on_those_that_are_its_own():
    scores = held_out_scores()
    for region, size in (("all", 32), ("clear", 16), ("out of domain", 32)):
        assert evaluation.held_out_table(scores, "a", region)[0].shape == (2, size)
    inside, share = evaluation.held_out_table(scores, "b", "all")
    outside, same = evaluation.held_out_table(scores, "b", "out of domain")
    assert (np.isnan(inside) == ~np.isnan(outside)).all() and np.isnan(inside).sum(1).tolist() == [16, 16]
    np.testing.assert_array_equal(share, same)
    np.testing.assert_allclose((inside - share)[~np.isnan(inside)], np.repeat([0.001, 0.011], 16))


def test_arms_are_measured_on_the_same_pairs_and_what_cannot_be_measured_is_none():
    scores = held_out_scores()
    how = {"seed": 0, "draws": 100}
    assert evaluation.measure(scores, "a", None, "all", evaluation.correlation, **how).estimate == pytest.approx(1.0)
    gain = evaluation.measure(scores, "b", "a", "all", lambda p, s: float(np.mean(p - s)), **how)
    assert gain == pytest.approx((0.001, 0.001, 0.001))
    assert evaluation.measure(scores, "a", None, "indistinguishable", evaluation.correlation, **how) is None
    alone = scores.assign(held_out=False)
    assert evaluation.measure(alone, "a", None, "out of domain", evaluation.correlation, **how) is None


def test_rows_say_what_was_judged_beside_the_share_and_which_domain_was_left_out():
    pairs = [VotedPair(f"p{i}", "", "x", "y", (1.0, 0.0), truth, 0.25, domain, "clear", "test")
             for i, (domain, truth) in enumerate([("a", (1.0,)), ("b", (0.0,))])]  # fmt: skip
    quarter = labels.quarters(pairs)
    frame = evaluation.score_pairs(pairs, [0.3, 0.9], quarter, arm="bt", fold=1, seed=2)
    assert frame.to_dict("records") == [
        {"arm": "bt", "fold": 1, "seed": 2, "id": f"p{i}", "domain": domain, "stratum": "clear", "held_out": outside,
         "share": 0.25, "probability": said}
        for i, (domain, outside, said) in enumerate([("a", False, 0.3), ("b", True, 0.9)])]  # fmt: skip
    raters = evaluation.score_raters(pairs, quarter, [0, 1])
    assert [part["probability"].tolist() for part in raters] == [[0.5, 0.5]] * 2
    assert evaluation.score_raters([pair._replace(truth=()) for pair in pairs], quarter, [0]) == []
    assert evaluation.regions(frame) == ["all", "clear", "out of domain"]
