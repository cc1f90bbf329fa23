"""The embedded world of questions to databases: SQLite files with messy values, and questions with gold SQL.

    build/<profile>/sql_world/database/<name>/<name>.sqlite      questions.jsonl

Everything follows from the seed. Questions and databases are the grammar's; no model has written a word of them.
"""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.methods.chase_sql.world import forms
from prefcore.methods.chase_sql.world.forms import Column, Link, Query, Schema
from prefcore.methods.chase_sql.world.schemas import Field, Plan, read_plans
from prefcore.methods.chase_sql.world.words import Phrases, paraphrase

GROWTH = 3  # a table has so many rows for each row of the table it refers to
LONGEST = 60  # rows of a gold result, at most
TRIES = 200  # draws without a new question after which a family counts as exhausted
FIRST = (
    "Ana Ben Carla Dmitri Elena Farid Greta Hugo Ines Jonas Keiko Liam Mona Nils Olga Pavel Quinn Rosa Samir Tessa "
    "Umar Vera Wanda Xenia Yusuf Zoe Arjun Bianca"
).split()
LAST = (
    "Abbott Brandt Castillo Dubois Eriksen Fischer Garcia Haddad Ivanov Jansen Kowalski Lindgren Moreau Novak Okafor "
    "Petrov Quintero Rossi Schmidt Tanaka Ueda Vargas Weber Xu Yilmaz Zimmermann"
).split()
PLACES = (
    "New Haven|Port Arthur|Saint Helens|Lower Falls|Grand Rapids|Cape Town|East Lansing|Long Beach|Little Rock|"
    "San Marino|Mount Vernon|Green Bay|Santa Rosa|White Plains|Fort Worth|Las Palmas"
).split("|")
TITLES = (
    "Silent Golden Broken Hidden Crimson Northern Velvet Paper Distant Wild Morning Iron".split(),
    "River Garden Lantern Compass Orchard Mirror Harvest Bridge Falcon Winter Island Harbor".split(),
)


class Question(NamedTuple):
    """A question in words with its gold SQL, which only scoring may read."""

    id: str
    db_id: str
    family: str
    shape: str
    question: str
    gold: str


class Database(NamedTuple):
    """A database in memory: schema, people's words for it, rows of each table as stored."""

    name: str
    schema: Schema
    phrases: Phrases
    rows: dict[str, list[tuple]]


def build(p: Parameters, build: Path) -> None:
    """The stage: all databases and their questions. More questions of a database begin with the same ones as fewer."""
    folder = build / "sql_world"
    shutil.rmtree(folder, ignore_errors=True)
    questions = []
    for number, (name, plans) in enumerate(sorted(read_plans().items())):
        rng = np.random.default_rng([p.seed, number])
        database = make_database(name, plans, p.sql_rows, rng)
        path = folder / "database" / name / f"{name}.sqlite"
        write(database, path)
        with closing(sqlite3.connect(path)) as connection:
            for i, (query, words) in enumerate(draw_questions(database, connection, p.sql_questions, rng)):
                family = forms.FAMILY[query.shape]
                questions.append(Question(f"{name}:{i}", name, family, query.shape, words, forms.sql(query)))
    files.write_lines(questions, folder / "questions.jsonl")


def read_questions(path: Path) -> list[Question]:
    """What `build` wrote."""
    return [Question(**row) for row in files.read_lines(path)]


# --- databases ---------------------------------------------------------------------------------------------------


