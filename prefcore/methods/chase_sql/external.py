"""Candidates of other systems: a selector trained on some databases chooses on others, held against votes.

No database is on two sides: what is learnt, the strength of a ridge and the best single system included, comes from the
training databases alone. Frames of answers are as `results` describes them, with the held-out part as column fold.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.methods.chase_sql import baselines, candidates, execution, features, linear_judge, results, selector
from prefcore.methods.chase_sql.candidates import Question, Unusable
from prefcore.methods.chase_sql.execution import Executed, Pool, mixed, subset

MAJORITY, SINGLE, MAIN = "majority vote", "best single system", "selector"
BLOCKS = {  # arm -> what its linear judge sees; MAIN is the claim under test, the others are ablations
    MAIN: ("content",),
    "selector that sees votes": ("content", "votes"),
    "selector that sees votes by system": ("content", "votes", "systems"),
}
Teach = Callable[[Executed, Sequence[Pool]], selector.Judge]  # (training side, test pools) -> a judge of the test pools


class Source(NamedTuple):
    """Questions with candidates as a file or folder holds them, the folder of their databases, and unusable rows."""

    name: str
    questions: list[Question]
    databases: Path
    unusable: list[Unusable]


def open_source(name: str, databases: str = "") -> Source:
    """The questions of a file or folder; nothing is run yet. DataError without a question or a folder of databases."""
    questions, unusable = candidates.read(name)
    return Source(name, questions, candidates.find_databases(name, databases), unusable)


def run(source: Source) -> Executed:
    """The questions of `source` with their candidates run. ValueError where no question is left."""
    executed = execution.run(source.questions, source.databases)
    unusable = source.unusable + executed.unusable
    if not executed.pools:
        raise ValueError(f"{source.name}: no question is left of {len(source.questions)}; "
                         f"the first: {unusable[0].what} ({unusable[0].detail})")  # fmt: skip
    return executed._replace(unusable=unusable)


def folds(db_ids: Sequence[str], parts: int) -> np.ndarray:
    """[n] the part in which each question is held out; databases stay whole, and the parts are about equally large."""
    names, counts = np.unique(np.asarray(db_ids), return_counts=True)
    if len(names) < 2:
        raise ValueError(f"all questions are on {names[0]}: at least two databases are needed to test on another one")
    filled, place = np.zeros(min(parts, len(names)), dtype=int), {}
    for k in np.lexsort((names, -counts)):
        place[str(names[k])] = int(filled.argmin())
        filled[filled.argmin()] += counts[k]
    return np.array([place[db_id] for db_id in db_ids])


def cross_validate(
    executed: Executed,
    embed: features.Embed,
    *,
    parts: int,
    per_question: int,
    seed: int,
    others: Mapping[str, Teach] | None = None,
) -> pd.DataFrame:
    """`evaluate` on each fold with the rest as training data: one row for each arm and question."""
    where = folds([pool.db_id for pool in executed.pools], parts)
    content = features.describe_content(executed.pools, embed)
    frames = []
    for fold in range(where.max() + 1):
        sides = [(subset(executed, inside), features.subset(content, inside))
                 for inside in (where != fold, where == fold)]  # fmt: skip
        frames.append(evaluate(*sides, per_question=per_question, seed=seed, others=others).assign(fold=fold))
    return pd.concat(frames, ignore_index=True)


def transfer(
    train: Executed,
    test: Executed,
    embed: features.Embed,
    *,
    per_question: int,
    seed: int,
    others: Mapping[str, Teach] | None = None,
) -> pd.DataFrame:
    """A selector of all of `train` on those questions of `test` that are `apart` from it."""
    sides = [(part, features.describe_content(part.pools, embed)) for part in (train, apart(test, train))]
    return evaluate(*sides, per_question=per_question, seed=seed, others=others).assign(fold=0)


def apart(test: Executed, train: Executed) -> Executed:
    """`test` without the questions on databases of `train`, which are unusable there. ValueError if none is left.

    A database is known by its name and, where that differs, by its schema.
    """
    names = {pool.db_id for pool in train.pools}
    schemas = {_schema(pool) for pool in train.pools}
    seen = np.array([pool.db_id in names or _schema(pool) in schemas for pool in test.pools])
    if seen.all():
        raise ValueError("all questions of the evaluation are on databases that the selector was trained on")
    left = [Unusable(test.pools[i].id, test.pools[i].db_id, "", "a database of the training side", "")
            for i in np.flatnonzero(seen)]  # fmt: skip
    return subset(test, ~seen)._replace(unusable=test.unusable + left)


def _schema(pool: Pool) -> tuple:
    return tuple((table.lower(), tuple(c.name.lower() for c in columns)) for table, columns in pool.tables.items())


def evaluate(
    train: tuple[Executed, features.Block], test: tuple[Executed, features.Block], *, per_question: int, seed: int,
    others: Mapping[str, Teach] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The frame of every arm's answers on the test side. train, test: candidates with their content block."""
    (learnt, learnt_content), (tested, tested_content) = train, test
    single = baselines.best_system(learnt.pools, learnt.correct)
    systems = sorted({system for pool in learnt.pools for system in pool.systems})
    known = {system for pool in tested.pools for system in pool.systems}
    both = list(zip(tested.pools, tested.correct, strict=True))
    rights = {
        MAJORITY: [truth[baselines.majority(pool)] for pool, truth in both],
        "majority, its shortest": [truth[baselines.shortest_of_majority(pool)] for pool, truth in both],
        "chance": [truth.mean() for truth in tested.correct],
        "oracle": [truth.any() for truth in tested.correct],
        "lower bound": [truth.all() for truth in tested.correct],
    }
    if single in known:
        at = [baselines.of_system(pool, single) for pool in tested.pools]
        rights[SINGLE] = [i is not None and truth[i] for i, truth in zip(at, tested.correct, strict=True)]
    frames = [results.answers(arm, tested, right, name=_name) for arm, right in rights.items()]
    pairs = selector.training_pairs(learnt.pools, learnt.correct, seed=seed, per_question=per_question)
    for arm, blocks in BLOCKS.items():
        if "systems" in blocks and not known & set(systems):
            continue
        here, there = (_features(blocks, side, content, systems)
                       for side, content in ((learnt, learnt_content), (tested, tested_content)))  # fmt: skip
        model = linear_judge.fit(*here, *pairs, [pool.db_id for pool in learnt.pools])
        frames.append(_judged(arm, tested, linear_judge.judge(model, there.tables)))
    for arm, teach in (others or {}).items():
        frames.append(_judged(arm, tested, teach(learnt, tested.pools), selector.by_cluster))
    return pd.concat(frames, ignore_index=True)


