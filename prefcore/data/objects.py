"""A text as a list of JSON objects: an array, objects one after another, or one object that holds a table."""

import json
from collections.abc import Mapping

WRAPPERS = ("data", "rows", "records", "examples", "instances", "items", "train")  # keys of a file for its rows


def parse(text: str):
    """One JSON value. ValueError for what is none, and for an object with a key twice, of which one would be lost."""
    return json.loads(text, object_pairs_hook=_unique)


def is_object(text: str) -> bool:
    """Whether the text is one JSON object, whole."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def read(text: str) -> list | None:
    """All objects of a text, whatever its lines; None where it is no sequence of objects.

    An array that is not valid raises what the parser says (json.JSONDecodeError), with its line.
    """
    if text.lstrip().startswith("["):
        return parse(text)
    decoder, found, at = json.JSONDecoder(object_pairs_hook=_unique), [], 0
    try:
        while rest := text[at:].lstrip():
            value, length = decoder.raw_decode(rest)
            found.append(value)
            at = len(text) - len(rest) + length
    except (ValueError, RecursionError):
        return None
    return _table(found[0]) if len(found) == 1 and isinstance(found[0], dict) else found


def _table(one: Mapping) -> list:
    """The rows that a single object holds under one key or column by column; the object where it is a row itself."""
    for name in WRAPPERS:
        inside = one.get(name)
        if isinstance(inside, list) and inside and all(isinstance(row, dict) for row in inside):
            return [row["row"] if {"row", "row_idx"} <= row.keys() else row for row in inside]
    if isinstance(one.get("columns"), list) and isinstance(one.get("data"), list):  # pandas' orient="split"
        return [dict(zip(one["columns"], row, strict=True)) for row in one["data"]]
    columns = list(one.values())
    if columns and all(isinstance(column, dict) and column and all(map(str.isdigit, column)) for column in columns):
        return [{name: column.get(key) for name, column in one.items()} for key in columns[0]]
    lists = columns and all(isinstance(c, list) and c and not isinstance(c[0], dict) for c in columns)
    if lists and len({*map(len, columns)}) == 1:
        return [dict(zip(one, row, strict=True)) for row in zip(*columns, strict=True)]
    return [one]


def _unique(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found
