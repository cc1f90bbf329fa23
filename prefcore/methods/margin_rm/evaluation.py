"""Reward models held against the votes of people whom they have not seen: a row for each arm, seed and test pair.

The name of an arm says how it was trained and tested, too: "linear/abs" on cached vectors and all domains, "tuned/abs"
fine-tuned, "linear-new/abs" and "tuned-new/abs" on pairs of the domains that its training left out.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.lab import measures
from prefcore.methods.margin_rm.labels import vote_share
from prefcore.scoring import calibration, effects, metrics
from prefcore.scoring.votes import STRATA, VotedPair


def rows_of(pairs: Sequence[VotedPair], probability: np.ndarray, *, arm: str, seed: int) -> pd.DataFrame:
    """What one run says of the test pairs, P(a is preferred) [n], as rows of lab/measures.py; NaN leaves one out.

    ratio_1 is that probability and rating_1 the share of people who prefer a, so that `rho` is their correlation over
    pairs. On indistinguishable pairs, where shares hardly differ and a good model says one half, brier is their squared
    distance and from_half how far the probability is from one half; empty elsewhere. group: the stratum. Probabilities
    have two decimals, as the table of a study stands in git.
    """
    said = np.asarray(probability, float).round(2)
    share = np.array([pair.share for pair in pairs]).round(3)
    frame = pd.DataFrame({
        "arm": arm, "seed": seed, "id": [f"t{i}" for i in range(len(pairs))],
        "group": [pair.stratum for pair in pairs], "ratio_1": said, "rating_1": share,
        "brier": ((said - share) ** 2).round(3), "from_half": np.abs(said - 0.5).round(2),
    })  # fmt: skip
    frame.loc[frame["group"] != "indistinguishable", ["brier", "from_half"]] = np.nan
    return frame.dropna(subset=["ratio_1"])


def baselines(pairs: Sequence[VotedPair]) -> list[pd.DataFrame]:
    """Rows of "always 0.5", and of "raters" where there are other raters: what the training half of them says."""
    found = [rows_of(pairs, np.full(len(pairs), 0.5), arm="always 0.5", seed=0)]
    if pairs[0].truth:
        found.append(rows_of(pairs, np.array([vote_share(pair.votes) for pair in pairs]), arm="raters", seed=0))
    return found


def leave_out(pairs: Sequence[VotedPair], quarter: Mapping[str, int], run: Callable[[int], np.ndarray]) -> np.ndarray:
    """P(a is preferred) [n] of each pair by the one run that has left its domain out of the training.

    run(fold) -> [n] trains without the domains of that quarter. A pair is tested once, in its own fold, so that folds
    are never taken for seeds. NaN, and nothing is trained, where all pairs are of one domain.
    """
    place, said = np.array([quarter[pair.domain] for pair in pairs]), np.full(len(pairs), np.nan)
    if len(set(quarter.values())) < 2:
        print("all pairs are of one domain: none can be left out of the training")
        return said
    for fold in sorted(set(place)):
        said[place == fold] = np.asarray(run(int(fold)))[place == fold]
    return said


def correlation(probability: np.ndarray, pairs: Sequence[VotedPair]) -> float:
    """Pearson's r with the share of people who prefer a; -1, the worst, where all probabilities are equal."""
    try:
        return metrics.pearson(probability, [pair.share for pair in pairs])
    except metrics.Undefined:
        return -1.0


def summarise(table: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """A row an arm: r over all pairs with its interval over seeds and pairs, r in each stratum, Brier's score,
    accuracy against the majority, and on indistinguishable pairs the mean distance from an even vote.
    """
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        parts = measures.parts_of(own, "rho", {}, [arm])
        row = {"arm": arm, "seeds": own["seed"].nunique(), "pairs": own["id"].nunique()}
        row |= effects.contrast(parts, {arm: 1}, seed=p.seed)._asdict()
        for stratum in [name for name in STRATA if name in set(own["group"])]:
            inside = measures.parts_of(measures.among(own, stratum), "rho", {}, [arm])[arm]
            row[f"r {stratum}"] = float(effects.measure(inside.mean(2)).mean())
        row["brier"] = float(np.mean((own["ratio_1"] - own["rating_1"]) ** 2))
        row["accuracy"] = accuracy(own["ratio_1"], own["rating_1"])
        rows.append(row | {"from half, indistinguishable": own["from_half"].mean()})
    return pd.DataFrame(rows).drop(columns="p")


def accuracy(probability: np.ndarray, share: np.ndarray) -> float | None:
    """Share of pairs where the model sides with the majority, of those that have one; None where none has."""
    try:
        return metrics.accuracy(*calibration.against_majority(probability, share))
    except metrics.Undefined:
        return None
