"""Numbers about results: arrays in, a float, an interval or a verdict out. Pure; whatever draws takes a seed.

What a probability is worth is calibration.py's matter.

An interval is at the 0.95 level unless `level` says otherwise. "Paired" arrays agree item by item: index i is the same
prompt in each. Per-prompt values of several runs come as [S, P]: S seeds (rows) by P prompts (columns).
Any NaN or infinity in the input raises ValueError with the count.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit  # of all of scipy.stats, which takes a second to import, this is what is needed


class Interval(NamedTuple):
    """An estimate with its lower and upper bound, in the unit of the values it was computed from."""

    estimate: float
    low: float
    high: float


class Undefined(ValueError):
    """The statistic has no value on this sample (one class only, or constant values)."""


def accuracy(prediction: ArrayLike, outcome: ArrayLike, *, threshold: float = 0.5) -> float:
    """Share of items [n] whose prediction is on the right side of the threshold; exactly on it counts half.

    `outcome` is 0 or 1. For reward margins of pairs (chosen - rejected) pass outcome 1 and threshold 0.
    """
    prediction, outcome = check_paired(prediction, outcome)
    _within(outcome, (0, 1), "outcome")
    side = np.sign(prediction - threshold)
    return float(np.mean(0.5 + 0.5 * side * np.where(outcome == 1, 1, -1)))


def auc(score: ArrayLike, outcome: ArrayLike) -> float:
    """P(a random positive scores above a random negative), ties half: Mann-Whitney's U over n1 x n0. Both [n].

    Raises Undefined when `outcome` has one class only.
    """
    score, outcome = check_paired(score, outcome)
    _within(outcome, (0, 1), "outcome")
    positives = int(outcome.sum())
    negatives = outcome.size - positives
    if not positives or not negatives:
        raise Undefined(f"AUC needs both classes; got {positives} positives and {negatives} negatives")
    rank_sum = ranks(score)[outcome == 1].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Linear correlation of two paired arrays [n], in [-1, 1]. Raises Undefined where one of them is constant."""
    x, y = check_paired(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise Undefined(f"correlation is undefined: one of the arrays ({x.size} values each) is constant")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson correlation of the ranks of two paired arrays [n]; ties share their mean rank."""
    x, y = check_paired(x, y)
    return pearson(ranks(x), ranks(y))


def ranks(values: ArrayLike) -> np.ndarray:
    """Places [n] of values [n] in ascending order, from 1; ties share their mean place."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of the texts, words split at white space; in [0, 1], higher is more varied.

    0 if every text is shorter than n words. Li et al. 2016, arXiv:1510.03055. Falls with the amount of text, so compare
    equal numbers of texts.
    """
    if n < 1 or not len(texts):
        raise ValueError(f"distinct_n needs n >= 1 and at least one text; got n = {n} and {len(texts)} texts")
    words = [text.split() for text in texts]
    grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def bootstrap_interval(
    *arrays: ArrayLike,
    statistic: Callable[..., float] = np.mean,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of statistic(*arrays) over items: paired arrays [n] are resampled together, `resamples` times.

    Percentile bootstrap, widened for small n to what Student's t gives for a mean (Hesterberg 2015, arXiv:1411.5279,
    "expanded percentile"). Resamples on which the statistic is Undefined are left out; more than one in ten raises.
    """
    arrays = check_paired(*arrays)
    n = arrays[0].size
    if n < 2:
        raise ValueError(f"an interval needs at least two values; got {n}")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        picked = rng.integers(n, size=n)
        try:
            draws.append(statistic(*(a[picked] for a in arrays)))
        except Undefined:
            continue
    if len(draws) < 0.9 * resamples:
        raise Undefined(f"{n} items are too few: undefined on {resamples - len(draws)} of {resamples} resamples")
    tail = NormalDist().cdf(float(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def bootstrap_seeds(values: ArrayLike, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Interval of the mean of values [S, P], with chance in both the seeds and the prompts; one row is prompts alone.

    Rows and columns are resampled independently (Owen 2007, Annals of Applied Statistics 1, the pigeonhole
    bootstrap), one fewer than there are, so that the variance of each is unbiased (Rao and Wu 1988, JASA 83). Still too
    narrow for fewer than about five seeds, whose spread nobody can know well.
    """
    values = _finite(np.asarray(values, float), "values")
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"values must be [seeds, prompts] with at least two prompts; got shape {values.shape}")
    rng = np.random.default_rng(seed)
    row_weight, column_weight = (resample_weights(rng, size, resamples) for size in values.shape)
    draws = np.sum((row_weight @ values) * column_weight, axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, seed: int, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of a - b with its interval; [P] over prompts, [S, P] over seeds and prompts."""
    a, b = check_paired(a, b)
    return _mean_interval(a - b, seed=seed, resamples=resamples, level=level)


def win_rate(a: ArrayLike, b: ArrayLike, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Share of prompts where a scores above b, ties half, with its interval; [P] or [S, P]. Equal policies give 0.5."""
    a, b = check_paired(a, b)
    return _mean_interval(0.5 + 0.5 * np.sign(a - b), seed=seed, resamples=resamples, level=level)


def detectable_effect(differences: ArrayLike, *, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true mean difference that data of this size and spread would show with probability `power`.

    "Show" means that a two-sided interval at `level` excludes 0. Normal approximation: (z_level + z_power) x standard
    error. differences: [P], or [S, P], where the squared error is the sum of the rows' and the columns' share.
    """
    differences = _finite(np.atleast_2d(np.asarray(differences, float)), "differences")
    if differences.shape[-1] < 2:
        raise ValueError(f"the spread of {differences.shape[-1]} differences is unknown; at least two are needed")
    means = [differences.mean(axis=1 - axis) for axis in (0, 1) if differences.shape[axis] > 1]
    error = np.sqrt(sum(m.var(ddof=1) / m.size for m in means))
    return float(error * (_z((1 + level) / 2) + _z(power)))


def detectable_from(interval: Interval, *, level: float = 0.95, power: float = 0.8) -> float:
    """As detectable_effect, for a statistic of which only the interval is at hand, such as a correlation."""
    z_level = _z((1 + level) / 2)
    return float((interval.high - interval.low) / 2 * (z_level + _z(power)) / z_level)


def verdict(interval: Interval, *, direction: str, null: float = 0.0, delta: float = 0.0) -> str:
    """What an interval says of a claim: "held", "not held", "no difference" or "undecided".

    direction: the effect is "higher" or "lower" than `null` (0; for a win rate 0.5), or "not lower" than `null` - delta
    (non-inferiority). delta: the smallest effect that matters. "higher" is held where the interval lies above `null`,
    there is no difference where all of it lies within delta of `null`, and the claim is not held where an effect of
    delta is excluded. An interval's ends belong to it.
    """
    if direction not in ("higher", "lower", "not lower"):
        raise ValueError(f'direction is {direction!r}; say "higher", "lower" or "not lower"')
    if direction == "not lower" and delta <= 0:
        raise ValueError('"not lower" needs a delta above 0: by how much may it be lower?')
    _finite(np.asarray(interval[:3], float), "interval")
    low, high = interval[1] - null, interval[2] - null
    if direction == "lower":
        low, high = -high, -low
    if direction == "not lower":
        return "held" if low > -delta else "not held" if high < -delta else "undecided"
    if -delta < low and high < delta:
        return "no difference"
    return "held" if low > 0 else "not held" if high < delta else "undecided"


def check_paired(*arrays: ArrayLike) -> list[np.ndarray]:
    """The arrays as floats, if they are finite, of one shape and not empty; else a ValueError."""
    checked = [_finite(np.asarray(a, float), f"argument {i}") for i, a in enumerate(arrays, 1)]
    shapes = [a.shape for a in checked]
    if len(set(shapes)) != 1 or not checked[0].size:
        raise ValueError(f"the arrays must be paired, of one shape and not empty; got shapes {shapes}")
    return checked


def _mean_interval(values: np.ndarray, **how) -> Interval:
    return bootstrap_seeds(values, **how) if values.ndim == 2 else bootstrap_interval(values, **how)


def resample_weights(rng: np.random.Generator, size: int, resamples: int) -> np.ndarray:
    """Shares [resamples, size] with which size - 1 draws (one, if there is one) fall on each of `size` items."""
    drawn = max(size - 1, 1)
    return rng.multinomial(drawn, np.full(size, 1 / size), size=resamples) / drawn


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(f"{name}: {bad} of {values.size} values are NaN or infinite")
    return values


def _within(values: np.ndarray, allowed: tuple, name: str) -> None:
    bad = int(np.count_nonzero(~np.isin(values, allowed)))
    if bad:
        raise ValueError(f"{name}: {bad} of {values.size} values are none of {allowed}")
