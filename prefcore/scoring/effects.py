"""What an arm is worth, and what one is worth more than another, where two things vary: training seeds and units.

A unit is what was measured (a prompt, a text). A measure of an arm is a function of sums over units, so that a resample
is a product of matrices: `parts` [P, S, n] are what is summed, for each of S seeds and n units. A seed draws the
training data too, so seeds are paired between arms, as units are. Pigeonhole bootstrap as metrics.bootstrap_seeds.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prefcore.scoring import metrics


class Effect(NamedTuple):
    """An estimate with its 95 % interval, and the two-sided p-value of the same resamples (no effect: 0)."""

    estimate: float
    low: float
    high: float
    p: float


def mean_parts(values: np.ndarray) -> np.ndarray:
    """Parts [1, S, n] of a mean over units, from values [S, n]."""
    return np.asarray(values, float)[None]


def correlation_parts(ratios: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Parts [3, S, n] of rho, the pooled correlation within prompts, from log-ratios [S, n, K] and ratings [n, K].

    Of each prompt the sums over its answers of x y, x^2 and y^2, both less their prompt's mean. With one answer a
    prompt (K = 1) the mean is that of all prompts.
    """
    ratios, ratings = np.asarray(ratios, float), np.asarray(ratings, float)
    if ratios.shape[1:] != ratings.shape:
        raise ValueError(f"log-ratios {ratios.shape} must be [seeds, *ratings], and the ratings are {ratings.shape}")
    single = ratings.shape[1] == 1
    x = ratios - ratios.mean(1 if single else 2, keepdims=True)
    y = ratings - ratings.mean(0 if single else 1, keepdims=True)
    y = np.broadcast_to(y, x.shape)
    return np.stack([(x * y).sum(2), (x * x).sum(2), (y * y).sum(2)])


def beyond(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What a straight line through `given` [n, K, C] leaves of values [..., n, K], pooled within prompts.

    With both log-ratios and ratings so reduced, the correlation within prompts is the partial one. With one answer a
    prompt (K = 1) the mean is that of all prompts.
    """
    values, given = np.asarray(values, float), np.asarray(given, float)
    single = given.shape[1] == 1
    y = values - values.mean(-2 if single else -1, keepdims=True)
    x = (given - given.mean(0 if single else 1, keepdims=True)).reshape(-1, given.shape[2])
    flat = y.reshape(*y.shape[:-2], -1)
    slopes, *_ = np.linalg.lstsq(x, flat.reshape(-1, flat.shape[-1]).T, rcond=None)
    return y - (x @ slopes).T.reshape(y.shape)


def order_parts(ratios: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Parts [1, S, n] of the share of a prompt's answer pairs that log-ratios [S, n, K] order as ratings [n, K] do.

    A tie of either counts half. With one answer a prompt there are no pairs, and the share is one half.
    """
    i, j = np.triu_indices(ratings.shape[1], 1)
    if not len(i):
        return np.full((1, *np.shape(ratios)[:2]), 0.5)
    agree = np.sign(ratios[..., i] - ratios[..., j]) * np.sign(ratings[:, i] - ratings[:, j])
    return (0.5 + 0.5 * agree).mean(2)[None]


def measure(sums: np.ndarray) -> np.ndarray:
    """The measure [...] from weighted means of its parts [P, ...]: a mean, or a correlation from three of them.

    0 for a policy that has not moved at all: it tells no answer from another.
    """
    if len(sums) == 1:
        return sums[0]
    along, spread, other = sums
    return along / np.sqrt(np.where(spread > 0, spread, 1.0) * np.where(other > 0, other, 1.0))


def contrast(
    parts: Mapping[str, np.ndarray], weights: Mapping[str, float], *, seed: int, resamples: int = 4000
) -> Effect:
    """Sum of weight x measure over the arms named in `weights`; parts [P, S, n] by arm, of the same seeds and units.

    {"odpo": 1, "dpo": -1} is a difference, {"odpo": 1} an arm by itself, four arms a difference of differences.
    """
    missing = sorted(set(weights) - set(parts))
    shapes = {arm: parts[arm].shape[1:] for arm in weights if arm in parts}
    if missing or len(set(shapes.values())) != 1:
        raise ValueError(f"a contrast needs its arms on the same seeds and units; missing {missing}, shapes {shapes}")
    rows, units = next(iter(shapes.values()))
    rng = np.random.default_rng(seed)
    row_weight, unit_weight = (metrics.resample_weights(rng, size, resamples) for size in (rows, units))
    estimate, draws = 0.0, np.zeros(resamples)
    for arm, weight in weights.items():
        estimate += weight * float(measure(parts[arm].mean(2)).mean())
        by_seed = measure(np.stack([unit_weight @ part.T for part in parts[arm]]))  # [resamples, S]
        draws += weight * (row_weight * by_seed).sum(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    tail = min(np.mean(draws <= 0), np.mean(draws >= 0)) + 1 / resamples
    return Effect(estimate, float(low), float(high), float(min(1.0, 2 * tail)))


def spread_over_seeds(parts: np.ndarray) -> float:
    """Standard deviation of the measure over training seeds, parts [P, S, n], the noise of the units included."""
    return float(measure(parts.mean(2)).std(ddof=1))


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): as they come, each at least as large as before."""
    order, adjusted, highest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted
