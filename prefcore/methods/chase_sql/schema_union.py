"""The schema union of two queries (the paper's schema_union): what a judge of the two needs to know, and no more."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from prefcore.methods.chase_sql.database import Column


@lru_cache(maxsize=20_000)
def parse(sql: str) -> exp.Expression | None:
    """The syntax tree of a query, not to be changed; None where it cannot be read as SQLite's."""
    try:
        trees = sqlglot.parse(sql, read="sqlite")
    except (SqlglotError, RecursionError):
        return None
    return trees[0] if len(trees) == 1 else None


def union_schema(tables: Mapping[str, Sequence[Column]], *sqls: str) -> dict[str, tuple[str, ...]]:
    """Table -> its columns that one of the queries names, in the schema's order; all of it where one is unreadable.

    A name without a table belongs to every table of the queries that has such a column, `*` to all columns of its table
    or of all tables of its query.
    """
    whole = {name: tuple(column.name for column in columns) for name, columns in tables.items()}
    used: dict[str, set[str]] = {}
    for sql in sqls:
        tree = parse(sql)
        if tree is None:
            return whole
        for table, columns in _used(tree, whole).items():
            used[table] = used.get(table, set()) | columns
    return {table: tuple(c for c in whole[table] if c in used[table]) for table in whole if table in used}


def _used(tree: exp.Expression, whole: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    by_name = {table.lower(): table for table in whole}
    used: dict[str, set[str]] = {}
    called: dict[str, set[str]] = {}  # alias or name, in lower case -> tables of the schema; an alias may stand for two
    for node in tree.find_all(exp.Table):
        if table := by_name.get(node.name.lower()):
            used.setdefault(table, set())
            for name in (node.alias_or_name, node.name):
                called.setdefault(name.lower(), set()).add(table)
    for node in tree.find_all(exp.Column):
        at = called.get(node.table.lower(), set()) if node.table else set(used)
        for table in at:
            same = [c for c in whole[table] if isinstance(node.this, exp.Star) or c.lower() == node.name.lower()]
            used[table] |= set(same)
    for star in tree.find_all(exp.Star):
        if isinstance(star.parent, exp.Select):  # not count(*)
            inside = {by_name.get(node.name.lower()) for node in star.parent.find_all(exp.Table)}
            for table in inside & set(used):
                used[table] |= set(whole[table])
    return used


def render(schema: Mapping[str, Sequence[str]]) -> str:
    """A schema on one line: table(column, column); table(column)."""
    return "; ".join(f"{table}({', '.join(columns)})" for table, columns in schema.items())
