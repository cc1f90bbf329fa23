"""The second level: categories whose phrases choose alike are one preference, whatever words name them.

An embedding of words cannot know that "few words" and "no padding" ask for the same. What they choose can: the
signature of a category is the mean over its mentions of (winner - loser), vectors of the two texts. Categories are
merged by Ward's rule with their mentions as weights, so that a rare one, whose signature is noisy, joins cheaply:

    d(a, b) = n_a n_b / (n_a + n_b) |s_a - s_b|^2        the pair of the least d becomes one, again and again

A category explains a choice that mentions it if its signature points from the loser to the winner. How many are kept
is decided by how many choices they explain that took no part in their signatures; no planted label is read.

Departs from the paper (arXiv 2503.24150): there a language model refines the clusters; this rule is ours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Space(NamedTuple):
    """mean [H], axes [H, D]: text vectors -> D whitened principal components of what separates texts."""

    mean: np.ndarray
    axes: np.ndarray

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """[n, D] of vectors [n, H]."""
        return (vectors - self.mean) @ self.axes


def whiten(vectors: np.ndarray, *, dims: int) -> Space:
    """The space of the `dims` leading components of vectors [n, H], each scaled to variance 1."""
    if not 1 <= dims <= min(vectors.shape):
        raise ValueError(f"signature_dims is {dims}; {vectors.shape[0]} vectors of {vectors.shape[1]} allow 1 to "
                         f"{min(vectors.shape)}")  # fmt: skip
    mean = vectors.mean(0)
    _, scale, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    keep = np.maximum(scale[:dims], 1e-9 * scale[0]) / np.sqrt(len(vectors))
    return Space(mean, axes[:dims].T / keep)


def signatures(change: np.ndarray, owner: np.ndarray, category: np.ndarray, *, categories: int) -> np.ndarray:
    """[C, D] mean change of each category's mentions, 0 for one without any.

    change [N, D]: winner minus loser of each choice; owner, category [M] of each mention, category -1 left out.
    """
    inside = category >= 0
    sums = np.zeros((categories, change.shape[1]))
    np.add.at(sums, category[inside], change[owner[inside]])
    return sums / np.maximum(np.bincount(category[inside], minlength=categories), 1)[:, None]


def ward(means: np.ndarray, weight: np.ndarray, sizes: Sequence[int]) -> dict[int, np.ndarray]:
    """size -> label [C] after merging the categories down to so many, the heaviest first; means [C, D], weight [C].

    A size above C leaves all apart. A category of weight 0 costs nothing and joins its nearest at once.
    """
    means, weight = means.astype(float).copy(), weight.astype(float).copy()
    home, alive = np.arange(len(means)), np.ones(len(means), bool)
    out = {size: None for size in sizes}
    mass = weight.copy()
    for left in range(len(means), 0, -1):
        for size in sizes:
            if out[size] is None and left <= size:
                out[size] = _heaviest_first(home, mass)
        if left <= min(sizes):
            break
        a, b = _closest(means, weight, alive)
        means[a] = (weight[a] * means[a] + weight[b] * means[b]) / max(weight[a] + weight[b], 1e-12)
        weight[a] += weight[b]
        home[home == b], alive[b] = a, False
    return out


def distances(means: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[C, C] what merging two categories costs, n_a n_b / (n_a + n_b) |s_a - s_b|^2; a category with itself never."""
    square = (means**2).sum(1)
    apart = np.maximum(square[:, None] + square - 2 * means @ means.T, 0)
    cost = apart * weight[:, None] * weight / np.maximum(weight[:, None] + weight, 1e-12)
    np.fill_diagonal(cost, np.inf)
    return cost


def _closest(means, weight, alive) -> tuple[int, int]:
    rows = np.flatnonzero(alive)
    a, b = sorted(divmod(int(distances(means[rows], weight[rows]).argmin()), len(rows)))
    return int(rows[a]), int(rows[b])


def _heaviest_first(home: np.ndarray, mass: np.ndarray) -> np.ndarray:
    label = np.unique(home, return_inverse=True)[1]
    order = np.argsort(-np.bincount(label, weights=mass), kind="stable")
    return np.argsort(order)[label]


def explained(change: np.ndarray, owner: np.ndarray, category: np.ndarray, pointers: np.ndarray) -> np.ndarray:
    """[N] 1 where the categories that a choice mentions name its winner, -1 where they name the loser, else 0.

    Several that are mentioned add up; category [M], -1 left out. pointers [C, D]: signatures of other choices. A choice
    that mentions nothing of a basis counts 0, a coin flip does so on average: one category for all gains nothing by
    covering everything.
    """
    inside = category >= 0
    pull = np.zeros(len(change))
    np.add.at(pull, owner[inside], (change[owner[inside]] * pointers[category[inside]]).sum(1))
    return np.sign(pull)


def choose_size(change: np.ndarray, owner: np.ndarray, category: np.ndarray, learns: np.ndarray, judges: np.ndarray, *,
                sizes: Sequence[int], basis: int) -> tuple[dict[int, np.ndarray], dict[int, float]]:  # fmt: skip
    """(size -> label of each category [C], size -> share that the `basis` heaviest explain of the judging choices).

    learns, judges [N] bool: the choices that make signatures and merges, and those that say how good they are.
    """
    kinds = int(category.max()) + 1
    learnt = np.where(learns[owner], category, -1)
    weight = np.bincount(learnt[learnt >= 0], minlength=kinds)
    merged = ward(signatures(change, owner, learnt, categories=kinds), weight, sizes)
    worth = {}
    for size, label in merged.items():
        made = np.where(label[category] < basis, label[category], -1)
        pointers = signatures(change, owner, np.where(learns[owner], made, -1), categories=int(label.max()) + 1)
        there = np.where(judges[owner], made, -1)
        worth[size] = float(explained(change, owner, there, pointers)[judges].mean())
    return merged, worth
