"""Finished runs, one a line of a file: what is there is not measured again, so an interrupted benchmark goes on.

A run counts for the same machine and libraries, the same case, and the same code: all of prefcore for our side, the
files of this folder that measure for both.
"""

import hashlib
import json
from pathlib import Path

from benchmarks.cases import CASES, GROWTH, NEW, PROMPTS
from benchmarks.worker import Run

HERE = Path(__file__).parent
SHOWING = {"bench", "cases", "figure", "page", "runs", "summary", "targets"}  # what measures nothing


def key(run: Run, machine: dict) -> str:
    """sha256 over all that a run's numbers depend on."""
    code = [path for path in HERE.glob("*.py") if path.stem not in SHOWING]
    code += (HERE.parent / "prefcore").rglob("*.py") if run.side == "ours" else []
    task = {**CASES, **GROWTH, "sampling": (PROMPTS, NEW)}[run.name]
    digest = hashlib.sha256(repr((run[:-1], task, machine)).encode())
    for path in sorted(code):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def read(path: Path) -> dict[str, dict]:
    """Every finished run by its key; a line that was not written to its end is left out."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            one = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[one.pop("key")] = one
    return found


def append(path: Path, key: str, result: dict) -> None:
    """Keep a finished run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"key": key} | result) + "\n")