def make_database(name: str, plans: Sequence[Plan], rows: int, rng: np.random.Generator) -> Database:
    """Rows of all tables: `rows` in a table without parent, GROWTH times its parent's in any other."""
    tables, links, stored, spoken = {}, [], {}, {}
    for plan in plans:
        columns = tuple(Column(plan.name, f.name, _is_number(f)) for f in plan.fields)
        tables[plan.name] = columns
        links += [Link(plan.name, f"{parent}_id", parent, f"{parent}_id") for parent in plan.parents]
        size = max([rows, *(GROWTH * len(stored[parent]) for parent in plan.parents)])
        drawn = [_draw(f, column, size, spoken, rng) for f, column in zip(plan.fields, columns, strict=True)]
        used = [len(stored[parent]) * 4 // 5 for parent in plan.parents]  # some parents have no row here
        drawn += [rng.integers(1, most + 1, size=size).tolist() for most in used]
        stored[plan.name] = [(i + 1, *row) for i, row in enumerate(zip(*drawn, strict=True))]
    called = {(plan.name, f.name): f.phrase for plan in plans for f in plan.fields}
    phrases = Phrases({plan.name: plan.phrase for plan in plans}, called, spoken)
    return Database(name, Schema(tables, tuple(links)), phrases, stored)


def _is_number(f: Field) -> bool:
    return f.kind == "year" or ".." in f.kind


def _draw(f: Field, column: Column, size: int, spoken: dict, rng: np.random.Generator) -> list:
    """A column's values; one in twenty is missing. `spoken` learns what people call each stored text."""
    if _is_number(f):
        low, high = ("1990", "2023") if f.kind == "year" else f.kind.split("..")
        real = "." in low
        low, high = float(low), float(high)
        skewed = low + (high - low) * rng.random(size) ** (1 if f.kind == "year" else 1.5)
        values = [round(float(v), 2) if real else int(v) for v in skewed]
    else:
        clean = [_text(f.kind, rng) for _ in range(size)]
        spelled = {value: respell(value, rng) for value in dict.fromkeys(clean)}
        spoken.update({(column, spelling): value for value, spelling in spelled.items()})
        values = [spelled[value] for value in clean]
    return [None if missing else value for value, missing in zip(values, rng.random(size) < 0.05, strict=True)]


def _text(kind: str, rng: np.random.Generator) -> str:
    pools = {"person": (FIRST, LAST), "title": TITLES, "place": (PLACES,)}
    return " ".join(str(rng.choice(pool)) for pool in pools.get(kind, (kind.split("|"),)))


def respell(value: str, rng: np.random.Generator) -> str:
    """How somebody typed the value: as it is, in other case, with odd spaces or underscores, or words cut short."""
    words = value.split(" ")
    kinds = (
        value, value, value.upper(), value.lower(), value.title(), f"{value} ", "  ".join(words),
        "_".join(words).lower(), " ".join(word[:4] + "." if len(word) > 5 else word for word in words),
        f"{value[0]}. {' '.join(words[1:])}",
    )  # fmt: skip
    return kinds[int(rng.integers(len(kinds) - (len(words) < 2)))]


def write(database: Database, path: Path) -> None:
    """The database as an SQLite file with its primary and foreign keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = {table: [link for link in database.schema.links if link.child == table] for table in database.schema.tables}
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in database.schema.tables.items():
            parts = [f"{table}_id INTEGER PRIMARY KEY"]
            parts += [f"{c.name} {_type(database, c)}" for c in columns]
            parts += [f"{link.key} INTEGER REFERENCES {link.parent}({link.target})" for link in keys[table]]
            connection.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
            marks = ", ".join("?" * len(parts))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", database.rows[table])
        connection.commit()


def _type(database: Database, column: Column) -> str:
    place = 1 + database.schema.tables[column.table].index(column)
    real = any(isinstance(row[place], float) for row in database.rows[column.table])
    return "REAL" if real else "INTEGER" if column.numeric else "TEXT"


# --- questions ---------------------------------------------------------------------------------------------------


def draw_questions(database: Database, connection, size: int, rng: np.random.Generator) -> list[tuple[Query, str]]:
    """(query, question in words), families in turn; each query gives rows, not too many, and none twice.

    A family that gives nothing new in TRIES draws is left out from then on. ValueError where none is left.
    """
    found, families, contents = {}, list(forms.FAMILIES), contents_of(database)
    turn = failures = 0
    while len(found) < size:
        if not families:
            raise ValueError(f"{database.name}: only {len(found)} of {size} questions found: ask for fewer")
        family = families[turn % len(families)]
        shapes = forms.FAMILIES[family]
        query = forms.draw_query(database.schema, contents, shapes[int(rng.integers(len(shapes)))], rng)
        text = query and forms.sql(query)
        if text and text not in found and is_informative(connection.execute(text).fetchall()):
            found[text] = (query, paraphrase(query, database.phrases, rng))
            turn, failures = turn + 1, 0
        elif failures := (failures + 1) % TRIES:
            continue
        else:
            families.remove(family)
    return list(found.values())


def contents_of(database: Database) -> dict[Column, list]:
    """The values of every column, as often as they are stored."""
    return {
        column: [row[place] for row in database.rows[table] if row[place] is not None]
        for table, columns in database.schema.tables.items()
        for place, column in enumerate(columns, 1)
    }


def is_informative(rows: list[tuple]) -> bool:
    """Some rows but not too many, and no answer that is nothing or zero."""
    return 0 < len(rows) <= LONGEST and any(cell not in (None, 0) for row in rows for cell in row)
