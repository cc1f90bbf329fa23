"""Four small databases of one schema with questions and the candidates of three made-up systems."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from prefcore.methods.chase_sql import execution
from prefcore.methods.chase_sql.candidates import Candidate, Question
from prefcore.methods.chase_sql.database import Result
from prefcore.methods.chase_sql.execution import Pool
from prefcore.methods.chase_sql.schema import Column

TABLES = {"pet": (Column("id", "INTEGER", 1), Column("name", "TEXT"), Column("age", "REAL")),
          "visit": (Column("pet", "INTEGER"), Column("day", "TEXT"))}  # fmt: skip


@pytest.fixture(scope="session")
def databases(tmp_path_factory):
    """A folder with the databases d0 to d3, each with its own rows."""
    folder = tmp_path_factory.mktemp("databases")
    for d in range(4):
        with closing(sqlite3.connect(folder / f"d{d}.sqlite")) as made:
            made.execute("CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT, age REAL)")
            made.execute("CREATE TABLE visit (pet INTEGER, day TEXT)")
            rows = [(i, f"pet {i} of {d}", i * 1.5 + d) for i in range(6)]
            made.executemany("INSERT INTO pet VALUES (?, ?, ?)", rows)
            made.executemany("INSERT INTO visit VALUES (?, ?)", [(i % 3, f"2020-0{i + 1}-01") for i in range(5 + d)])
            made.commit()
    return folder


KINDS = [  # question, the right query, a wrong one, another text of the right one
    ("How many pets are there?", "SELECT count(*) FROM pet", "SELECT name FROM pet", "SELECT count(id) FROM pet"),
    ("What is the average age of all pets?", "SELECT avg(age) FROM pet", "SELECT max(age) FROM pet",
     "SELECT sum(age) / count(age) FROM pet"),
    ("What is the maximum age of the pets?", "SELECT max(age) FROM pet", "SELECT avg(age) FROM pet",
     "SELECT age FROM pet ORDER BY age DESC LIMIT 1"),
    ("How many visits were there?", "SELECT count(*) FROM visit", "SELECT day FROM visit",
     "SELECT count(day) FROM visit"),
    ("What is the name of the oldest pet?", "SELECT name FROM pet ORDER BY age DESC LIMIT 1", "SELECT name FROM pet",
     "SELECT name FROM pet WHERE age = (SELECT max(age) FROM pet)"),
]  # fmt: skip


@pytest.fixture(scope="session")
def questions():
    """Twenty questions, five on each database; system `sound` is right, `broken` fails, two of `copies` are wrong."""
    out = []
    for d in range(4):
        for k, (text, right, wrong, other) in enumerate(KINDS):
            sound = other if (d + k) % 2 else right
            proposed = [("copies", wrong), ("copies", wrong), ("sound", sound), ("broken", "SELEC 1")]
            out.append(Question(f"{d}{k}", f"d{d}", text, right, tuple(Candidate(*pair) for pair in proposed)))
    return out


@pytest.fixture(scope="session")
def executed(questions, databases):
    """Their pools: of four candidates the third is right, two are equally wrong, one fails."""
    return execution.run(questions, databases)


def embed(texts):
    """A stand-in for an encoder: counts of letters, of unit length."""
    table = np.array([[text.lower().count(letter) + 1e-6 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
    return table / np.linalg.norm(table, axis=1, keepdims=True)


@pytest.fixture(name="embed", scope="session")
def embed_fixture():
    return embed


@pytest.fixture
def pool():
    """pool([0, 0, 1, -1]): candidates with these clusters, each with its own text of SQL."""

    def make(clusters, sqls=None):
        clusters = np.asarray(clusters)
        sqls = tuple(sqls or (f"SELECT {'x' * i}{i}" for i in range(len(clusters))))
        results = tuple(Result((), (), "invalid SQL", "x") if c < 0 else Result(("c",), ((int(c),),)) for c in clusters)
        systems = tuple(f"s{i}" for i in range(len(clusters)))
        return Pool("q", "d", "Which?", "", TABLES, systems, sqls, results, clusters)

    return make
