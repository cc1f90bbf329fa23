"""All chapters side by side: their arms in one table, and each method against the DPO of its own chapter."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prefcore.lab import comparison
from prefcore.scoring import metrics

UNEQUAL = "unequal steps"
MEASURES = ("gold", "proxy", "accuracy", "margin", "kl", "length")


def policies(results: Mapping[str, Mapping]) -> list[str]:
    """Those chapters of `results` (method -> metrics) that train a policy: their arms lie at some distance from it."""
    return [name for name, found in results.items() if any("kl" in arm for arm in found.get("arms", {}).values())]


def arms_table(scores: Mapping[str, pd.DataFrame], *, seed: int) -> pd.DataFrame:
    """One row per arm of each method's per-prompt scores; the reference, which all share, only once.

    Columns: method, arm, measures with 95 % intervals (gold, gold_low, gold_high, ...), distinct_2, prompts, seeds.
    """
    rows = []
    for method, frame in scores.items():
        for arm in dict.fromkeys(frame["arm"]):
            if arm == "reference" and rows:
                continue
            part = frame[frame["arm"] == arm]
            row = {"method": method, "arm": arm}
            for measure in (name for name in MEASURES if name in frame):
                values = comparison.table(frame, arm, measure)
                row |= _columns(measure, metrics.bootstrap_seeds(values.to_numpy(), seed=seed))
            texts = part["text"].fillna("").tolist()  # an empty answer reads back as a missing one
            counts = {"prompts": part["id"].nunique(), "seeds": part["seed"].nunique()}
            rows.append(row | {"distinct_2": metrics.distinct_n(texts, 2)} | counts)
    return pd.DataFrame(rows)


def arms_from_metrics(results: Mapping[str, Mapping]) -> pd.DataFrame:
    """The same table from metrics files alone (method -> metrics), where the measure that counts has an interval."""
    rows = []
    for method, found in results.items():
        for arm, row in sorted(found.get("arms", {}).items(), key=lambda item: item[0] != "reference"):
            if arm == "reference" and method != next(iter(results)):
                continue
            measure = "gold" if "gold" in row else "accuracy"
            means = {name: row[name] for name in (*MEASURES, "distinct_2", "prompts", "seeds") if name in row}
            interval = metrics.Interval(row["estimate"], row["low"], row["high"])
            rows.append({"method": method, "arm": arm} | means | _columns(measure, interval))
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a person: an interval in brackets behind its mean, two decimals."""
    out = table[["method", "arm"]].copy()
    for name in (name for name in (*MEASURES, "distinct_2") if name in table):
        out[name] = table[name].map("{:.2f}".format)
        if f"{name}_low" in table:
            ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
            out[name] += [f" [{low:.2f}, {high:.2f}]" for low, high in ends]
    return out.join(table[["prompts", "seeds"]].astype(int))


def points(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(main arms, other arms) as figures want them: method, arm, kl, and the measure that counts with its interval.

    A method's main arm is the one of its name; the reference is one of the main ones.
    """
    measure = "gold" if "gold" in table else "accuracy"
    names = {measure: "estimate", f"{measure}_low": "low", f"{measure}_high": "high"}
    frame = comparison.name_arms(table).rename(columns=names)[["method", "arm", "kl", "estimate", "low", "high"]]
    main = (table["arm"] == table["method"]) | (table["arm"] == "reference")
    return frame[main], frame[~main]


def steps(history: pd.DataFrame) -> dict[str, int]:
    """Optimiser steps of one run of each arm of a method's history."""
    by_run = history.groupby(["arm", "seed"])["step"].max()
    return {arm: int(part.max()) for arm, part in by_run.groupby(level="arm")}


def win_rates(
    scores: Mapping[str, pd.DataFrame], histories: Mapping[str, pd.DataFrame], *, seed: int
) -> pd.DataFrame:
    """Share of prompts where a method's main arm scores above the DPO arm of its own chapter, ties half.

    Both have seen the same prompts. Where one took more optimiser steps than the other the row has no verdict: "unequal
    steps". Paired on the prompts and seeds that both have; two answers that differ by less than 0.0001 tie.
    """
    rows = []
    for method, frame in scores.items():
        if method != "dpo" and "dpo" in set(frame["arm"]):
            taken = steps(histories[method])
            row = {"method": method, "steps": taken[method], "steps of DPO": taken["dpo"], **_wins(frame, method, seed)}
            rows.append(row if taken[method] == taken["dpo"] else row | {"verdict": UNEQUAL})
    return pd.DataFrame(rows)


def _wins(frame: pd.DataFrame, method: str, seed: int) -> dict:
    measure = "gold" if "gold" in frame else "accuracy"
    a, b = comparison.paired(frame, method, "dpo", measure)
    difference = (a - b).round(4).to_numpy()
    interval = metrics.win_rate(difference, np.zeros_like(difference), seed=seed)
    return {
        "win_rate": interval.estimate, "low": interval.low, "high": interval.high,
        "verdict": metrics.verdict(interval, direction="higher", null=0.5),
        "detectable": metrics.detectable_effect(0.5 * np.sign(difference)), "prompts": a.shape[1], "seeds": len(a),
    }  # fmt: skip


def _columns(measure: str, interval: metrics.Interval) -> dict[str, float]:
    return {measure: interval.estimate, f"{measure}_low": interval.low, f"{measure}_high": interval.high}
