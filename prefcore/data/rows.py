"""Raw rows of a file or a hub dataset, with the place of each for messages. What a row means is in datasets.py."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import NamedTuple

from prefcore.data import objects, places
from prefcore.data.places import SUFFIXES
from prefcore.data.types import DataError

CSV_NUMBERS = (
    "score", "margin", "strength", "chosen_score", "rejected_score", "score_chosen", "score_rejected", "weight",
)  # fmt: skip
TABLES = (".csv", ".tsv")
HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<config>[\w.+/-]+))?(:(?P<split>.+))?")


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
    if field not in row.values:
        raise fault(row, field, f"there is no such column; the row has {', '.join(map(repr, row.values))}")
    value = row.values[field]
    if not isinstance(value, str):
        raise fault(row, field, f"{typed(value)}; give a text")
    if not value.strip():
        raise fault(row, field, "is empty; give a text")
    if not is_unicode(value):
        raise fault(row, field, "invalid UTF-8; save the file as UTF-8")
    return value


def refuse_weight(row: Row) -> None:
    """DataError for a row with a weight, where nothing is multiplied by it."""
    if row.values.get("weight") is not None:
        raise fault(row, "weight", "this method cannot weigh rows; leave the column out")


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


def rows(source: str, columns: Mapping[str, str] | None = None) -> Iterator[Row | DataError]:
    """The rows of a file, of parts of a set (a folder, a pattern with *), of a folder that `save_to_disk` has written,
    or of a hub dataset owner/name[@configuration][:split].

    columns: what a reader calls a column -> what the source calls it. A row that cannot be read at all comes as its
    DataError, so that the rest can still be used; a source that cannot be read raises one. The place is a line, or
    "row N" (from 1) where rows have no lines; ids are "<file stem>:<N>".
    """
    found = _rows(source)
    return (_renamed(row, columns) for row in found) if columns else found


def usable_rows(source: str, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The same rows; the first that cannot be read is raised."""
    for row in rows(source, columns):
        if isinstance(row, DataError):
            raise row
        yield row


def _rows(source: str) -> Iterator[Row | DataError]:
    path = Path(source)
    if not path.exists() and places.suffix(path) not in SUFFIXES and (hub := HUB.fullmatch(source)):
        yield from _hub(source, hub)
    elif any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        yield from _saved(source)
    else:
        for file in places.find(source):
            yield from _file(file)


def _renamed(row: Row | DataError, columns: Mapping[str, str]) -> Row | DataError:
    if isinstance(row, DataError):
        return row
    for own in columns.values():
        if own not in row.values:
            return fault(row, own, f"there is no such column; the row has {', '.join(map(repr, row.values))}")
    taken = {*columns, *columns.values()}
    rest = {name: value for name, value in row.values.items() if name not in taken}
    given = {name: row.values[own] for name, own in columns.items()}
    if Path(places.plain_name(row.where.rpartition(":")[0])).suffix.lower() in TABLES:  # whose cells are all texts
        given = {name: _cell(name, value) if isinstance(value, str) else value for name, value in given.items()}
    return row._replace(values=given | rest)


def _file(source: str) -> Iterator[Row | DataError]:
    start, plain = places.head(source), Path(places.plain_name(source))
    parse = {**dict.fromkeys(TABLES, _csv), ".parquet": _parquet, ".arrow": _arrow}.get(plain.suffix.lower(), _json)
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    with places.opened(source) as raw:
        # Bad bytes become lone surrogates, so that the error can name the row and the field that hold them.
        text = parse in (_csv, _json)
        how = {"encoding": encoding, "errors": "surrogateescape" if encoding != "utf-16" else "replace"}
        yield from parse(source, plain.stem, io.TextIOWrapper(raw, newline="\n", **how) if text else raw)


# JSON


def _json(source: str, stem: str, text: io.TextIOWrapper) -> Iterator[Row | DataError]:
    """One object a line; else what objects.read makes of the whole text."""
    lines = ((n, line.lstrip("\ufeff")) for n, line in enumerate(text, start=1) if line.strip().strip("\ufeff"))
    begun = list(islice(lines, 2))
    if len(begun) == 2 and objects.is_object(begun[0][1]):
        yield from _json_lines(source, stem, chain(begun, lines))
        return
    gapped = accumulate(chain(begun, lines), lambda before, now: (now[0], "\n" * (now[0] - before[0] - 1) + now[1]),
                        initial=(0, ""))  # fmt: skip
    whole = "".join(line for _, line in gapped)  # with its empty lines, so that a fault keeps its number
    try:
        found = objects.read(whole)
    except (ValueError, RecursionError) as error:
        what = f"not valid JSON ({_json_error(error)}); write an array of objects"
        raise DataError(f"{source}:{getattr(error, 'lineno', 1)}: {what}") from error
    if found is None or len(found) == 1 and whole.lstrip().startswith("{") and "\n" not in whole.strip():
        lines = ((n, line) for n, line in enumerate(whole.split("\n"), start=1) if line.strip())
        yield from _json_lines(source, stem, lines)
    else:
        yield from (_object(f"{source}:row {n}", f"{stem}:{n}", value) for n, value in enumerate(found, start=1))


