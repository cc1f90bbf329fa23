"""The claims under test, as rows of the claims table: differences between arms, paired by question."""

from collections.abc import Mapping

import pandas as pd

from prefcore.lab import verdicts
from prefcore.methods.chase_sql.external import MAIN, MAJORITY, SINGLE
from prefcore.methods.chase_sql.results import right_by_question

BOUNDS = (("oracle", "upper", "lower"), ("lower bound", "lower", "higher"))  # arm, its name, where draws are cooler


def difference(text: str, first: pd.Series, second: pd.Series, test: str, *, direction: str, seed: int) -> dict:
    """A row of the claims table: `first` - `second`, numbers by question, on the questions that both have."""
    both = first.index.intersection(second.index)
    a, b = (values.loc[both].to_numpy(float) for values in (first, second))
    return verdicts.paired(text, f"{test}, {len(both)} questions", a, b, seed=seed, direction=direction)


def on_embedded(scores: pd.DataFrame, ablated: Mapping[str, pd.DataFrame], *, seed: int) -> list[dict]:
    """The claims on ways of choosing, on ablations and on temperatures."""
    pairs = (
        ("the selector is right more often than self-consistency", "selector", "self-consistency"),
        ("self-consistency is right more often than one answer", "self-consistency", "single"),
        ("comparing pairs is better than ranking all candidates at once", "selector", "ranker"),
        ("a trained judge chooses better than an untrained one", "selector", "untuned"),
    )
    rows = [difference(text, right_by_question(scores, a), right_by_question(scores, b),
                       f"execution accuracy of {a} minus {b}", direction="higher", seed=seed)
            for text, a, b in pairs]  # fmt: skip
    for name, frame in ablated.items():
        if name.startswith("without"):
            rows.append(_ablation(name, frame, scores, seed))
        if name.startswith("temperature"):
            rows += _temperature(name, frame, scores, seed)
    return rows


def _ablation(name: str, frame: pd.DataFrame, scores: pd.DataFrame, seed: int) -> dict:
    test = f"execution accuracy of the selector {name} minus whole system"
    left, whole = right_by_question(frame, "selector"), right_by_question(scores, "selector")
    return difference(f"{name} the system is worse", left, whole, test, direction="lower", seed=seed)


def _temperature(name: str, frame: pd.DataFrame, scores: pd.DataFrame, seed: int) -> list[dict]:
    return [difference(f"at a lower temperature the {bound} bound is {direction}",
                       right_by_question(frame, arm), right_by_question(scores, arm),
                       f"{arm} at {name} minus at the main one", direction=direction, seed=seed)
            for arm, bound, direction in BOUNDS]  # fmt: skip


def on_language_judge(frame: pd.DataFrame, *, seed: int) -> list[dict]:
    """The claims on the language model that chooses."""
    pairwise = {arm: part.set_index("id")["pairwise"].dropna() for arm, part in frame.groupby("arm")}
    of = "pairwise accuracy of the language model's verdicts,"
    rows = (
        ("a language model that was taught to choose compares better than before", "untuned", "after minus before"),
        ("the union of both queries' tables serves it at least as well as the full schema", "selector, full schema",
         "union minus full schema"),
    )  # fmt: skip
    return [difference(text, pairwise["selector"], pairwise[other], f"{of} {what}", direction="higher", seed=seed)
            for text, other, what in rows]  # fmt: skip


def on_external(scores: pd.DataFrame, *, seed: int) -> list[dict]:
    """On candidates of other systems: the selector, and the ablation that sees votes, against the two baselines."""
    arms = {
        MAIN: "a selector trained on other databases beats",
        "selector that sees votes": "a selector that is also told the vote counts beats",
    }
    there = [other for other in (MAJORITY, SINGLE) if other in set(scores["arm"])]
    return [compare(scores, f"{text} {other}", arm, other, only_mixed=only, seed=seed)
            for arm, text in arms.items() for other in there for only in (True, False)]  # fmt: skip


def compare(scores: pd.DataFrame, text: str, arm: str, other: str, *, only_mixed: bool, seed: int) -> dict:
    """A row of the claims table: `arm` against `other`, paired by question."""
    first, second = (right_by_question(scores, name, only_mixed=only_mixed) for name in (arm, other))
    test = f"share right of {arm} minus {other}, {len(first)} {'mixed ' if only_mixed else ''}questions"
    return verdicts.paired(text, test, first, second.loc[first.index], seed=seed)
