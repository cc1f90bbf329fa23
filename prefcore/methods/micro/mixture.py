"""Linear heads and a router on vectors that are computed once: made, trained and read, the same for the same seed.

The loss is an argument; nothing here knows a method. Everything is small, so that a run takes seconds on one core.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

UNITS = 128


class Rows(NamedTuple):
    """n choices: difference [n,D] is the vector of the preferred text less that of the other.

    prompt [n,Q]: what a router reads without a context; seen, unseen [n,Q]: with a context, in a wording for training
    and in a held-out one. attribute [n]: number of the criterion, group or person that chose; pair [n]: which two texts
    (rows that share a number are one item of an interval).
    """

    difference: Tensor
    prompt: Tensor
    seen: Tensor
    unseen: Tensor
    attribute: Tensor
    pair: Tensor


class Recipe(NamedTuple):
    """How to make and train a mixture: loss(router_logits [B,K], margins [B,K]) -> [B]; head and router make parts."""

    loss: Callable
    heads: int
    router: Callable
    head: Callable
    reads: str


class Mixture(NamedTuple):
    """heads: D -> K without bias. router: Q -> K logits. `reads` names the column of Rows that the router reads."""

    heads: nn.Module
    router: nn.Module
    reads: str = "prompt"


class Schedule(NamedTuple):
    """AdamW without weight decay; warm-up over 5 % of the steps, then a cosine to 0."""

    epochs: int
    batch_size: int
    learning_rate: float


def pick(rows: Rows, index) -> Rows:
    """The rows at these positions."""
    return Rows(*(column[index] for column in rows))


def take(rows: Rows, per_attribute: int, seed: int) -> Rows:
    """`per_attribute` random rows of each attribute, the first ones of a fixed order: more hold what fewer held.

    Raises ValueError, with its number, for an attribute that has fewer.
    """
    order = torch.randperm(len(rows.attribute), generator=_generator(seed))
    chosen = []
    for attribute in rows.attribute.unique().tolist():
        inside = order[rows.attribute[order] == attribute]
        if len(inside) < per_attribute:
            raise ValueError(f"attribute {attribute} has {len(inside)} rows; {per_attribute} of each are asked for")
        chosen.append(inside[:per_attribute])
    return pick(rows, torch.cat(chosen))


def linear_heads(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """K linear rewards without bias, each with its own random start, as equal heads would stay equal."""
    return _linear(width, heads, 1 / math.sqrt(width), generator, bias=False)


def deep_heads(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """K odd functions of the difference (one layer of tanh, no bias): swapping the texts turns the sign round.

    More than any reward can do: a reward gives a difference of two numbers, these may even be intransitive.
    """
    first = _linear(width, UNITS, 1 / math.sqrt(width), generator, bias=False)
    return nn.Sequential(first, nn.Tanh(), _linear(UNITS, heads, 1 / math.sqrt(UNITS), generator, bias=False))


def linear_router(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """One linear layer with bias, which starts at equal weights for every prompt."""
    return _linear(width, heads, 0.0, generator)


def mlp_router(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """One hidden layer of 128 units; it too starts at equal weights."""
    first = _linear(width, UNITS, 1 / math.sqrt(width), generator)
    return nn.Sequential(first, nn.ReLU(), _linear(UNITS, heads, 0.0, generator))


def constant_router(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """The same logits for every prompt: a linear layer whose weight is held at 0, so that only its bias learns."""
    router = _linear(width, heads, 0.0, generator)
    router.weight.requires_grad_(False)
    return router


def told_router(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """All weight on the head whose number it reads (the column `attribute`): a head for each, nothing to learn."""
    return nn.Embedding.from_pretrained(1000.0 * torch.eye(heads), freeze=True)


def make(rows: Rows, recipe: Recipe, seed: int) -> Mixture:
    """A new mixture for these rows. Raises ValueError for fewer heads than one, or more heads than rows."""
    count, heads = len(rows.difference), recipe.heads
    if not 1 <= heads <= count:
        raise ValueError(f"heads is {heads}; with {count} rows it must be from 1 to {count}")
    generator = _generator(seed)
    width, prompt_width = rows.difference.shape[1], rows.prompt.shape[1]
    return Mixture(
        recipe.head(width, heads, generator), recipe.router(prompt_width, heads, generator), recipe.reads
    )  # fmt: skip


def train(rows: Rows, recipe: Recipe, schedule: Schedule, seed: int) -> tuple[Mixture, pd.DataFrame]:
    """(a new mixture trained on these rows, its history)."""
    model = make(rows, recipe, seed)
    return model, fit(model, rows, recipe.loss, schedule, seed=seed)


def copy_with(mixture: Mixture, *, reads: str) -> Mixture:
    """A copy that trains apart from the first and whose router reads another column."""
    return Mixture(copy.deepcopy(mixture.heads), copy.deepcopy(mixture.router), reads)


def outputs(mixture: Mixture, rows: Rows, reads: str = "") -> tuple[Tensor, Tensor]:
    """(router_logits [n,K], margins [n,K]) without gradient; `reads` may name another column for the router."""
    with torch.no_grad():
        return mixture.router(getattr(rows, reads or mixture.reads)), mixture.heads(rows.difference)


def fit(mixture: Mixture, rows: Rows, loss: Callable, schedule: Schedule, *, seed: int) -> pd.DataFrame:
    """Train heads and router in place; loss(router_logits [B,K], margins [B,K]) -> [B]. History: step, loss."""
    prompt = getattr(rows, mixture.reads)

    def losses(index, epoch):
        return loss(mixture.router(prompt[index]), mixture.heads(rows.difference[index]))

    return descend(trained(mixture.heads, mixture.router), losses, len(prompt), schedule, seed=seed)


def fit_router(mixture: Mixture, rows: Rows, loss: Callable, schedule: Schedule, *, seed: int) -> pd.DataFrame:
    """Train the router alone in place; loss(router_logits [B,K], margins [B,K]) -> [B] sees the frozen heads."""
    _, margins = outputs(mixture, rows)
    prompt = getattr(rows, mixture.reads)

    def losses(index, epoch):
        return loss(mixture.router(prompt[index]), margins[index])

    return descend(trained(mixture.router), losses, len(prompt), schedule, seed=seed)


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

    return descend(trained(mixture.router), losses, len(prompt), schedule, seed=seed)


def trained(*modules: nn.Module) -> list[Tensor]:
    """The parameters of the modules that take part in training."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def descend(
    parameters: Sequence[Tensor], losses: Callable, count: int, schedule: Schedule, *, seed: int
) -> pd.DataFrame:
    """Minibatch descent in place: losses(index [B], epoch) -> [B]. One history row a step: step, loss (their mean).

    The order of an epoch is drawn from (seed, epoch). Raises ValueError, with the step, for a loss that is not finite.
    """
    if not count:
        raise ValueError("there are no rows to learn from")
    steps = schedule.epochs * math.ceil(count / schedule.batch_size)
    optimiser = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, steps))
    history = []
    for epoch in range(schedule.epochs):
        order = torch.randperm(count, generator=_generator(1_000_003 * seed + epoch))
        for index in order.split(schedule.batch_size):
            loss = losses(index, epoch).mean()
            if not torch.isfinite(loss):
                raise ValueError(f"the loss is {loss.item()} at step {len(history) + 1}: lower the learning rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            history.append(loss.detach())
    values = torch.stack(history).tolist() if history else []
    return pd.DataFrame({"step": range(1, len(values) + 1), "loss": values})


def _pace(step: int, steps: int) -> float:
    warm = max(1, round(0.05 * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _linear(width: int, outputs: int, scale: float, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):  # its own start is drawn from the global stream: leave that as it was
        layer = nn.Linear(width, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.randn(outputs, width, generator=generator))
        if bias:
            layer.bias.zero_()
    return layer


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
