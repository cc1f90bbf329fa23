"""Is a probability what it says? One reliability curve, one expected calibration error, and Brier's score.

A forecast is a probability [n] and its outcome [n], both in [0, 1]: an outcome is 0 or 1, or a share of votes. What
papers call by different names differs in the forecast alone, so that is what changes here: `against_majority` (the
raters' majority instead of their share), `as_confidence` (of the likelier side instead of the second), `both_sides`.
Against the share both measures are proper; against a majority a judge who reports the share exactly does not get the
best of them (0 or 1 would). Arrays in, a float out.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from prefcore.scoring.metrics import Undefined, check_paired

EXACT = 1e-9  # |probability - 0.5| up to this is a tie


class Reliability(NamedTuple):
    """Per non-empty bin: mean predicted probability, share of outcomes that happened, number of items."""

    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray


def bin_of(probability: ArrayLike, bins: int) -> np.ndarray:
    """The bin (low, high] of each probability among `bins` of equal width in [0, 1], counted from 0.

    What lies on an edge (to 12 digits) belongs to the lower bin, so 0, which lies in none, goes to the first.
    """
    return np.searchsorted(np.arange(1, bins) / bins, np.round(np.asarray(probability, float), 12), side="left")


def reliability_curve(probability: ArrayLike, outcome: ArrayLike, *, bins: int) -> Reliability:
    """What was predicted against what happened, in the bins of `bin_of`; empty bins are left out."""
    probability, outcome = check_probabilities(probability=probability, outcome=outcome)
    if bins < 1:
        raise ValueError(f"bins is {bins}; at least one bin is needed")
    place = bin_of(probability, bins)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    means = [np.bincount(place, weights=x, minlength=bins)[used] / count[used] for x in (probability, outcome)]
    return Reliability(*means, count[used])


def expected_calibration_error(probability: ArrayLike, outcome: ArrayLike, *, bins: int) -> float:
    """Mean over items of |predicted - observed| of the item's bin, in [0, 1] (Naeini et al. 2015; arXiv 1706.04599, 3).

    Departs from the papers: takes the probability that the outcome is 1; for that of the likelier side feed it
    `as_confidence`.
    """
    predicted, observed, count = reliability_curve(probability, outcome, bins=bins)
    return float(np.sum(count * np.abs(predicted - observed)) / count.sum())


def brier(probability: ArrayLike, outcome: ArrayLike) -> float:
    """Mean squared distance of the probability from the outcome, in [0, 1] (Brier 1950).

    A constant one half gets 0.25 from outcomes of 0 and 1.
    """
    probability, outcome = check_probabilities(probability=probability, outcome=outcome)
    return float(np.mean((probability - outcome) ** 2))


def brier_of_single_votes(probability: ArrayLike, share: ArrayLike) -> float:
    """Mean squared distance from a fresh single vote: `brier` + mean share x (1 - share), which nobody can beat.

    A rater who is tied counts as half a vote for each side.
    """
    probability, share = check_probabilities(probability=probability, share=share)
    return float(np.mean(share * (1 - probability) ** 2 + (1 - share) * probability**2))


# --- forecasts: what a measure is fed with ------------------------------------------------------------------------


def against_majority(probability: ArrayLike, share: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(probability, 0 or 1) of the items that have a majority; Undefined where all are tied."""
    probability, share = check_probabilities(probability=probability, share=share)
    side = classes(share)
    if not side.any():
        raise Undefined(f"all {len(side)} items are tied between the raters: no majority to compare with")
    return probability[side != 0], (side[side != 0] + 1) / 2


def as_confidence(probability: ArrayLike, outcome: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(probability of the likelier side, how far it is what happened): for outcomes 0 and 1, whether it was right.

    At a probability of 0.5 exactly neither side is named, and half of it is right.
    """
    probability, outcome = check_probabilities(probability=probability, outcome=outcome)
    return np.maximum(probability, 1 - probability), 0.5 + 0.5 * classes(probability) * (2 * outcome - 1)


def both_sides(probability: ArrayLike, outcome: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """[2n] each: the items and their mirrors, so that it does not matter which of two texts is called the first."""
    probability, outcome = check_probabilities(probability=probability, outcome=outcome)
    return np.concatenate([probability, 1 - probability]), np.concatenate([outcome, 1 - outcome])


def classes(probability: ArrayLike, *, band: float = EXACT) -> np.ndarray:
    """-1 below one half, 1 above, 0 a tie: |probability - 0.5| at most `band`."""
    away = np.round(np.asarray(probability, float) - 0.5, 12)
    return np.where(np.abs(away) <= band, 0, np.sign(away)).astype(int)


# --- mending a probability afterwards -----------------------------------------------------------------------------


def fit_temperature(probability: np.ndarray, share: np.ndarray) -> float:
    """The T at which sigmoid(logit p / T) has the least cross-entropy with the share, both [n] (arXiv 1706.04599)."""
    p, share = _inside(probability), np.asarray(share)

    def cost(log_t):
        z = np.log(p / (1 - p)) / np.exp(log_t)
        return float(np.mean(share * np.logaddexp(0, -z) + (1 - share) * np.logaddexp(0, z)))

    return float(np.exp(minimize_scalar(cost, bounds=(-4, 4), method="bounded").x))


def apply_temperature(probability: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit p / temperature)."""
    odds = (_inside(probability) / (1 - _inside(probability))) ** (1 / temperature)
    return odds / (1 + odds)


def divide_by_prior(probability: np.ndarray, prior: float) -> np.ndarray:
    """Contextual calibration (arXiv 2102.09690): p over the p of a pair without content, renormalised.

    With the mean of the judged set as prior it is batch calibration (arXiv 2309.17249), which sees all test pairs.
    """
    yes, no = np.asarray(probability) / prior, (1 - np.asarray(probability)) / (1 - prior)
    return yes / (yes + no)


def check_probabilities(**arrays: ArrayLike) -> list[np.ndarray]:
    """The arrays as floats, if they are paired and in [0, 1]; else a ValueError with name and count."""
    checked = check_paired(*arrays.values())
    for name, values in zip(arrays, checked, strict=True):
        outside = int(np.count_nonzero((values < 0) | (values > 1)))
        if outside:
            raise ValueError(f"{name}: {outside} of {values.size} values are outside [0, 1]")
    return checked


def _inside(probability) -> np.ndarray:
    return np.clip(np.asarray(probability, float), 1e-6, 1 - 1e-6)
