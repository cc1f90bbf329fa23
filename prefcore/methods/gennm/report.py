"""Rows of scores, and what they say of an arm or of the difference of two: every binary counts alike."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.lab import verdicts
from prefcore.methods.gennm.corpus import Item, bucket, rename
from prefcore.methods.gennm.score import per_binary, rate
from prefcore.scoring import metrics

MEASURES = ("precision", "recall", "f1", "exact", "answered")


def table(
    arm: str, seed: int, items: Sequence[Item], names: Mapping, counts: Mapping, unseen: Sequence[str]
) -> pd.DataFrame:
    """One row for each variable that has a true name: where it is, both names, and its scores.

    names: key of a function -> placeholder -> predicted name. counts: how often training has each true name.
    """
    rows = []
    for item in items:
        where = {"arm": arm, "seed": seed, "project": item.project, "binary": item.binary, "function": item.function,
                 "projects": "unseen" if item.project in unseen else "seen"}  # fmt: skip
        for row in rate(names.get(item.key, {}), item.names):
            rows.append(where | row | {"bucket": bucket(row["true"], counts)})
    return pd.DataFrame(rows)


def regions(scores: pd.DataFrame) -> dict[str, pd.Series]:
    """Name of a part of the test -> which rows are in it; parts without a row are left out."""
    found = {"all": pd.Series(True, index=scores.index)}
    found |= {f"{name} projects": scores["projects"] == name for name in ("seen", "unseen")}
    found |= {f"names {name}": scores["bucket"] == name for name in ("0", "1-10", "more")}
    return {name: rows for name, rows in found.items() if rows.any()}


def summarise(scores: pd.DataFrame, arm: str, *, seed: int, draws: int) -> dict:
    """For each region: macro means with intervals of f1, micro means, the released metric, and sizes."""
    own = scores[scores["arm"] == arm]
    out = {}
    for name, rows in regions(own).items():
        part = own[rows]
        means = {measure: means_of(part, measure) for measure in MEASURES}
        row = {measure: float(np.mean(values)) for measure, values in means.items()}
        if len(means["f1"]) > 1:
            row["f1"] = metrics.bootstrap_interval(means["f1"], seed=seed, resamples=draws)
        named = part[part["answered"] > 0]
        row |= {f"micro_{measure}": float(part[measure].mean()) for measure in MEASURES[:4]}
        row |= {f"of_answered_{m}": float(np.mean(means_of(named, m))) if len(named) else 0.0 for m in MEASURES[:2]}
        out[name] = row | {"variables": len(part), "binaries": part["binary"].nunique()}
    return out


def means_of(part: pd.DataFrame, measure: str) -> np.ndarray:
    """Mean of the measure in each binary, over variables and seeds, in the order of the binaries' names."""
    found = per_binary(part[measure].tolist(), part["binary"].tolist())
    return np.array([found[binary] for binary in sorted(found)])


def compare_arms(
    scores: pd.DataFrame, text: str, arm: str, other: str, region: str, *, seed: int, draws: int, measure: str = "f1"
) -> dict | None:
    """A row of the claims table, `arm` minus `other` paired by binary; None with fewer than two binaries."""
    mine, theirs = (scores[scores["arm"] == name] for name in (arm, other))
    if mine.empty or theirs.empty or region not in regions(mine):
        return None
    a, b = (means_of(part[regions(part)[region]], measure) for part in (mine, theirs))
    if len(a) < 2 or len(a) != len(b):
        return None
    test = f"macro {measure} of {arm} minus {other}, {region}, {len(a)} binaries"
    return verdicts.paired(text, test, a, b, seed=seed, resamples=draws)


def compare_functions(
    text: str, first: pd.DataFrame, second: pd.DataFrame, *, seed: int, draws: int, measure: str = "f1"
) -> dict | None:
    """A claims row for two disjoint sets of functions under one arm, resampled apart; None where one has too little."""
    a, b = first[measure].to_numpy(float), second[measure].to_numpy(float)
    if min(len(a), len(b)) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(a, len(a)).mean() - rng.choice(b, len(b)).mean() for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = metrics.Interval(float(a.mean() - b.mean()), float(low), float(high))
    test = f"micro {measure}, {len(a)} variables against {len(b)}"
    return verdicts.claim(text, test, interval)


def before_and_after(item: Item, names: Mapping[str, str]) -> str:
    """The decompiled function with placeholders, with predicted names, and the true names beside."""
    truth = ", ".join(f"{id}: {name}" for id, name in {**item.names, "f0": item.function}.items())
    return f"{item.code}\n--- predicted\n{rename(item.code, names)}\n--- true names: {truth}\n"


def readable(value) -> str:
    """A number, or an estimate with its interval, for a table."""
    if isinstance(value, metrics.Interval):
        return f"{value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return f"{value:.3f}"