def _json_lines(source: str, stem: str, lines: Iterable[tuple[int, str]]) -> Iterator[Row | DataError]:
    for n, line in lines:
        where = f"{source}:{n}"
        try:
            yield _object(where, f"{stem}:{n}", objects.parse(line))
        except (ValueError, RecursionError) as error:
            what = f"not valid JSON ({_json_error(error)})" if is_unicode(line) else "invalid UTF-8, and not valid JSON"
            yield DataError(f"{where}: {what}; write one object a line, in UTF-8")


def _json_error(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else _one_line(error)


def _object(where: str, id: str, values) -> Row | DataError:
    if not isinstance(values, dict):
        return DataError(f"{where}: {short(values)} is of type {type(values).__name__}; give an object with columns")
    return Row(where, id, values)


# CSV


def _csv(source: str, stem: str, text: io.TextIOWrapper) -> Iterator[Row | DataError]:
    """Cells between commas, or between what separates most of the header's names; Excel's line `sep=;` says it."""
    first = text.readline()
    told = re.fullmatch(r"\"?sep=(.)\"?\s*", first)
    delimiter = told[1] if told else max(",;\t|", key=first.count)
    reader = csv.reader(chain([] if told else [first], text), strict=True, delimiter=delimiter)
    csv.field_size_limit(2**31 - 1)
    header, before = None, int(bool(told))
    line = 1 + before
    try:
        for cells in reader:
            where, id, line = f"{source}:{line}", f"{stem}:{line}", reader.line_num + before + 1  # a row may span lines
            if header is None:
                header = [name.strip() for name in cells]
                if len(set(header)) < len(header):
                    raise DataError(f"{where}: a column name stands twice in {short(header)}; name each once")
            elif len(cells) == len(header):
                yield Row(where, id, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)})
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


# Tables of the Arrow world


def _parquet(source: str, stem: str, raw) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from _batches(source, stem, pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=1000))
    except pyarrow.ArrowException as error:
        raise DataError(f"{source}: not valid parquet ({_one_line(error)})") from error


def _arrow(source: str, stem: str, raw) -> Iterator[Row]:
    import pyarrow

    try:
        yield from _batches(source, stem, pyarrow.ipc.open_stream(raw))
    except pyarrow.ArrowException as error:
        raise DataError(f"{source}: not a stream of Arrow ({_one_line(error)})") from error


def _batches(source: str, stem: str, batches: Iterable) -> Iterator[Row]:
    n = 0
    for batch in batches:
        names = batch.schema.names
        for i in range(batch.num_rows):
            n += 1
            values = {name: _arrow_value(column[i]) for name, column in zip(names, batch.columns, strict=True)}
            yield Row(f"{source}:row {n}", f"{stem}:{n}", values)


def _arrow_value(scalar):
    try:
        return scalar.as_py()
    except (UnicodeDecodeError, OverflowError, ValueError):  # a date beyond Python's stops only those who read it
        return "\udcff"  # stands for what cannot be read; refused with its field's name


def _saved(source: str) -> Iterator[Row | DataError]:
    """A folder that `save_to_disk` of the library datasets has written."""
    folder = Path(source)
    if (folder / "dataset_dict.json").exists():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if len(splits) > 1:
            raise DataError(f"{source}: holds the splits {', '.join(splits)}; name one, as {source}/{splits[0]}")
        folder = folder / splits[0]
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if state.get("_indices_data_files"):
        raise DataError(f"{folder}: is a selection of rows; call flatten_indices() on it before save_to_disk")
    for part in state["_data_files"]:
        yield from _file(str(folder / part["filename"]))


def _hub(source: str, hub: re.Match) -> Iterator[Row]:
    import datasets

    name, config, split = hub["name"], hub["config"], hub["split"] or "train"
    try:
        try:
            table = datasets.load_dataset(name, *([config] if config else []), split=split)
        except ValueError:
            if not config:
                raise
            table = datasets.load_dataset(name, data_dir=config, split=split)  # a folder, where no configuration
    except Exception as error:  # whatever the hub's client raises: offline, no such dataset, split or config
        what = f"cannot be loaded from the hub ({_one_line(error)})"
        raise DataError(f"{source}: {what}; give a file, owner/name, owner/name:split, or owner/name@configuration, "
                        "where the configuration may be a folder of the set") from error  # fmt: skip
    for n, values in enumerate(table, start=1):
        yield Row(f"{source}:row {n}", f"{source}:{n}", values)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
