"""Two arms of one table: their difference, paired by unit and seed.

`scores` holds one row for each prompt (column id), arm and seed.
"""

import pandas as pd

from prefcore.data.types import Parameters
from prefcore.lab import verdicts


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


def claim(
    text: str, scores: pd.DataFrame, arm: str, other: str, measure: str, p: Parameters, *, direction: str = "higher"
) -> dict:
    """A row of the claims table: the mean of `arm` - `other` on one measure, over prompts (and seeds)."""
    a, b = paired(scores, arm, other, measure)
    test = f"mean {measure} of {arm} minus {other}, {a.shape[1]} prompts, {a.shape[0]} seed(s)"
    return verdicts.paired(text, test, a, b, seed=p.seed, direction=direction)
