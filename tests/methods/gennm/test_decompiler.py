"""The decompiler as a subprocess: what it says is kept, what goes wrong is said."""

import json
import sys
from pathlib import Path

import pytest

from prefcore.methods.gennm.world import decompiler
from prefcore.methods.gennm.world.dwarf import BinaryError

BINARY = Path(__file__).parent / "programs" / "ledger.O0.so"
LIMITS = {"least": 16, "most": 4096, "limit": 50, "seconds": 5}


def worker(tmp_path, monkeypatch, text):
    """A stand-in for the worker script, run by this python; appends a letter to calls.txt each time."""
    script = tmp_path / "worker.py"
    script.write_text(f"import sys, time\nopen({str(tmp_path / 'calls.txt')!r}, 'a').write('x')\n{text}\n")
    monkeypatch.setattr(decompiler, "WORKER", script)
    return tmp_path / "calls.txt"


GOOD = """
print('{"base": 4194304, "end": 4210695, "functions": 3}')
print('{"address": 16, "size": 20, "code": "int f(void) {}", "variables": []}')
print('{"address": 48, "size": 20, "error": "TimeoutError: the decompiler took too long"}')
"""


def test_functions_and_failures_come_back_in_order(tmp_path, monkeypatch):
    worker(tmp_path, monkeypatch, GOOD)
    found = decompiler.decompile(BINARY, **LIMITS, python=Path(sys.executable))
    assert (found.base, found.end, found.found, found.trouble) == (4194304, 4210695, 3, "")
    assert [("code" in f, f["address"]) for f in found.functions] == [(True, 16), (False, 48)]


def test_what_was_said_before_a_crash_is_kept_and_the_crash_is_told(tmp_path, monkeypatch):
    worker(tmp_path, monkeypatch, GOOD + "raise MemoryError('too much')")
    found = decompiler.decompile(BINARY, **LIMITS, python=Path(sys.executable))
    assert len(found.functions) == 2 and found.trouble == "MemoryError: too much"
    worker(tmp_path, monkeypatch, "raise KeyError('at once')")
    assert decompiler.decompile(BINARY, **LIMITS, python=Path(sys.executable)).trouble == "KeyError: 'at once'"


def test_a_hanging_worker_is_stopped_and_what_it_said_is_kept(tmp_path, monkeypatch):
    worker(tmp_path, monkeypatch, GOOD + "sys.stdout.flush(); time.sleep(60)")
    monkeypatch.setattr(decompiler, "START_SECONDS", 1)
    found = decompiler.decompile(BINARY, **(LIMITS | {"limit": 1, "seconds": 1}), python=Path(sys.executable))
    assert len(found.functions) == 2 and "hung" in found.trouble


def test_a_limit_of_very_many_functions_is_no_limit_that_overflows(tmp_path, monkeypatch):
    worker(tmp_path, monkeypatch, GOOD)
    found = decompiler.decompile(BINARY, **(LIMITS | {"limit": 10**6, "seconds": 60}), python=Path(sys.executable))
    assert len(found.functions) == 2 and not found.trouble


def test_without_the_decompiler_the_message_says_how_to_get_it(tmp_path):
    with pytest.raises(decompiler.NoDecompiler, match="make angr"):
        decompiler.decompile(BINARY, **LIMITS, python=tmp_path / "nothing")


def test_a_result_is_kept_by_content_and_one_that_was_never_begun_is_not(tmp_path, monkeypatch):
    calls = worker(tmp_path, monkeypatch, GOOD)
    monkeypatch.setattr(decompiler, "PYTHON", Path(sys.executable))
    first = decompiler.decompile_cached(BINARY, tmp_path / "cache", **LIMITS)
    assert decompiler.decompile_cached(BINARY, tmp_path / "cache", **LIMITS) == first and calls.read_text() == "x"
    decompiler.decompile_cached(BINARY, tmp_path / "cache", **(LIMITS | {"most": 99}))  # another result
    assert calls.read_text() == "xx"
    worker(tmp_path, monkeypatch, "raise KeyError('x')")  # another worker, too
    for _ in range(2):
        assert decompiler.decompile_cached(BINARY, tmp_path / "cache", **LIMITS).trouble
    assert calls.read_text() == "xxxx"


def test_a_run_that_was_killed_goes_on_after_its_last_function(tmp_path, monkeypatch):
    """The worker is told how many functions are done, and the torn last line is written again."""
    monkeypatch.setattr(decompiler, "PYTHON", Path(sys.executable))
    lines = [line for line in GOOD.splitlines() if line]
    done = "[int(word.split('=')[1]) for word in sys.argv if word.startswith('--done')][0]"
    worker(
        tmp_path,
        monkeypatch,
        f"""
{lines[0]}
if {done} == 0:
    {lines[1]}
    print('{{"address": 48, "variables": [{{}}', end='')
    sys.stdout.flush()
    raise MemoryError('killed')
{lines[2]}
""",
    )
    cut = decompiler.decompile_cached(BINARY, tmp_path / "cache", **LIMITS)
    assert [f["address"] for f in cut.functions] == [16] and cut.trouble
    whole = decompiler.decompile_cached(BINARY, tmp_path / "cache", **LIMITS)
    assert [f["address"] for f in whole.functions] == [16, 48] and not whole.trouble
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


def test_an_empty_library_is_told_and_does_not_stop_the_rest(tmp_path):
    (tmp_path / "a.so").write_bytes(b"nothing")
    assert "not a readable ELF" in decompiler.decompile_cached(tmp_path / "a.so", tmp_path, **LIMITS).trouble
    with pytest.raises(BinaryError):
        decompiler.decompile(tmp_path / "a.so", **LIMITS)


@pytest.mark.skipif(not decompiler.PYTHON.exists(), reason="angr is not installed: make angr")
def test_the_real_decompiler_gives_the_committed_text():
    found = decompiler.decompile(BINARY, least=16, most=4096, limit=50, seconds=60)
    lines = (BINARY.parent / "ledger.O0.jsonl").read_text().splitlines()[1:]
    wanted = {line["address"]: line["code"] for line in map(json.loads, lines) if "code" in line}
    assert {f["address"] for f in found.functions} == set(wanted)
