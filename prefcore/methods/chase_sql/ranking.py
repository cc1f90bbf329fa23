"""A softmax over what there is to choose from: features of each option, weights learnt from options that were right.

The conditional logit of discrete choice (McFadden 1974): P(option i) = exp(w.x_i) / sum_j exp(w.x_j).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize


class Weights(NamedTuple):
    """weights [F] of features in units of their spread [F] over the options that were learnt from."""

    weights: np.ndarray
    spread: np.ndarray


def fit(options: Sequence[np.ndarray], right: Sequence[np.ndarray], *, ridge: float) -> Weights:
    """Maximise the mean log-probability that a right option is chosen, less ridge/2 |w|^2.

    options: [n_i, F] features of each question's options; right: [n_i] bool. Questions without a right or without a
    wrong option teach nothing; ValueError where none is left.
    """
    known = [(x, y) for x, y in zip(options, right, strict=True) if 0 < y.sum() < len(y)]
    if not known:
        raise ValueError(f"none of {len(options)} questions has both right and wrong options: widen what is enumerated")
    rows, good = np.concatenate([x for x, _ in known]), np.concatenate([y for _, y in known])
    spread = rows.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    rows = rows / spread
    best = rows[good]
    sizes, counts = (np.array([size(y) for _, y in known]) for size in (len, np.sum))

    def loss(w):
        every, chances = softmax(rows @ w, sizes)
        right, shares = softmax(best @ w, counts)
        slope = chances @ rows - shares @ best
        return (every - right).mean() + ridge * w @ w / 2, slope / len(known) + ridge * w

    found = minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return Weights(found.x, spread)


def softmax(logits: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log of the sum of exponentials [q], softmax [n]) within q groups that follow each other in logits [n]."""
    starts = np.cumsum(sizes) - sizes
    highest = np.maximum.reduceat(logits, starts)
    powers = np.exp(logits - np.repeat(highest, sizes))
    total = np.add.reduceat(powers, starts)
    return highest + np.log(total), powers / np.repeat(total, sizes)


def logits(options: np.ndarray, weights: Weights) -> np.ndarray:
    """w.x [n] of a question's options [n, F]."""
    return (options / weights.spread) @ weights.weights
