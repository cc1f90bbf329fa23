"""Claims: a sentence of a paper, our test of it, the effect with its interval, and the verdict.

Every chapter makes its rows by `claim` (an interval is at hand) or `paired` (two arms on the same units).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from prefcore.lab import words
from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval

VERDICTS = ("held", "not held", "no difference", "undecided", "not tested")
COLUMNS = ("kind", "claim", "test", "verdict", "estimate", "low", "high", "delta", "detectable")


def claim(
    text: str, test: str, interval: Interval, *, direction: str = "higher", detectable: float | None = None
) -> dict:
    """A row: the paper's claim that the effect is "higher" or "lower" than 0, our test, the verdict, the effect.

    Effect and `detectable` (the smallest effect that this size could show; by default read off the interval) are in
    the unit that `test` names. Belongs into metrics["claims"], a list.
    """
    smallest = metrics.detectable_from(interval) if detectable is None else detectable
    verdict = metrics.verdict(interval, direction=direction)
    return {"claim": text, "test": test, "verdict": verdict, "detectable": smallest, **interval._asdict()}


def paired(
    text: str, test: str, a: ArrayLike, b: ArrayLike, *, seed: int, direction: str = "higher", resamples: int = 2000
) -> dict:
    """A row on the mean of a - b, both [units] or [seeds, units], paired; `test` says in which unit, and how many."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    interval = metrics.paired_difference(a, b, seed=seed, resamples=resamples)
    return claim(text, test, interval, direction=direction, detectable=metrics.detectable_effect(a - b))


def table(results: Mapping[str, Mapping]) -> pd.DataFrame:
    """All claims of `results` (method -> metrics, as runs.read_metrics gives them), one row each, method first.

    Chapters that do not name claims beforehand (lab/decisions.py) have no kind: it is empty.
    """
    plain = {"kind": ""}
    rows = [plain | {"method": method, **row} for method, found in results.items() for row in found.get("claims", [])]
    return pd.DataFrame(rows, columns=["method", *COLUMNS])


def print_sentences(claims: Sequence[Mapping]) -> None:
    """Print each row of a claims table as a sentence, its verdict first."""
    meanings = {
        "held": "the interval lies on the claimed side of 0",
        "not held": "the interval lies on the other side of 0: the claim fails here",
        "undecided": "the interval contains 0",
    }
    for row in claims:
        meaning = meanings[row["verdict"]]
        print(f"{row['verdict'].upper()}: {row['claim']}\n  {row['test']}: {words.effect(row)}; {meaning}.")
        print(f"  The smallest effect that this size shows with 80 % power is {row['detectable']:.3f}.")
