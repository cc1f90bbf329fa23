"""What arms are measured by, in one table: a row for each arm, training seed and unit; empty where a unit has no value.

Columns ratio_1 ... ratio_K hold the log-ratios of the bank's answers to a prompt (scoring/bank.py); their measures are
`rho` and `order`, against the ratings of these answers: columns rating_1 ... rating_K, or else those of the bank.
`partial_rho` is rho less what the reference's own likelihood of an answer and its length say of both: training on
anything takes most from what was unlikely, and raters like that a little less, so that even permuted labels have a rho
above 0. Any other column is a measure by its mean over units. `group`, where a table has it, is what kind of unit a row
is about.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine.collate import Plan
from prefcore.scoring import bank, effects, metrics

Ratings = Mapping[str, Sequence[float]]  # of each prompt of the bank, by its id, one for each answer
OF_RATIOS = ("rho", "partial_rho", "order")
CONFIRMED = "gold_confirmed"  # mean gold of samples that were drawn at the common distance


def rows_of(ratios: np.ndarray, ids: Sequence[str], *, arm: str, seed: int) -> pd.DataFrame:
    """The rows of one policy on a bank, from its log-ratios [n, K]."""
    names = [f"ratio_{k + 1}" for k in range(ratios.shape[1])]
    frame = pd.DataFrame(ratios.round(4), columns=names).astype(float)
    frame.insert(0, "arm", arm)
    frame.insert(1, "seed", seed)
    frame.insert(2, "id", list(ids))
    return frame


def rows_of_reference(plan: Plan) -> pd.DataFrame:
    """The reference's own rows on a bank, for `partial_rho`: log-probability (nats) and tokens of each answer."""
    tokens = np.array([[len(answer) for answer in example.completions] for example in plan.examples])
    given = {"logp": np.asarray(plan.ref_logps, float).round(4), "tokens": tokens}
    columns = {f"{name}_{k + 1}": found[:, k] for name, found in given.items() for k in range(found.shape[1])}
    ids = [example.id for example in plan.examples]
    return pd.DataFrame({"arm": "reference", "seed": 0, "id": ids} | columns)


def ratings_of(found: bank.Bank, rater: str) -> Ratings:
    """One rater's ratings of a bank."""
    return dict(zip((example.id for example in found.examples), found.ratings[rater], strict=True))


def best_of(found: bank.Bank, rater: str, chosen_by: str, *, seed: int) -> metrics.Interval:
    """By how much the answer that stands highest with `chosen_by` is above the mean of its prompt, by `rater`."""
    rated, chosen = found.ratings[rater], found.ratings[chosen_by].argmax(1)
    return metrics.bootstrap_interval(rated[np.arange(len(rated)), chosen] - rated.mean(1), seed=seed)


def among(table: pd.DataFrame, group: str | None) -> pd.DataFrame:
    """The rows of one group of units, or all of them."""
    if group is None:
        return table
    return table[table["group"] == group] if "group" in table else table.iloc[:0]


def keep_named(table: pd.DataFrame, contrasts: Iterable[Mapping]) -> pd.DataFrame:
    """The table with what these claims and controls read alone: a measure that none reads of an arm is left empty, and
    a row without any is left out. Of policies the reference's own rows are needed too; this is for other chapters.

    contrasts: mappings with contrast (arm -> weight), measure and, where it is not about all units, among (the group).
    """
    keys, named = [name for name in table if name in ("group", "arm", "seed", "id")], {}
    for row in contrasts:
        there = table["arm"].isin(list(row["contrast"]))
        if row.get("among") is not None:
            there &= table["group"] == row["among"]
        for name in _columns(table, row["measure"]):
            named[name] = named.get(name, False) | there
    kept = table[keys].assign(**{name: table[name].where(there) for name, there in named.items()})
    return kept.dropna(subset=list(named), how="all")


def _columns(table: pd.DataFrame, measure: str) -> list[str]:
    """What a measure is made of: of a correlation the ratios, and the ratings that stand beside them."""
    if measure in OF_RATIOS:
        return [name for name in table if name.startswith(("ratio_", "rating_"))]
    return [measure] if measure in table else []


