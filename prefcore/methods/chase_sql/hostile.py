"""A table of hostile statements, and what becomes of a database, and of files beside it, when they are run on it."""

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd

from prefcore.methods.chase_sql import database

ALLOWED = 2_000_000  # steps of SQLite's virtual machine for each of them
MANY = ", ".join(f"n AS t{i}" for i in range(8))  # 300^8 rows
NESTED = ", ".join(f"c{i + 1} AS (SELECT max(t.x) AS x FROM c{i} AS t, c{i} AS u)" for i in range(40))  # 2^40 scans
DEEP = "(" * 5000 + "1" + ")" * 5000
FORBIDDEN, STEPS, LARGE, INVALID = "forbidden", "too many steps", "too large", "invalid SQL"
SEVERAL, NOTHING = "several statements", "no query"

# statement -> the name of its error (a tuple where builds of SQLite differ); {dir} is a folder with a secret in it
HOSTILE = {
    # writing
    "DROP TABLE pet": FORBIDDEN,
    "DELETE FROM pet": FORBIDDEN,
    "INSERT INTO pet VALUES (9, 'x', 1)": FORBIDDEN,
    "UPDATE pet SET name = 'x'": FORBIDDEN,
    "REPLACE INTO pet VALUES (1, 'x', 1)": FORBIDDEN,
    "INSERT INTO pet SELECT * FROM pet RETURNING id": FORBIDDEN,
    "WITH c AS (SELECT 1) DELETE FROM pet WHERE id IN (SELECT * FROM c)": FORBIDDEN,
    "UPDATE sqlite_master SET sql = 'x'": (FORBIDDEN, INVALID),
    "CREATE TABLE evil (x)": FORBIDDEN,
    "CREATE TEMP TABLE evil (x)": FORBIDDEN,
    "CREATE TEMP VIEW evil AS SELECT 1": FORBIDDEN,
    "CREATE TEMP TRIGGER evil AFTER INSERT ON pet BEGIN SELECT 1; END": FORBIDDEN,
    "CREATE INDEX evil ON pet (name)": FORBIDDEN,
    "CREATE VIRTUAL TABLE evil USING fts5(x)": FORBIDDEN,
    "ALTER TABLE pet RENAME TO tep": FORBIDDEN,
    "REINDEX by_name": FORBIDDEN,
    "ANALYZE": FORBIDDEN,
    "VACUUM": FORBIDDEN,
    "VACUUM INTO '{dir}/copy.db'": FORBIDDEN,
    "BEGIN IMMEDIATE": FORBIDDEN,
    "SAVEPOINT s": FORBIDDEN,
    # other files, and the connection's settings
    "ATTACH '{dir}/secret.db' AS s": FORBIDDEN,
    "ATTACH ':memory:' AS s": FORBIDDEN,
    "DETACH main": FORBIDDEN,
    "SELECT * FROM '{dir}/secret.db'": INVALID,
    "PRAGMA writable_schema = 1": FORBIDDEN,
    "PRAGMA journal_mode = WAL": FORBIDDEN,
    "PRAGMA query_only = 0": FORBIDDEN,
    "PRAGMA database_list": FORBIDDEN,
    "PRAGMA temp_store_directory = '{dir}'": FORBIDDEN,
    "SELECT * FROM pragma_database_list": FORBIDDEN,
    "SELECT * FROM pragma_table_info('pet')": FORBIDDEN,
    "SELECT * FROM sqlite_dbpage": (FORBIDDEN, INVALID),
    "SELECT * FROM dbstat": (FORBIDDEN, INVALID),
    "SELECT load_extension('{dir}/evil.so')": (FORBIDDEN, INVALID),
    "SELECT readfile('{dir}/secret.txt')": INVALID,
    "SELECT writefile('{dir}/evil.txt', 'x')": INVALID,
    "SELECT * FROM fsdir('{dir}')": INVALID,
    "SELECT edit('x')": INVALID,
    "SELECT fts3_tokenizer('simple')": (FORBIDDEN, INVALID),
    # more than one, or none
    "SELECT 1; DROP TABLE pet": SEVERAL,
    "SELECT 1; SELECT 2": SEVERAL,
    "SELECT 1;/**/;DELETE FROM pet": SEVERAL,
    "": NOTHING,
    ";": NOTHING,
    "-- only a comment": NOTHING,
    "/* never closed": (NOTHING, INVALID),
    # bombs
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c": STEPS,
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c": (STEPS, LARGE),
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION SELECT x + 1 FROM c) SELECT x FROM c LIMIT 1 OFFSET 999999": (STEPS, LARGE),
    "WITH RECURSIVE c(x) AS (SELECT 'ab' UNION ALL SELECT x || x FROM c) SELECT max(length(x)) FROM c": LARGE,
    f"SELECT count(*) FROM {MANY}": STEPS,
    f"SELECT * FROM {MANY}": (STEPS, LARGE),
    f"SELECT t0.x FROM {MANY} ORDER BY t1.x, t2.x": (STEPS, LARGE),
    f"SELECT DISTINCT t0.x, t1.x, t2.x, t3.x FROM {MANY}": (STEPS, LARGE),
    f"SELECT group_concat(t0.x) FROM {MANY}": (STEPS, LARGE),
    f"SELECT printf('%90000d', t0.x) FROM {MANY} ORDER BY 1": (STEPS, LARGE),
    f"WITH c0 AS (SELECT x FROM n), {NESTED} SELECT x FROM c40": (STEPS, LARGE, INVALID),
    "SELECT randomblob(1000000000)": FORBIDDEN,
    "SELECT zeroblob(1000000000)": FORBIDDEN,
    "SELECT hex(zeroblob(400000000))": FORBIDDEN,
    "SELECT replace(printf('%90000d', 1), ' ', 'aaaaaaaaaa')": LARGE,
    "SELECT " + ", ".join(["1"] * 3000): INVALID,
    "SELECT " + " + ".join(["1"] * 3000): LARGE,
    " UNION ALL ".join(["SELECT 1"] * 500): INVALID,
    "SELECT '" + "x" * 60_000 + "'": LARGE,
    f"SELECT {DEEP}": INVALID,
    # disguises
    "/* SELECT */ DROP TABLE pet": FORBIDDEN,
    "SELECT 1 -- \n; DROP TABLE pet": SEVERAL,
    "EXPLAIN DROP TABLE pet": FORBIDDEN,
    "\ufeffDROP TABLE pet": (FORBIDDEN, INVALID),
    "DR\u200bOP TABLE pet": INVALID,
    "\uff24\uff32\uff2f\uff30 TABLE pet": INVALID,  # fullwidth letters
    "SELECT 1\x00; DROP TABLE pet": INVALID,
    "SELECT '\ud800'": INVALID,  # a lone surrogate
    "SELECT ?": INVALID,
    "SELECT * FROM pet WHERE name = 'x": INVALID,
    "SELECT random() FROM pet": FORBIDDEN,
    "drop\n\ttable\r\npet": FORBIDDEN,
}  # fmt: skip


