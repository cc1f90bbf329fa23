"""Reward models held against the votes of people whom they have not seen: P(a) of every run beside the share.

An arm has a run for each fold (the quarter of the domains that is left out) and seed.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.methods.margin_rm.labels import vote_share
from prefcore.scoring import calibration, metrics
from prefcore.scoring.votes import STRATA, VotedPair

BINS = 10  # of the expected calibration error


def score_pairs(
    pairs: Sequence[VotedPair], probability, quarter: Mapping[str, int], *, arm: str, fold: int, seed: int
) -> pd.DataFrame:
    """A row for each pair of what one run says of it: P(a is preferred), [n], beside the share of people who do.

    quarter: that of each pair's domain (labels.quarters); held_out where it is the one that the run left out, `fold`.
    """
    return pd.DataFrame({
        "arm": arm, "fold": fold, "seed": seed, "id": [pair.id for pair in pairs],
        "domain": [pair.domain for pair in pairs], "stratum": [pair.stratum for pair in pairs],
        "held_out": [quarter[pair.id] == fold for pair in pairs], "share": [pair.share for pair in pairs],
        "probability": probability,
    })  # fmt: skip


def score_raters(pairs: Sequence[VotedPair], quarter: Mapping[str, int], folds: Sequence[int]) -> list[pd.DataFrame]:
    """What the training half of the raters says, as rows of an arm "raters"; none where nobody else has voted."""
    if not pairs[0].truth:
        return []
    shares = [vote_share(pair.votes) for pair in pairs]
    return [score_pairs(pairs, shares, quarter, arm="raters", fold=fold, seed=0) for fold in folds]


def regions(scores: pd.DataFrame) -> list[str]:
    """Which pairs arms are compared on: all, each stratum that there is, and those of the domains left out."""
    return ["all", *(name for name in STRATA if name in set(scores["stratum"])), "out of domain"]


def correlation(probability: np.ndarray, share: np.ndarray) -> float:
    """Pearson's r of P(a is preferred) with the share of people who prefer a."""
    return metrics.pearson(probability, share)


def accuracy(probability: np.ndarray, share: np.ndarray) -> float:
    """Share of pairs where the model sides with the majority, of those that have one."""
    return metrics.accuracy(*calibration.against_majority(probability, share))


def ece(probability: np.ndarray, share: np.ndarray) -> float:
    """Expected calibration error against the share, in probability; 10 bins, each pair seen from both sides."""
    return calibration.expected_calibration_error(*calibration.both_sides(probability, share), bins=BINS)


def compare(
    first: np.ndarray, second: np.ndarray | None, share: np.ndarray, statistic: Callable, *, seed: int, draws: int
) -> metrics.Interval:
    """statistic(first) - statistic(second), mean over runs, with its 95 % interval over pairs and runs.

    first, second: probabilities [R, N] of R runs for the same N pairs, NaN where a run has not judged a pair; second
    None: the statistic of `first` itself. share [N]. Pairs are drawn with replacement, the same for both arms, and runs
    as in metrics.bootstrap_seeds. statistic(probability [n], share [n]) -> float.
    """
    rng, (runs, size) = np.random.default_rng(seed), first.shape
    if size < 3:
        raise metrics.Undefined(f"an interval needs at least three pairs; there are {size}")

    def effect(rows, columns) -> float:
        return float(np.mean([
            _value(first[r, columns], share[columns], statistic)
            - (0 if second is None else _value(second[r, columns], share[columns], statistic))
            for r in rows
        ]))  # fmt: skip

    values = []
    for _ in range(draws):
        rows, columns = rng.integers(runs, size=max(runs - 1, 1)), rng.integers(size, size=size)
        try:
            values.append(effect(rows, columns))
        except metrics.Undefined:
            continue
    if len(values) < 0.9 * draws:
        raise metrics.Undefined(f"{size} pairs are too few: undefined on {draws - len(values)} of {draws} draws")
    return metrics.Interval(effect(range(runs), np.arange(size)), *map(float, np.quantile(values, [0.025, 0.975])))


def held_out_table(scores: pd.DataFrame, arm: str, region: str) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities [R, N], share [N]) of one arm: R runs, the N pairs of a region, NaN where a run judged none.

    region: "out of domain" (pairs of the domain that a run did not train on), "all" (of the others), or a stratum of
    these. Columns of `scores`: arm, fold, seed, id, stratum, held_out, probability, share.
    """
    outside = region == "out of domain"
    part = scores[scores["held_out"] == outside]
    part = part[part["stratum"] == region] if region not in ("all", "out of domain") else part
    ids = part.drop_duplicates("id").set_index("id")["share"].sort_index()
    wide = part[part["arm"] == arm].pivot(index=["fold", "seed"], columns="id", values="probability")
    return wide.reindex(columns=ids.index).to_numpy(float), ids.to_numpy(float)


def measure(
    scores: pd.DataFrame, arm: str, other: str | None, region: str, statistic: Callable, *, seed: int, draws: int
) -> metrics.Interval | None:
    """`compare` of two arms (or of one, where `other` is None) in a region; None where it has no value there."""
    first, share = held_out_table(scores, arm, region)
    second = held_out_table(scores, other, region)[0] if other else None
    try:
        return compare(first, second, share, statistic, seed=seed, draws=draws)
    except metrics.Undefined:
        return None


def _value(probability: np.ndarray, share: np.ndarray, statistic: Callable) -> float:
    known = ~np.isnan(probability)
    if not known.any():
        raise metrics.Undefined("none of the pairs that were drawn is one of this run")
    return statistic(probability[known], share[known])
