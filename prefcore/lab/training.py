"""An arm: one policy, trained from the reference by one objective with one seed, and scored on the task's prompts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine import models, reference, train
from prefcore.engine.collate import Plan
from prefcore.lab import measures
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
    answers = task.bank(split, tokenizer)
    rated = bank.attach(answers, fresh, pad_id=plan.pad_id, cache=CACHE)
    where = {"method": method, "arm": arm, "seed": seed}
    history = fit_arm(p, plan, loss, settings, fresh, **where, learning_rate=learning_rate, state=state)
    ratios = bank.log_ratios(fresh, rated, cache=CACHE)
    rows = measures.rows_of(ratios, [example.id for example in rated.examples], arm=arm, seed=seed)
    return Arm(fresh, tokenizer, history, rows)


def tune(run: Callable[[float], Arm], rates: Sequence[float], task: Task, p: Parameters, *, default: float) -> tuple:
    """(learning rate, rho of each) by the measure on the validation bank, with the rater that settings are chosen by.

    run(rate) trains the arm and measures it on validation. Without any rate the default is taken.
    """
    tokenizer, _ = load_reference(p)
    ratings = measures.ratings_of(task.bank("validation", tokenizer), task.chosen_by)
    found = {rate: measures.summarise(run(rate).scores, ratings, p)["estimate"].item() for rate in rates}
    return (max(found, key=found.get) if found else default), found


def confirm(p: Parameters, task: Task, arm: Arm, *, name: str, seed: int) -> pd.DataFrame:
    """Samples of an arm, its adapter scaled to `confirm_nats` from the reference, one for each fresh prompt, rated.

    Columns as evaluate.score_policy has them, and `factor`. A policy that does not get so far gives an empty table.
    """
    answers = task.bank("test", arm.tokenizer)
    few = bank.Bank(answers.examples[: p.confirm_bank], {})
    rated = bank.attach(few, arm.policy, pad_id=arm.tokenizer.pad_token_id, cache=CACHE)
    try:
        factor = bank.factor_at(arm.policy, rated, p.confirm_nats)
    except ValueError as error:
        print(f"{name}, seed {seed}: {error}")
        return pd.DataFrame()
    with models.scaled(arm.policy, factor):
        frame = task.sample_fresh(arm.policy, arm.tokenizer, arm=name, seed=seed)
    return frame.assign(factor=factor)


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
