"""Candidates that have been run: their results, clusters of equal results, and which of them are right."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlglot
from sqlglot.errors import SqlglotError

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.candidates import Question, Unusable, database_path
from prefcore.methods.chase_sql.database import Column, Result, as_set
from prefcore.methods.chase_sql.sketch import sketch

FAILED = -1  # the cluster of all candidates that gave no result
DIALECTS = ("mysql", "postgres", "tsql", "bigquery", "snowflake", "oracle")


class Pool(NamedTuple):
    """The pool of candidates of one question, with their results: all that a selector may see, so gold is not here.

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


class Executed(NamedTuple):
    """Pools, for each which candidates are right (bool [n]), and what could not be used."""

    pools: list[Pool]
    correct: list[np.ndarray]
    unusable: list[Unusable]


def run(questions: Sequence[Question], databases: str | Path, view: Callable = as_set) -> Executed:
    """Run the gold query and every candidate of every question once; what fails is kept as unusable, the rest goes on.

    A question is left out where its database is missing or unreadable, where it has no candidate, or where its gold
    query fails. A candidate that fails stays: it is in the cluster that loses.
    """
    found: dict[int, tuple[Pool, np.ndarray]] = {}
    unusable = []
    for db_id in dict.fromkeys(question.db_id for question in questions):
        here = [(i, question) for i, question in enumerate(questions) if question.db_id == db_id]
        try:
            path = database_path(databases, db_id)
            tables = database.tables(path)
            connection = database.open_database(path)
        except (FileNotFoundError, ValueError) as error:
            what = "missing database" if isinstance(error, FileNotFoundError) else "unreadable database"
            unusable += [Unusable(question.id, db_id, "", what, str(error)) for _, question in here]
            continue
        with closing(connection):
            for i, question in here:
                pool, correct, more = label(question, connection, tables, view)
                unusable += more
                if pool is not None:
                    found[i] = pool, correct
    kept = [found[i] for i in sorted(found)]
    return Executed([pool for pool, _ in kept], [correct for _, correct in kept], unusable)


def label(question: Question, connection, tables: Mapping, view: Callable = as_set):
    """(pool, which candidates are right, unusable) of one question; (None, None, unusable) where it has no use."""
    where = question.id, question.db_id
    if not question.candidates:
        return None, None, [Unusable(*where, "", "no candidates", "")]
    gold = database.execute(connection, question.gold)
    if gold.error:
        return None, None, [Unusable(*where, "", f"gold query: {gold.error}", gold.detail)]
    run_once = cache(lambda sql: database.execute(connection, sql))
    systems, sqls = zip(*question.candidates, strict=True)
    results = tuple(run_once(sql) for sql in sqls)
    correct = np.array([database.same(result, gold, view) for result in results])
    unusable = [Unusable(*where, system, f"candidate: {result.error}", result.detail + _dialect(sql, result))
                for system, sql, result in zip(systems, sqls, results, strict=True) if result.error]  # fmt: skip
    texts = question.question, question.evidence
    absent = tuple(absent_texts(sql, connection, tables) for sql in sqls)
    return Pool(*where, *texts, tables, systems, sqls, results, cluster(results, view), absent), correct, unusable


def subset(executed: Executed, inside: np.ndarray) -> Executed:
    """The pools where `inside` [n] is true, with their labels; what could not be used is left behind."""
    at = np.flatnonzero(inside)
    return Executed([executed.pools[i] for i in at], [executed.correct[i] for i in at], [])


def cluster(results: Sequence[Result], view: Callable = as_set) -> np.ndarray:
    """[n] numbers of equal results under `view`, from 0 in the order of appearance; FAILED for every error."""
    seen: dict[frozenset, int] = {}
    return np.array([FAILED if r.error else seen.setdefault(view(r), len(seen)) for r in results], dtype=int)


def cluster_sizes(clusters: np.ndarray) -> np.ndarray:
    """[n] how many candidates each one's cluster has; 0 for a failed one."""
    return np.where(clusters == FAILED, 0, (clusters[:, None] == clusters[None, :]).sum(1))


def mixed(correct: np.ndarray) -> bool:
    """Whether some candidates are right and some are not: only there a choice matters."""
    return bool(correct.any() and not correct.all())


def absent_texts(sql: str, connection, tables: Mapping[str, Sequence[Column]]) -> int:
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
    quoted = text.replace("'", "''")
    found = database.execute(connection, f"""SELECT 1 FROM "{table}" WHERE "{column}" = '{quoted}' LIMIT 1""")
    return bool(found.rows)


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
