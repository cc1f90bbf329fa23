"""How a judge of pairs is measured: a row for each pair, and what an arm's rows add up to (arXiv 2510.00263).

p [n] is the probability that the second text is better with the pair as it is, swapped [n] what the judge says with the
texts exchanged, share [n] the share of raters for the pair's own second text; all in [0, 1]. The paper's errors of
calibration are scoring/calibration's, each fed with another forecast.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from prefcore.scoring.calibration import (
    EXACT,
    against_majority,
    as_confidence,
    brier,
    brier_of_single_votes,
    check_probabilities,
    classes,
    expected_calibration_error,
)
from prefcore.scoring.metrics import bootstrap_interval
from prefcore.scoring.votes import VotedPair


def score_pairs(arm: str, pairs: Sequence[VotedPair], p: np.ndarray, no_answer=0.0, seed: int = 0) -> pd.DataFrame:
    """A score row for each pair: p [2, n] as given and with the texts exchanged; no_answer: the chance of none.

    share: of held-out raters for the second text. Means over the two orders: error, squared; right, agreement with the
    majority (a tie, of raters or judge, half); excess, confidence max(p, 1 - p) less the share of raters on that side.
    """
    share = np.array([1 - pair.share for pair in pairs])
    ways = p[0], 1 - p[1]  # both as the probability of the pair's own second text
    right = [0.5 + classes(x) * classes(share) / 2 for x in ways]
    excess = [np.abs(x - 0.5) - np.sign(np.round(x - 0.5, 12)) * (share - 0.5) for x in ways]
    return pd.DataFrame({
        "arm": arm, "seed": seed, "id": [f"{i}:{pair.id}" for i, pair in enumerate(pairs)],
        "domain": [pair.domain for pair in pairs], "stratum": [pair.stratum for pair in pairs], "share": share,
        "p": p[0], "swapped": p[1], "no_answer": no_answer, "error": sum((x - share) ** 2 for x in ways) / 2,
        "right": sum(right) / 2, "excess": sum(excess) / 2, "bias": np.abs(p[0] + p[1] - 1),
        "consistent": (classes(ways[0]) == classes(ways[1])).astype(float),
    })  # fmt: skip


def agreement(p: ArrayLike, share: ArrayLike, *, band: float = EXACT) -> float:
    """Share of items where judge and majority of the raters are of one class of three; `band` is the judge's."""
    p, share = check_probabilities(p=p, share=share)
    return float(np.mean(classes(p, band=band) == classes(share)))


def macro_f1(p: ArrayLike, share: ArrayLike, *, band: float = EXACT) -> float:
    """Mean F1 over those of the three classes that judge or raters name (one that neither names is left out)."""
    p, share = check_probabilities(p=p, share=share)
    predicted, actual = classes(p, band=band), classes(share)
    scores = []
    for kind in (-1, 0, 1):
        hits = np.sum((predicted == kind) & (actual == kind))
        if named := np.sum(predicted == kind) + np.sum(actual == kind):
            scores.append(2 * hits / named)
    return float(np.mean(scores))


def consistency(p: ArrayLike, swapped: ArrayLike, *, band: float = EXACT) -> float:
    """Share of items with the same verdict in both orders; `swapped` [n]: the texts exchanged."""
    p, swapped = check_probabilities(p=p, swapped=swapped)
    return float(np.mean(classes(p, band=band) == -classes(swapped, band=band)))


def position_shift(p: ArrayLike, swapped: ArrayLike) -> np.ndarray:
    """p + swapped - 1 [n], in [-1, 1]: above 0 the judge favours whatever stands second. 0 for a consistent judge."""
    p, swapped = check_probabilities(p=p, swapped=swapped)
    return p + swapped - 1


def position_bias(p: ArrayLike, swapped: ArrayLike) -> float:
    """Mean absolute position shift, in [0, 1]."""
    return float(np.mean(np.abs(position_shift(p, swapped))))


def both_orders(p: ArrayLike, swapped: ArrayLike, share: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(probability, share) [2n] for the second text shown, each order an item of its own."""
    return np.concatenate([p, swapped]), np.concatenate([share, 1 - np.asarray(share)])


def report(p: ArrayLike, swapped: ArrayLike, share: ArrayLike, *, bins: int, band: float) -> dict[str, float]:
    """All measures by name. Each order is an item of its own, except for what compares the two.

    mse, brier_soft and ece_soft compare with single raters and are proper; the paper's brier, ece_p (of the
    probability) and ece_conf (of the confidence) with their majority, and are left out where all items are tied.
    """
    both, shares = both_orders(p, swapped, share)
    out = {"mse": brier(both, shares), "brier_soft": brier_of_single_votes(both, shares)}
    out["ece_soft"] = expected_calibration_error(both, shares, bins=bins)
    if np.any(classes(shares) != 0):
        decided = against_majority(both, shares)
        out["brier"] = brier(*decided)
        out["ece_p"] = expected_calibration_error(*decided, bins=bins)
        out["ece_conf"] = expected_calibration_error(*as_confidence(*decided), bins=bins)
    out |= {"agreement": agreement(both, shares), "macro_f1": macro_f1(both, shares)}
    out |= {"agreement_band": agreement(both, shares, band=band), "macro_f1_band": macro_f1(both, shares, band=band)}
    out |= {"consistency": consistency(p, swapped), "position_bias": position_bias(p, swapped)}
    return out | {"second_place_bias": float(np.mean(position_shift(p, swapped)))}


def summarise(scores: pd.DataFrame, *, bins: int, band: float, seed: int) -> dict[str, dict]:
    """Measures of every arm, by name: `report`, 95 % intervals over pairs of what is a mean of pairs, and two more.

    scores: one row a pair (score_pairs). overconfidence: mean confidence less share of raters on that side.
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
