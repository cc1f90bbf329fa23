"""How a judge of pairs is measured: a row for each pair, and what an arm's rows add up to (arXiv 2510.00263).

p [n] is the probability that the second text is better with the pair as it is, swapped [n] what the judge says with the
texts exchanged, share [n] the share of raters for the pair's own second text; all in [0, 1]. The paper's errors of
calibration are scoring/calibration's, each fed with another forecast.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from prefcore.lab import measures as tables
from prefcore.methods.autoraters.readout import expectation, greedy
from prefcore.scoring import effects
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
from prefcore.scoring.votes import VotedPair


def score_pairs(
    arm: str, pairs: Sequence[VotedPair], p: np.ndarray, *, mean: np.ndarray | None = None, no_answer=0.0, seed: int = 0
) -> pd.DataFrame:
    """A score row for each pair: p [2, n] as given and with the texts exchanged; no_answer: the chance of none.

    share: of held-out raters for the second text. Means over the two orders: error, squared; error_mean, that of the
    mean of what would be written (`mean` [2, n]; p where there is none); right, agreement with the majority (a tie, of
    raters or judge, half), and right_agreed, where the raters agree to a man (else empty); excess, confidence
    max(p, 1 - p) less the share of raters on that side. ratio_1, rating_1: the probability, both orders averaged, and
    the share, which lab/measures.py correlates.
    """
    share = np.array([1 - pair.share for pair in pairs])
    ways = p[0], 1 - p[1]  # both as the probability of the pair's own second text
    means = ways if mean is None else (mean[0], 1 - mean[1])
    right = sum(0.5 + classes(x) * classes(share) / 2 for x in ways) / 2
    excess = [np.abs(x - 0.5) - np.sign(np.round(x - 0.5, 12)) * (share - 0.5) for x in ways]
    return pd.DataFrame({
        "arm": arm, "seed": seed, "id": [f"pair-{i:04d}" for i in range(len(pairs))],
        "group": [pair.domain for pair in pairs], "stratum": [pair.stratum for pair in pairs], "share": share,
        "p": p[0], "swapped": p[1], "no_answer": no_answer, "error": _squared(ways, share),
        "error_mean": _squared(means, share), "right": right, "right_agreed": np.where(share % 1 == 0, right, np.nan),
        "excess": sum(excess) / 2, "bias": np.abs(p[0] + p[1] - 1),
        "consistent": (classes(ways[0]) == classes(ways[1])).astype(float),
        "ratio_1": (ways[0] + ways[1]) / 2, "rating_1": share,
    })  # fmt: skip


def _squared(ways: Sequence[np.ndarray], share: np.ndarray) -> np.ndarray:
    return sum((x - share) ** 2 for x in ways) / 2


def score_answers(arm: str, pairs: Sequence[VotedPair], chances: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """Score rows of what is written greedily, with the error of the mean; chances [2, n, 99]: readout.judge_pairs."""
    p, mean = (np.stack([way(c) for c in chances]) for way in (greedy, expectation))
    return score_pairs(arm, pairs, p, mean=mean, no_answer=1 - chances.sum(2).mean(0), seed=seed)


def measured(scores: pd.DataFrame) -> pd.DataFrame:
    """The long table of measures, rounded to 4 decimals: what verdicts rest on, and what is committed."""
    names = ["error", "error_mean", "bias", "excess", "right_agreed", "ratio_1", "rating_1"]
    return scores[["arm", "seed", "id", "group", *names]].round(4)


def intervals(table: pd.DataFrame, measure: str, arms: Sequence[str], *, seed: int) -> pd.DataFrame:
    """The mean of a measure for each arm, with its 95 % interval over seeds and pairs."""
    found = [effects.contrast(tables.parts_of(table, measure, {}, [arm]), {arm: 1}, seed=seed) for arm in arms]
    return pd.DataFrame([{"method": arm, **effect._asdict()} for arm, effect in zip(arms, found, strict=True)])


def guards(scores: pd.DataFrame, arms: Sequence[str], *, spread: float, no_answer: float) -> list[dict]:
    """Rows for decisions.decide: an arm that writes one constant, or no answer, has no verdict.

    The standard deviation over pairs of what is written (both orders averaged) is at least `spread`, the chance of no
    answer at most `no_answer`, each the mean over seeds.
    """
    rows = []
    for arm in arms:
        own = scores[scores["arm"] == arm]
        found = float(own.groupby("seed")["ratio_1"].std(ddof=0).mean()), float(own["no_answer"].mean())
        for name, value, low, high in (
            ("spread over pairs of what is written", found[0], spread, 1.0),
            ("chance of no answer", found[1], 0.0, no_answer),
        ):
            rows.append({"name": name, "kind": "guard", "arm": arm, "expected": f"{low:g} to {high:g}",
                         "estimate": value, "passed": bool(low <= value <= high)})  # fmt: skip
    return rows


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


def summarise(scores: pd.DataFrame, *, bins: int, band: float) -> dict[str, dict]:
    """Measures of every arm, by name: `report` over all seeds, and a few more.

    scores: one row a pair (score_pairs). spread: standard deviation over pairs of what is said; r: its correlation with
    the share (0 for a constant); overconfidence: mean confidence less share of raters on that side. objective_right:
    share right where the raters agree to a man; None where there is no such pair.
    """
    out = {}
    for arm, part in scores.groupby("arm", sort=False):
        found = report(part["p"], part["swapped"], part["share"], bins=bins, band=band)
        said, share = part["ratio_1"], part["share"]
        found |= {"mse_mean": float(part["error_mean"].mean()), "spread": float(said.std(ddof=0))}
        found["r"] = float(np.corrcoef(said, share)[0, 1]) if said.std() > 0 and share.std() > 0 else 0.0
        found |= {"no_answer": float(part["no_answer"].mean()), "overconfidence": float(part["excess"].mean())}
        sure = part["right_agreed"].dropna()
        out[arm] = found | {"objective_pairs": sure.size, "objective_right": float(sure.mean()) if len(sure) else None}
    return out
