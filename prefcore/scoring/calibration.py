"""Is a probability what it says? The measures of "Judging with Confidence" (arXiv 2510.00263), and the proper ones.

Throughout p [n] is the probability that the second text is better and share [n] the share of raters who say so, both in
[0, 1]; for a judge of the first text pass 1 - p and 1 - share. Arrays in, a float out.
The paper's ECE and Brier take the majority of the raters as the truth and leave ties out: a judge who reports the share
exactly does not minimise them (0 or 1 would). brier_soft and ece_soft compare with single raters and are proper.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from prefcore.scoring.metrics import Reliability, Undefined, _paired, bootstrap_interval, brier

EXACT = 1e-9  # |p - 0.5| up to this is a tie


def mse(p: ArrayLike, share: ArrayLike) -> float:
    """Mean squared distance of the probability from the share of raters, in [0, 1]."""
    return brier(p, share)


def brier_soft(p: ArrayLike, share: ArrayLike) -> float:
    """Mean squared distance from a fresh single vote, in [0, 1]: mse + mean share x (1 - share), which nobody can beat.

    A rater who is tied counts as half a vote for each side.
    """
    p, share = _shares(p, share)
    return float(np.mean(share * (1 - p) ** 2 + (1 - share) * p**2))


def brier_majority(p: ArrayLike, share: ArrayLike) -> float:
    """Mean squared distance from the raters' majority (0 or 1), ties left out."""
    return brier(*_majority(p, share))


def ece_p(p: ArrayLike, share: ArrayLike, *, bins: int) -> float:
    """Mean over items of |mean p - share of items that the second text wins| of the item's bin; ties left out."""
    return _gap(*_majority(p, share), bins)


def ece_conf(p: ArrayLike, share: ArrayLike, *, bins: int) -> float:
    """As ece_p for the confidence max(p, 1 - p) against how often the judge agrees with the majority.

    At p = 0.5 exactly the judge names neither text and is half right.
    """
    p, outcome = _majority(p, share)
    right = 0.5 + 0.5 * classes(p) * (2 * outcome - 1)
    return _gap(np.maximum(p, 1 - p), right, bins)


def ece_soft(p: ArrayLike, share: ArrayLike, *, bins: int) -> float:
    """As ece_p against fresh single votes instead of the majority; no item is left out."""
    return _gap(*_shares(p, share), bins)


def curve(p: ArrayLike, share: ArrayLike, *, bins: int) -> Reliability:
    """What was said against the share of raters, in `bins` bins (low, high] of [0, 1]; empty ones are left out."""
    p, share = _shares(p, share)
    if bins < 1:
        raise ValueError(f"bins is {bins}; at least one bin is needed")
    place = bin_of(p, bins)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    sums = [np.bincount(place, weights=values, minlength=bins)[used] / count[used] for values in (p, share)]
    return Reliability(*sums, count[used])


def bin_of(p: ArrayLike, bins: int) -> np.ndarray:
    """The bin (low, high] of each probability, counted from 0; p = 0, which lies in none, goes to the first."""
    return np.searchsorted(np.arange(1, bins) / bins, np.round(np.asarray(p, float), 12), side="left")


def classes(p: ArrayLike, *, band: float = EXACT) -> np.ndarray:
    """-1 the first text, 1 the second, 0 a tie: |p - 0.5| at most `band`."""
    away = np.round(np.asarray(p, float) - 0.5, 12)
    return np.where(np.abs(away) <= band, 0, np.sign(away)).astype(int)


def agreement(p: ArrayLike, share: ArrayLike, *, band: float = EXACT) -> float:
    """Share of items where judge and majority of the raters are of one class of three; `band` is the judge's."""
    p, share = _shares(p, share)
    return float(np.mean(classes(p, band=band) == classes(share)))


def macro_f1(p: ArrayLike, share: ArrayLike, *, band: float = EXACT) -> float:
    """Mean F1 over those of the three classes that judge or raters name (one that neither names is left out)."""
    p, share = _shares(p, share)
    said, true = classes(p, band=band), classes(share)
    scores = []
    for kind in (-1, 0, 1):
        hits, both = np.sum((said == kind) & (true == kind)), np.sum(said == kind) + np.sum(true == kind)
        if both:
            scores.append(2 * hits / both)
    return float(np.mean(scores))


def consistency(p: ArrayLike, swapped: ArrayLike, *, band: float = EXACT) -> float:
    """Share of items with the same verdict in both orders; `swapped` [n] is what was said with the texts exchanged."""
    p, swapped = _shares(p, swapped)
    return float(np.mean(classes(p, band=band) == -classes(swapped, band=band)))


def position_shift(p: ArrayLike, swapped: ArrayLike) -> np.ndarray:
    """p + swapped - 1 [n], in [-1, 1]: above 0 the judge favours whatever stands second. 0 for a consistent judge."""
    p, swapped = _shares(p, swapped)
    return p + swapped - 1