def _name(pool: Pool) -> str:
    return f"{pool.db_id}/{pool.id}"


def _features(names: Sequence[str], executed: Executed, content: features.Block, systems: Sequence[str]):
    blocks = {"content": content, "votes": features.describe_votes(executed.pools),
              "systems": features.describe_systems(executed.pools, systems)}  # fmt: skip
    return features.join(*(blocks[name] for name in names))


def _judged(
    arm: str, executed: Executed, judge: selector.Judge,
    representatives: selector.Representatives = selector.by_text,
) -> pd.DataFrame:  # fmt: skip
    """The tournament where it matters: on the mixed questions. On the others every choice is equally right."""
    inside = np.array([mixed(truth) for truth in executed.correct])
    part = subset(executed, inside)
    pairs = selector.comparisons(part.pools, representatives)
    at = np.flatnonzero(inside).tolist()
    verdicts = judge([pair._replace(pool=at[pair.pool]) for pair in pairs]) if pairs else ()
    kept = dict(zip(pairs, verdicts, strict=True))

    def again(wanted):
        return np.array([kept[pair] for pair in wanted])

    chosen = iter(selector.select(part.pools, again, representatives))
    rates = iter(selector.pairwise_accuracy(part.pools, part.correct, again, representatives))
    rows = []
    for truth, matters in zip(executed.correct, inside, strict=True):
        choice = next(chosen) if matters else selector.Choice(0, truth, 0, 0)
        rows.append((truth[choice.index], next(rates) if matters else np.nan, choice.agreed, choice.asked))
    right, pairwise, agreed, asked = zip(*rows, strict=True)
    frame = results.answers(arm, executed, right, name=_name)
    return frame.assign(pairwise=pairwise, agreed=agreed, asked=asked)


def compared(scores: pd.DataFrame) -> list[str]:
    """The arms that a reader compares, of those that are there: two baselines, then all selectors."""
    there = list(dict.fromkeys(scores["arm"]))
    return [arm for arm in (MAJORITY, SINGLE) if arm in there] + [arm for arm in there if "selector" in arm]
