"""Preference data of a file or a hub dataset as records of one kind, or one clear error with file, line and field.

The columns of the first row say what the data are, and every row must have them:

    prompt, chosen, rejected          Pair    texts, or chat messages [{"role": ..., "content": ...}]
    chosen, rejected                  Pair    whole dialogues that share all but the last turn, as text with
                                              "\\n\\nHuman:" and "\\n\\nAssistant:" turns, or as chat messages
    prompt, completion, label         Unary   label is true or false (or 1 or 0)
    prompt, completion, score         Scored  any finite number, higher is better

Pairs may also have margin, strength (0 to 1), votes (a list of 1 for chosen and 0 for rejected), and chosen_score with
rejected_score (or score_chosen with score_rejected, or argilla's chosen-rating with rejected-rating). All rows or
none may have a weight, a number from 0 up that multiplies their loss. `system` and `history` go before the prompt;
pictures, sound and tools are refused. Well-known sets of other columns become these (forms.py). What else is there is
not read, and `Reading.notes` says so. Texts stay as they are, with one exception: where every answer of the data begins
with its own prompt, that is cut off.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from prefcore.data import forms, records
from prefcore.data.records import KNOWN, LAYOUTS
from prefcore.data.rows import DataError, rows
from prefcore.data.types import Pair, Scored, Unary

Records = list[Pair] | list[Unary] | list[Scored]
CONTROL = re.compile(
    r"<\|[\w-]+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:image|video|audio)>|<｜[^｜\n]+｜>"
)


class Reading(NamedTuple):
    """Records, what is wrong with each row that gave none, how many rows were read, and sentences on all of them.

    ties: rows in which people saw no difference, and which therefore make no pair. beside: record id -> what the column
    says that `scan` was told to keep.
    """

    records: Records
    problems: list[DataError]
    rows: int
    ties: int
    notes: list[str]
    beside: Mapping[str, str] = {}


def read(source: str, *, limit: int | None = None) -> Records:
    """All records (or the first `limit`) of what rows.rows reads. Ids are "<file stem>:<line>", or the row number.

    Raises DataError for the first bad row and says how many there are.
    """
    return demand(scan(source, limit=limit)).records


def read_usable(source: str, *, limit: int | None = None) -> tuple[Records, list[DataError]]:
    """The good records (or the first `limit` of them), and what is wrong with each row that was left out.

    Raises DataError where leaving out rows does not help: no such file, unknown columns, or no good row at all.
    """
    found = scan(source, limit=limit)
    return found.records, found.problems


def demand(found: Reading) -> Reading:
    """The same reading; DataError with the first bad row, and how many there are, where there is one."""
    if found.problems:
        count = len(found.problems)
        raise DataError(
            f"{found.problems[0]} ({count} of {found.rows} rows {'is' if count == 1 else 'are'} bad; "
            "fix them, or leave them out with --drop-bad)"
        )
    return found


def scan(
    source: str, *, columns: Mapping[str, str] | None = None, limit: int | None = None, beside: str = ""
) -> Reading:
    """Everything that a source says. columns: a column of the layouts -> what the source calls it. beside: a further
    column that is kept, as text.

    DataError where not one row can be used.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: give a number of records from 1 up, or None for all")
    found, problems, count, ties, unread, kept_beside = [], [], 0, 0, {}, {}
    form = kind = None
    for row in rows(str(source), columns):
        count += 1
        if isinstance(row, DataError):
            problems.append(row)
            continue
        row = records.small_names(row)
        form = form or forms.choose(row)
        try:
            seen = forms.convert(row, form)
        except DataError as problem:
            problems.append(problem)
            continue
        ties += not seen
        for one in seen:
            kind = kind or records.kind_of(one)
            try:
                records.check_columns(one, kind.columns)
                found.append((row.where, kind.parse(records.unpacked(one))))
                named = {*KNOWN, beside}
                unread |= dict.fromkeys(name for name, value in one.values.items() if name not in named and value)
                kept_beside |= {one.id: str(row.values[beside])} if beside in row.values else {}
            except DataError as problem:
                problems.append(problem)
        if limit and len(found) >= limit:
            break
    if not count:
        raise DataError(f"{source}:1: no rows, the data are empty; give at least one row with {LAYOUTS}")
    found, unweighted = _all_or_no_weights(found)
    kept, repeated, notes = _once(found)
    problems += unweighted + repeated
    if not kept:
        raise DataError(f"{problems[0]} (all {len(problems)} rows are bad)" if problems else
                        f"{source}: all {count} rows are ties; give at least one with a better answer")  # fmt: skip
    told = [f"read as {form.says}"] * bool(form and form.says)
    told += [f"columns that are not read: {', '.join(unread)}"] * bool(unread)
    told += [f"{ties} rows are ties, and make no pair"] * bool(ties)
    return Reading(kept[:limit], problems, count, ties, told + notes + _control_tokens(kept), kept_beside)


