"""Raw rows of a file or a hub dataset, with the place of each for messages. What a row means is in datasets.py."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
CSV_NUMBERS = (
    "score", "margin", "strength", "chosen_score", "rejected_score", "score_chosen", "score_rejected",
)  # fmt: skip


class DataError(ValueError):
    """Data that cannot be used. One line: `file:line: field 'x': what is wrong; what to do`."""


class Row(NamedTuple):
    """One raw row: its columns by name."""

    where: str  # "file:line", for messages
    id: str
    values: Mapping


def fault(row: Row, field: str, what: str) -> DataError:
    """The error for one field of a row."""
    return DataError(f"{row.where}: field '{field}': {what}")


def short(value) -> str:
    """A value on one line, cut to what a message can bear."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(row: Row, field: str) -> str:
    """A field that must be there, be text, and say something; DataError otherwise."""
    value = row.values.get(field)
    if not isinstance(value, str):
        raise fault(row, field, f"{typed(value)}; give a text")
    if not value.strip():
        raise fault(row, field, "is empty; give a text")
    if not is_unicode(value):
        raise fault(row, field, "invalid UTF-8; save the file as UTF-8")
    return value


def typed(value) -> str:
    """A wrong value and its type, for an error."""
    return f"{short(value)} is of type {type(value).__name__}"


def is_unicode(text: str) -> bool:
    """False where bytes that are not UTF-8 were smuggled in as lone surrogates (and for lone surrogates themselves)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def rows(source: str) -> Iterator[Row | DataError]:
    """The rows of a .jsonl, .json, .csv or .parquet file (also .gz), or of a hub dataset owner/name[:split].

    A row that cannot be read at all comes as its DataError, so that the rest can still be used; a source that cannot be
    read raises one. The place is a line, or "row N" (from 1) where rows have no lines; ids are "<file stem>:<N>".
    """
    path = Path(source)
    plain = Path(path.name.removesuffix(".gz"))
    if path.is_dir():
        raise DataError(f"{source}: is a folder; name one {', '.join(SUFFIXES)} file in it")
    if not path.exists() and plain.suffix not in SUFFIXES and re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", source):
        yield from _hub(source)
        return
    if plain.suffix not in SUFFIXES:
        raise DataError(f"{source}: neither a {', '.join(SUFFIXES)} file (or .gz of one) nor a hub dataset owner/name")
    parse = {".csv": _csv, ".parquet": _parquet}.get(plain.suffix, _json)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
            yield from parse(source, plain.stem, raw)
    except FileNotFoundError:
        raise DataError(f"{source}: no such file; check the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source}: cannot be read ({_one_line(error)}); is it whole?") from error


def usable_rows(source: str) -> Iterator[Row]:
    """The same rows; the first that cannot be read is raised."""
    for row in rows(source):
        if isinstance(row, DataError):
            raise row
        yield row


def _decoded(raw) -> io.TextIOWrapper:
    # Bad bytes become lone surrogates, so that the error can name the row and the field that hold them.
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _json(source: str, stem: str, raw) -> Iterator[Row | DataError]:
    """One object a line, or one array of objects: both are found under .json and .jsonl."""
    text = _decoded(raw)
    is_array = text.read(1000).lstrip().startswith("[")
    text.seek(0)
    if is_array:
        try:
            items = json.loads(text.read())
        except (ValueError, RecursionError) as error:
            what = f"not valid JSON ({_json_error(error)}); write an array of objects"
            raise DataError(f"{source}:{getattr(error, 'lineno', 1)}: {what}") from error
        for n, values in enumerate(items, start=1):
            yield _object(f"{source}:row {n}", f"{stem}:{n}", values)
        return
    for n, line in enumerate(text, start=1):
        if not line.strip():
            continue
        where = f"{source}:{n}"
        try:
            yield _object(where, f"{stem}:{n}", json.loads(line))
        except (ValueError, RecursionError) as error:
            what = f"not valid JSON ({_json_error(error)})" if is_unicode(line) else "invalid UTF-8, and not valid JSON"
            yield DataError(f"{where}: {what}; write one object a line, in UTF-8")


def _json_error(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else _one_line(error)


def _object(where: str, id: str, values) -> Row | DataError:
    if not isinstance(values, dict):
        return DataError(f"{where}: {short(values)} is of type {type(values).__name__}; give an object with columns")
    return Row(where, id, values)


def _csv(source: str, stem: str, raw) -> Iterator[Row | DataError]:
    reader = csv.reader(_decoded(raw), strict=True)
    header, line = None, 1
    try:
        for cells in reader:
            where, id, line = f"{source}:{line}", f"{stem}:{line}", reader.line_num + 1  # a row may span lines
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise DataError(f"{where}: a column name stands twice in {short(header)}; name each once")
            elif len(cells) == len(header):
                row = Row(where, id, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)})
                chat = [name for name, cell in zip(header, cells, strict=True) if re.match(r"\[\{['\"]role", cell)]
                yield fault(row, chat[0], "chat messages do not fit into CSV; use .jsonl") if chat else row
            elif cells:
                yield DataError(f"{where}: {len(cells)} cells under {len(header)} column names; put texts in quotes")
    except csv.Error as error:
        raise DataError(f"{source}:{line}: not valid CSV ({_one_line(error)}); check quotes, or use .jsonl") from error


def _cell(name: str, cell: str):
    """A cell as the type that its column needs, or the text where it is not of that type (and refused later)."""
    if name in (*CSV_NUMBERS, "label", "votes") and not cell.strip():
        return None
    if name == "label":
        words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        return words.get(cell.strip().lower(), cell)
    try:
        return float(cell) if name in CSV_NUMBERS else json.loads(cell) if name == "votes" else cell
    except ValueError:
        return cell


def _parquet(source: str, stem: str, raw) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    n = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=1000):
            names = batch.schema.names
            for i in range(batch.num_rows):
                n += 1
                values = {name: _arrow_value(column[i]) for name, column in zip(names, batch.columns, strict=True)}
                yield Row(f"{source}:row {n}", f"{stem}:{n}", values)
    except pyarrow.ArrowException as error:
        raise DataError(f"{source}: not valid parquet ({_one_line(error)})") from error


def _arrow_value(scalar):
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return "\udcff"  # stands for text with bad bytes; refused with its field's name


def _hub(source: str) -> Iterator[Row]:
    import datasets

    name, _, split = source.partition(":")
    try:
        table = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # whatever the hub's client raises: offline, no such dataset, split or config
        what = f"cannot be loaded from the hub ({_one_line(error)})"
        raise DataError(f"{source}: {what}; give a file, owner/name or owner/name:split") from error
    for n, values in enumerate(table, start=1):
        yield Row(f"{source}:row {n}", f"{source}:{n}", values)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
