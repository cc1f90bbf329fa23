"""Files that are whole or not there, and that equal runs write with equal bytes: JSON lines, tables, metrics."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from prefcore.data.types import Ranked

# What changes from run to run or from machine to machine has no place in files that are compared byte by byte.
_FLEETING = re.compile(
    r"(^|[^a-z])(time|timestamp|runtime|seconds|minutes|hours|duration|elapsed|date|datetime|host|hostname|pid"
    r"|per_second)([^a-z]|$)",
    re.IGNORECASE,
)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to, whose file is at `path` when the block has ended, whole, or not at all if the block fails.

    Several processes may write the same path at once: one of their files stays. The folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_lines(records: Iterable, path: Path) -> Path:
    """Named tuples as JSON lines, a record each; a weight is named where there is one."""
    rows = ({k: v for k, v in record._asdict().items() if k != "weight" or v is not None} for record in records)
    return _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict]:
    """What write_lines wrote, a mapping each. Only a newline ends a record: a sampled text may hold other line ends."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def read_ranked(path: Path) -> list[Ranked]:
    """What write_lines wrote of Ranked rows."""
    rows = read_lines(path)
    for row in rows:
        row |= {name: tuple(row[name]) for name in ("completions", "scores", "finished")}
        if row.get("tokens") is not None:
            row["tokens"] = tuple(map(tuple, row["tokens"]))
    return [Ranked(**row) for row in rows]


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """The table as CSV, numbers at 6 significant digits."""
    text = table.to_csv(index=False, lineterminator="\r\n", float_format="%.6g")
    return _write(path, text.replace("\r\n", "\n"))  # by way of \r\n, as a lone \r in a sampled text is not quoted else


def write_metrics(metrics: Mapping, profile: str, name: str, root: str | Path = ".") -> Path:
    """The metrics file alone, of a stage that has neither history nor scores; the same rules as `finish`."""
    text = json.dumps(settle(metrics, "metrics"), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return _write(metrics_folder(profile, root) / f"{name}.json", text + "\n")


def metrics_folder(profile: str, root: str | Path) -> Path:
    """Where the metrics of a profile lie."""
    return Path(root) / "metrics" / profile


def settle(value, path: str):
    """The value as JSON knows it, floats at 6 significant digits; refuses what must not be there."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if hasattr(value, "_asdict"):  # a named tuple keeps its names
        value = value._asdict()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value}; a metric must be a finite number")
        return float(f"{value:.6g}") + 0.0  # + 0.0: no negative zero
    if isinstance(value, list | tuple):
        return [settle(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {check_key(key, path): settle(item, f"{path}.{key}") for key, item in value.items()}
    raise TypeError(f"{path} is a {type(value).__name__}; metrics hold numbers, strings, lists and mappings")


def check_key(key, path: str) -> str:
    """The key, if it is a text that does not speak of time or host."""
    if not isinstance(key, str):
        raise TypeError(f"{path} has the key {key!r}; keys must be strings")
    if _FLEETING.search(key):
        raise ValueError(f"{path}.{key} looks like a time or a host; print it, but keep it out of compared files")
    return key


def _write(path: Path, text: str) -> Path:
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
    return path
