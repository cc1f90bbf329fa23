"""The system up to the selector: problems with retrieved values, candidates of all generators, the fixer.

Gold SQL is kept apart: a Problem does not hold it, and `draw_candidates` and `repair_candidates` take Problems alone.
Gold is read where training questions get a hint (`add_hinted`) and where execution.run labels candidates.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import database, execution, fixer, values
from prefcore.methods.chase_sql.candidates import Candidate, Question, database_path
from prefcore.methods.chase_sql.execution import Executed
from prefcore.methods.chase_sql.generators import Generator, Problem, read_contents, read_schema
from prefcore.methods.chase_sql.world import databases

HINTED = "hinted"  # the system name of a candidate that was made with gold as a hint: in training questions only
Drawn = dict[str, list[list[str]]]  # generator -> for each problem its SQL texts
INDEX = Path("build/minhash")


class Split(NamedTuple):
    """Questions with gold of one split, their problems, and what both need: guarded connections by db_id."""

    questions: list[databases.Question]
    problems: list[Problem]
    connections: dict[str, object]
    folder: Path


class Training(NamedTuple):
    """The training questions' candidates, executed; of all their queries how many were repaired; how many questions
    had no right candidate and got hinted ones; and the generators."""

    executed: Executed
    repairs: Mapping[str, int]
    hinted: int
    generators: Mapping[str, Generator]


def open_split(world: Path, split: str, per_database: int, embed: Callable) -> Split:
    """The first `per_database` questions of each database of a split, values retrieved; the index is kept in build/."""
    rows = databases.read_questions(world / "questions.jsonl")
    names = list(dict.fromkeys(row.db_id for row in rows if row.split == split))
    questions, problems, connections = [], [], {}
    for name in names:
        path = database_path(world / "database", name)
        connections[name] = connection = database.open_database(path)
        schema = read_schema(path)
        contents = read_contents(schema, connection)
        index = values.build_index(contents, INDEX)
        for row in [row for row in rows if row.db_id == name][:per_database]:
            meant = values.retrieve(row.question, index, embed)
            questions.append(row)
            problems.append(Problem(row.id, name, row.question, schema, contents, tuple(meant)))
    return Split(questions, problems, connections, world / "database")


def cached(embed: Callable) -> Callable:
    """The same function of texts, which computes each text's vector once."""
    known: dict[str, np.ndarray] = {}

    def look_up(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return look_up


def value_recall(questions: Sequence[databases.Question], problems: Sequence[Problem]) -> float:
    """Mean share of the texts in gold that are among a problem's values, over questions whose gold has any."""
    meant = [re.findall(r"'((?:[^']|'')*)'", question.gold) for question in questions]
    shares = [values.recall(problem.values, found) for problem, found in zip(problems, meant, strict=True) if found]
    return float(np.mean(shares)) if shares else 1.0


def without_values(problems: Sequence[Problem]) -> list[Problem]:
    """The problems as they are without retrieval: values as the question spells them."""
    return [
        p._replace(values=tuple(values.spelled_in(p.question, [c for part in p.schema.tables.values() for c in part])))
        for p in problems
    ]


def propose(
    split: Split, generators: Mapping[str, Generator], *, samples: int, temperature: float, attempts: int, seed: int
) -> tuple[list[Question], dict[str, int]]:
    """(questions with the candidates of all generators, repairs): drawn, and repaired by the fixer."""
    drawn = draw_candidates(split.problems, generators, samples=samples, temperature=temperature, seed=seed)
    drawn, repairs = repair_candidates(split.problems, generators, drawn, split.connections, attempts=attempts)
    return with_candidates(split.questions, drawn), repairs


def propose_for_training(split: Split, generators: Mapping[str, Generator], *, seed: int, **how) -> Training:
    """`propose` on training questions, hinted candidates where none is right, all of them executed."""
    questions, repairs = propose(split, generators, seed=seed, **how)
    questions, hinted = add_hinted(split, questions, execution.run(questions, split.folder), generators, seed=seed)
    return Training(execution.run(questions, split.folder), repairs, hinted, generators)


def draw_candidates(
    problems: Sequence[Problem], generators: Mapping[str, Generator], *, samples: int, temperature: float, seed: int
) -> Drawn:
    """`samples` queries of each generator for each problem."""
    return {name: one.draw(problems, samples, temperature, seed) for name, one in generators.items()}


def repair_candidates(
    problems: Sequence[Problem],
    generators: Mapping[str, Generator],
    drawn: Drawn,
    connections: Mapping,
    *,
    attempts: int,
) -> tuple[Drawn, dict[str, int]]:
    """(candidates after the fixer, counts): each generator repairs its own queries that fail or give nothing."""
    fixed, counts = {}, {"queries": 0, "needed repair": 0, "repaired": 0}
    for name, texts in drawn.items():
        flat = [(i, text) for i, own in enumerate(texts) for text in own]
        of = [i for i, _ in flat]

        def run(k, text, of=of):
            return database.execute(connections[problems[of[k]].db_id], text)

        def rewrite(places, failed, outcomes, attempt, of=of, name=name):
            return generators[name].repair([problems[of[k]] for k in places], failed, outcomes, attempt)

        done = fixer.fix([text for _, text in flat], run, rewrite, database.show, attempts)
        fixed[name] = [[one.sql for one, i in zip(done, of, strict=True) if i == k] for k in range(len(texts))]
        counts["queries"] += len(flat)
        counts["needed repair"] += sum(one.attempts > 0 for one in done)
        counts["repaired"] += sum(one.sql != text for one, (_, text) in zip(done, flat, strict=True))
    return fixed, counts


def with_candidates(questions: Sequence[databases.Question], drawn: Drawn) -> list[Question]:
    """The questions with all that was drawn as candidates, generators in turn, for execution.run."""
    return [
        Question(q.id, q.db_id, q.question, q.gold,
                 tuple(Candidate(name, text) for name, texts in drawn.items() for text in texts[i]))
        for i, q in enumerate(questions)
    ]  # fmt: skip


def add_hinted(
    split: Split, questions: Sequence[Question], executed: Executed, generators: Mapping[str, Generator], *, seed: int
) -> tuple[list[Question], int]:
    """(questions, how many got one): training questions without a right candidate get some made with gold as a hint.

    ValueError for a question of another split than train.
    """
    bad = {q.split for q in split.questions} - {"train"}
    if bad:
        raise ValueError(f"gold may be shown for training questions only, not for {', '.join(sorted(bad))}")
    right = {pool.id: bool(correct.any()) for pool, correct in zip(executed.pools, executed.correct, strict=True)}
    needy = [i for i, question in enumerate(questions) if not right.get(question.id, True)]
    out = list(questions)
    for generator in generators.values() if needy else ():
        golds = [questions[i].gold for i in needy]
        texts = generator.regenerate([split.problems[i] for i in needy], golds, seed)
        for i, text in zip(needy, texts, strict=True):
            out[i] = out[i]._replace(candidates=(*out[i].candidates, Candidate(HINTED, text)))
    return out, len(needy)


def keep_candidates(questions: Sequence[Question], keep: Callable[[Candidate], bool]) -> list[Question]:
    """The questions with those of their candidates for which `keep` is true."""
    return [q._replace(candidates=tuple(c for c in q.candidates if keep(c))) for q in questions]
