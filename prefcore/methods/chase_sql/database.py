"""A foreign SQLite file and foreign SQL: whatever a statement says, it can only read this one file, and not for ever.

Every defence has its own layer: the file is opened read-only and as unchanging; SQLite's authoriser lets a statement
select and nothing else; values, statements, memory and results have a limit; the work is counted in steps of SQLite's
virtual machine, so that a result does not depend on how busy the machine is (time is a backstop only).
"""

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

STEPS = 200_000_000  # of SQLite's virtual machine, a few seconds of work
CHECK = 100  # steps between two looks at the limits; one step on the longest texts can take 0.1 s
SECONDS = 120.0  # the backstop, far above what STEPS take
HEAP = 256 * 2**20  # bytes that SQLite may hold, in this whole process
RESULT = 64 * 2**20  # bytes of a result, roughly
ERRORS = {
    "forbidden": "it does something else than reading this database",
    "several statements": "it is more than one statement",
    "no query": "it is no statement that gives rows",
    "invalid SQL": "SQLite cannot compile or run it",
    "too many steps": "it goes on for more than the allowed steps",
    "too slow": "it was stopped by the clock",
    "too large": "a value, the statement, the memory or the result is over its limit",
    "unreadable": "the database file is broken where the statement reads it",
}
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,  # bytes of a value or a row; text functions on longer ones take too long
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 50_000,  # bytes of a statement
    sqlite3.SQLITE_LIMIT_COLUMN: 2_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,  # instructions of a compiled statement
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# Functions of the database's content alone. Not here: load_extension; random and randomblob, whose result no second
# run would give; zeroblob; and whatever a build of SQLite may add.
FUNCTIONS = frozenset(
    """abs char coalesce concat concat_ws format glob hex ifnull iif if instr length like likelihood likely lower ltrim
    max min nullif octet_length printf quote replace round rtrim sign soundex substr substring trim typeof unhex unicode
    unlikely upper avg count group_concat string_agg median percentile sum total row_number rank dense_rank percent_rank
    cume_dist ntile lag lead first_value last_value nth_value acos acosh asin asinh atan atan2 atanh ceil ceiling cos
    cosh degrees exp floor ln log log10 log2 mod pi pow power radians sin sinh sqrt tan tanh trunc date time datetime
    julianday unixepoch strftime timediff current_date current_time current_timestamp json json_array json_array_length
    json_extract json_object json_patch json_quote json_remove json_replace json_set json_type json_valid
    json_group_array json_group_object -> ->>""".split()
)
COMPUTED = ("json_each", "json_tree")  # tables that SQLite computes from their arguments


class Result(NamedTuple):
    """What a statement gave: all of its rows, or the name of an error (one of ERRORS) with SQLite's words."""

    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    error: str = ""
    detail: str = ""


class Column(NamedTuple):
    """A column as the database declares it; `key` is its place in the primary key, from 1, or 0."""

    name: str
    type: str
    key: int


def open_database(path: str | Path) -> sqlite3.Connection:
    """A connection on which nothing but `execute` is needed; close it. ValueError for a file that is no database.

    The file is read as it lies: a write-ahead log beside it that has not been written back is refused.
    """
    connection = _connect(path)
    names = {name.lower() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type <> 'index'")}
    for limit, value in LIMITS.items():
        connection.setlimit(limit, value)
    for name in COMPUTED:  # SQLite makes them at their first use, and a guarded connection makes nothing
        with suppress(sqlite3.OperationalError):  # a build without JSON
            connection.execute(f"SELECT * FROM {name}('[]')").close()
    connection.set_authorizer(_guard(frozenset({"sqlite_master", "sqlite_schema", *COMPUTED, *names})))
    return connection


def _connect(path: str | Path) -> sqlite3.Connection:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such database file")
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise ValueError(f"{path}: changes wait in {log.name}; close the program that writes, or run a checkpoint")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
    try:
        for setting in ("query_only=1", "trusted_schema=0", "temp_store=2", "mmap_size=0", f"hard_heap_limit={HEAP}"):
            connection.execute(f"PRAGMA {setting}")
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]:
            raise ValueError(f"{path}: the database holds no table")
    except sqlite3.Error as error:
        connection.close()
        raise ValueError(f"{path}: cannot be read as an SQLite database ({error})") from error
    except ValueError:
        connection.close()
        raise
    return connection


def _guard(names: frozenset[str]) -> Callable:
    """SQLite asks it about each thing that a statement wants to do; what is not named here is denied."""

    def decide(action, first, second, database, _trigger) -> int:
        if action == sqlite3.SQLITE_READ:
            # without a database it is a subquery, whose own tables are asked about by themselves
            allowed = database is None or database == "main" and first.lower() in names
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = second.lower() in FUNCTIONS
        else:
            allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return decide


