"""Claims on a user's own people, which nobody named before: our test, the effect with its interval, and the verdict."""

from collections.abc import Mapping, Sequence

from prefcore.lab import words
from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval

MEANINGS = {
    "held": "the interval lies above 0",
    "not held": "the interval lies below 0: the claim fails here",
    "undecided": "the interval contains 0",
}


def claim(text: str, test: str, interval: Interval) -> dict:
    """A row: the claim that the effect is above 0, our test, the verdict, the effect.

    `detectable`, the smallest effect that this size could show, is read off the interval.
    """
    detectable, verdict = metrics.detectable_from(interval), metrics.verdict(interval, direction="higher")
    return {"claim": text, "test": test, "verdict": verdict, "detectable": detectable, **interval._asdict()}


def print_sentences(claims: Sequence[Mapping]) -> None:
    """Each row as a sentence, its verdict first."""
    for row in claims:
        effect = f"{words.effect(row)}; {MEANINGS[row['verdict']]}."
        print(f"{row['verdict'].upper()}: {row['claim']}\n  {row['test']}: {effect}")
