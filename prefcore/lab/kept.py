"""What the runs of a chapter have said, kept until it has finished: several processes share its runs, and a chapter
that was stopped goes on with the first run that nobody has finished.

A run is known by its name inside a folder that stands for all that decides it: parameters, the notebook, the code of
the package, data and models. Tables are kept as Parquet, which gives them back exactly; what a run has printed is
printed again where it is read, so that a chapter says the same whoever made its runs.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from prefcore.data.types import Parameters

ROLE = "PREFCORE_ROLE"  # in the environment of a chapter that a command runs: "chapter", or "helper" of one
SAID = "said.txt"  # written last: a run with it is whole
Tables = dict[str, pd.DataFrame]


def tables_of(p: Parameters, runs: Mapping[str, Callable[[], Mapping[str, pd.DataFrame]]]) -> dict[str, Tables]:
    """The tables of each run. Of a notebook that a person runs cell by cell nothing is kept: its cells may have changed
    since it was saved; nor of one whose steps several processes take.
    """
    from prefcore.engine import ranks  # which imports torch, and whoever starts a notebook needs none

    if ROLE not in os.environ or ranks.world() > 1:
        return {name: dict(make()) for name, make in runs.items()}
    return share(folder_of(p), runs)


def share(folder: Path, runs: Mapping[str, Callable[[], Mapping[str, pd.DataFrame]]]) -> dict[str, Tables]:
    """The tables of each run, in the order of `runs`: those that are kept are read, the others made.

    Processes that call this with the same folder make each run once. One takes every run that nobody has begun, then
    waits for those that others have; where another one has died, its run is made here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wait in (False, True):
        for name, make in runs.items():
            place = folder / name
            if not (place / SAID).exists():
                with _taken(folder / f"{name}.lock", wait=wait) as mine:
                    if mine and not (place / SAID).exists():
                        _keep(place, make)
    found = {}
    for name in runs:
        print((folder / name / SAID).read_text(encoding="utf-8"), end="")
        found[name] = {path.stem: pd.read_parquet(path) for path in sorted((folder / name).glob("*.parquet"))}
    return found


def end_helper() -> None:
    """What follows evaluates the chapter: a process that only takes part in its runs ends here."""
    if os.environ.get(ROLE) == "helper":
        raise SystemExit("this process has made its share of the runs")


@contextmanager
def _taken(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the run is ours until the block ends; a process that dies gives back what it had taken."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _keep(place: Path, make: Callable[[], Mapping[str, pd.DataFrame]]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    with redirect_stdout(io.StringIO()) as said:
        tables = make()
    place.mkdir()
    for name, table in tables.items():
        table.to_parquet(place / f"{name}.parquet")
    (place / SAID).write_text(said.getvalue(), encoding="utf-8")


def folder_of(p: Parameters) -> Path:
    """Where the runs of a chapter are kept, beside its checkpoints; another one when anything that decides changes.

    A folder among the parameters stands for the weights in it; a hub id is taken at its word.
    """
    digest = hashlib.sha256(repr(sorted(p._asdict().items())).encode())
    digest.update(Path("notebooks", f"{p.chapter}.ipynb").read_bytes())
    folders = {value for value in p._asdict().values() if isinstance(value, str) and value and Path(value).is_dir()}
    data = getattr(p, "data", "")  # some chapters are not run on one's own
    digest.update(_inputs(p.profile, data, tuple(sorted(folders))).encode())
    return Path(".checkpoints") / p.profile / p.chapter / "kept" / digest.hexdigest()[:16]


@cache
def _inputs(profile: str, data: str, folders: tuple[str, ...]) -> str:
    """sha256 over the package, what the default data, or one's own file, hold, and the weights in these folders."""
    package, build = Path(__file__).parents[1], Path("build") / profile
    paths = sorted(package.rglob("*.py"))
    if data:
        paths += sorted(Path(data).rglob("*")) if Path(data).is_dir() else [Path(data)]
    else:
        paths += [Path("banks") / f"{profile}.jsonl", *sorted(build.glob("*.jsonl"))]
        paths += sorted(build.rglob("*.safetensors"))
    for folder in folders:
        paths += sorted(Path(folder).glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
