"""Foreign SQL on a foreign file: it reads this database and nothing else, ends, and leaves no trace."""

import hashlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.database import Result, as_multiset, as_set, execute, same

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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a database of pets and 300 numbers, and with another that nobody may read."""
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def pets(place):
    with closing(database.open_database(place / "pets.db")) as connection:
        yield connection


def test_the_table_of_hostile_statements_is_whole():
    assert len(HOSTILE) == 79


@pytest.mark.parametrize("statement", HOSTILE, ids=lambda s: " ".join(ascii(s[:60]).split()))
def test_a_hostile_statement_gets_a_named_error_and_changes_reads_and_lasts_nothing(place, pets, statement):
    before, start = digests(place), time.monotonic()
    found = execute(pets, statement.replace("{dir}", str(place)), steps=ALLOWED)
    expected = HOSTILE[statement]
    assert found.error in database.ERRORS and not found.rows and "hush" not in str(found)
    assert found.error in (expected if isinstance(expected, tuple) else (expected,)), found.detail
    assert time.monotonic() - start < 20
    assert digests(place) == before
    assert execute(pets, "SELECT count(*) FROM pet").rows == ((3,),)  # and the connection is still good


HARMLESS = {
    "SELECT name FROM pet WHERE age > 3 -- why not": (("Rex",),),
    "select Name from PET order by id limit 1;": (("Rex",),),
    "WITH a AS (SELECT max(age) AS m FROM pet) SELECT m FROM a": ((3.5,),),
    "SELECT count(DISTINCT name), round(avg(age), 2) FROM pet": ((2, 3.25),),
    "SELECT name, rank() OVER (ORDER BY id) FROM pet LIMIT 1": (("Rex", 1),),
    "SELECT upper(name) || '!' FROM pet WHERE name LIKE 't%'": (("TOM!",),),
    "SELECT strftime('%Y', '2020-03-01'), CAST('7' AS INTEGER), iif(1, 2, 3)": (("2020", 7, 2),),
    "SELECT value FROM json_each('[1]')": ((1,),),
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3) SELECT max(x) FROM c": ((3,),),
    "VALUES (1)": ((1,),),
    "SELECT 'DROP TABLE pet; --'": (("DROP TABLE pet; --",),),
    "SELECT name FROM pet WHERE id = 1 EXCEPT SELECT name FROM pet WHERE id = 2": (("Rex",),),
}


@pytest.mark.parametrize("statement", HARMLESS)
def test_a_query_runs(pets, statement):
    assert execute(pets, statement) == Result(execute(pets, statement).columns, HARMLESS[statement])


def test_the_limit_counts_steps_and_not_time(pets):
    """The same statement stops at the same step however long it took: two runs, and the limit decides between them."""
    sql = "SELECT count(*) FROM n AS a, n AS b"  # 90,000 rows, some steps each
    errors = [[execute(pets, sql, steps=steps).error for steps in (50_000, 5_000_000)] for _ in range(2)]
    assert errors == [["too many steps", ""]] * 2


def test_the_clock_is_a_backstop(pets):
    assert execute(pets, f"SELECT count(*) FROM {MANY}", steps=10**15, seconds=0.2).error == "too slow"


def test_one_step_of_much_work_does_not_outlast_the_clock_by_much(pets):
    """Long texts make few steps slow: the clock is looked at often enough."""
    heavy = "SELECT sum(instr(printf('%90000d', x), printf('%45000dy', x))) FROM n"
    start = time.monotonic()
    assert execute(pets, heavy, seconds=0.5).error == "too slow"
    assert time.monotonic() - start < 30


def test_an_unfit_file_is_named_with_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.db: there is no such database file"):
        database.open_database(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to have a header of a hundred bytes" * 3)
    (tmp_path / "empty.db").touch()
    with pytest.raises(ValueError, match=r"text\.db: cannot be read as an SQLite database"):
        database.open_database(tmp_path / "text.db")
    with pytest.raises(ValueError, match=r"empty\.db: the database holds no table"):
        database.open_database(tmp_path / "empty.db")


def test_changes_that_wait_in_a_log_are_not_overlooked(place, tmp_path):
    (tmp_path / "pets.db").write_bytes((place / "pets.db").read_bytes())
    (tmp_path / "pets.db-wal").write_bytes(b"x")
    with pytest.raises(ValueError, match="changes wait in pets.db-wal"):
        database.open_database(tmp_path / "pets.db")


def test_a_broken_page_is_a_named_error_where_it_is_read(place, tmp_path):
    raw = bytearray((place / "pets.db").read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)  # all but the page that holds the schema
    (tmp_path / "broken.db").write_bytes(raw)
    with closing(database.open_database(tmp_path / "broken.db")) as connection:
        assert execute(connection, "SELECT * FROM pet").error == "unreadable"


def test_a_path_with_odd_letters_is_that_path(place, tmp_path):
    odd = tmp_path / "a?mode=rwc#50%.db"
    odd.write_bytes((place / "pets.db").read_bytes())
    with closing(database.open_database(odd)) as connection:
        assert len(execute(connection, "SELECT * FROM pet").rows) == 3


def test_bytes_that_are_no_text_do_not_stop_a_result(tmp_path):
    with closing(sqlite3.connect(tmp_path / "odd.db")) as made:
        made.execute("CREATE TABLE t (x TEXT)")
        made.execute("INSERT INTO t VALUES (CAST(x'61ff' AS TEXT))")
        made.commit()
    with closing(database.open_database(tmp_path / "odd.db")) as connection:
        assert execute(connection, "SELECT x FROM t").rows == (("a\\xff",),)


# --- equality ---------------------------------------------------------------------------------------------------


def test_the_set_ignores_order_and_repetition_and_the_multiset_only_order():
    once, twice, turned = (Result(("x",), rows) for rows in (((1,), (2,)), ((1,), (2,), (1,)), ((2,), (1,))))
    assert same(once, twice) and same(once, turned)
    assert not same(once, twice, as_multiset) and same(once, turned, as_multiset)


def test_numbers_are_equal_by_value_and_texts_are_not_numbers():
    one, real, text = (Result(("x",), ((value,),)) for value in (1, 1.0, "1"))
    assert same(one, real) and not same(one, text)


def test_the_order_of_columns_counts_and_their_names_do_not():
    assert same(Result(("a", "b"), ((1, 2),)), Result(("c", "d"), ((1, 2),)))
    assert not same(Result(("a", "b"), ((1, 2),)), Result(("b", "a"), ((2, 1),)))


def test_an_error_equals_nothing_and_no_rows_equal_no_rows():
    broken, empty = Result((), (), "invalid SQL", "x"), Result(("a",), ())
    assert not same(broken, broken) and not same(broken, empty)
    assert same(empty, Result(("a", "b"), ())) and as_set(empty) == as_multiset(empty) == frozenset()


# --- showing ----------------------------------------------------------------------------------------------------


def test_what_is_shown_is_cut_and_what_is_compared_is_not(pets):
    long = execute(pets, "SELECT x, printf('%100d', x) FROM n")
    assert len(long.rows) == 300 and len(database.show(long)) < 200
    assert database.show(long).startswith("300 rows: 0 | ") and database.show(long).endswith("; ...")
    other = Result(long.columns, (*long.rows[:-1], (299, "another")))
    assert database.show(long) == database.show(other) and not same(long, other)


def test_a_result_is_put_into_words():
    assert database.show(Result(("a", "b"), ((None, 1 / 3),))) == "1 row: NULL | 0.333333"
    assert database.show(Result(("a",), ())) == "0 rows: none"
    assert database.show(Result((), (), "forbidden", "not authorized")) == "error: forbidden (not authorized)"


def test_the_schema_is_what_the_file_declares(place):
    found = database.tables(place / "pets.db")
    assert list(found) == ["pet", "visit", "n"]
    assert found["pet"] == (("id", "INTEGER", 1), ("name", "TEXT", 0), ("age", "REAL", 0))
    assert database.foreign_keys(place / "pets.db") == [("visit", "pet", "pet", "id")]


def test_a_foreign_key_finds_its_table_in_whatever_case_it_is_written(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute("CREATE TABLE Owner (owner_id INTEGER PRIMARY KEY)")
        made.execute("CREATE TABLE pet (id INTEGER, owner INTEGER REFERENCES OWNER)")
        made.commit()
    assert database.foreign_keys(tmp_path / "a.db") == [("pet", "owner", "Owner", "owner_id")]
