"""How much of the true name a predicted name says: precision and recall of its words (arXiv 2306.02546, V-A).

Departs from the paper: its words come from a SentencePiece model and clusters learnt elsewhere, after lower-casing;
ours from a splitter that reads capitals and a table of abbreviations of our own, so numbers compare inside this project
only. A missing prediction counts as (0, 0); the released metric leaves it out.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from prefcore.methods.gennm.words import KNOWN, SAME

SHORTEST = 2  # letters of a word that may match as the beginning or end of a longer one


class Score(NamedTuple):
    """Shares in [0, 1]: predicted words that are true, true words that were predicted."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of both, 0 where both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@cache
def split(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: parts between non-letters and capitals, run-together words cut apart."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", spaced)
    return tuple(word for part in re.findall(r"[a-z]+", spaced.lower()) for word in cut(part))


@cache
def cut(part: str) -> tuple[str, ...]:
    """A run of letters as the fewest known words that make it up, or as it is where they do not."""
    best: list[tuple[str, ...] | None] = [()] + [None] * len(part)
    for end in range(1, len(part) + 1):
        for start in range(end):
            before, word = best[start], part[start:end]
            if before is not None and word in KNOWN and (best[end] is None or len(before) + 1 < len(best[end])):
                best[end] = (*before, word)
    return best[-1] or (part,)


def stem(word: str) -> str:
    """The word without a plural s."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def same(a: str, b: str) -> bool:
    """Whether two words count as one: equal, one the beginning or end of the other, or of one row of the table."""
    a, b = stem(a), stem(b)
    if a == b:
        return True
    short, long = sorted((a, b), key=len)
    if len(short) >= SHORTEST and (long.startswith(short) or long.endswith(short)):
        return True
    return bool(SAME.get(a, frozenset()) & SAME.get(b, frozenset()))


@cache
def score(predicted: str, true: str) -> Score:
    """Precision and recall of a predicted name; (0, 0) where one of the two has no letters."""
    if predicted.lower() == true.lower():
        return Score(1.0, 1.0)
    ours, theirs = split(predicted), split(true)
    if not ours or not theirs:
        return Score(0.0, 0.0)
    right = {word for word in ours if any(same(word, other) for other in theirs)}
    found = {word for word in theirs if any(same(word, other) for other in ours)}
    return Score(len(right) / len(ours), len(found) / len(theirs))


def rate(predicted: Mapping[str, str], truth: Mapping[str, str]) -> list[dict]:
    """One row for each variable with a truth: precision, recall, f1, exact, answered (0 or 1); missing names are 0."""
    rows = []
    for variable, true in truth.items():
        name = predicted.get(variable, "")
        found = score(name, true) if name else Score(0.0, 0.0)
        rows.append({"variable": variable, "true": true, "predicted": name, "precision": found.precision,
                     "recall": found.recall, "f1": found.f1, "exact": float(name == true),
                     "answered": float(bool(name))})  # fmt: skip
    return rows
