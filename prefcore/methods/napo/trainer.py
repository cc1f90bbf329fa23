"""One arm's training: from the model with a new adapter, on a plan that all arms share but for directions and order."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import train
from prefcore.engine.collate import Plan, make_plan
from prefcore.methods.napo import vision, vqa


def fresh_policy(p: Parameters, seed: int):
    """The model with a new adapter: the same function as before until it is trained."""
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers}
    return vision.add_lora(vqa.load_model(p)[1], **how, seed=seed)


def replan(attached: Plan, examples: Sequence[Example], p: Parameters, seed: int) -> Plan:
    """An attached plan with the same prompts, pictures and answers, other directions of the pairs and another order."""
    how = {"batch_size": p.batch_size, "epochs": p.epochs, "pad_id": attached.pad_id}
    examples = [new._replace(shown=old.shown) for new, old in zip(examples, attached.examples, strict=True)]
    return attached._replace(examples=examples, batches=make_plan(examples, seed=seed, **how).batches)


def fit_arm(
    p: Parameters, plan: Plan, loss: Callable, settings: Mapping, *, arm: str, seed: int, learning_rate: float,
    state: Sequence[str] = (),
) -> tuple[object, pd.DataFrame]:
    """(policy, one history row a step) of one arm, trained on an attached plan.

    loss(logps, ref_logps, batch, state, **settings): all numbers that decide the arm are in `settings`, so that a run
    with another one is another run (engine/train). `state` names the numbers that the loss leaves behind: the history
    shows them as state_<name>. A run that is finished is not run again before the chapter has saved its results.
    """
    policy = fresh_policy(p, seed)
    history = train.fit(
        policy, plan, loss, settings, learning_rate=learning_rate, seed=seed, state=dict.fromkeys(state, 0.0),
        precision=p.precision, label=f"{arm}, seed {seed}",
        checkpoints=Path(".checkpoints") / p.profile / "napo" / f"{arm}-{seed}",
    )  # fmt: skip
    history.insert(0, "arm", arm)
    history.insert(1, "seed", seed)
    return policy, history
