"""The same objectives on a linear reward of cached vectors: so cheap that every arm runs with many seeds.

r(text) = w . vector(text), with the encoder's mean-pooled vectors as they are; what fine-tuning adds is not seen here.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from prefcore.data.types import Pair
from prefcore.scoring.votes import VotedPair

Vectors = Mapping[str, np.ndarray]  # [H] by text


def fit(rows: Sequence[Pair], vectors: Vectors, objective: Callable, *, ridge: float) -> np.ndarray:
    """w [H] float64 at the least of the objective's mean loss + ridge x |w|^2 / 2; every objective here is convex.

    objective(rewards [B,2], columns) -> LossOutput, as in reward_model.fit; the columns are margin and strength.
    """
    sides = torch.tensor(np.stack([[vectors[row.chosen], vectors[row.rejected]] for row in rows]), dtype=torch.float64)
    columns = {name: torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64)
               for name in ("margin", "strength")}  # fmt: skip
    weight = torch.zeros(sides.shape[2], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=300, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        cost = objective(sides @ weight, columns).losses.mean() + ridge * weight @ weight / 2
        cost.backward()
        return cost

    optimiser.step(closure)
    return weight.detach().numpy()


def preference(pairs: Sequence[VotedPair], vectors: Vectors, weight: np.ndarray) -> np.ndarray:
    """P(a is preferred) = sigmoid(r_a - r_b) [n]."""
    gap = np.array([vectors[pair.a] - vectors[pair.b] for pair in pairs]) @ weight
    return np.exp(-np.logaddexp(0, -gap))