def execute(connection: sqlite3.Connection, sql: str, *, steps: int = STEPS, seconds: float = SECONDS) -> Result:
    """Run one statement: all of its rows or an error, never a part. A bad statement raises nothing."""
    stopped, looks, end = [], 0, time.monotonic() + seconds

    def look() -> int:
        nonlocal looks
        looks += 1
        if looks * CHECK > steps:
            stopped.append("too many steps")
        elif time.monotonic() > end:
            stopped.append("too slow")
        return len(stopped)

    connection.set_progress_handler(look, CHECK)
    try:
        with closing(connection.execute(sql)) as cursor:
            if cursor.description is None:
                return Result((), (), "no query", ERRORS["no query"])
            rows, size = [], 0
            for row in cursor:
                rows.append(row)
                size += 64 + sum(len(cell) if isinstance(cell, str | bytes) else 16 for cell in row)
                if size > RESULT:
                    return Result((), (), "too large", f"the result is over {RESULT} bytes")
            return Result(tuple(name for name, *_ in cursor.description), tuple(rows))
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
        return Result((), (), stopped[0] if stopped else _name(error), str(error) or type(error).__name__)
    finally:
        connection.set_progress_handler(None, 0)


def _name(error: Exception) -> str:
    """Which of ERRORS an exception of Python's sqlite3 is."""
    code, message = getattr(error, "sqlite_errorname", ""), str(error)
    if "one statement at a time" in message:
        return "several statements"
    if code == "SQLITE_AUTH" or "not authorized" in message or "prohibited" in message or "readonly" in message:
        return "forbidden"
    if isinstance(error, MemoryError) or code in ("SQLITE_TOOBIG", "SQLITE_NOMEM") or "too large" in message:
        return "too large"
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")):
        return "unreadable"
    return "invalid SQL"


# --- equality: one function for clusters, labels and scores ---------------------------------------------------------


def as_set(result: Result) -> frozenset:
    """The rows without order and repetition, the benchmark's view; names of columns do not count."""
    return frozenset(result.rows)


def as_multiset(result: Result) -> frozenset:
    """The rows without order, each with how often it occurs; stricter than the benchmark."""
    return frozenset(Counter(result.rows).items())


def same(first: Result, second: Result, view: Callable[[Result], frozenset] = as_set) -> bool:
    """Whether two results are equal under a view; a result with an error equals nothing, not even itself."""
    return not first.error and not second.error and view(first) == view(second)


# --- for people and prompts -----------------------------------------------------------------------------------------


def show(result: Result, *, rows: int = 3, width: int = 40) -> str:
    """A result in one short text: how many rows, then the first ones, long cells cut; an error in words."""
    if result.error:
        return f"error: {result.error} ({_cut(result.detail, 2 * width)})"
    first = "; ".join(" | ".join(_cut(_cell_text(cell), width) for cell in row) for row in result.rows[:rows])
    more = "; ..." if len(result.rows) > rows else ""
    return f"{len(result.rows)} row{'s' * (len(result.rows) != 1)}: {first or 'none'}{more}"


def _cell_text(cell) -> str:
    if isinstance(cell, float) and math.isfinite(cell):
        return f"{cell:.6g}"
    return "NULL" if cell is None else " ".join(str(cell).split())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


# --- the schema -----------------------------------------------------------------------------------------------------


def tables(path: str | Path) -> dict[str, tuple[Column, ...]]:
    """The tables of a database file with their columns, in the order in which they were made."""
    with closing(_connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid")
        names = [name for (name,) in found.fetchall() if not name.lower().startswith("sqlite_")]
        info = {name: connection.execute("SELECT * FROM pragma_table_info(?)", (name,)).fetchall() for name in names}
    return {name: tuple(Column(row[1], row[2], row[5]) for row in rows) for name, rows in info.items()}


def foreign_keys(path: str | Path) -> list[tuple[str, str, str, str]]:
    """(table, column, table that it points to, column there) of every declared foreign key."""
    keys, schema = [], tables(path)
    spelled = {name.lower(): name for name in schema}
    with closing(_connect(path)) as connection:
        for name in schema:
            for row in connection.execute("SELECT * FROM pragma_foreign_key_list(?)", (name,)).fetchall():
                parent = spelled.get(row[2].lower(), row[2])
                own = [column.name for column in schema.get(parent, ()) if column.key]
                keys.append((name, row[3], parent, row[4] or (own[0] if own else "")))
    return keys
