"""Candidates that have been run: clusters of equal results, which of them are right, and votes without a model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlglot
from sqlglot.errors import SqlglotError

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.candidates import Problem, Question, database_path
from prefcore.methods.chase_sql.database import Column, Result, as_set
from prefcore.methods.chase_sql.sketch import sketch

FAILED = -1  # the cluster of all candidates that gave no result
DIALECTS = ("mysql", "postgres", "tsql", "bigquery", "snowflake", "oracle")


class Ballot(NamedTuple):
    """A question with its candidates and their results: all that a selector may see, so the gold query is not here.

    clusters [n]: candidates with equal results have the same number, counted from 0 in the candidates' order; FAILED
    for an error. `tables` is the schema of the database. absent [n]: with how many texts a candidate compares a column
    that are in no cell of it.
    """

    id: str
    db_id: str
    question: str
    evidence: str
    tables: Mapping[str, Sequence[Column]]
    systems: tuple[str, ...]
    sqls: tuple[str, ...]
    results: tuple[Result, ...]
    clusters: np.ndarray
    absent: tuple[int, ...]


class Poll(NamedTuple):
    """Ballots, for each which candidates are right (bool [n]), and what could not be used."""

    ballots: list[Ballot]
    correct: list[np.ndarray]
    problems: list[Problem]


def poll(questions: Sequence[Question], databases: str | Path, view: Callable = as_set) -> Poll:
    """Run the gold query and every candidate of every question once; what fails is told, and the rest goes on.

    A question is left out where its database is missing or unreadable, where it has no candidate, or where its gold
    query fails. A candidate that fails stays: it is in the cluster that loses.
    """
    found: dict[int, tuple[Ballot, np.ndarray]] = {}
    problems = []
    for db_id in dict.fromkeys(question.db_id for question in questions):
        asked = [(i, question) for i, question in enumerate(questions) if question.db_id == db_id]
        try:
            path = database_path(databases, db_id)
            tables = database.tables(path)
            connection = database.open_database(path)
        except (FileNotFoundError, ValueError) as error:
            what = "missing database" if isinstance(error, FileNotFoundError) else "unreadable database"
            problems += [Problem(question.id, db_id, "", what, str(error)) for _, question in asked]
            continue
        with closing(connection):
            for i, question in asked:
                one, right, more = count(question, connection, tables, view)
                problems += more
                if one is not None:
                    found[i] = one, right
    kept = [found[i] for i in sorted(found)]
    return Poll([ballot for ballot, _ in kept], [right for _, right in kept], problems)


def count(question: Question, connection, tables: Mapping, view: Callable = as_set):
    """(ballot, which candidates are right, problems) of one question; (None, None, problems) where it has no use."""
    where = question.id, question.db_id
    if not question.candidates:
        return None, None, [Problem(*where, "", "no candidates", "")]
    gold = database.execute(connection, question.gold)
    if gold.error:
        return None, None, [Problem(*where, "", f"gold query: {gold.error}", gold.detail)]
    run = cache(lambda sql: database.execute(connection, sql))
    systems, sqls = zip(*question.candidates, strict=True)
    results = tuple(run(sql) for sql in sqls)
    right = np.array([database.same(result, gold, view) for result in results])
    problems = [Problem(*where, system, f"candidate: {result.error}", result.detail + _dialect(sql, result))
                for system, sql, result in zip(systems, sqls, results, strict=True) if result.error]  # fmt: skip
    texts = question.question, question.evidence
    missing = tuple(absent(sql, connection, tables) for sql in sqls)
    return Ballot(*where, *texts, tables, systems, sqls, results, clusters(results, view), missing), right, problems


def absent(sql: str, connection, tables: Mapping[str, Sequence[Column]]) -> int:
    """How many of the texts that a query compares a column with are in no cell of a column of that name, in any table
    that it names; 0 for a query that cannot be read."""
    one, missing = sketch(sql), 0
    for name, text in one.compared:
        places = [(table, c.name) for table, columns in tables.items() if table.lower() in one.tables
                  for c in columns if c.name.lower() == name]  # fmt: skip
        missing += bool(places) and not any(_holds(connection, *place, text) for place in places)
    return missing


def _holds(connection, table: str, column: str, text: str) -> bool:
    table, column = (name.replace('"', '""') for name in (table, column))
    told = text.replace("'", "''")
    return bool(database.execute(connection, f"""SELECT 1 FROM "{table}" WHERE "{column}" = '{told}' LIMIT 1""").rows)


def clusters(results: Sequence[Result], view: Callable = as_set) -> np.ndarray:
    """[n] numbers of equal results under `view`, from 0 in the order of appearance; FAILED for every error."""
    seen: dict[frozenset, int] = {}
    return np.array([FAILED if r.error else seen.setdefault(view(r), len(seen)) for r in results], dtype=int)


def sizes(of: np.ndarray) -> np.ndarray:
    """[n] how many candidates each one's cluster has; 0 for a failed one."""
    return np.where(of == FAILED, 0, (of[:, None] == of[None, :]).sum(1))


def majority(ballot: Ballot) -> int:
    """Self-consistency: the first listed candidate of the largest cluster, which is the first listed of such."""
    return int(np.argmax(sizes(ballot.clusters)))


def shortest_of_majority(ballot: Ballot) -> int:
    """The same cluster's shortest query, as CHESS takes it."""
    inside = np.flatnonzero(ballot.clusters == ballot.clusters[majority(ballot)])
    return int(min(inside, key=lambda i: (len(ballot.sqls[i]), ballot.sqls[i])))


def of_system(ballot: Ballot, system: str) -> int | None:
    """The candidate of one system, the first of them; None where it proposed nothing."""
    return ballot.systems.index(system) if system in ballot.systems else None


def best_system(ballots: Sequence[Ballot], correct: Sequence[np.ndarray]) -> str:
    """The system that is right most often on these ballots; of equal ones the first in alphabetical order."""
    right: dict[str, int] = {}
    for ballot, truth in zip(ballots, correct, strict=True):
        for system in dict.fromkeys(ballot.systems):
            right[system] = right.get(system, 0) + int(truth[of_system(ballot, system)])
    return min(right, key=lambda system: (-right[system], system))


def mixed(correct: np.ndarray) -> bool:
    """Whether some candidates are right and some are not: only there a choice matters."""
    return bool(correct.any() and not correct.all())


def _dialect(sql: str, result: Result) -> str:
    """A hint where a statement that SQLite cannot compile is good SQL elsewhere."""
    if result.error != "invalid SQL" or "syntax error" not in result.detail and "no such function" not in result.detail:
        return ""
    for dialect in DIALECTS:
        try:
            sqlglot.parse_one(sql, read=dialect)
            return f" (reads as {dialect})"
        except (SqlglotError, RecursionError):
            continue
    return ""
