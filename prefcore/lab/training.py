"""An arm: one policy, trained from the reference by one objective with one seed, and scored on the task's prompts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine import models, reference, train
from prefcore.engine.collate import Plan
from prefcore.lab.tasks import Task, load_reference

CACHE = Path("build/logps")


class Arm(NamedTuple):
    """A trained policy with its tokenizer, one history row per step, one score row per prompt."""

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
) -> Arm:
    """Train one arm from the reference and score it on a split."""
    tokenizer, policy = fresh_policy(p, seed)
    where = {"method": method, "arm": arm, "seed": seed}
    history = fit_arm(p, plan, loss, settings, policy, **where, learning_rate=learning_rate, state=state)
    return Arm(policy, tokenizer, history, task.score(policy, tokenizer, getattr(task, split), arm=arm, seed=seed))


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
