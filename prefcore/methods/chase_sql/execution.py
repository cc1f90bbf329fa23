"""Candidates that have been run: their results, clusters of equal results, and which of them are right."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlglot
from sqlglot.errors import SqlglotError

from prefcore.methods.chase_sql import database, schema
from prefcore.methods.chase_sql.candidates import Question, Unusable, database_path
from prefcore.methods.chase_sql.database import Result, as_set
from prefcore.methods.chase_sql.schema import Schema

FAILED = -1  # the cluster of all candidates that gave no result
DIALECTS = ("mysql", "postgres", "tsql", "bigquery", "snowflake", "oracle")


class Pool(NamedTuple):
    """The pool of candidates of one question, with their results: all that a selector may see, so gold is not here.

    clusters [n]: candidates with equal results have the same number, counted from 0 in the candidates' order; FAILED
    for an error. `tables` is the schema of the database.
    """

    id: str
    db_id: str
    question: str
    evidence: str
    tables: Schema
    systems: tuple[str, ...]
    sqls: tuple[str, ...]
    results: tuple[Result, ...]
    clusters: np.ndarray


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
            tables = schema.read(path)
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


def label(question: Question, connection, tables: Schema, view: Callable = as_set):
    """(pool, which candidates are right, unusable) of one question; (None, None, unusable) where it has no use."""
    where = question.id, question.db_id
    if not question.candidates:
        return None, None, [Unusable(*where, "", "no candidates", "")]
    gold = database.execute(connection, question.gold)
    if gold.error:
        return None, None, [Unusable(*where, "", f"gold query: {gold.error}", gold.detail)]
    made = pool(question, connection, tables, view)
    correct = np.array([database.same(result, gold, view) for result in made.results])
    unusable = [Unusable(*where, system, f"candidate: {result.error}", result.detail + _dialect(sql, result))
                for system, sql, result in zip(made.systems, made.sqls, made.results, strict=True)
                if result.error]  # fmt: skip
    return made, correct, unusable


def pool(question: Question, connection, tables: Schema, view: Callable = as_set) -> Pool:
    """The question's candidates, each run once, in clusters."""
    run_once = cache(lambda sql: database.execute(connection, sql))
    systems, sqls, _ = zip(*question.candidates, strict=True)
    results = tuple(run_once(sql) for sql in sqls)
    texts = question.id, question.db_id, question.question, question.evidence
    return Pool(*texts, tables, systems, sqls, results, cluster(results, view))


def subset(executed: Executed, inside: np.ndarray) -> Executed:
    """The pools where `inside` [n] is true, with their labels; what could not be used is left behind."""
    at = np.flatnonzero(inside)
    return Executed([executed.pools[i] for i in at], [executed.correct[i] for i in at], [])


def restrict(executed: Executed, keep: Callable[[str], bool]) -> Executed:
    """The pools with those of their candidates whose system is kept; a question without any is left out."""
    pools, correct = [], []
    for one, truth in zip(executed.pools, executed.correct, strict=True):
        at = [i for i, system in enumerate(one.systems) if keep(system)]
        if at:
            rows = {name: tuple(getattr(one, name)[i] for i in at) for name in ("systems", "sqls", "results")}
            pools.append(one._replace(**rows, clusters=one.clusters[at]))
            correct.append(truth[at])
    return Executed(pools, correct, [])


def cluster(results: Sequence[Result], view: Callable = as_set) -> np.ndarray:
    """[n] numbers of equal results under `view`, from 0 in the order of appearance; FAILED for every error."""
    seen: dict[frozenset, int] = {}
    return np.array([FAILED if r.error else seen.setdefault(view(r), len(seen)) for r in results], dtype=int)


def cluster_sizes(clusters: np.ndarray) -> np.ndarray:
    """[n] how many candidates each one's cluster has; 0 for a failed one."""
    return np.where(clusters == FAILED, 0, (clusters[:, None] == clusters[None, :]).sum(1))


def majority(pool: Pool) -> int:
    """Self-consistency: the shortest query of the largest cluster, which is the first listed of such."""
    sizes = cluster_sizes(pool.clusters)
    inside = np.flatnonzero(pool.clusters == pool.clusters[int(np.argmax(sizes))])
    return int(min(inside, key=lambda i: (len(pool.sqls[i]), pool.sqls[i])))


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
