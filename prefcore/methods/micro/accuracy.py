"""What an arm is measured by: a row for each pair, with means over all votes that can be cast on it.

A vote counts by its probability, so that what an arm is worth on a pair is exact, and pairs are the units of intervals.
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from prefcore.methods.micro import losses
from prefcore.methods.micro.losses import Floor
from prefcore.methods.micro.mixture import Mixture, Rows, outputs


class Held(NamedTuple):
    """What arms are measured on: all votes that can be cast on n pairs, and the pairs' floor [n]."""

    rows: Rows
    floor: Floor


def correct(probability: Tensor) -> Tensor:
    """1 where the preferred text is the likelier one, 0 where it is not, 0.5 where the two are even, [n]."""
    return 0.5 + 0.5 * (probability - 0.5).sign()


def heads_correct(margins: Tensor) -> Tensor:
    """1 where a head prefers the preferred text, 0 where it does not, 0.5 where it is even: [n,K]."""
    return 0.5 + 0.5 * margins.sign()


def mean_by(values: Tensor, weights: Tensor, groups: Tensor, count: int) -> Tensor:
    """Weighted mean of values [n,K] over the rows of each group 0 ... count - 1: [count,K]; 0 for one without rows."""
    values, weights = values.double(), weights.double()[:, None]
    sums, total = (torch.zeros(count, x.shape[1], dtype=torch.float64).index_add_(0, groups, x)
                   for x in (values * weights, weights))  # fmt: skip
    return sums / torch.where(total > 0, total, 1.0)


def of_heads(mixture: Mixture, rows: Rows, attributes: int) -> Tensor:
    """Each head's accuracy for each attribute, [A,K]."""
    return mean_by(heads_correct(outputs(mixture, rows)[1]), rows.label, rows.attribute, attributes)


def measure(mixture: Mixture, held: Held, reads: str = "", **columns) -> pd.DataFrame:
    """One row a pair: id, accuracy, nats below the floor, and the columns (arm, seed, group).

    reads: the router's column of rows, where it is another than in training.
    """
    rows = held.rows
    log_likelihood = losses.log_mixture(*outputs(mixture, rows, reads))
    values = torch.stack([correct(log_likelihood.exp()), log_likelihood], 1)
    means = mean_by(values, rows.label * rows.share, rows.pair, len(held.floor.lowest))
    found = {"accuracy": means[:, 0], "nats": means[:, 1] + held.floor.lowest}
    return pd.DataFrame({**columns, "id": range(len(means)), **{name: x.numpy() for name, x in found.items()}})


def best_heads(mixture: Mixture, held: Held, choosing: Held) -> Tensor:
    """Accuracy [pairs] of the best head of each attribute, which `choosing` tells; attributes count alike."""
    rows, attributes = held.rows, int(choosing.rows.attribute.max()) + 1
    best = of_heads(mixture, choosing.rows, attributes).argmax(1)
    right = heads_correct(outputs(mixture, rows)[1]).gather(1, best[rows.attribute][:, None])
    return mean_by(right, rows.label, rows.pair, len(held.floor.lowest))[:, 0]


def attribute_weights(mixture: Mixture, rows: Rows, attributes: int, weights: Callable) -> Tensor:
    """Log of fixed head weights for each attribute [A,K] from its rows; weights(margins [n,K]) -> [K], n may be 0."""
    _, margins = outputs(mixture, rows)
    return torch.stack([weights(margins[rows.attribute == attribute]).log() for attribute in range(attributes)])
