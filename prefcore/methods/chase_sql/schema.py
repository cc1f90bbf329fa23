"""The schema of a database as a prompt shows it: real DDL with types, keys, quoted names, descriptions and values; and
the part of it that two queries use (the paper's schema_union)."""

import csv
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from prefcore.methods.chase_sql import database


class Column(NamedTuple):
    """A column: `key` is its place in the primary key, from 1, or 0; `refers` the (table, column) of a foreign key;
    `note` what a description file says about it."""

    name: str
    type: str
    key: int = 0
    refers: tuple[str, str] | None = None
    note: str = ""


Schema = dict[str, tuple[Column, ...]]  # table -> its columns, in the order shown
Used = Mapping[str, Sequence[str]]  # table -> names of some of its columns


def read(path: str | Path) -> Schema:
    """The tables and views of a database file, with keys and what BIRD's database_description/TABLE.csv says."""
    found = database.tables(path)
    refers = {(table, column): (parent, target) for table, column, parent, target in database.foreign_keys(path)}
    notes = read_notes(Path(path).parent / "database_description", found)
    return {
        table: tuple(Column(c.name, c.type, c.key, refers.get((table, c.name)), notes.get((table, c.name), ""))
                     for c in columns)
        for table, columns in found.items()
    }  # fmt: skip


def read_notes(folder: Path, tables: Mapping[str, Sequence[database.Column]]) -> dict[tuple[str, str], str]:
    """(table, column) -> its description, from the CSV files of a folder in BIRD's form; none where there is none."""
    notes = {}
    for table, columns in tables.items():
        path = folder / f"{table}.csv"
        if not path.is_file():
            continue
        names = {column.name.lower().strip(): column.name for column in columns}
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            for row in csv.DictReader(lines):
                told = [row.get(key) or "" for key in ("column_name", "column_description", "value_description")]
                name = names.get((row.get("original_column_name") or "").lower().strip())
                note = "; ".join(dict.fromkeys(" ".join(text.split()) for text in told if text.strip()))
                if name and note.lower() != name.lower():
                    notes[table, name] = note
    return notes


def ddl(schema: Schema, values: Sequence = (), used: Used | None = None) -> str:
    """CREATE TABLE statements, whole columns with keys; where `used` is given, these columns and all keys alone.

    values: (table, column, text) that the question may mean; they stand behind their column.
    """
    examples: dict[tuple[str, str], list[str]] = {}
    for table, column, text in values:
        examples.setdefault((table, column), []).append(literal(text))
    out = []
    for table, columns in schema.items():
        if used is not None and table not in used:
            continue
        keys = [c for c in sorted(columns, key=lambda c: c.key) if c.key]
        shown = [c for c in columns if used is None or c.name in used[table] or c.key or c.refers]
        parts = [(_declare(c, keys == [c]), _remark(c, examples.get((table, c.name), ()))) for c in shown]
        if len(keys) > 1:
            parts.append((f"PRIMARY KEY ({', '.join(quote(c.name) for c in keys)})", ""))
        lines = [f"  {text}{',' * (i < len(parts))}{remark}" for i, (text, remark) in enumerate(parts, 1)]
        out.append("\n".join([f"CREATE TABLE {quote(table)} (", *lines, ");"]))
    return "\n".join(out)


def _declare(column: Column, alone: bool) -> str:
    words = [quote(column.name), column.type, "PRIMARY KEY" if alone else ""]
    if column.refers:
        parent, target = map(quote, column.refers)
        words.append(f"REFERENCES {parent}({target})")
    return " ".join(word for word in words if word)


def _remark(column: Column, examples: Sequence[str]) -> str:
    told = [column.note] * bool(column.note) + [f"has {', '.join(examples)}"] * bool(examples)
    return f"  -- {'; '.join(told)}" if told else ""


def shuffle(schema: Schema, rng: np.random.Generator) -> Schema:
    """The same tables and columns in another order (the paper shuffles them so that samples differ)."""
    names = list(schema)
    return {names[i]: tuple(schema[names[i]][k] for k in rng.permutation(len(schema[names[i]])))
            for i in rng.permutation(len(names))}  # fmt: skip


@lru_cache(maxsize=4096)
def quote(name: str) -> str:
    """An identifier, in double quotes unless SQLite takes it as it is."""
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        with closing(sqlite3.connect(":memory:")) as scratch:
            try:
                scratch.execute(f"CREATE TABLE {name} ({name} TEXT)")
                scratch.execute(f"SELECT {name} AS {name} FROM {name}")
                return name
            except sqlite3.Error:
                pass
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


# --- what a query uses -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def parse(sql: str) -> exp.Expression | None:
    """The syntax tree of a query, not to be changed; None where it cannot be read as SQLite's."""
    try:
        trees = sqlglot.parse(sql, read="sqlite")
    except (SqlglotError, RecursionError):
        return None
    return trees[0] if len(trees) == 1 else None


def union(schema: Mapping[str, Sequence], *sqls: str) -> dict[str, tuple[str, ...]]:
    """Table -> its columns that one of the queries names, in the schema's order; all of it where one is unreadable.

    A name without a table belongs to every table of the queries that has such a column, `*` to all columns of its table
    or of all tables of its query.
    """
    whole = {name: tuple(column.name for column in columns) for name, columns in schema.items()}
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