def parts_of(table: pd.DataFrame, measure: str, ratings: Ratings, arms: Sequence[str]) -> dict[str, np.ndarray]:
    """What effects.py sums, for each of these arms, on the seeds and units that all of them have."""
    columns = [name for name in table if name.startswith("ratio_")] if measure in OF_RATIOS else [measure]
    if missing := sorted({*columns} - {*table}) or not columns:
        raise ValueError(f"the table has no {measure} ({missing}), but {list(table)}")
    known = table.dropna(subset=columns)
    own = {arm: known[known["arm"] == arm] for arm in arms}
    seeds = sorted(set.intersection(*(set(rows["seed"]) for rows in own.values())))
    own = {arm: rows[rows["seed"].isin(seeds)] for arm, rows in own.items()}
    counts = {arm: rows["id"].value_counts() for arm, rows in own.items()}
    ids = sorted(set.intersection(*(set(count.index[count == len(seeds)]) for count in counts.values())))
    tables = {arm: rows.pivot(index="seed", columns="id", values=columns) for arm, rows in own.items()}
    if not seeds or not ids:
        raise ValueError(f"{', '.join(arms)} share no training seed or no unit with a {measure}")
    values = {
        arm: np.stack([one[name].loc[seeds, ids].to_numpy(float) for name in columns], axis=2)
        for arm, one in tables.items()
    }
    if measure not in OF_RATIOS:
        return {arm: effects.mean_parts(value[..., 0]) for arm, value in values.items()}
    if "rating_1" in table:
        ratings = known.drop_duplicates("id").set_index("id").filter(like="rating_").T.to_dict("list")
    rated = np.array([ratings[id] for id in ids], float)
    if measure == "partial_rho":
        given = _given(table, ids)
        rated, values = effects.beyond(rated, given), {arm: effects.beyond(one, given) for arm, one in values.items()}
    parts = effects.order_parts if measure == "order" else effects.correlation_parts
    return {arm: parts(value, rated) for arm, value in values.items()}


def _given(table: pd.DataFrame, ids: Sequence[str]) -> np.ndarray:
    """What the reference says of each answer [n, K, 2], as `rows_of_reference` put it into the table."""
    if "logp_1" not in table:
        raise ValueError(f"the table has no log-probabilities of the reference, but {list(table)}")
    rows = table.dropna(subset=["logp_1"]).drop_duplicates("id").set_index("id").loc[list(ids)]
    return np.stack([rows.filter(regex=rf"^{name}_\d+$").to_numpy(float) for name in ("logp", "tokens")], axis=2)


def summarise(table: pd.DataFrame, ratings: Ratings, p: Parameters) -> pd.DataFrame:
    """A row an arm: rho with its interval over seeds and prompts, its spread over seeds, the share of answer pairs in
    the raters' order, and how far from the reference it ended (nats), mean over seeds.
    """
    rows = []
    for arm in dict.fromkeys(table.dropna(subset=["ratio_1"])["arm"]):
        parts = parts_of(table, "rho", ratings, [arm])[arm]
        effect = effects.contrast({arm: parts}, {arm: 1}, seed=p.seed)
        own = table[table["arm"] == arm].filter(like="ratio_").dropna()
        rows.append({
            "arm": arm, "estimate": effect.estimate, "low": effect.low, "high": effect.high, "seeds": parts.shape[1],
            "spread": effects.spread_over_seeds(parts) if parts.shape[1] > 1 else None,
            "order": float(effects.measure(parts_of(table, "order", ratings, [arm])[arm].mean(2)).mean()),
            "nats": bank.distance(own.to_numpy()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def as_metrics(summary: pd.DataFrame) -> dict:
    """The summary as nested plain numbers, arm by arm."""
    rows = summary.astype(object).where(summary.notna(), None).to_dict("records")
    return {row.pop("arm"): row for row in rows}


def average(samples: pd.DataFrame) -> pd.DataFrame:
    """Means of the numbers of each arm's samples."""
    names = [name for name in ("gold", "proxy", "kl", "surprise", "length", "finished", "factor") if name in samples]
    return samples.groupby("arm", sort=False)[names].mean()


def side_by_side(samples: pd.DataFrame, size: int = 5) -> pd.DataFrame:
    """The same prompts continued by every arm, for a person to read."""
    first = samples[samples["seed"] == 0].drop_duplicates(["arm", "prompt"])
    return first.pivot(index="prompt", columns="arm", values="text")[list(dict.fromkeys(first["arm"]))].head(size)
