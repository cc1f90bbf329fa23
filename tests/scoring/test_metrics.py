"""Worked numbers, slow twins in plain Python, and intervals that cover what they promise."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import rankdata

from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval

NORMALS = 400  # simulated data sets per coverage test


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- statistics -------------------------------------------------------------------------------------------------


def test_accuracy_counts_the_threshold_itself_half():
    """Right, right, wrong, on the edge: (1 + 1 + 0 + 0.5) / 4."""
    assert metrics.accuracy([0.9, 0.1, 0.2, 0.5], [1, 0, 1, 1]) == 0.625


def test_accuracy_of_margins_is_the_share_above_zero():
    assert metrics.accuracy([2.0, -1.0, 0.3, 0.0], np.ones(4), threshold=0.0) == 0.625


def test_auc_worked_by_hand():
    """Positives 0.8, 0.4; negatives 0.4, 0.1: pairs won 1, 1, tie 0.5, won 1 -> 3.5 / 4."""
    assert metrics.auc([0.8, 0.4, 0.4, 0.1], [1, 1, 0, 0]) == 0.875


def test_auc_equals_counting_all_pairs():
    rng = np.random.default_rng(1)
    score, outcome = rng.integers(0, 6, size=60), rng.integers(0, 2, size=60)
    pairs = list(itertools.product(score[outcome == 1], score[outcome == 0]))
    slow = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    assert metrics.auc(score, outcome) == pytest.approx(slow, abs=1e-12)


def test_auc_of_one_class_is_undefined():
    with pytest.raises(metrics.Undefined, match="3 positives and 0 negatives"):
        metrics.auc([1, 2, 3], [1, 1, 1])


def test_pearson_worked_by_hand():
    """x - 2 = -1, 0, 1; y - 3 = -2, 1, 1: (2 + 0 + 1) / sqrt(2 * 6)."""
    assert metrics.pearson([1, 2, 3], [1, 4, 4]) == pytest.approx(3 / math.sqrt(12), abs=1e-12)


def test_pearson_equals_the_sum_of_products():
    x, y = noise(2, 50)
    n, sx, sy = 50, sum(x), sum(y)
    slow = (n * sum(x * y) - sx * sy) / math.sqrt((n * sum(x * x) - sx**2) * (n * sum(y * y) - sy**2))
    assert metrics.pearson(x, y) == pytest.approx(slow, abs=1e-12)


def test_pearson_of_a_constant_is_undefined():
    with pytest.raises(metrics.Undefined, match="constant"):
        metrics.pearson([1, 2, 3], [5, 5, 5])


def test_ranks_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=50), rng.integers(6, size=50), [2.0], []):
        assert metrics.ranks(values).tolist() == rankdata(values).tolist()


def test_spearman_sees_only_the_order_and_shares_ranks():
    x = noise(30)
    assert metrics.spearman(x, np.exp(3 * x)) == pytest.approx(1.0)
    ranks = metrics.pearson([1, 2.5, 2.5, 4], [1, 2, 3, 4])
    assert metrics.spearman([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(ranks)


def test_distinct_n_worked_by_hand():
    """Words a b a b / b: 2 of 5 are distinct. Pairs ab, ba, ab: 2 of 3; none runs across texts."""
    texts = ["a b a b", "b"]
    assert metrics.distinct_n(texts, 1) == 2 / 5
    assert metrics.distinct_n(texts, 2) == 2 / 3
    assert metrics.distinct_n(texts, 5) == 0


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda v: metrics.accuracy(v, [1, 0, 1]),
        lambda v: metrics.auc(v, [1, 0, 1]),
        lambda v: metrics.pearson(v, [1, 2, 3]),
        lambda v: metrics.spearman([1, 2, 3], v),
        lambda v: metrics.bootstrap_interval(v, seed=0),
        lambda v: metrics.bootstrap_seeds([v], seed=0),
        lambda v: metrics.paired_difference(v, [0, 0, 0], seed=0),
        lambda v: metrics.win_rate([0, 0, 0], v, seed=0),
        lambda v: metrics.detectable_effect(v),
        lambda v: metrics.verdict(Interval(*v), direction="higher"),
    ],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_numbers_are_refused_with_their_count(call, bad):
    with pytest.raises(ValueError, match="2 of 3 values are NaN or infinite"):
        call([0.5, bad, bad])


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"shapes \[\(2,\), \(3,\)\]"):
        metrics.paired_difference([1, 2], [1, 2, 3], seed=0)


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="outcome: 1 of 2 values are none of"):
        metrics.auc([1.2, 0.5], [1, -1])


@pytest.mark.parametrize("call", [metrics.bootstrap_interval, lambda v, seed: metrics.bootstrap_seeds([v], seed=seed)])
def test_one_value_has_no_interval(call):
    with pytest.raises(ValueError, match="two"):
        call([1.0], seed=0)


# --- intervals --------------------------------------------------------------------------------------------------


def coverage(truth, intervals):
    return np.mean([i.low <= truth <= i.high for i in intervals])


@pytest.mark.parametrize("n", [8, 40])
def test_interval_of_a_mean_covers_at_its_level_also_when_small(n):
    """Standard error of a coverage of 0.95 from 400 trials is 0.011."""
    data = 3 + noise(NORMALS, n, seed=n)
    found = [metrics.bootstrap_interval(row, seed=i, resamples=200) for i, row in enumerate(data)]
    assert 0.91 < coverage(3, found) < 0.985


def test_interval_at_a_lower_level_covers_less():
    found = [metrics.bootstrap_interval(r, seed=i, resamples=100, level=0.5) for i, r in enumerate(noise(NORMALS, 20))]
    assert 0.42 < coverage(0, found) < 0.58


def test_interval_of_a_correlation_covers_at_its_level():
    x, e = noise(2, 200, 40, seed=5)
    y = 0.6 * x + 0.8 * e
    found = [
        metrics.bootstrap_interval(a, b, statistic=metrics.pearson, seed=i, resamples=150)
        for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    assert 0.89 < coverage(0.6, found) < 0.985


@pytest.mark.parametrize("seed_spread", [0.0, 1.0])
def test_interval_over_seeds_and_prompts_covers_at_its_level(seed_spread):
    """Rows share a seed's effect and columns a prompt's; ignoring either would cover far less than 0.95."""
    seeds, prompts = 8, 30
    values = seed_spread * noise(NORMALS, seeds, 1, seed=1) + noise(NORMALS, 1, prompts, seed=2)
    values = values + 0.5 * noise(NORMALS, seeds, prompts, seed=3)
    found = [metrics.bootstrap_seeds(v, seed=i, resamples=400) for i, v in enumerate(values)]
    assert 0.89 < coverage(0, found) < 0.985
    flat = [metrics.bootstrap_interval(v.ravel(), seed=i, resamples=100) for i, v in enumerate(values[:100])]
    assert coverage(0, flat) < 0.75


def test_interval_over_seeds_equals_a_loop_over_draws():
    """The same draws, one resample and one cell at a time; row counts are drawn before column counts."""
    values, resamples = noise(3, 7), 50
    rng = np.random.default_rng(9)
    rows = rng.multinomial(2, [1 / 3] * 3, size=resamples)
    columns = rng.multinomial(6, [1 / 7] * 7, size=resamples)
    means = [
        sum(r[i] * c[j] * values[i, j] for i in range(3) for j in range(7)) / 12
        for r, c in zip(rows, columns, strict=True)
    ]
    expected = (values.mean(), *np.quantile(means, [0.025, 0.975]))
    np.testing.assert_allclose(metrics.bootstrap_seeds(values, seed=9, resamples=resamples), expected, atol=1e-12)


def test_one_seed_is_uncertain_about_prompts_only():
    values = noise(1, 200)
    one, flat = metrics.bootstrap_seeds(values, seed=0), metrics.bootstrap_interval(values[0], seed=0)
    np.testing.assert_allclose(one, flat, atol=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values = noise(30)
    first, again, other = (metrics.bootstrap_interval(values, seed=s) for s in (4, 4, 5))
    assert first == again != other


def test_pairing_narrows_the_interval():
    a, b = noise(2, 50)
    prompt = 10 * noise(50, seed=1)
    paired = metrics.paired_difference(a + prompt, b + prompt, seed=0)
    assert paired == pytest.approx(metrics.bootstrap_interval(a - b, seed=0))
    assert paired.high - paired.low < 1


def test_two_dimensional_differences_are_pooled_over_seeds():
    a, b = noise(4, 20), noise(4, 20, seed=1)
    assert metrics.paired_difference(a, b, seed=0) == metrics.bootstrap_seeds(a - b, seed=0)


def test_win_rate_counts_ties_half():
    """Win, win, loss, tie: (1 + 1 + 0 + 0.5) / 4; the two directions add up to 1."""
    a, b = [1, 2, 0, 5], [0, 0, 1, 5]
    rate = metrics.win_rate(a, b, seed=0)
    assert rate.estimate == 0.625 and rate.low < 0.625 < rate.high
    assert metrics.win_rate(b, a, seed=0).estimate == 0.375


def test_resamples_without_a_value_are_left_out_and_too_many_raise():
    score, outcome = noise(40), np.r_[np.ones(4), np.zeros(36)]
    interval = metrics.bootstrap_interval(score, outcome, statistic=metrics.auc, seed=0)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    with pytest.raises(metrics.Undefined, match="5 items are too few"):
        metrics.bootstrap_interval(score[:5], [1, 0, 0, 0, 0], statistic=metrics.auc, seed=0)


# --- what a size can show ---------------------------------------------------------------------------------------


def test_detectable_effect_worked_by_hand():
    """100 differences with standard deviation 1: (1.95996 + 0.84162) * 1 / 10."""
    values = np.tile([1.0, -1.0], 50) * math.sqrt(99 / 100)
    assert metrics.detectable_effect(values) == pytest.approx(0.280158, abs=1e-6)


def test_detectable_effect_is_found_with_the_stated_power():
    effect = 2.801585 / math.sqrt(60)
    data = effect + noise(NORMALS, 60)
    found = [metrics.bootstrap_interval(row, seed=i, resamples=200) for i, row in enumerate(data)]
    held = np.mean([metrics.verdict(i, direction="higher") == "held" for i in found])
    assert 0.73 < held < 0.87


def test_detectable_effect_grows_with_the_spread_of_seeds():
    prompts = noise(1, 50)
    shift = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    calm, wild = prompts + 0.01 * shift, prompts + shift
    assert metrics.detectable_effect(calm) < 1.1 * metrics.detectable_effect(prompts[0])
    assert metrics.detectable_effect(wild) > 2 * metrics.detectable_effect(calm)


def test_detectable_effect_of_an_interval_agrees_with_that_of_its_values():
    values = noise(500)
    interval = metrics.bootstrap_interval(values, seed=0)
    assert metrics.detectable_from(interval) == pytest.approx(metrics.detectable_effect(values), rel=0.05)


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.1, 0.3, "higher", "held"),
        (0.1, 0.3, "lower", "not held"),
        (-0.3, -0.1, "higher", "not held"),
        (-0.3, -0.1, "lower", "held"),
        (-0.1, 0.3, "higher", "undecided"),
        (0.0, 0.3, "higher", "undecided"),
    ],
)
def test_verdict_is_undecided_exactly_when_the_interval_contains_zero(low, high, direction, expected):
    assert metrics.verdict(Interval((low + high) / 2, low, high), direction=direction) == expected


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.01, 0.3, "higher", "held"),
        (-0.01, 0.3, "higher", "undecided"),
        (-0.3, 0.01, "higher", "not held"),  # an effect that matters is excluded
        (-0.3, -0.1, "higher", "not held"),
        (-0.01, 0.015, "higher", "no difference"),
        (0.01, 0.015, "higher", "no difference"),  # there, and too small to matter
        (-0.3, 0.01, "lower", "undecided"),
        (-0.01, 0.3, "lower", "not held"),
        (-0.015, 0.3, "not lower", "held"),
        (-0.3, 0.3, "not lower", "undecided"),
        (-0.3, -0.025, "not lower", "not held"),
    ],
)
def test_verdict_with_an_effect_that_matters_of_two_hundredths(low, high, direction, expected):
    assert metrics.verdict(Interval((low + high) / 2, low, high), direction=direction, delta=0.02) == expected


def test_verdict_on_a_win_rate_is_against_one_half():
    assert metrics.verdict(Interval(0.6, 0.45, 0.75), direction="higher", null=0.5) == "undecided"
    assert metrics.verdict(Interval(0.6, 0.55, 0.65), direction="higher", null=0.5) == "held"


def test_verdict_wants_a_direction():
    with pytest.raises(ValueError, match="'up'"):
        metrics.verdict(Interval(0, 0, 0), direction="up")
    with pytest.raises(ValueError, match="by how much"):
        metrics.verdict(Interval(0, 0, 0), direction="not lower")
