"""From names to measures: a row for each variable with a true name, then means in each binary, the unit."""

from collections.abc import Mapping, Sequence

import pandas as pd

from prefcore.data.types import Parameters
from prefcore.lab import measures
from prefcore.methods.gennm.callgraph import Names
from prefcore.methods.gennm.corpus import Item, rename
from prefcore.methods.gennm.prompt import rename_distinct
from prefcore.methods.gennm.score import rate
from prefcore.scoring import effects

MEASURES = ("f1", "precision", "recall", "exact", "answered", "f1_new", "f1_known")


def rows_of(names: Names) -> pd.DataFrame:
    """A row for each name: key of its function, placeholder (`id`), name."""
    rows = [(key, id, name) for key, own in names.items() for id, name in own.items()]
    return pd.DataFrame(rows, columns=["key", "id", "name"])


def names_of(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Key of a function -> placeholder -> name, from the rows of `rows_of`; functions without a name are left out."""
    found: dict[str, dict[str, str]] = {}
    for key, id, name in rows.itertuples(index=False):
        found.setdefault(key, {})[id] = name
    return found


def table(arm: str, seed: int, items: Sequence[Item], names: Mapping, counts: Mapping) -> pd.DataFrame:
    """One row for each variable that has a true name: where it is, both names, and its scores, shares in [0, 1].

    names: key of a function -> placeholder -> predicted name. counts: how often training has each true name; `seen` is
    that count.
    """
    rows = []
    for item in items:
        where = {"arm": arm, "seed": seed, "project": item.project, "binary": item.binary, "function": item.function}
        for row in rate(names.get(item.key, {}), item.names):
            rows.append(where | row | {"seen": counts.get(row["true"], 0)})
    return pd.DataFrame(rows)


def by_binary(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows (arm, seed, id) with the mean of each measure over the variables of a binary, all of which count alike.

    f1_new and f1_known are F1 among names that training never had and those that it had; empty where there are none.
    At -O2 a binary has the id of the same one at -O0.
    """
    new = scores["seen"] == 0
    wide = scores.assign(f1_new=scores["f1"].where(new), f1_known=scores["f1"].where(~new),
                         id=scores["binary"].str.replace(".O2-", "-"))  # fmt: skip
    return wide.groupby(["arm", "seed", "id"], sort=False)[list(MEASURES)].mean().round(4).reset_index()


def summarise(units: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """A row for each arm: mean of each measure over seeds and binaries; of F1 the 95 % interval over both."""
    rows = []
    for arm in dict.fromkeys(units["arm"]):
        own = units[units["arm"] == arm]
        effect = effects.contrast(measures.parts_of(units, "f1", {}, [arm]), {arm: 1}, seed=p.seed)
        means = {name: float(own[name].mean()) for name in MEASURES[1:] if own[name].notna().any()}
        rows.append({"arm": arm, "f1": effect.estimate, "low": effect.low, "high": effect.high, **means,
                     "seeds": own["seed"].nunique(), "binaries": own["id"].nunique()})  # fmt: skip
    return pd.DataFrame(rows)


def before_and_after(item: Item, names: Mapping[str, str]) -> str:
    """The decompiled function with placeholders, with predicted names, and the true names beside."""
    truth = ", ".join(f"{id}: {name}" for id, name in {**item.names, "f0": item.function}.items())
    named = rename(item.code, rename_distinct(names))
    return f"{item.code}\n--- predicted\n{named}\n--- true names: {truth}\n"
