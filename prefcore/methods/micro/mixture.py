"""Linear heads and a router on vectors that are computed once: what they are, how they start, what they say.

Nothing here knows a loss. Everything is small, so that a run takes seconds on one core.
"""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

UNITS = 128


class Rows(NamedTuple):
    """n choices: difference [n,D] is the vector of the preferred text less that of the other.

    prompt [n,Q]: what a router reads without a context; seen, unseen [n,Q]: with a context, in a wording for training
    and in a held-out one. attribute [n]: number of the criterion, group or person that chose; pair [n]: which two texts
    (rows that share a number are one item of an interval). label [n]: P(this choice | pair, attribute); share [n]:
    P(attribute | pair); both are 1 where a row is a vote that was cast.
    """

    difference: Tensor
    prompt: Tensor
    seen: Tensor
    unseen: Tensor
    attribute: Tensor
    pair: Tensor
    label: Tensor
    share: Tensor


class Mixture(NamedTuple):
    """heads: D -> K without bias. router: Q -> K logits. `reads` names the column of Rows that the router reads."""

    heads: nn.Module
    router: nn.Module
    reads: str = "prompt"


def pick(rows: Rows, index) -> Rows:
    """The rows at these positions."""
    return Rows(*(column[index] for column in rows))


def take(rows: Rows, per_attribute: int, seed: int) -> Rows:
    """`per_attribute` random rows of each attribute, the first ones of a fixed order: more hold what fewer held.

    Raises ValueError, with its number, for an attribute that has fewer.
    """
    order = torch.randperm(len(rows.attribute), generator=torch.Generator().manual_seed(seed))
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


def oracle_router(width: int, heads: int, generator: torch.Generator) -> nn.Module:
    """All weight on the head whose number it reads (the column `attribute`): a head for each, nothing to learn."""
    return nn.Embedding.from_pretrained(1000.0 * torch.eye(heads), freeze=True)


class Recipe(NamedTuple):
    """How to make and train a mixture: loss(router_logits [B,K], margins [B,K]) -> [B]; router and head make parts."""

    loss: Callable
    heads: int
    router: Callable = linear_router
    head: Callable = linear_heads
    reads: str = "prompt"


def make(rows: Rows, recipe: Recipe, seed: int) -> Mixture:
    """A new mixture for these rows. Raises ValueError for fewer heads than one, or more heads than rows."""
    count, heads = len(rows.difference), recipe.heads
    if not 1 <= heads <= count:
        raise ValueError(f"heads is {heads}; with {count} rows it must be from 1 to {count}")
    generator = torch.Generator().manual_seed(seed)
    width, prompt_width = rows.difference.shape[1], rows.prompt.shape[1]
    return Mixture(
        recipe.head(width, heads, generator), recipe.router(prompt_width, heads, generator), recipe.reads
    )  # fmt: skip


def copy_with(mixture: Mixture, *, reads: str) -> Mixture:
    """A copy that trains apart from the first and whose router reads another column."""
    return Mixture(copy.deepcopy(mixture.heads), copy.deepcopy(mixture.router), reads)


def with_weights(mixture: Mixture, log_weights: Tensor) -> Mixture:
    """The same heads with fixed weights for each attribute, from their logs [A,K]."""
    return Mixture(mixture.heads, nn.Embedding.from_pretrained(log_weights), "attribute")


def outputs(mixture: Mixture, rows: Rows, reads: str = "") -> tuple[Tensor, Tensor]:
    """(router_logits [n,K], margins [n,K]) without gradient; `reads` may name another column for the router."""
    with torch.no_grad():
        return mixture.router(getattr(rows, reads or mixture.reads)), mixture.heads(rows.difference)


def _linear(width: int, outputs: int, scale: float, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):  # its own start is drawn from the global stream: leave that as it was
        layer = nn.Linear(width, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.randn(outputs, width, generator=generator))
        if bias:
            layer.bias.zero_()
    return layer