def attack() -> pd.DataFrame:
    """Run all of them on a scratch database. Columns: statement (shortened), error (its name, empty if it ran), rows,
    unharmed (not a byte of any file in the folder changed, none is new, and the connection still works)."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_place(Path(name))
        return pd.DataFrame(list(_run_all(folder)), columns=["statement", "error", "rows", "unharmed"])


def _run_all(folder: Path) -> Iterator[tuple]:
    before = digests(folder)
    with closing(database.open_database(folder / "pets.db")) as connection:
        for statement in HOSTILE:
            found = database.execute(connection, statement.replace("{dir}", str(folder)), steps=ALLOWED)
            good = database.execute(connection, "SELECT count(*) FROM pet").rows == ((3,),)
            yield ascii(statement)[1:60], found.error, len(found.rows), good and digests(folder) == before


def make_place(folder: Path) -> Path:
    """A database of pets and 300 numbers, and beside it files with a secret that nobody may read."""
    with closing(sqlite3.connect(folder / "pets.db")) as made:
        made.execute("CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT, age REAL)")
        made.executemany("INSERT INTO pet VALUES (?, ?, ?)", [(1, "Rex", 3), (2, "Tom", None), (3, "Rex", 3.5)])
        made.execute("CREATE INDEX by_name ON pet (name)")
        made.execute("CREATE TABLE visit (pet INTEGER REFERENCES pet, day TEXT)")
        made.execute("CREATE TABLE n (x INTEGER)")
        made.executemany("INSERT INTO n VALUES (?)", [(i,) for i in range(300)])
        made.commit()
    with closing(sqlite3.connect(folder / "secret.db")) as made:
        made.execute("CREATE TABLE secret AS SELECT 'hush' AS word")
        made.commit()
    (folder / "secret.txt").write_text("hush")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