def position_bias(p: ArrayLike, swapped: ArrayLike) -> float:
    """Mean absolute position shift, in [0, 1]."""
    return float(np.mean(np.abs(position_shift(p, swapped))))


def report(p: ArrayLike, swapped: ArrayLike, share: ArrayLike, *, bins: int, band: float) -> dict[str, float]:
    """All measures by name. Each order is an item of its own, except for what compares the two.

    The measures that need a majority are left out where all items are tied.
    """
    both, shares = np.concatenate([p, swapped]), np.concatenate([share, 1 - np.asarray(share)])
    out = {"mse": mse(both, shares), "brier_soft": brier_soft(both, shares)}
    out["ece_soft"] = ece_soft(both, shares, bins=bins)
    if np.any(classes(shares) != 0):
        out["brier"] = brier_majority(both, shares)
        out |= {"ece_p": ece_p(both, shares, bins=bins), "ece_conf": ece_conf(both, shares, bins=bins)}
    out |= {"agreement": agreement(both, shares), "macro_f1": macro_f1(both, shares)}
    out |= {"agreement_band": agreement(both, shares, band=band), "macro_f1_band": macro_f1(both, shares, band=band)}
    out |= {"consistency": consistency(p, swapped), "position_bias": position_bias(p, swapped)}
    return out | {"second_place_bias": float(np.mean(position_shift(p, swapped)))}


def summarise(scores: pd.DataFrame, *, bins: int, band: float, seed: int) -> dict[str, dict]:
    """Measures of every arm, by name: `report`, 95 % intervals over pairs of what is a mean of pairs, and two more.

    scores: one row a pair (confidence.score_rows). overconfidence: mean confidence less share of raters on that side.
    objective_right: share right where the raters agree to a man; None where there is no such pair.
    """
    out = {}
    for arm, part in scores.groupby("arm", sort=False):
        found = report(part["p"], part["swapped"], part["share"], bins=bins, band=band)
        found |= {"no_answer": float(part["no_answer"].mean()), "overconfidence": float(part["excess"].mean())}
        for name in ("error", "right", "consistent", "bias", "excess"):
            found[f"{name}_interval"] = bootstrap_interval(part[name], seed=seed, resamples=500)
        sure = part[part["share"].isin((0.0, 1.0))]
        found |= {"objective_pairs": len(sure), "objective_right": float(sure["right"].mean()) if len(sure) else None}
        out[arm] = found
    return out


def temperature(p: np.ndarray, share: np.ndarray) -> float:
    """The T at which sigmoid(logit p / T) has the least cross-entropy with share, both [n] (arXiv 1706.04599)."""
    p, share = _open(p), np.asarray(share)

    def cost(log_t):
        z = np.log(p / (1 - p)) / np.exp(log_t)
        return float(np.mean(share * np.logaddexp(0, -z) + (1 - share) * np.logaddexp(0, z)))

    return float(np.exp(minimize_scalar(cost, bounds=(-4, 4), method="bounded").x))


def cool(p: np.ndarray, t: float) -> np.ndarray:
    """sigmoid(logit p / t)."""
    odds = (_open(p) / (1 - _open(p))) ** (1 / t)
    return odds / (1 + odds)


def divide_out(p: np.ndarray, prior: float) -> np.ndarray:
    """Contextual calibration (arXiv 2102.09690): p over the p of a pair without content, renormalised.

    With the mean of the judged set as prior it is batch calibration (arXiv 2309.17249), which sees all test pairs.
    """
    yes, no = np.asarray(p) / prior, (1 - np.asarray(p)) / (1 - prior)
    return yes / (yes + no)


def _gap(p: np.ndarray, outcome: np.ndarray, bins: int) -> float:
    predicted, observed, count = curve(p, outcome, bins=bins)
    return float(np.sum(count * np.abs(predicted - observed)) / count.sum())


def _majority(p: ArrayLike, share: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(p, 0 or 1) of the items that have a majority."""
    p, share = _shares(p, share)
    kind = classes(share)
    if not kind.any():
        raise Undefined(f"all {len(kind)} items are tied between the raters: no majority to compare with")
    return p[kind != 0], (kind[kind != 0] + 1) / 2


def _shares(*arrays: ArrayLike) -> list[np.ndarray]:
    checked = _paired(*arrays)
    for i, values in enumerate(checked, 1):
        outside = int(np.count_nonzero((values < 0) | (values > 1)))
        if outside:
            raise ValueError(f"argument {i}: {outside} of {values.size} probabilities are outside [0, 1]")
    return checked


def _open(p) -> np.ndarray:
    return np.clip(np.asarray(p, float), 1e-6, 1 - 1e-6)
