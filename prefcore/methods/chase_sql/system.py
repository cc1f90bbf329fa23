"""The whole system on one database: values, candidates of three generators, the fixer, the selector, the answer.

answer("my.sqlite", "How many singers are there?", model, embed=embed, judge=judge)
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import database, execution, prompts, schema, selector, values, writing
from prefcore.methods.chase_sql.candidates import Candidate, Question
from prefcore.methods.chase_sql.database import Result
from prefcore.methods.chase_sql.execution import FAILED, Pool
from prefcore.methods.chase_sql.prompts import Problem
from prefcore.scoring.llm import LanguageModel, Request

KEYWORD_TOKENS = 200
OpenJudge = Callable[[Sequence[Pool]], selector.Judge]  # pools -> a judge of their candidates


class Opened(NamedTuple):
    """A database that can be asked: its schema, a guarded connection, and the index of its texts."""

    name: str
    tables: schema.Schema
    connection: object
    index: values.Index


class Answer(NamedTuple):
    """The chosen query with its rows; all candidates with their clusters in `pool`, everyone's points [n]; what the
    database's index of values leaves out."""

    sql: str
    result: Result
    pool: Pool
    points: np.ndarray
    left_out: tuple[str, ...]


def open_database(path: str | Path) -> Opened:
    """Open an SQLite file and index its texts; close its connection. ValueError for a file that is no database."""
    tables = schema.read(path)
    connection = database.open_database(path)
    return Opened(Path(path).stem, tables, connection, values.build_index(*values.read_cells(tables, connection)))


def pose(
    opened: Opened, questions: Sequence[Question], embed: values.Embed, model: LanguageModel | None = None
) -> list[Problem]:
    """The questions as generators see them. The values are those that spans of a question may mean, and, with a model,
    keywords that it names."""
    plain = [Problem(q.id, q.db_id, q.question, q.evidence, opened.tables, ()) for q in questions]
    named: list[list[str]] = [[] for _ in plain]
    if model is not None and opened.index.cells:
        asked = [Request(prompts.ask_keywords(problem), 0.0, KEYWORD_TOKENS, 0) for problem in plain]
        named = [prompts.read_keywords(text) for text in model(asked)]
    return [
        problem._replace(values=tuple(values.retrieve(f"{problem.question} {problem.evidence}", opened.index, embed,
                                                      named=words)))
        for problem, words in zip(plain, named, strict=True)
    ]  # fmt: skip


def answer(
    database_file: str | Path,
    question: str,
    model: LanguageModel,
    *,
    embed: values.Embed,
    judge: OpenJudge | None = None,
    evidence: str = "",
    samples: int = 7,
    temperature: float = 1.0,
    attempts: int = 3,
    max_tokens: int = 2048,
    seed: int = 0,
) -> Answer:
    """Ask an SQLite file a question. `model` writes the candidates, `judge` chooses (without one, the votes do).

    samples: queries of each of the three generators, at this temperature. attempts: of the fixer. embed: texts -> unit
    vectors, for the values.
    """
    how = {"samples": samples, "temperature": temperature, "attempts": attempts, "max_tokens": max_tokens, "seed": seed}
    opened = open_database(database_file)
    with closing(opened.connection):
        asked = Question("0", opened.name, question, "", (), evidence)
        (problem,) = pose(opened, [asked], embed, model)
        (made,) = writing.write([problem], model, {opened.name: opened.connection}, **how)
        return choose(asked._replace(candidates=made), opened, judge)


def choose(question: Question, opened: Opened, judge: OpenJudge | None) -> Answer:
    """The answer among the candidates of a question."""
    pool = execution.pool(question, opened.connection, opened.tables)
    if judge is None:
        best, points = execution.majority(pool), execution.cluster_sizes(pool.clusters).astype(float)
    else:
        (choice,) = selector.select([pool], judge([pool]), selector.by_cluster)
        best, points = choice.index, choice.points
    return Answer(pool.sqls[best], pool.results[best], pool, points, opened.index.left_out)


def clusters(answer: Answer) -> list[dict]:
    """The clusters of equal results, most points first: votes, points of its best candidate, shortest query, result."""
    out = []
    for number in dict.fromkeys(answer.pool.clusters.tolist()):
        inside = np.flatnonzero(answer.pool.clusters == number)
        short = min(inside, key=lambda i: (len(answer.pool.sqls[i]), answer.pool.sqls[i]))
        out.append({
            "votes": 0 if number == FAILED else len(inside), "failed": len(inside) if number == FAILED else 0,
            "points": float(answer.points[inside].max()), "sql": answer.pool.sqls[short],
            "result": database.show(answer.pool.results[short]),
        })  # fmt: skip
    return sorted(out, key=lambda row: -row["points"])


def as_json(answer: Answer) -> dict:
    """The answer as plain values: question, chosen SQL, columns and rows, clusters, all candidates."""
    rows = [[cell if isinstance(cell, int | float | str | None) else repr(cell) for cell in row]
            for row in answer.result.rows]  # fmt: skip
    pool = answer.pool
    made = zip(pool.systems, pool.sqls, pool.clusters.tolist(), answer.points.tolist(), pool.results, strict=True)
    return {
        "question": pool.question, "evidence": pool.evidence, "sql": answer.sql, "error": answer.result.error,
        "columns": list(answer.result.columns), "rows": rows, "clusters": clusters(answer),
        "not_indexed": list(answer.left_out),
        "candidates": [{"system": system, "sql": sql, "cluster": cluster, "points": points,
                        "result": database.show(result)} for system, sql, cluster, points, result in made],
    }  # fmt: skip


def with_candidates(question: Question, made: Sequence[Candidate]) -> Question:
    """The question with these candidates behind those that it has."""
    return question._replace(candidates=(*question.candidates, *made))
