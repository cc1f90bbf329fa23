"""An arm: one policy, trained from the reference by one objective with one seed, and scored on the task's prompts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine import models, reference, train
from prefcore.engine.collate import Plan
from prefcore.lab import kept, measures
from prefcore.lab.tasks import Task, load_reference
from prefcore.scoring import bank

CACHE = Path("build/logps")


class Arm(NamedTuple):
    """A trained policy with its tokenizer, one history row per step, one row of measures per prompt of the bank."""

    policy: object
    tokenizer: object
    history: pd.DataFrame
    scores: pd.DataFrame


def run_arm(
    p: Parameters,
    task: Task,
    plan: Plan,
    loss: Callable,
    settings: Mapping,
    *,
    method: str,
    arm: str,
    seed: int,
    learning_rate: float | None = None,
    state: dict | None = None,
    split: str = "test",
    policy=None,
) -> Arm:
    """Train one arm from the reference and measure it on the bank of a split.

    policy: what is trained; by default the reference with a new adapter. The reference's own numbers are computed
    before training, so that it may be the whole model.
    """
    tokenizer, fresh = fresh_policy(p, seed) if policy is None else (load_reference(p)[0], policy)
    rated = attached(task.bank(split, tokenizer), fresh, tokenizer)
    where = {"method": method, "arm": arm, "seed": seed}
    history = fit_arm(p, plan, loss, settings, fresh, **where, learning_rate=learning_rate, state=state)
    ratios = bank.log_ratios(fresh, rated, cache=CACHE)
    rows = measures.rows_of(ratios, [example.id for example in rated.examples], arm=arm, seed=seed)
    return Arm(fresh, tokenizer, history, rows)


class Runs(NamedTuple):
    """All runs of a chapter: `table` of measures (lab/measures.py), training history, samples at the common distance
    (the reference's own among them), and the one trained arm that is kept.
    """

    table: pd.DataFrame
    history: pd.DataFrame
    samples: pd.DataFrame
    kept: Arm


def run_all(
    p: Parameters,
    task: Task,
    run: Callable[[str, int], Arm],
    arms: Sequence[str],
    *,
    keep: str,
    seeds: Mapping[str, int] = MappingProxyType({}),
) -> Runs:
    """run(arm, seed) for each arm and each of `seeds`; samples of the arms in `confirm`, for `confirm_seeds` each.

    seeds: of arms that have another number of them than p.seeds. Run by a command, the chapter keeps what each run has
    said, and shares the runs with other processes (lab/kept.py). In a helper this ends the notebook.
    """
    tokenizer, held = load_reference(p)[0], []

    def write_reference(s: int) -> kept.Tables:
        return {"samples": task.write(load_reference(p)[1], tokenizer, arm="reference", seed=s).assign(factor=0.0)}

    def score_reference() -> kept.Tables:
        answers = attached(task.bank("test", tokenizer), fresh_policy(p, 0)[1], tokenizer)
        return {"scores": measures.rows_of_reference(answers)}

    def train_and_write(arm: str, s: int) -> kept.Tables:
        trained = run(arm, s)
        held.extend([trained] if (arm, s) == (keep, 0) else [])
        asked = arm in p.confirm and s < p.confirm_seeds
        samples = confirm(p, task, trained, name=arm, seed=s) if asked else pd.DataFrame()
        return {"scores": trained.scores, "history": trained.history} | ({"samples": samples} if len(samples) else {})

    runs = {f"reference-{s}": partial(write_reference, s) for s in range(p.confirm_seeds)}
    runs |= {"reference": score_reference}
    runs |= {f"{arm}-{s}": partial(train_and_write, arm, s) for arm in arms for s in range(seeds.get(arm, p.seeds))}
    found = kept.tables_of(p, runs)
    kept.end_helper()
    tables, histories, samples = ([run[name] for run in found.values() if name in run]
                                  for name in ("scores", "history", "samples"))  # fmt: skip
    written = pd.concat(samples)
    if "gold" in written:
        tables.append(written[["arm", "seed", "id"]].assign(**{measures.CONFIRMED: written["gold"]}))
    return Runs(pd.concat(tables), pd.concat(histories), written, held[0] if held else run(keep, 0))


def attached(answers: bank.Bank, policy, tokenizer) -> Plan:
    """The answers with the log-probabilities of the policy without its adapter."""
    return bank.attach(answers, policy, pad_id=tokenizer.pad_token_id, cache=CACHE)


def tune(
    p: Parameters, task: Task, run: Callable[[str, float], Arm], arms: Sequence[str]
) -> tuple[dict[str, float], pd.DataFrame]:
    """(learning rate of each arm, rho of each that was tried) on the validation bank, with the rater for such choices.

    run(arm, rate) trains the arm and measures it on validation. Without any of `rates` it is that of `learning_rates`.
    """
    chosen = {arm: p.learning_rates[arm] for arm in arms}
    if not p.rates or not arms:
        return chosen, pd.DataFrame()
    tokenizer, _ = load_reference(p)
    ratings = measures.ratings_of(task.bank("validation", tokenizer), task.chosen_by)
    runs = {f"{arm}-{rate:g}-tried": partial(_scores, run, arm, rate) for arm in arms for rate in p.rates}
    tables, tried = kept.tables_of(p, runs), {}
    for arm in arms:
        scores = {rate: tables[f"{arm}-{rate:g}-tried"]["scores"] for rate in p.rates}
        found = {rate: measures.summarise(rows, ratings, p).iloc[0] for rate, rows in scores.items()}
        chosen[arm] = max(found, key=lambda rate: found[rate]["estimate"])
        tried |= {(arm, rate): {"rho": row["estimate"], "nats": row["nats"]} for rate, row in found.items()}
    table = pd.DataFrame(tried).T.rename_axis(["arm", "rate"]).reset_index()
    return chosen, table.assign(chosen=table["arm"].map(chosen) == table["rate"])


def _scores(run: Callable[[str, float], Arm], arm: str, rate: float) -> kept.Tables:
    return {"scores": run(arm, rate).scores}


def confirm(p: Parameters, task: Task, arm: Arm, *, name: str, seed: int) -> pd.DataFrame:
    """Samples of an arm, its adapter scaled to `confirm_nats` from the reference, one for each fresh prompt.

    Columns as the task's `write` has them, and `factor`. A policy that does not get so far gives an empty table.
    """
    answers = task.bank("test", arm.tokenizer)
    rated = attached(bank.Bank(answers.examples[: p.confirm_bank], {}), arm.policy, arm.tokenizer)
    try:
        factor = bank.factor_at(arm.policy, rated, p.confirm_nats)
    except ValueError as error:
        print(f"{name}, seed {seed}: {error}")
        return pd.DataFrame()
    with models.scaled(arm.policy, factor):
        return task.write(arm.policy, arm.tokenizer, arm=name, seed=seed).assign(factor=factor)


def fresh_policy(p: Parameters, seed: int) -> tuple:
    """(tokenizer, reference with a new adapter): the same function as the reference until it is trained."""
    tokenizer, model = load_reference(p)
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers, "seed": seed}
    return tokenizer, models.add_lora(model, **how)


def fit_arm(
    p: Parameters,
    plan: Plan,
    loss: Callable,
    settings: Mapping,
    policy,
    *,
    method: str,
    arm: str,
    seed: int,
    learning_rate: float | None = None,
    state: dict | None = None,
) -> pd.DataFrame:
    """Train the policy in place, tied to the reference, without scoring it; returns one history row per step.

    loss(logps, ref_logps, batch, state, **settings): all numbers that decide the loss are in `settings` (engine/train).
    """
    history = train.fit(
        policy,
        reference.attach(plan, policy, cache=CACHE, precision=p.precision),
        loss,
        settings,
        learning_rate=learning_rate or p.learning_rate,
        seed=seed,
        state=state,
        precision=p.precision,
        checkpoints=Path(".checkpoints") / p.profile / method / f"{arm}-{seed}",
        label=f"{arm}, seed {seed}",
    )
    history.insert(0, "arm", arm)
    history.insert(1, "seed", seed)
    return history
