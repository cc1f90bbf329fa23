"""A basis: K categories out of C, chosen greedily, and the share of preferences that it covers.

Reconstruction of arXiv 2503.24150, whose definition of coverage we could not read. Three definitions, each a share

    coverage(S) = sum_p covered_p(S) / sum_p total_p        over people p, for a set S of categories

    mass       covered: mentions of the person that fall into S;       total: all mentions
    pairs      covered: pairs of the person that some c in S explains; total: all pairs
    variance   covered: sum of squares that S predicts of the person;  total: squares around the mean (variance.py)

Counts are numbers of mentions, explains is true where a pair mentions the category *and* an explainer that knows the
category alone, not the winner, names the winner. Everything here is exact arithmetic on arrays; no model is asked.

Departs from the paper: the three definitions are ours, so is the greedy choice; all are reported, by name.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from prefcore.methods.canonical_basis.shares import Share, average


class Curves(NamedTuple):
    """By definition ("mass", "pairs"): order, the categories as they were chosen; cover(chosen) -> Share of the judging
    people; share, (way, K) -> Share, way greedy or random."""

    order: Mapping[str, np.ndarray]
    cover: Mapping[str, Callable[[np.ndarray], Share]]
    share: Mapping[str, Mapping[tuple[str, int], Share]]


def mass(counts: np.ndarray, chosen: np.ndarray) -> Share:
    """counts [P, C] mentions of each person, chosen [K] categories."""
    _check_chosen(chosen, counts.shape[1])
    return Share(counts[:, chosen].sum(1).astype(float), counts.sum(1).astype(float))


def pairs(explains: np.ndarray, person: np.ndarray, chosen: np.ndarray) -> Share:
    """explains [N, C] bool, person [N] who made the choice (0 ... P-1), chosen [K] categories."""
    if explains.ndim != 2 or person.shape != explains.shape[:1]:
        raise ValueError(f"expected explains [N, C], person [N]; got {explains.shape}, {person.shape}")
    _check_chosen(chosen, explains.shape[1])
    people = int(person.max()) + 1
    covered = np.bincount(person, weights=explains[:, chosen].any(1), minlength=people)
    return Share(covered, np.bincount(person, minlength=people).astype(float))


def greedy_mass(counts: np.ndarray, *, size: int) -> np.ndarray:
    """[size] categories, the most mentioned first: for the mass this greedy choice is the best one."""
    check_size(size, counts.shape[1])
    return np.argsort(-counts.sum(0), kind="stable")[:size]


def greedy_pairs(explains: np.ndarray, *, size: int) -> np.ndarray:
    """[size] categories, each the one that explains most of the pairs [N, C] that those before it do not.

    At least 1 - 1/e of what the best `size` categories would explain (Nemhauser et al. 1978).
    """
    check_size(size, explains.shape[1])
    left, chosen = np.ones(len(explains), bool), []
    for _ in range(size):
        gain = (explains & left[:, None]).sum(0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        left &= ~explains[:, chosen[-1]]
    return np.array(chosen)


def random_bases(categories: int, *, size: int, draws: int, seed) -> np.ndarray:
    """[draws, size] categories of random bases: the control that a greedy one must beat. seed: as default_rng."""
    check_size(size, categories)
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(categories)[:size] for _ in range(draws)])


def curve(cover: Callable[[np.ndarray], Share], order: np.ndarray, *, categories: int, sizes: Sequence[int], draws: int,
          seed: int) -> dict[tuple[str, int], Share]:  # fmt: skip
    """(way, K) -> share: of the greedy order's first K categories, and the mean of `draws` random bases of K."""
    out = {("greedy", size): cover(order[:size]) for size in sizes}
    for size in sizes:
        bases = random_bases(categories, size=size, draws=draws, seed=seed)
        out["random", size] = average([cover(basis) for basis in bases])
    return out


def cross_halves(counts: np.ndarray, explains: np.ndarray, person: np.ndarray, judges: np.ndarray, *,
                 sizes: Sequence[int], draws: int, seed: int) -> Curves:  # fmt: skip
    """Mass and pairs: the basis is chosen by one half of the people and judged on the other, judges [P] bool.

    counts [P, C], explains [N, C], person [N] of each choice.
    """
    judged = judges[person]
    order = {"mass": greedy_mass(counts[~judges], size=max(sizes)),
             "pairs": greedy_pairs(explains[~judged], size=max(sizes))}  # fmt: skip
    cover = {"mass": partial(mass, counts[judges]), "pairs": partial(pairs, explains[judged], person[judged])}
    how = {"categories": counts.shape[1], "sizes": sizes, "draws": draws, "seed": seed}
    return Curves(order, cover, {of: curve(cover[of], order[of], **how) for of in order})


def by_topic(person: np.ndarray, topic: np.ndarray, category: np.ndarray, chosen: np.ndarray, *, people: int,
             categories: int) -> list[tuple[Share, np.ndarray]]:  # fmt: skip
    """For each topic (share of the basis by mass, mentions [C]); person, topic, category [M] of each mention."""
    out = []
    for t in range(int(topic.max()) + 1):
        counts = count(person[topic == t], category[topic == t], people, categories)
        out.append((mass(counts, chosen), counts.sum(0)))
    return out


def count(owner: np.ndarray, category: np.ndarray, owners: int, categories: int) -> np.ndarray:
    """[owners, categories] mentions; owner [M] and category [M] of each mention, category -1 (none) left out."""
    if owner.shape != category.shape:
        raise ValueError(f"expected owner [M], category [M]; got {owner.shape}, {category.shape}")
    inside = category >= 0
    out = np.zeros((owners, categories))
    np.add.at(out, (owner[inside], category[inside]), 1)
    return out


def reached(curve: dict[int, float], levels: tuple[float, ...]) -> dict[str, int | None]:
    """The smallest K of the curve at which each level is reached, None where it is not."""
    return {f"{level:g}": next((k for k, value in sorted(curve.items()) if value >= level), None) for level in levels}


def _check_chosen(chosen: np.ndarray, categories: int) -> None:
    chosen = np.asarray(chosen)
    if len(set(chosen.tolist())) != len(chosen) or (len(chosen) and not 0 <= chosen.min() <= chosen.max() < categories):
        raise ValueError(f"chosen must be distinct categories of 0 ... {categories - 1}; got {chosen.tolist()}")


def check_size(size: int, columns: int) -> None:
    """ValueError unless a basis of `size` can be chosen from `columns` categories or statements."""
    if not 1 <= size <= columns:
        raise ValueError(f"K is {size}, but the data allow 1 to {columns} columns: lower K, or bring more data")
