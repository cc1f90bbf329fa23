"""Arms side by side: each summed up in a row, and differences paired by prompt and seed.

`scores` holds one row for each prompt (column id), arm and seed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.lab import verdicts
from prefcore.scoring import evaluate, metrics


def table(scores: pd.DataFrame, arm: str, measure: str) -> pd.DataFrame:
    """One arm's measure as seeds x prompts."""
    part = scores[scores["arm"] == arm]
    if part.empty:
        raise ValueError(f"no scores for the arm {arm!r}: there are {sorted(set(scores['arm']))}")
    return part.pivot(index="seed", columns="id", values=measure).astype(float)


def paired(scores: pd.DataFrame, arm: str, other: str, measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both arms' measure as seeds x prompts, on the seeds that both have."""
    a, b = (table(scores, name, measure) for name in (arm, other))
    seeds = a.index.intersection(b.index)
    if seeds.empty:
        raise ValueError(f"{arm} has the seeds {list(a.index)} and {other} has {list(b.index)}: they share none")
    return a.loc[seeds], b.loc[seeds, a.columns]


def advantage(scores: pd.DataFrame, arm: str, other: str, measure: str, *, name: str) -> pd.DataFrame:
    """Rows of a made-up arm `name` whose measure is `arm` - `other`, so that two differences can be compared too."""
    gap = table(scores, arm, measure) - table(scores, other, measure)
    return gap.melt(ignore_index=False, var_name="id", value_name=measure).reset_index().assign(arm=name)


def claim(
    text: str, scores: pd.DataFrame, arm: str, other: str, measure: str, p: Parameters, *, direction: str = "higher"
) -> dict:
    """A row of the claims table: the mean of `arm` - `other` on one measure, over prompts (and seeds)."""
    a, b = paired(scores, arm, other, measure)
    test = f"mean {measure} of {arm} minus {other}, {a.shape[1]} prompts, {a.shape[0]} seed(s)"
    return verdicts.paired(text, test, a, b, seed=p.seed, direction=direction)


def claims(questions: Sequence[tuple[str, str, str]], scores: pd.DataFrame, measure: str, p: Parameters) -> list[dict]:
    """A claims row for each (sentence, arm, other) of which both arms were trained; names the others."""
    there = set(scores["arm"])
    for sentence, *pair in questions:
        if not set(pair) <= there:
            print(f"NOT TESTED HERE: {sentence} (no arm {' or '.join(sorted(set(pair) - there))})")
    return [claim(text, scores, a, b, measure, p) for text, a, b in questions if {a, b} <= there]


def summarise(scores: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """Every arm: means of all measures, and 95 % intervals of the measure that counts.

    With gold scores also win_rate: the share of prompts where the arm scores above the reference, a tie half.
    """
    measure = "gold" if "gold" in scores else "accuracy"
    rows = []
    for arm in dict.fromkeys(scores["arm"]):
        part, values = scores[scores["arm"] == arm], table(scores, arm, measure)
        row = {"arm": arm, **evaluate.summarise(part), "seeds": len(values)}
        if measure == "gold":
            other = table(scores, "reference", measure).loc[values.index, values.columns]
            row["win_rate"] = float(np.mean(0.5 + 0.5 * np.sign((values - other).round(4))))  # the same text is a tie
        rows.append(row | metrics.bootstrap_seeds(values.to_numpy(), seed=p.seed)._asdict())
    return pd.DataFrame(rows)


def side_by_side(scores: pd.DataFrame, arm: str, other: str, size: int = 4) -> pd.DataFrame:
    """The same prompts continued by two arms, for a person to read."""
    columns = [c for c in ("gold", "text") if c in scores]
    first, second = (
        scores[(scores["arm"] == a) & (scores["seed"] == 0)].set_index("prompt")[columns] for a in (other, arm)
    )
    return first.join(second, lsuffix=f" ({other})", rsuffix=f" ({arm})").head(size).round(2)


def as_metrics(summary: pd.DataFrame) -> dict:
    """The summary as nested plain numbers, arm by arm."""
    return {row.pop("arm"): row for row in summary.to_dict("records")}


def name_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as figures want it: the arm "kto-1:10" becomes method "kto", arm "1:10"."""
    names = frame["arm"].str.partition("-")
    return frame.assign(method=names[0], arm=names[2])
