"""Where a run ends: its metrics, history and per-prompt scores, written so that equal runs give equal bytes.

    runs/<profile>/<method>/history.csv, scores.csv      metrics/<profile>/<method>.json
    scores/<profile>/<method>.csv.gz: what its verdicts rest on, unit by unit, in git
"""

import gzip
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from prefcore.data.files import check_key, metrics_folder, settle, write_metrics, write_table


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
    Of several processes all come here, and the first one writes.
    """
    from prefcore.engine import ranks  # which imports torch, and readers need none

    _check_table(history, f"{method} history", gaps=True)
    _check_table(scores, f"{method} scores", gaps=False)
    settle(metrics, "metrics")
    folder = Path(root) / "runs" / profile / method
    ranks.wait()  # another one may still read the checkpoints
    if not ranks.is_first():
        return metrics_folder(profile, root) / f"{method}.json"
    write_table(history, folder / "history.csv")
    write_table(scores, folder / "scores.csv")
    path = write_metrics(metrics, profile, method, root)
    _drop_checkpoints(Path(root) / ".checkpoints" / profile / method)  # the next run is a new one
    return path


def _drop_checkpoints(folder: Path) -> None:
    """All but `runs` beside them, what a tracker has written, which stays until that arm is trained again."""
    for place in folder.glob("*"):
        for old in place.glob("*") if (place / "runs").is_dir() else (place,):
            if old.name != "runs":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def save_measures(table: pd.DataFrame, profile: str, method: str, root: str | Path = ".") -> Path:
    """The table of lab/measures.py as scores/<profile>/<method>.csv.gz, from which every verdict can be made again."""
    from prefcore.engine import ranks

    _check_table(table, f"{method} measures", gaps=True)
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    path = Path(root) / "scores" / profile / f"{method}.csv.gz"
    if ranks.is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def read_measures(profile: str, method: str, root: str | Path = ".") -> pd.DataFrame:
    """What save_measures wrote; FileNotFoundError where the chapter has not run."""
    return pd.read_csv(Path(root) / "scores" / profile / f"{method}.csv.gz")


def read_metrics(
    profile: str, known: Iterable[str], *, required: Iterable[str] = (), root: str | Path = "."
) -> dict[str, dict]:
    """Metrics of each method that has a file, by name, in the order of `known`; the overview's own file is not read.

    known: the methods that have a block in params.yaml. A file of any other name is left over from a method that is
    gone, and raises ValueError. A name in `required` without a file raises FileNotFoundError.
    """
    known, folder = list(known), metrics_folder(profile, root)
    found = {path.stem: path for path in sorted(folder.glob("*.json")) if path.stem != "overview"}
    for name, path in found.items():
        if name not in known:
            raise ValueError(f"{path} belongs to no block of params.yaml (which has {known}); delete it")
    for name in required:
        if name not in found:
            raise FileNotFoundError(f"{folder / name}.json is missing; run the notebook of {name} first")
    return {name: json.loads(found[name].read_text(encoding="utf-8")) for name in known if name in found}


def read_tables(profile: str, methods: Iterable[str], name: str, *, root: str | Path = ".") -> dict[str, pd.DataFrame]:
    """The table `name` (scores or history) as `finish` wrote it, by method; FileNotFoundError where there is none."""
    paths = {m: Path(root) / "runs" / profile / m / f"{name}.csv" for m in methods}
    return {m: pd.read_csv(path, encoding="utf-8") for m, path in paths.items()}


def _check_table(table: pd.DataFrame, name: str, *, gaps: bool) -> None:
    for column in table.columns:
        check_key(column, name)
        values = table[column]
        bad = values.isin([math.inf, -math.inf]).to_numpy()
        if not gaps:
            bad = bad | values.isna().to_numpy()
        if bad.any():
            first = int(bad.argmax())
            what = f"{bad.sum()} bad values in {column!r}, the first in row {first}: {values.iloc[first]}"
            raise ValueError(f"{name}: {what}")


def save_model(policy, tokenizer, profile: str, method: str, root: str | Path = ".") -> Path:
    """The trained adapter under runs/<profile>/<method>/model; `python -m prefcore export` makes it a whole model."""
    from prefcore.engine import ranks
    from prefcore.engine.models import save_adapter

    folder = Path(root) / "runs" / profile / method / "model"
    if ranks.is_first():
        shutil.rmtree(folder, ignore_errors=True)
        save_adapter(policy, tokenizer, folder)
    return folder