def write(found: Records, path: Path) -> Path:
    """The records as JSON lines that `read` gives back, without what they leave open."""
    names = KNOWN & {*found[0]._fields}
    lines = ({k: v for k, v in r._asdict().items() if k in names and v is not None} for r in found)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return path


# What only the whole of the data shows.


def _answers(record) -> dict[str, str]:
    names = ("chosen", "rejected") if isinstance(record, Pair) else ("completion",)
    return {name: getattr(record, name) for name in names}


def _said_twice(record) -> str:
    """What every answer of a record begins with though the prompt ends with it; empty where they do not."""
    asked = record.prompt if isinstance(record.prompt, str) else record.prompt[-1]["content"]
    answers = _answers(record).values()
    return asked if all(a.startswith(asked) and a[len(asked) :].strip() for a in answers) else ""


def _all_or_no_weights(found: list[tuple]) -> tuple[list[tuple], list[DataError]]:
    """(rows, problems): where some rows have a weight, those without one are problems."""
    weighted = [(where, record) for where, record in found if record.weight is not None]
    if not weighted:
        return found, []
    what = "field 'weight': missing, and other rows have one; give 1 where the row counts as it is"
    return weighted, [DataError(f"{where}: {what}") for where, record in found if record.weight is None]


def _once(found: list[tuple]) -> tuple[list, list[DataError], list[str]]:
    """(records with no prompt said twice, rows for which that is unclear, notes).

    Where all answers begin with their prompt it is cut off; where only some do, those rows are problems.
    """
    plain = [record for _, record in found]
    twice = [_said_twice(record) for record in plain]
    if max(map(len, twice), default=0) < 8:
        return plain, [], []
    if all(twice):
        cut = [r._replace(**{name: a[len(asked) :] for name, a in _answers(r).items()})
               for r, asked in zip(plain, twice, strict=True)]  # fmt: skip
        return cut, [], ["every answer began with its own prompt, which is cut off there"]
    kept = [record for record, asked in zip(plain, twice, strict=True) if len(asked) < 20]
    problems = [
        DataError(f"{where}: field '{next(iter(_answers(record)))}': begins with its prompt, as not all rows do; "
                  "cut it off there")
        for (where, record), asked in zip(found, twice, strict=True) if len(asked) >= 20
    ]  # fmt: skip
    return kept, problems, []


def _control_tokens(plain: Iterable) -> list[str]:
    """A sentence on texts that spell a chat template's tokens, which are letters for a model and no tokens."""
    spelled = [mark[0] for record in plain if (mark := CONTROL.search(_all_text(record)))]
    if not spelled:
        return []
    marks = ", ".join(list(dict.fromkeys(spelled))[:3])
    return [f"{len(spelled)} rows spell control tokens ({marks}), which stay plain text here: give messages with role "
            "and content, and the model's own template is used"]  # fmt: skip


def _all_text(record) -> str:
    said = [record.prompt] if isinstance(record.prompt, str) else [message["content"] for message in record.prompt]
    return "\n".join([*said, *_answers(record).values()])
