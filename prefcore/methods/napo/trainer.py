"""One arm's training: a model that is borrowed for it, changed, measured, and then given back as it was.

So one model in memory serves all arms. Every starting model has its own plan of pictures and answers; arms differ in
which pairs they see, in their rule, and in their learning rate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import train
from prefcore.engine.collate import Plan, make_plan
from prefcore.methods.napo import parts, vision


@contextmanager
def borrow(model, p: Parameters, seed: int) -> Iterator:
    """The model as a policy that can be trained, until the context ends: then it is as it was, bit by bit.

    With a new adapter of `lora_rank` on the last `lora_layers` language layers (0: all, and the projector); where the
    rank is 0 these weights themselves are trained, and a copy of them is kept aside.
    """
    if p.lora_rank:
        how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers}
        policy = parts.add_lora(model, **how, seed=seed)
        try:
            yield policy
        finally:
            policy.unload()
            vars(model).pop("peft_config", None)
        return
    policy = parts.thaw(model, top_layers=p.lora_layers)
    kept = [(weight, weight.detach().clone()) for weight in policy.parameters() if weight.requires_grad]
    try:
        yield policy
    finally:
        for weight, before in kept:
            weight.data.copy_(before)
        model.requires_grad_(False)


def replan(attached: Plan, examples: Sequence[Example], p: Parameters, seed: int) -> Plan:
    """An attached plan with the same prompts, pictures and answers, other pairs of them and another order."""
    how = {"batch_size": p.batch_size, "epochs": p.epochs, "pad_id": attached.pad_id}
    return attached._replace(examples=list(examples), batches=make_plan(examples, seed=seed, **how).batches)


def fit_arm(
    p: Parameters,
    policy,
    plan: Plan,
    loss: Callable,
    settings: Mapping,
    *,
    arm: str,
    seed: int,
    learning_rate: float,
    state: Sequence[str] = (),
) -> pd.DataFrame:
    """Train a borrowed policy in place on an attached plan; one history row a step.

    loss(logps, ref_logps, batch, state, **settings): all numbers that decide the arm are in `settings`, so that a run
    with another one is another run (engine/train). `state` names the numbers that the loss leaves behind: the history
    shows them as state_<name>. A run that is finished is not run again before the chapter has saved its results.
    """
    with parts.recomputing(policy) if p.recompute else nullcontext():
        history = train.fit(
            policy, plan, loss, settings, learning_rate=learning_rate, seed=seed, state=dict.fromkeys(state, 0.0),
            precision=p.precision, accumulation=p.accumulation, score=vision.score, label=f"{arm}, seed {seed}",
            checkpoints=Path(".checkpoints") / p.profile / "napo" / f"{arm}-{learning_rate:g}-{seed}",
        )  # fmt: skip
    history.insert(0, "arm", arm)
    history.insert(1, "seed", seed)
    return history
