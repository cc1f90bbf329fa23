"""People and what they prefer: a matrix of votes, people by statements, read from files.

Two layouts. Polis's export: `<name>.participants-votes.csv`, or `<name>-participant-votes.csv` (a row for each
participant, a column for each statement after participant, group-id, n-comments, n-votes, n-agree, n-disagree), with
`comments.csv` of the same name beside it. Or a plain CSV: the first column names the person, the head of each other
column is a statement. Both may be gzipped. A cell is 1 (agrees), 0 (passes), -1 (disagrees), or empty: not asked, or no
answer. An empty cell stays missing (NaN).
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data.rows import DataError, Row, fault, short, usable_rows

POLIS = ("participant", "group-id", "n-comments", "n-votes", "n-agree", "n-disagree")
ENDINGS = tuple(f"{who}-votes.csv{end}" for who in ("participants", "participant") for end in ("", ".gz"))
CODES = {"-1": -1.0, "0": 0.0, "1": 1.0, "": np.nan, "-1.0": -1.0, "0.0": 0.0, "1.0": 1.0}


class Votes(NamedTuple):
    """One conversation: values [P, S] of -1, 0, 1 or NaN; people [P]; statements [S] as ids, texts [S] in words."""

    name: str
    values: np.ndarray
    people: tuple[str, ...]
    statements: tuple[str, ...]
    texts: tuple[str, ...]


def read(source: str) -> list[Votes]:
    """Every conversation of a folder, or the one of a file, by name.

    Raises DataError with file, line and field for an unknown code, a second row of the same person, one person only, a
    table without statements, and a folder without votes.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS))
        if not found:
            raise DataError(f"{source}: this folder holds no *{ENDINGS[0]} (or .gz); name one, or a CSV of votes")
        return [_read(file) for file in found]
    return [_read(path)]


def _read(path: Path) -> Votes:
    people: dict[str, list[float]] = {}
    who, columns = "", []
    for row in usable_rows(str(path)):
        if not columns:
            who, columns = _columns(row)
        if missing := {who, *columns} - row.values.keys():
            raise fault(row, min(missing), "missing; every row needs the columns of the first one")
        person = str(row.values[who]).strip()
        if not person:
            raise fault(row, who, "nobody is named; give each row a person")
        if person in people:
            raise fault(row, who, f"{short(person)} has a row already; give each person one row")
        people[person] = [_code(row, column) for column in columns]
    if len(people) < 2:
        raise DataError(f"{path}:2: field '{POLIS[0]}': {len(people)} person; variation needs at least two rows")
    comments = _comments(path)
    if comments and (silent := [column for column in columns if not comments.get(column)]):
        print(f"{path}: {len(silent)} statements without words in the comments: {', '.join(silent[:5])}")
    texts = tuple(comments.get(column, "" if path.name.endswith(ENDINGS) else column) for column in columns)
    values = np.array(list(people.values()))
    return Votes(_stem(path).rstrip(".-_") or "votes", values, tuple(people), tuple(columns), texts)


def _columns(row: Row) -> tuple[str, list[str]]:
    """(the column that names the person, those of statements) by the first row; Polis has counts between them."""
    who, *rest = row.values
    polis = who == POLIS[0] and set(POLIS[3:]) <= {*rest}  # a statement of one's own may be called n-votes
    columns = [name for name in rest if not (polis and name in POLIS)]
    if not columns:
        raise fault(row, who, "no column of votes beside it; give a column for each statement")
    return who, columns


def _stem(path: Path) -> str:
    """The name that a conversation's files share."""
    return re.sub(r"(\.csv|participants?-votes\.csv)(\.gz)?$", "", path.name)


def _code(row: Row, column: str) -> float:
    cell = row.values[column]
    cell = int(cell) if isinstance(cell, bool) else "" if cell is None else cell  # a column may be called "label"
    code = CODES.get(str(cell).strip())
    if code is None:
        raise fault(row, column, f"{short(cell)} is no vote; give 1 (agrees), 0 (passes), -1 (disagrees) or nothing")
    return code


def _comments(path: Path) -> dict[str, str]:
    """Texts of a Polis export by comment id; empty where there is no file of comments."""
    for ending in ("comments.csv", "comments.csv.gz"):
        file = path.with_name(_stem(path) + ending)
        if path.name.endswith(ENDINGS) and file.exists():
            found = {}
            for row in usable_rows(str(file)):
                for field in ("comment-id", "comment-body"):
                    if field not in row.values:
                        raise fault(row, field, "no such column; give Polis's comments.csv")
                found[row.values["comment-id"]] = " ".join(row.values["comment-body"].split())
            return found
    return {}


def active(votes: Votes, *, least: int) -> Votes:
    """Without people and statements that have fewer than `least` votes, nor any vote that differs, until none is left.

    DataError where fewer than two people or two statements stay.
    """
    values = votes.values
    rows_, columns = np.arange(len(values)), np.arange(values.shape[1])
    while True:
        part = values[np.ix_(rows_, columns)]
        known = ~np.isnan(part)
        people, statements = known.sum(1) >= least, known.sum(0) >= least
        statements &= np.array([len(np.unique(c[k])) > 1 for c, k in zip(part.T, known.T, strict=True)], bool)
        if people.all() and statements.all():
            break
        rows_, columns = rows_[people], columns[statements]
        if len(rows_) < 2 or len(columns) < 2:
            few = f"fewer than two people and two statements have {least} votes"
            raise DataError(f"{votes.name}: {few}: lower least_votes")
    pick = [tuple(np.array(x, dtype=object)[i].tolist()) for x, i in
            ((votes.people, rows_), (votes.statements, columns), (votes.texts, columns))]  # fmt: skip
    return Votes(votes.name, part, *pick)
