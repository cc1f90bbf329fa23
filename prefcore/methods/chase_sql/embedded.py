"""The arms on the embedded world: ways of choosing among the same candidates, and ablations of the system.

Frames of answers are as `results` describes them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.methods.chase_sql import (
    baselines,
    database,
    execution,
    features,
    linear_judge,
    ranking,
    results,
    selector,
    system,
)
from prefcore.methods.chase_sql.candidates import Question
from prefcore.methods.chase_sql.execution import FAILED, Executed
from prefcore.methods.chase_sql.generators import Generator
from prefcore.methods.chase_sql.linear_judge import Linear
from prefcore.methods.chase_sql.system import Split

RIDGE = 0.01  # of the ranker, as of the generators


class Trained(NamedTuple):
    """What was taught on training databases: the generators, the executed candidates of training questions with their
    features, the judge; the encoder; and `single`, the generator whose first candidate is the single answer."""

    generators: Mapping[str, Generator]
    train: Executed
    content: features.Block
    judge: Linear
    embed: Callable
    single: str


def run(trained: Trained, split: Split, **how) -> tuple[list[Question], Executed]:
    """(questions with candidates, the same executed) of a split; `how` as for system.propose."""
    questions, _ = system.propose(split, trained.generators, **how)
    return questions, execution.run(questions, split.folder)


def compare_arms(trained: Trained, executed: Executed) -> pd.DataFrame:
    """All ways of choosing among the same candidates, an arm each."""
    tables, names = features.describe_content(executed.pools, trained.embed)
    near = np.zeros(len(names))
    near[names.index("near query")] = 1.0
    untuned = Linear(near, np.ones(len(names)), tuple(names), 1.0)
    weights = ranking.fit(trained.content.tables, trained.train.correct, ridge=RIDGE)
    judges = {"untuned": linear_judge.judge(untuned, tables), "selector": linear_judge.judge(trained.judge, tables)}
    scores = [ranking.logits(table, weights) for table in tables]
    frames = [without_judge(executed, trained.single), ranked(executed, scores), judged(executed, judges)]
    return pd.concat(frames, ignore_index=True)


def without_judge(executed: Executed, single: str) -> pd.DataFrame:
    """One answer (the first of the generator `single`, of any where it has none), self-consistency, and the bounds."""
    both = list(zip(executed.pools, executed.correct, strict=True))
    rights = {
        "single": [truth[baselines.of_system(pool, single) or 0] for pool, truth in both],
        "self-consistency": [truth[baselines.majority(pool)] for pool, truth in both],
        "random": [truth.mean() for truth in executed.correct],
        "oracle": [truth.any() for truth in executed.correct],
        "lower bound": [truth.all() for truth in executed.correct],
    }
    return pd.concat([results.answers(arm, executed, right) for arm, right in rights.items()], ignore_index=True)


def ranked(executed: Executed, scores: Sequence[np.ndarray], arm: str = "ranker") -> pd.DataFrame:
    """Looks at all candidates at once and takes the best score [n] of each pool; a failed one only if all failed."""
    low = [np.where(pool.clusters == FAILED, -1e9, s) for pool, s in zip(executed.pools, scores, strict=True)]
    right = [truth[int(np.argmax(s))] for truth, s in zip(executed.correct, low, strict=True)]
    return results.answers(arm, executed, right)


def judged(
    executed: Executed,
    judges: Mapping[str, selector.Judge],
    representatives: selector.Representatives = selector.by_text,
) -> pd.DataFrame:
    """The tournament with each of the judges; `representatives` as in selector.select."""
    frames = []
    for arm, judge in judges.items():
        chosen = selector.select(executed.pools, judge, representatives)
        right = [truth[choice.index] for truth, choice in zip(executed.correct, chosen, strict=True)]
        frames.append(results.answers(arm, executed, right).assign(
            pairwise=selector.pairwise_accuracy(executed.pools, executed.correct, judge, representatives),
            agreed=[choice.agreed for choice in chosen], asked=[choice.asked for choice in chosen],
        ))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def ablate(
    trained: Trained, split: Split, questions: Sequence[Question], *, temperatures: Sequence[float] = (), **how
) -> dict[str, Executed]:
    """The split's candidates, executed, with one part of the system left out; `how` as for `run`.

    Beside them the same candidates when results are equal only with every row as often ("rows counted"), and those at
    other temperatures. `questions` are the split's with the whole system's candidates.
    """
    blind = split._replace(problems=system.without_values(split.problems))
    found = {
        "without values": run(trained, blind, **how)[1],
        "without fixer": run(trained, split, **how | {"attempts": 0})[1],
    }
    for name in trained.generators:
        left = system.keep_candidates(questions, lambda candidate, name=name: candidate.system != name)
        found[f"without {name}"] = execution.run(left, split.folder)
    found["rows counted"] = execution.run(questions, split.folder, database.as_multiset)
    for other in temperatures:
        found[f"temperature {other:g}"] = run(trained, split, **how | {"temperature": other})[1]
    return found
