"""What the arms' answers say, in tables: execution accuracy with intervals, by database, by generator, as metrics.

A frame of answers has a row for each arm and question:

arm, id, db_id    who chose, and on which question
mixed             whether some of its candidates are right and some are not: only there a choice matters
right             0 or 1; a share for a choice by chance
pairwise          share of the judge's verdicts on a right and a wrong candidate that are right; NaN without a judge
agreed, asked     pairs with one verdict in both orders, of all pairs that were asked about
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.methods.chase_sql.execution import Executed, Pool, mixed
from prefcore.scoring import metrics


def answers(arm: str, executed: Executed, right: Sequence, *, name: Callable[[Pool], str] | None = None):
    """The frame of an arm without a judge; name(pool) identifies a question where its id alone does not."""
    both = zip(executed.pools, executed.correct, strict=True)
    rows = [(arm, name(pool) if name else pool.id, pool.db_id, mixed(truth)) for pool, truth in both]
    frame = pd.DataFrame(rows, columns=["arm", "id", "db_id", "mixed"])
    return frame.assign(right=np.asarray(right, dtype=float), pairwise=np.nan, agreed=0, asked=0)


def right_by_question(scores: pd.DataFrame, arm: str, *, only_mixed: bool = False) -> pd.Series:
    """One arm's `right` by question."""
    part = scores[(scores["arm"] == arm) & (scores["mixed"] | (not only_mixed))]
    return part.set_index("id")["right"].sort_index()


def table(scores: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Every arm: share right with its 95 % interval over questions, on all and on the mixed ones; pairwise accuracy
    (mean over mixed questions); share of pairs with one verdict in both orders."""
    rows = []
    for arm, part in scores.groupby("arm", sort=False):
        row = {"arm": arm, "questions": len(part), "mixed questions": int(part["mixed"].sum())}
        for name, only in (("all", False), ("mixed", True)):
            shares = right_by_question(scores, arm, only_mixed=only).to_numpy()
            row |= {f"{name}{end}": v for end, v in zip(("", " low", " high"), _interval(shares, seed), strict=True)}
        judged = part["pairwise"].notna()
        row["pairwise"] = part.loc[judged, "pairwise"].mean() if judged.any() else np.nan
        row["same in both orders"] = part["agreed"].sum() / part["asked"].sum() if part["asked"].sum() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def by_database(scores: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Share right on the mixed questions of each database, an arm a column, and how many such questions there are."""
    part = scores[scores["mixed"] & scores["arm"].isin(arms)]
    wide = part.pivot_table(index="db_id", columns="arm", values="right", sort=False)[list(arms)]
    return wide.assign(questions=part[part["arm"] == arms[0]].groupby("db_id").size()).sort_index()


def solved_alone(executed: Executed, names: Sequence[str]) -> dict[str, int]:
    """How many questions each set of generators solves (some candidate is right) and no other; "none" for the rest."""
    counts: dict[str, int] = {}
    for pool, truth in zip(executed.pools, executed.correct, strict=True):
        who = [name for name in names if any(t for s, t in zip(pool.systems, truth, strict=True) if s == name)]
        key = " + ".join(who) or "none"
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items()))


def count_unusable(executed: Executed) -> pd.DataFrame:
    """What could not be used, how often, and the first of each kind."""
    frame = pd.DataFrame(executed.unusable, columns=["id", "db_id", "system", "what", "detail"])
    kinds = frame.groupby("what", sort=True).agg(count=("what", "size"), first=("detail", "first"))
    return kinds.reset_index()


def as_metrics(of: pd.DataFrame) -> dict:
    """`table` as nested plain numbers, arm by arm, without what has no value."""
    return {
        row.pop("arm"): {name: value for name, value in row.items() if not pd.isna(value)}
        for row in of.to_dict("records")
    }


def unusable_as_metrics(sides: Mapping[str, Executed]) -> dict:
    """What could not be used of each side, counted by kind."""
    counts = {name: count_unusable(executed) for name, executed in sides.items()}
    return {name: dict(zip(c["what"], c["count"].tolist(), strict=True)) for name, c in counts.items()}


def _interval(shares: np.ndarray, seed: int):
    if len(shares) < 2:
        return (float(shares.mean()) if len(shares) else np.nan, np.nan, np.nan)
    return metrics.bootstrap_interval(shares, seed=seed)
