"""Heads and router learn: both stages are one loop (engine/descent) with other parameters free and another loss.

The loss is an argument; nothing here knows a method. The same seed gives the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from prefcore.engine.descent import descend
from prefcore.methods.micro.mixture import Mixture, Recipe, Rows, make, outputs


class Schedule(NamedTuple):
    """AdamW without weight decay or clipping; warm-up over 5 % of the steps, then a cosine to 0 (see `pace`).

    Heads and router have a learning rate each. A step of AdamW changes every weight by about its rate, and so a logit
    by the rate times the summed entries of what is read: six measures bear steps that 384 entries of a sentence do not.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    router_rate: float


def train(rows: Rows, recipe: Recipe, schedule: Schedule, seed: int) -> tuple[Mixture, pd.DataFrame]:
    """(a new mixture trained on these rows, its history)."""
    model = make(rows, recipe, seed)
    return model, fit(model, rows, recipe.loss, schedule, seed=seed)


def fit(mixture: Mixture, rows: Rows, loss: Callable, schedule: Schedule, *, seed: int) -> pd.DataFrame:
    """Train heads and router in place; loss(router_logits [B,K], margins [B,K]) -> [B]. History: step, loss."""
    prompt = getattr(rows, mixture.reads)

    def losses(index, epoch):
        return loss(mixture.router(prompt[index]), mixture.heads(rows.difference[index]))

    groups = [group(mixture.heads, schedule.learning_rate), group(mixture.router, schedule.router_rate)]
    return minimise(groups, losses, len(prompt), schedule, seed=seed)


def fit_router(mixture: Mixture, rows: Rows, loss: Callable, schedule: Schedule, *, seed: int) -> pd.DataFrame:
    """Train the router alone in place; loss(router_logits [B,K], margins [B,K]) -> [B] sees the frozen heads."""
    _, margins = outputs(mixture, rows)
    prompt = getattr(rows, mixture.reads)

    def losses(index, epoch):
        return loss(mixture.router(prompt[index]), margins[index])

    return minimise([group(mixture.router, schedule.router_rate)], losses, len(prompt), schedule, seed=seed)


def fit_router_to_targets(
    mixture: Mixture, rows: Rows, targets: Callable, loss: Callable, schedule: Schedule, *, seed: int
) -> pd.DataFrame:
    """Train the router alone in place on targets that are computed at the start of each epoch and then kept.

    targets(router_logits [n,K], margins [n,K]) -> [n,K]; loss(router_logits [B,K], targets [B,K]) -> [B].
    """
    _, margins = outputs(mixture, rows)
    prompt, kept = getattr(rows, mixture.reads), {}

    def losses(index, epoch):
        if epoch not in kept:
            kept.clear()
            with torch.no_grad():
                kept[epoch] = targets(mixture.router(prompt), margins)
        return loss(mixture.router(prompt[index]), kept[epoch][index])

    return minimise([group(mixture.router, schedule.router_rate)], losses, len(prompt), schedule, seed=seed)


def group(module: nn.Module, rate: float) -> dict:
    """The parameters of a module that take part in training, with their learning rate, as AdamW takes them."""
    return {"params": [p for p in module.parameters() if p.requires_grad], "lr": rate}


def minimise(groups: Sequence[dict], losses: Callable, count: int, schedule: Schedule, *, seed: int) -> pd.DataFrame:
    """Minibatches of `count` rows, in place: losses(index [B], epoch) -> [B]. History, a row a step: step, loss (mean).

    groups: what learns, and at which rate (see `group`).
    The order of an epoch is drawn from (seed, epoch). Raises ValueError, with the step, for a loss that is not finite.
    """
    if not count:
        raise ValueError("there are no rows to learn from")
    batches = []
    for epoch in range(schedule.epochs):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
        batches += [(index, epoch) for index in order.split(schedule.batch_size)]

    def mean_loss(numbered):
        step, batch = numbered
        loss = losses(*batch).mean()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
        return loss, {}

    how = {"learning_rate": schedule.learning_rate, "pace": pace, "max_grad_norm": math.inf, "label": "mixture"}
    return descend(groups, enumerate(batches, 1), mean_loss, **how).reindex(columns=["step", "loss"])


def pace(step: int, steps: int) -> float:
    """Share of the learning rate at a step, counted from 0: up over 5 % of the steps, then half a cosine down to 0."""
    warm = max(1, round(0.05 * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
