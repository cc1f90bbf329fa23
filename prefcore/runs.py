"""Where a run ends: its metrics, history and per-prompt scores, written so that equal runs give equal bytes.

    runs/<profile>/<method>/history.csv, scores.csv      metrics/<profile>/<method>.json
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from prefcore.metrics import Interval

VERDICTS = ("held", "not held", "undecided")
# What changes from run to run or from machine to machine has no place in files that are compared byte by byte.
_FLEETING = re.compile(
    r"(^|[^a-z])(time|timestamp|runtime|seconds|minutes|hours|duration|elapsed|date|datetime|host|hostname|pid"
    r"|per_second)([^a-z]|$)",
    re.IGNORECASE,
)


def finish(
    method: str,
    profile: str,
    *,
    metrics: Mapping,
    history: pd.DataFrame,
    scores: pd.DataFrame,
    root: str | Path = ".",
) -> Path:
    """Write what a run leaves behind, metrics last, drop its checkpoints, and return the path of the metrics file.

    metrics: nested mappings with string keys; lists, strings, numbers, booleans, None and Intervals inside.
    history: one row per logged step; an empty cell means "not measured at this step".
    scores: one row per prompt (and arm, and seed), every cell filled.
    Numbers are rounded to 6 significant digits. Nothing is written if anything is refused: a NaN or an infinity, a
    value that JSON does not know, a key or column about time or host (ValueError or TypeError, with its key path).
    """
    _check_table(history, f"{method} history", gaps=True)
    _check_table(scores, f"{method} scores", gaps=False)
    _settled(metrics, "metrics")
    folder = Path(root) / "runs" / profile / method
    write_table(history, folder / "history.csv")
    write_table(scores, folder / "scores.csv")
    path = write_metrics(metrics, profile, method, root)
    shutil.rmtree(Path(root) / ".checkpoints" / profile / method, ignore_errors=True)  # the next run is a new one
    return path


def write_metrics(metrics: Mapping, profile: str, name: str, root: str | Path = ".") -> Path:
    """The metrics file alone, of a stage that has neither history nor scores; the same rules as `finish`."""
    text = json.dumps(_settled(metrics, "metrics"), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return _write(_metrics_folder(profile, root) / f"{name}.json", text + "\n")


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """The table as CSV, numbers at 6 significant digits."""
    text = table.to_csv(index=False, lineterminator="\r\n", float_format="%.6g")
    return _write(path, text.replace("\r\n", "\n"))  # by way of \r\n, as a lone \r in a sampled text is not quoted else


def claim(text: str, test: str, interval: Interval, verdict: str, detectable: float) -> dict:
    """One row of the claims table: the paper's claim, our test of it, the verdict, the effect with its interval.

    Effect and `detectable` (the smallest effect that this size could show) are in the unit that `test` names.
    Belongs into metrics["claims"], a list.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is {verdict!r}; it must be one of {VERDICTS}")
    return {"claim": text, "test": test, "verdict": verdict, "detectable": detectable, **interval._asdict()}


def read_metrics(
    profile: str, known: Iterable[str], *, required: Iterable[str] = (), root: str | Path = "."
) -> dict[str, dict]:
    """Metrics of each method that has a file, by name, in the order of `known`; the comparison's own file is not read.

    known: the methods that have a block in params.yaml. A file of any other name is left over from a method that is
    gone, and raises ValueError. A name in `required` without a file raises FileNotFoundError.
    """
    known, folder = list(known), _metrics_folder(profile, root)
    found = {path.stem: path for path in sorted(folder.glob("*.json")) if path.stem != "compare"}
    for name, path in found.items():
        if name not in known:
            raise ValueError(f"{path} belongs to no block of params.yaml (which has {known}); delete it")
    for name in required:
        if name not in found:
            raise FileNotFoundError(f"{folder / name}.json is missing; run the notebook of {name} first")
    return {name: json.loads(found[name].read_text(encoding="utf-8")) for name in known if name in found}


def read_scores(profile: str, methods: Iterable[str], *, root: str | Path = ".") -> dict[str, pd.DataFrame]:
    """Per-prompt scores as `finish` wrote them, by method. Raises FileNotFoundError where a run has left none."""
    paths = {m: Path(root) / "runs" / profile / m / "scores.csv" for m in methods}
    return {m: pd.read_csv(path, encoding="utf-8") for m, path in paths.items()}


def claims_table(results: Mapping[str, Mapping]) -> pd.DataFrame:
    """All claims of `results` (method -> metrics, as read_metrics gives them), one row each, with a method column."""
    rows = [{"method": method, **row} for method, metrics in results.items() for row in metrics.get("claims", [])]
    columns = ["method", "claim", "test", "verdict", "estimate", "low", "high", "detectable"]
    return pd.DataFrame(rows, columns=columns)


def _metrics_folder(profile: str, root: str | Path) -> Path:
    return Path(root) / "metrics" / profile


def _settled(value, path: str):
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
        return [_settled(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_checked_key(key, path): _settled(item, f"{path}.{key}") for key, item in value.items()}
    raise TypeError(f"{path} is a {type(value).__name__}; metrics hold numbers, strings, lists and mappings")


def _checked_key(key, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{path} has the key {key!r}; keys must be strings")
    if _FLEETING.search(key):
        raise ValueError(f"{path}.{key} looks like a time or a host; print it, but keep it out of compared files")
    return key


def _check_table(table: pd.DataFrame, name: str, *, gaps: bool) -> None:
    for column in table.columns:
        _checked_key(column, name)
        values = table[column]
        bad = values.isin([math.inf, -math.inf]).to_numpy()
        if not gaps:
            bad = bad | values.isna().to_numpy()
        if bad.any():
            first = int(bad.argmax())
            what = f"{bad.sum()} bad values in {column!r}, the first in row {first}: {values.iloc[first]}"
            raise ValueError(f"{name}: {what}")


def _write(path: Path, text: str) -> Path:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, path)
    return path


def write_lines(records: Iterable, path: Path) -> Path:
    """Named tuples as JSON lines, a record each."""
    return _write(path, "".join(json.dumps(record._asdict(), ensure_ascii=False) + "\n" for record in records))


def read_lines(path: Path) -> list[dict]:
    """What write_lines wrote, a mapping each. Only a newline ends a record: a sampled text may hold other line ends."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def save_model(policy, tokenizer, profile: str, method: str, root: str | Path = ".") -> Path:
    """The trained adapter under runs/<profile>/<method>/model; `python -m prefcore merge` makes it a whole model."""
    from prefcore.models import save_adapter

    folder = Path(root) / "runs" / profile / method / "model"
    shutil.rmtree(folder, ignore_errors=True)
    save_adapter(policy, tokenizer, folder)
    return folder
