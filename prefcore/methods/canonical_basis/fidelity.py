"""What an extractor is worth: are the categories that it names those that were planted, and do two readings agree?"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from prefcore.methods.canonical_basis.extraction import Extraction
from prefcore.methods.canonical_basis.shares import Share, average, difference, interval


def nearest(answers: Sequence[Extraction | None], embed: Callable, vectors: np.ndarray, category: np.ndarray) -> list:
    """Categories of each answer: those of the planted phrases [n, H] whose embeddings are nearest to its phrases."""
    named = [phrase for one in answers if one for phrase in one.phrases]
    near = iter(category[(embed(named) @ vectors.T).argmax(1)].tolist() if named else [])
    return [[next(near) for _ in one.phrases] if one else [] for one in answers]


def score(named: Sequence[Sequence[int]], planted: Sequence[Sequence[int]], *, seed: int) -> dict:
    """How well the categories named for each choice are those planted in it, with 95 % intervals over choices.

    answered: share of choices for which anything was named. precision: planted ones among the named; recall: named
    ones among the planted. *_above_chance: less what the same answers reach when each is held against another choice.
    None where fewer than two choices count.
    """
    size = len(planted)
    own, chance = _tally(named, planted), [_tally(named, [*planted[s:], *planted[:s]]) for s in range(1, size)]
    out: dict = {"choices": size, "answered": float(np.mean(own[1] > 0))}
    for name, total in (("precision", 1), ("recall", 2)):
        share, luck = Share(own[0], own[total]), average([Share(c[0], c[total]) for c in chance])
        enough = np.count_nonzero(share.total) > 1
        out[name] = interval(share, seed=seed) if enough else None
        out[f"{name}_above_chance"] = difference(share, luck, seed=seed) if enough else None
    return out


def report(named: dict[tuple, list], planted: Sequence[Sequence[int]], *, seed: int) -> dict:
    """`score` of each (style, order); and for each style the share of choices whose two orders name one in common."""
    out = {f"{style}, {order}": score(found, planted, seed=seed) for (style, order), found in named.items()}
    for style in dict.fromkeys(style for style, _ in named):
        both = zip(named[style, "as shown"], named[style, "swapped"], strict=True)
        same = float(np.mean([bool(set(a) & set(b)) for a, b in both]))
        for order in ("as shown", "swapped"):
            out[f"{style}, {order}"]["same_in_both_orders"] = same
    return out


def agreement(named: dict[tuple, list]) -> dict[str, float | None]:
    """kappa of the first category named, for each pair of styles; an answer that names none is a category too."""
    firsts = {style: [found[0] if found else -1 for found in lists] for (style, order), lists in named.items()
              if order == "as shown"}  # fmt: skip
    return {f"{a}, {b}": kappa(firsts[a], firsts[b]) for a, b in combinations(firsts, 2)}


def _tally(named, planted) -> np.ndarray:
    """[3, n] numbers of categories: named and planted, named, planted."""
    sets = [(set(a), set(b)) for a, b in zip(named, planted, strict=True)]
    return np.array([(len(a & b), len(a), len(b)) for a, b in sets], dtype=float).T


def kappa(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Cohen's kappa of two extractors' categories [n] (-1: none): agreement beyond chance; None where all are one.

    Cohen 1960, Educational and Psychological Measurement 20. 1 is full agreement, 0 what chance gives.
    """
    a, b = np.asarray(a), np.asarray(b)
    kinds = np.union1d(a, b)
    expected = sum(np.mean(a == k) * np.mean(b == k) for k in kinds)
    return None if expected == 1 else float((np.mean(a == b) - expected) / (1 - expected))
