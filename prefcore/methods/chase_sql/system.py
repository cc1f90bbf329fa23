"""The whole system on a world of questions: problems with retrieved values, candidates of all generators, the fixer.

Gold SQL is kept apart: a Problem does not hold it, and `candidates` and `repair` take Problems alone. It is read where
training questions get a hint (`hint`) and where votes.poll scores.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import database, fixer, generators, values
from prefcore.methods.chase_sql.candidates import Candidate, Question, database_path
from prefcore.methods.chase_sql.generators import Generator, Problem
from prefcore.methods.chase_sql.votes import Poll
from prefcore.methods.chase_sql.world import databases as sql_world

HINTED = "hinted"  # the system name of a candidate that was made with gold as a hint: in training questions only
Drafts = dict[str, list[list[str]]]  # generator -> for each problem its SQL texts


class World(NamedTuple):
    """Questions with gold of one split, their problems, and what both need: guarded connections by db_id."""

    questions: list[sql_world.Question]
    problems: list[Problem]
    connections: dict[str, object]
    folder: Path


def open_world(build: Path, split: str, per_database: int, embed: Callable) -> World:
    """The first `per_database` questions of each database of a split, values retrieved; the index is kept in build/."""
    rows = sql_world.read_questions(build / "questions.jsonl")
    names = list(dict.fromkeys(row.db_id for row in rows if row.split == split))
    questions, problems, connections = [], [], {}
    for name in names:
        path = database_path(build / "database", name)
        connections[name] = connection = database.open_database(path)
        schema = generators.read_schema(path)
        contents = generators.read_contents(schema, connection)
        index = values.build_index(contents, Path("build/minhash"))
        for row in [row for row in rows if row.db_id == name][:per_database]:
            meant = values.retrieve(row.question, index, embed)
            questions.append(row)
            problems.append(Problem(row.id, name, row.question, schema, contents, tuple(meant)))
    return World(questions, problems, connections, build / "database")


def remembering(embed: Callable) -> Callable:
    """The same function of texts, which computes each text's vector once."""
    known: dict[str, np.ndarray] = {}

    def remember(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return remember


def value_recall(questions: Sequence[sql_world.Question], problems: Sequence[Problem]) -> float:
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


def draft(
    problems: Sequence[Problem], made: Mapping[str, Generator], *, samples: int, temperature: float, seed: int
) -> Drafts:
    """`samples` queries of each generator for each problem."""
    return {name: one.draw(problems, samples, temperature, seed) for name, one in made.items()}


def repair(
    problems: Sequence[Problem], made: Mapping[str, Generator], drafts: Drafts, connections: Mapping, *, attempts: int
) -> tuple[Drafts, dict[str, int]]:
    """(drafts after the fixer, counts): each generator repairs its own queries that fail or give nothing."""
    fixed, counts = {}, {"queries": 0, "needed repair": 0, "repaired": 0}
    for name, texts in drafts.items():
        flat = [(i, text) for i, own in enumerate(texts) for text in own]
        of = [i for i, _ in flat]

        def run(k, text, of=of):
            return database.execute(connections[problems[of[k]].db_id], text)

        def ask(places, failed, outcomes, attempt, of=of, name=name):
            return made[name].repair([problems[of[k]] for k in places], failed, outcomes, attempt)

        done = fixer.fix([text for _, text in flat], run, ask, database.show, attempts)
        fixed[name] = [[one.sql for one, i in zip(done, of, strict=True) if i == k] for k in range(len(texts))]
        counts["queries"] += len(flat)
        counts["needed repair"] += sum(one.attempts > 0 for one in done)
        counts["repaired"] += sum(one.sql != text for one, (_, text) in zip(done, flat, strict=True))
    return fixed, counts


def with_candidates(questions: Sequence[sql_world.Question], drafts: Drafts) -> list[Question]:
    """The questions with all drafts as candidates, generators in turn, for votes.poll."""
    return [
        Question(q.id, q.db_id, q.question, q.gold,
                 tuple(Candidate(name, text) for name, texts in drafts.items() for text in texts[i]))
        for i, q in enumerate(questions)
    ]  # fmt: skip


def hint(
    world: World, asked: Sequence[Question], poll: Poll, made: Mapping[str, Generator], *, seed: int
) -> tuple[list[Question], int]:
    """(questions, how many got one): training questions without a right candidate get candidates made with gold shown.

    ValueError for a question of another split than train.
    """
    bad = {q.split for q in world.questions} - {"train"}
    if bad:
        raise ValueError(f"gold may be shown for training questions only, not for {', '.join(sorted(bad))}")
    right = {ballot.id: bool(correct.any()) for ballot, correct in zip(poll.ballots, poll.correct, strict=True)}
    needy = [i for i, question in enumerate(asked) if not right.get(question.id, True)]
    out = list(asked)
    for generator in made.values() if needy else ():
        golds = [asked[i].gold for i in needy]
        texts = generator.regenerate([world.problems[i] for i in needy], golds, seed)
        for i, text in zip(needy, texts, strict=True):
            out[i] = out[i]._replace(candidates=(*out[i].candidates, Candidate(HINTED, text)))
    return out, len(needy)


def only(questions: Sequence[Question], keep: Callable[[Candidate], bool]) -> list[Question]:
    """The questions with those of their candidates that `keep` names."""
    return [q._replace(candidates=tuple(c for c in q.candidates if keep(c))) for q in questions]


def solved_alone(poll: Poll, names: Sequence[str]) -> dict[str, int]:
    """How many questions each set of generators solves (some candidate is right) and no other; "none" for the rest."""
    counts: dict[str, int] = {}
    for ballot, truth in zip(poll.ballots, poll.correct, strict=True):
        who = [name for name in names if any(t for s, t in zip(ballot.systems, truth, strict=True) if s == name)]
        key = " + ".join(who) or "none"
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items()))
