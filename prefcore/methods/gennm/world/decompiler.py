"""A decompiler as a tool: angr in an environment of its own, one process for each binary.

angr 9.2.213 and its dependencies (about 440 MB) pin packages that nothing else here needs, so `make angr` puts them
into .venv/peers/angr, and this file starts decompile_worker.py with that environment's python.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from prefcore.methods.gennm.world import decompile_worker
from prefcore.methods.gennm.world.dwarf import BinaryError, check_elf

PYTHON = Path(sys.prefix) / "peers" / "angr" / "bin" / "python"
WORKER = Path(decompile_worker.__file__)
START_SECONDS = 600  # a backstop for reading the binary, before the first function
LONGEST_SECONDS = 7 * 24 * 3600  # of any run; the system's timers overflow some weeks later


class Binary(NamedTuple):
    """A decompiled binary: its addresses [base, end], functions found, and those of the wanted size as the worker says.

    `trouble` says in a sentence why the list is not whole, or is empty.
    """

    base: int
    end: int
    found: int
    functions: list[dict]
    trouble: str = ""


class NoDecompiler(RuntimeError):
    """The decompiler's environment is not there."""


def decompile(
    path: str | Path,
    *,
    least: int,
    most: int,
    limit: int,
    seconds: int,
    kept: Path | None = None,
    python: Path | None = None,
) -> Binary:
    """Functions of a binary whose machine code has `least` to `most` bytes, at most `limit` of them.

    A function on which the decompiler fails, or takes longer than `seconds`, has an `error` instead of `code`. What is
    done is written to the file `kept` at once; with that file a run that was killed goes on after its last function.
    Raises BinaryError for a file that is no x86-64 ELF binary, NoDecompiler where the decompiler is not installed.
    """  # fmt: skip
    check_elf(path)
    python = python or PYTHON
    if not python.exists():
        raise NoDecompiler(f"the decompiler is not installed ({python}); call `make angr` once (about 440 MB)")
    with tempfile.TemporaryDirectory() as scratch:
        kept = kept or Path(scratch) / "lines"
        kept.parent.mkdir(parents=True, exist_ok=True)
        before = read_lines(kept)
        kept.write_text("".join(json.dumps(line) + "\n" for line in before), encoding="utf-8")  # without a torn one
        options = {"least": least, "most": most, "limit": limit, "seconds": seconds, "done": max(0, len(before) - 1)}
        command = [str(python), "-I", str(WORKER), str(path), *(f"--{k}={v}" for k, v in options.items())]
        longest = min(START_SECONDS + seconds * limit, LONGEST_SECONDS)
        with kept.open("ab") as out:
            try:
                done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, timeout=longest)
                trouble = _last_line(done.stderr) if done.returncode else ""
            except subprocess.TimeoutExpired:
                trouble = "the decompiler hung and was stopped"
        lines = read_lines(kept)
    if not lines:
        return Binary(0, 0, 0, [], trouble or "the decompiler said nothing")
    head, functions = lines[0], lines[1:]
    return Binary(head["base"], head["end"], head["functions"], functions, trouble)


def read_lines(path: Path) -> list[dict]:
    """The whole lines of what the worker wrote, its head first, said once; none where the file is not there.

    A last line without its end is torn, wherever that is.
    """
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.exists() else ""
    lines = [json.loads(line) for line in whole.split("\n") if line.startswith("{")]
    return [line for i, line in enumerate(lines) if i == 0 or "address" in line]


def decompile_cached(path: Path, cache: Path, **limits: int) -> Binary:
    """`decompile`, with the result kept in `cache` by content: the binary's bytes, the limits, the worker's text.

    A file that is no binary (an empty library) is a Binary without functions that says so. One that the decompiler
    could not finish is begun again where it stopped.
    """
    identity = hashlib.sha256(Path(path).read_bytes() + WORKER.read_bytes() + repr(sorted(limits.items())).encode())
    kept = cache / f"{identity.hexdigest()}.json"
    lines = kept.with_suffix(".lines")
    if kept.exists():
        return Binary(*json.loads(kept.read_text(encoding="utf-8")))
    try:
        found = decompile(path, **limits, kept=lines)
    except BinaryError as error:
        return Binary(0, 0, 0, [], str(error))
    if not found.trouble:
        aside = kept.with_suffix(".partial")
        aside.write_text(json.dumps(found), encoding="utf-8")
        os.replace(aside, kept)
        lines.unlink()
    return found


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "the decompiler failed and did not say why"
