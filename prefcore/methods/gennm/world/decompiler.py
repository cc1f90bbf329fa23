"""A decompiler as a tool: angr in an environment of its own, one process for each binary.

angr 9.2.213 and its dependencies (about 440 MB) pin packages that nothing else here needs, so `make angr` puts them
into .venv/peers/angr, and this file starts decompile_worker.py with that environment's python.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from prefcore.methods.gennm.world import decompile_worker
from prefcore.methods.gennm.world.dwarf import BinaryError, check_elf

PYTHON = Path(sys.prefix) / "peers" / "angr" / "bin" / "python"
WORKER = Path(decompile_worker.__file__)
START_SECONDS = 600  # a backstop for reading the binary, before the first function


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


def decompile(path: str | Path, *, least: int, most: int, limit: int, seconds: int, python: Path = PYTHON) -> Binary:
    """Functions of a binary whose machine code has `least` to `most` bytes, at most `limit` of them.

    A function on which the decompiler fails, or takes longer than `seconds`, has an `error` instead of `code`. Raises
    BinaryError for a file that is no x86-64 ELF binary, NoDecompiler where the decompiler is not installed.
    """
    check_elf(path)
    if not python.exists():
        raise NoDecompiler(f"the decompiler is not installed ({python}); call `make angr` once (about 440 MB)")
    options = [f"--{name}={value}" for name, value in
               {"least": least, "most": most, "limit": limit, "seconds": seconds}.items()]  # fmt: skip
    command = [str(python), "-I", str(WORKER), str(path), *options]
    try:
        done = subprocess.run(command, capture_output=True, timeout=START_SECONDS + seconds * limit)
        out, trouble = done.stdout, _last_line(done.stderr) if done.returncode else ""
    except subprocess.TimeoutExpired as expired:
        out, trouble = expired.stdout or b"", "the decompiler hung and was stopped"
    lines = [json.loads(line) for line in out.decode().splitlines() if line.endswith("}")]
    if not lines:
        return Binary(0, 0, 0, [], trouble or "the decompiler said nothing")
    head, functions = lines[0], lines[1:]
    return Binary(head["base"], head["end"], head["functions"], functions, trouble)


def decompile_cached(path: Path, cache: Path, **limits: int) -> Binary:
    """`decompile`, with the result kept in `cache` by content: the binary's bytes, the limits, the worker's text.

    A file that is no binary (an empty library) is a Binary without functions that says so. One that the decompiler
    could not finish is not kept.
    """
    identity = hashlib.sha256(Path(path).read_bytes() + WORKER.read_bytes() + repr(sorted(limits.items())).encode())
    kept = cache / f"{identity.hexdigest()}.json"
    if kept.exists():
        return Binary(*json.loads(kept.read_text(encoding="utf-8")))
    try:
        found = decompile(path, **limits)
    except BinaryError as error:
        return Binary(0, 0, 0, [], str(error))
    if not found.trouble:
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(".partial")
        aside.write_text(json.dumps(found), encoding="utf-8")
        os.replace(aside, kept)
    return found


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "the decompiler failed and did not say why"
