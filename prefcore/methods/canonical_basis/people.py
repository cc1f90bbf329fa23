"""People and what they prefer: a matrix of votes read from files, and shares that are sums over people.

Two layouts. Polis's export: `<name>.participants-votes.csv` (a row for each participant, a column for each statement
after participant, group-id, n-comments, n-votes, n-agree, n-disagree) with `<name>.comments.csv` beside it. Or a plain
CSV: the first column names the person, the head of each other column is a statement. Both may be gzipped. A cell is
1 (agrees), 0 (passes), -1 (disagrees), or empty: not asked, or no answer. An empty cell stays missing (NaN).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prefcore.data.rows import DataError, Row, fault, short, usable_rows
from prefcore.lab import verdicts
from prefcore.scoring import metrics

POLIS = ("participant", "group-id", "n-comments", "n-votes", "n-agree", "n-disagree")
ENDINGS = ("participants-votes.csv", "participants-votes.csv.gz")
CODES = {"-1": -1.0, "0": 0.0, "1": 1.0, "": np.nan, "-1.0": -1.0, "0.0": 0.0, "1.0": 1.0}


class Votes(NamedTuple):
    """One conversation: values [P, S] of -1, 0, 1 or NaN; people [P]; statements [S] as ids, texts [S] in words."""

    name: str
    values: np.ndarray
    people: tuple[str, ...]
    statements: tuple[str, ...]
    texts: tuple[str, ...]


class Share(NamedTuple):
    """covered [P], total [P]: for each person, in the unit of what is shared out."""

    covered: np.ndarray
    total: np.ndarray

    @property
    def value(self) -> float:
        """The share over all people together; at most 1, below 0 where a prediction is worse than the mean."""
        return ratio(self.covered, self.total)


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
    columns: list[str] = []
    for row in usable_rows(str(path)):
        names = list(row.values)
        polis = names[0] == POLIS[0]
        columns = [name for name in names[1:] if not (polis and name in POLIS)]
        if not columns:
            raise fault(row, names[0], "no column of votes beside it; give a column for each statement")
        person = str(row.values[names[0]]).strip()
        if not person:
            raise fault(row, names[0], "nobody is named; give each row a person")
        if person in people:
            raise fault(row, names[0], f"{short(person)} has a row already; give each person one row")
        people[person] = [_code(row, column) for column in columns]
    if len(people) < 2:
        raise DataError(f"{path}:2: field '{POLIS[0]}': {len(people)} person; variation needs at least two rows")
    told = _comments(path)
    texts = tuple(told.get(column, "" if path.name.endswith(ENDINGS) else column) for column in columns)
    name = path.name.removesuffix(".gz").removesuffix(".csv").removesuffix("participants-votes").rstrip(".-_")
    return Votes(name or "votes", np.array(list(people.values())), tuple(people), tuple(columns), texts)


def _code(row: Row, column: str) -> float:
    cell = row.values[column]
    cell = int(cell) if isinstance(cell, bool) else "" if cell is None else cell  # a column may be called "label"
    code = CODES.get(str(cell).strip())
    if code is None:
        raise fault(row, column, f"{short(cell)} is no vote; give 1 (agrees), 0 (passes), -1 (disagrees) or nothing")
    return code


def _comments(path: Path) -> dict[str, str]:
    """Texts of a Polis export by comment id; empty where there is no file of comments."""
    stem = path.name.removesuffix(".gz").removesuffix("participants-votes.csv")
    for ending in ("comments.csv", "comments.csv.gz"):
        file = path.with_name(stem + ending)
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


def average(shares: list[Share]) -> Share:
    """The mean over several shares of the same people, person by person."""
    return Share(*(np.mean([getattr(share, name) for share in shares], axis=0) for name in Share._fields))


def interval(share: Share, *, seed: int, resamples: int = 2000) -> metrics.Interval:
    """The share with its 95 % interval over people."""
    kept = share.total > 0
    return metrics.bootstrap_interval(
        share.covered[kept], share.total[kept], statistic=ratio, seed=seed, resamples=resamples
    )


def difference(share: Share, other: Share, *, seed: int, resamples: int = 2000) -> metrics.Interval:
    """Share minus the other, of the same people, with its 95 % interval over them."""
    arrays = (share.covered, share.total, other.covered, other.total)
    kept = (share.total > 0) | (other.total > 0)
    return metrics.bootstrap_interval(
        *(a[kept] for a in arrays), statistic=lambda a, b, c, d: ratio(a, b) - ratio(c, d), seed=seed,
        resamples=resamples,
    )  # fmt: skip


def record(share: Share, *, seed: int, **names) -> dict:
    """A row of a table: the names, then estimate, low and high of the share."""
    return names | interval(share, seed=seed)._asdict()


def claim(text: str, test: str, interval_: metrics.Interval, *, border: float) -> dict:
    """A row of the claims table: that something lies above the border; effect and interval as distance from it."""
    moved = metrics.Interval(*(value - border for value in interval_))
    test = f"{test}, distance from {border:g}" if border else test
    return verdicts.claim(text, test, moved)


def claim_covers(share: Share, of: str, *, size: int, goal: float, seed: int) -> dict:
    """That a basis of `size` covers the goal."""
    text, test = f"{size} cover {100 * goal:g} % ({of})", f"coverage at K {size}"
    return claim(text, test, interval(share, seed=seed), border=goal)


def claim_beats(share: Share, other: Share, of: str, *, size: int, seed: int) -> dict:
    """That a chosen basis covers more than a random one."""
    text, test = f"a chosen basis covers more than a random one ({of})", f"coverage at K {size}, difference"
    return claim(text, test, difference(share, other, seed=seed), border=0.0)


def draw_coverage(frame: pd.DataFrame, ax: Axes, *, goal: float, title: str) -> Axes:
    """Coverage over K, a line for each way; "everything" is one level. Columns: way, K, estimate, low, high."""
    for way, part in frame.groupby("way", sort=False):
        if way == "everything":
            ax.axhline(part["estimate"].iloc[0], color="grey", label=way)
            continue
        bars = np.clip([part["estimate"] - part["low"], part["high"] - part["estimate"]], 0, None)
        ax.errorbar(part["K"], part["estimate"], yerr=bars, label=way, capsize=2, marker=".")
    ax.axhline(goal, color="black", linestyle=":", label=f"{100 * goal:g} %")
    ax.set(title=title, xlabel="K (categories in the basis)", ylabel="coverage (share)")
    ax.legend(frameon=False, fontsize=8)
    return ax


def ratio(covered: np.ndarray, total: np.ndarray) -> float:
    """Sum over sum; Undefined where there is nothing to share."""
    if np.sum(total) == 0:
        raise metrics.Undefined("nothing to cover: no mention, pair or variance")
    return float(np.sum(covered) / np.sum(total))
