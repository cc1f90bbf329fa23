"""What all policy notebooks do alike: open a task, train one arm from the reference policy, score it, compare arms.

A task is either the default one (human ratings, two scorers, prompts to continue) or a user's own preference data,
which has no scorer and is judged by held-out preferences.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from prefcore import collate, datasets, evaluate, metrics, models, pipeline, ratings, reference, train, views
from prefcore.collate import Encoded, Plan
from prefcore.types import Pair, Scored, Unary

CACHE = Path("build/logps")


class Task(NamedTuple):
    """records: training data (Ranked rows, or the kind a user's file holds). validation, test: what arms are scored on.

    scorers is None for a user's own data. `measure` names the column that counts: gold (rating points), or accuracy.
    """

    records: list
    validation: list
    test: list
    scorers: evaluate.Scorers | None
    measure: str


class Arm(NamedTuple):
    """A trained policy with its tokenizer, one history row per step, one score row per prompt."""

    policy: object
    tokenizer: object
    history: pd.DataFrame
    scores: pd.DataFrame


def work_at_top() -> None:
    """Change to the repository's top, from where paths are told: Jupyter starts a kernel in the notebook's folder."""
    if not Path("params.yaml").exists() and Path("../params.yaml").exists():
        os.chdir("..")


def parameters(namespace: Mapping) -> dict:
    """The plain values among a notebook's names: its parameters, as the functions here read them."""
    work_at_top()
    plain = (int, float, str, bool, list)
    return {
        k: v
        for k, v in namespace.items()
        if isinstance(v, plain) and not k.startswith("_") and k not in ("In", "exit", "quit")
    }


def open_task(p: Mapping) -> Task:
    """The default task from build/<profile>/, or the file or hub set that `data` names, split by prompt 80/10/10.

    `prompts`, `validation_prompts` and `test_prompts` say how many are used (of own data: so many records at most).
    """
    device = str(models.choose_device(p["device"], p["threads"]))
    if p["data"]:
        train_rows, validation, test = views.split(_read(p), (0.8, 0.1, 0.1), p["seed"])
        held_out_rows = validation[: p["validation_prompts"]], test[: p["test_prompts"]]
        return Task(train_rows[: p["prompts"]], *held_out_rows, None, "accuracy")
    build = Path("build") / p["profile"]
    texts = ratings.read_texts(build / "texts.jsonl")
    prompts = [ratings.choose_prompts(texts, p[f"{s}_prompts"], p["seed"], split=s) for s in ("validation", "test")]
    records = [r for r in pipeline.read_ranked(build / "preferences.jsonl") if len(r.completions) > 1]
    if len(records) < p["prompts"]:
        raise ValueError(
            f"prompts is {p['prompts']}, but {build} holds preferences for {len(records)}: raise preference_prompts"
        )
    return Task(records[: p["prompts"]], *prompts, evaluate.load_scorers(build, p["encoder"], device=device), "gold")


def _read(p: Mapping) -> list:
    return datasets.read_usable(p["data"])[0] if p["drop_bad"] else datasets.read(p["data"])


def load_reference(p: Mapping):
    """(tokenizer, model): build/<profile>/reference for the default data, else the policy that `policy` names."""
    return pipeline.load(p, p["policy"] if p["data"] else Path("build") / p["profile"] / "reference")


def encode(records: Sequence, p: Mapping, tokenizer) -> Encoded:
    """Token ids of pairs or of single answers, within the length limits."""
    limits = {"max_prompt": p["max_prompt"], "max_completion": p["max_completion"]}
    encoder = collate.encode_pairs if isinstance(records[0], Pair) else collate.encode_unary
    return encoder(records, tokenizer, **limits)


def make_plan(examples: Sequence, p: Mapping, tokenizer, *, seed: int) -> Plan:
    """All batches of all epochs for one training seed."""
    return collate.make_plan(
        examples, batch_size=p["batch_size"], epochs=p["epochs"], seed=seed, pad_id=tokenizer.pad_token_id
    )


def run_arm(
    p: Mapping,
    task: Task,
    plan: Plan,
    loss: Callable,
    *,
    method: str,
    arm: str,
    seed: int,
    learning_rate: float | None = None,
    state: dict | None = None,
    split: str = "test",
) -> Arm:
    """Train one arm from the reference and score it on a split."""
    tokenizer, model = fresh_policy(p, seed)
    where = {"method": method, "arm": arm, "seed": seed}
    history = train_arm(p, plan, loss, model, **where, learning_rate=learning_rate, state=state)
    return Arm(model, tokenizer, history, score(model, tokenizer, task, p, arm=arm, seed=seed, split=split))


def fresh_policy(p: Mapping, seed: int):
    """(tokenizer, reference with a new adapter): the same function as the reference until it is trained."""
    tokenizer, model = load_reference(p)
    return tokenizer, models.add_lora(
        model, rank=p["lora_rank"], alpha=p["lora_alpha"], top_layers=p["lora_layers"], seed=seed
    )


def train_arm(
    p: Mapping,
    plan: Plan,
    loss: Callable,
    policy,
    *,
    method: str,
    arm: str,
    seed: int,
    learning_rate: float | None = None,
    state: dict | None = None,
) -> pd.DataFrame:
    """Train the policy in place, tied to the reference, without scoring it; returns one history row per step."""
    plan = reference.attach(plan, policy, cache=CACHE)
    history = train.fit(
        policy,
        plan,
        loss,
        learning_rate=learning_rate or p["learning_rate"],
        seed=seed,
        state=state,
        checkpoints=Path(".checkpoints") / p["profile"] / method / f"{arm}-{seed}",
        label=f"{arm}, seed {seed}",
    )
    history.insert(0, "arm", arm)
    history.insert(1, "seed", seed)
    return history


def score(policy, tokenizer, task: Task, p: Mapping, *, arm: str, seed: int, split: str) -> pd.DataFrame:
    """One row per prompt of the split: scores of a sample (default data), or held-out preferences (own data)."""
    rows = getattr(task, split)
    if task.scorers:
        return evaluate.score_policy(
            policy, tokenizer, rows, task.scorers, max_new_tokens=p["max_new_tokens"], seed=seed, arm=arm
        )
    return evaluate.score_held_out(
        policy, tokenizer, encode(held_out(rows), p, tokenizer).examples, p, arm=arm, seed=seed
    )


def held_out(rows: Sequence) -> list:
    """Held-out records as preferences: pairs and labels as they are, scores as thumbs at their median."""
    return list(rows) if isinstance(rows[0], Pair | Unary) else views.as_unary(rows)


def score_reference(p: Mapping, task: Task, *, seeds: int, split: str = "test") -> pd.DataFrame:
    """The reference's own rows: from the shared stage for the default data (same prompts, same random numbers)."""
    if task.scorers:
        frame = pd.read_csv(Path("build") / p["profile"] / f"reference_{split}.csv")
        chosen = {text.id for text in getattr(task, split)}
        return frame[frame["id"].isin(chosen) & (frame["seed"] < seeds)].fillna({"text": ""})
    tokenizer, model = load_reference(p)
    return pd.concat(score(model, tokenizer, task, p, arm="reference", seed=s, split=split) for s in range(seeds))


def difference(scores: pd.DataFrame, arm: str, other: str, measure: str, p: Mapping) -> metrics.Interval:
    """Mean of `arm` - `other` paired by prompt and seed, with its 95 % interval over prompts (and seeds)."""
    a, b = paired(scores, arm, other, measure)
    return metrics.paired_difference(a.to_numpy(), b.to_numpy(), seed=p["seed"])


def paired(scores: pd.DataFrame, arm: str, other: str, measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both arms' measure as seeds x prompts, on the seeds that both have."""
    a, b = (table(scores, name, measure) for name in (arm, other))
    seeds = a.index.intersection(b.index)
    if seeds.empty:
        raise ValueError(f"{arm} has the seeds {list(a.index)} and {other} has {list(b.index)}: they share none")
    return a.loc[seeds], b.loc[seeds, a.columns]


def table(scores: pd.DataFrame, arm: str, measure: str) -> pd.DataFrame:
    """One arm's measure as seeds x prompts."""
    part = scores[scores["arm"] == arm]
    if part.empty:
        raise ValueError(f"no scores for the arm {arm!r}: there are {sorted(set(scores['arm']))}")
    return part.pivot(index="seed", columns="id", values=measure).astype(float)


def claim(
    text: str, scores: pd.DataFrame, arm: str, other: str, measure: str, p: Mapping, *, direction: str = "higher"
) -> dict:
    """A row of the claims table: `arm` against `other` on one measure, paired by prompt."""
    from prefcore import runs

    interval = difference(scores, arm, other, measure, p)
    a, b = paired(scores, arm, other, measure)
    floor = metrics.detectable_effect((a - b).to_numpy())
    test = f"mean {measure} of {arm} minus {other}, {a.shape[1]} prompts, {a.shape[0]} seed(s)"
    return runs.claim(text, test, interval, metrics.verdict(interval, direction=direction), floor)


def summarise(scores: pd.DataFrame, p: Mapping) -> pd.DataFrame:
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
        rows.append(row | metrics.bootstrap_seeds(values.to_numpy(), seed=p["seed"])._asdict())
    return pd.DataFrame(rows)


def advantage(scores: pd.DataFrame, arm: str, other: str, measure: str, *, name: str) -> pd.DataFrame:
    """Rows of a made-up arm `name` whose measure is `arm` - `other`, so that two differences can be compared too."""
    gap = table(scores, arm, measure) - table(scores, other, measure)
    return gap.melt(ignore_index=False, var_name="id", value_name=measure).reset_index().assign(arm=name)


def tell(claims: Sequence[Mapping]) -> None:
    """Print each row of a claims table as a sentence, its verdict first."""
    meanings = {
        "held": "the interval lies on the claimed side of 0",
        "not held": "the interval lies on the other side of 0: the claim fails here",
        "undecided": "the interval contains 0",
    }
    for row in claims:
        effect = f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        print(f"{row['verdict'].upper()}: {row['claim']}\n  {row['test']}: {effect}; {meanings[row['verdict']]}.")
        print(f"  The smallest effect that this size shows with 80 % power is {row['detectable']:.3f}.")


def read_aloud(scores: pd.DataFrame, arm: str, other: str, size: int = 4) -> pd.DataFrame:
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


def remember(state: Mapping[str, torch.Tensor], **new: torch.Tensor) -> None:
    """Put new values into a loss's running state, in place, so that they are in its checkpoints and its history."""
    for name, value in new.items():
        state[name].copy_(value)


def good_texts(p: Mapping) -> list[ratings.Text]:
    """Human-written training texts rated `good_rating` or better, in a seeded order; none of the gold scorer's half."""
    texts = ratings.read_texts(Path("build") / p["profile"] / "texts.jsonl")
    pool = [t for t in texts if (t.split, t.half) == ("train", "proxy") and t.mean >= p["good_rating"] and t.completion]
    return [pool[i] for i in np.random.default_rng(p["seed"]).permutation(len(pool))]


def graded_pairs(records: Sequence) -> tuple[list[Pair], int]:
    """(pairs whose `margin` says by how much chosen is better, number of ties dropped).

    The margin is the one given, else the difference of the two scores, in the data's own unit. Raises ValueError for a
    pair that has neither, or whose chosen answer is the worse one.
    """
    records = views.scored_to_ranked(records) if isinstance(records[0], Scored) else records
    pairs = [pair._replace(margin=_margin(pair)) for pair in views.as_pairs(records)]
    kept = [pair for pair in pairs if pair.margin > 0]
    return kept, len(records) - len(kept)


def _margin(pair: Pair) -> float:
    scores = (pair.chosen_score, pair.rejected_score)
    if pair.margin is None and None in scores:
        raise ValueError(
            f"pair {pair.id} does not say how much better its chosen answer is: add the column margin, or the columns "
            "chosen_score and rejected_score"
        )
    margin = pair.margin if pair.margin is not None else scores[0] - scores[1]
    if margin < 0:
        raise ValueError(f"pair {pair.id}: chosen is worse than rejected by {-margin:g}: swap the two")
    return float(margin)


def gap_scale(pairs: Sequence[Pair]) -> float:
    """Root mean square of the pairs' margins in the data's own unit: twice the standard deviation inside a pair."""
    return float(np.sqrt(np.mean([pair.margin**2 for pair in pairs])))


def column(examples: Sequence, name: str) -> torch.Tensor:
    """One number of each example, [n]; ValueError where the data do not have it."""
    if missing := [example.id for example in examples if name not in example.columns]:
        raise ValueError(f"{len(missing)} examples, the first of them {missing[0]}, have no {name}: add such a column")
    return torch.tensor([example.columns[name] for example in examples])


def with_column(examples: Sequence, name: str, values) -> list:
    """The examples with one more number each."""
    return [
        example._replace(columns={**example.columns, name: float(value)})
        for example, value in zip(examples, values, strict=True)
    ]
