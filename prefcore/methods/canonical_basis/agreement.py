"""Do two readings of the same choices agree? Of two orders of the texts, and of two styles of the question."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np


def same_in_both_orders(named: Mapping[tuple, Sequence[Sequence[int]]]) -> dict[str, float]:
    """style -> share of the choices for which both orders of the texts name a category in common.

    named: (style, "as shown" or "swapped") -> the categories of each choice.
    """
    out = {}
    for style in dict.fromkeys(style for style, _ in named):
        both = zip(named[style, "as shown"], named[style, "swapped"], strict=True)
        out[style] = float(np.mean([bool(set(a) & set(b)) for a, b in both]))
    return out


def of_styles(named: Mapping[tuple, Sequence[Sequence[int]]]) -> dict[str, float | None]:
    """kappa of the first category named, for each pair of styles; an answer that names none is a category too."""
    firsts = {style: [found[0] if len(found) else -1 for found in lists] for (style, order), lists in named.items()
              if order == "as shown"}  # fmt: skip
    return {f"{a}, {b}": kappa(firsts[a], firsts[b]) for a, b in combinations(firsts, 2)}


def kappa(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Cohen's kappa of two readings' categories [n] (-1: none): agreement beyond chance; None where all are one.

    Cohen 1960, Educational and Psychological Measurement 20. 1 is full agreement, 0 what chance gives.
    """
    a, b = np.asarray(a), np.asarray(b)
    kinds = np.union1d(a, b)
    expected = sum(np.mean(a == k) * np.mean(b == k) for k in kinds)
    return None if expected == 1 else float((np.mean(a == b) - expected) / (1 - expected))
