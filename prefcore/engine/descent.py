"""One loop of AdamW for what the Trainer is too much for: reward heads, a vision tower, a small LLaVA."""

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from prefcore.engine import progress, ranks
from prefcore.engine.machine import small_products


def descend(
    parameters: Iterable[Tensor | dict],
    batches: Iterable,
    loss: Callable,
    *,
    learning_rate: float,
    label: str,
    warmup: float = 0.1,
    pace: Callable[[int, int], float] | None = None,
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
) -> pd.DataFrame:
    """Change the parameters in place, a step a batch; returns one history row a step.

    parameters: tensors, or groups of them as AdamW takes them, {"params": tensors, "lr": the group's learning rate}.

    loss(batch) -> (mean loss, a 0-d tensor; further numbers of the history by name). The rate rises over the share
    `warmup` of the steps, then falls to 0 in a line, unless pace(step, steps) says what share of it each step takes.
    grad_norm is that before clipping. Several processes all take the average step: loss reads its share of a batch in
    each (ranks.deal, ranks.step_mean), or in each the whole.
    """
    trained, batches = list(parameters), list(batches)
    optimiser = torch.optim.AdamW(trained, learning_rate, weight_decay=weight_decay)
    tensors = [tensor for group in optimiser.param_groups for tensor in group["params"]]
    steps = len(batches)
    if pace:
        schedule = LambdaLR(optimiser, lambda step: pace(step, steps))
    else:
        schedule = get_linear_schedule_with_warmup(optimiser, math.ceil(warmup * steps), steps)
    rows = []
    for step, batch in enumerate(progress.track(batches, label), 1):
        with small_products():
            mean, numbers = loss(batch)
            mean.backward()
        ranks.average_gradients(tensors)
        norm = clip_grad_norm_(tensors, max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        mean = ranks.mean_over_ranks(mean)
        rows.append({"step": step, "loss": float(mean), "grad_norm": float(norm), **_plain(numbers)})
    return pd.DataFrame(rows)


def _plain(numbers: Mapping) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}
