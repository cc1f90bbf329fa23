"""Libraries from source archives: nothing runs, nothing keeps its name, every step is counted."""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from prefcore.data.types import freeze
from prefcore.methods.gennm.world import decompiler, dwarf, programs
from prefcore.methods.gennm.world.decompiler import Binary
from prefcore.methods.gennm.world.programs import Project

SOURCE = Path(__file__).parent / "programs"
HOW = {"optimised": [], "lines": 40, "binaries": 9, "functions": 50, "least": 16, "most": 4096, "backstop": 5}
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not here")


def archive(path, members):
    with tarfile.open(path, "w:gz") as box:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shelf(tmp_path):
    """data/programs with one archive: two good files, one that gcc refuses, a setup.py that must not run."""
    members = {
        "ledger-1.0/src/ledger.c": (SOURCE / "ledger.c").read_bytes(),
        "ledger-1.0/src/more.c": b'#include "more.h"\n__attribute__((visibility("hidden"))) int far(int step);\n'
                                 b"int near(int jump) { return far(jump * SCALE); }\n",
        "ledger-1.0/include/more.h": b"#define SCALE 9\n",
        "ledger-1.0/src/windows.c": b"#include <windows.h>\n",
        "ledger-1.0/setup.py": b"raise SystemExit('this ran')\n",
    }  # fmt: skip
    archive(tmp_path / "ledger-1.0.tar.gz", members)
    return tmp_path


PROJECT = Project("ledger", "ledger-1.0", "src", ("*.c",), ("../include",))


@needs_gcc
def test_sources_become_small_libraries_and_what_gcc_refuses_is_named(shelf, tmp_path):
    built, report = programs.build_all([PROJECT], shelf, tmp_path / "scratch", HOW, threads=1)
    assert report == {"ledger": {"files": 2, "not_compiled": ["windows.c"], "linked": 2, "used": 2}}
    assert [path.name for _, path in built] == ["ledger-000.so", "ledger-001.so"]
    assert {f.name for f in dwarf.functions(built[0][1])} >= {"classify", "settle", "delegate"}
    assert not (tmp_path / "scratch" / "ledger" / "source" / "ledger-1.0" / "setup.py").exists()


@needs_gcc
def test_a_stripped_library_names_none_of_its_own_functions(shelf, tmp_path):
    built, _ = programs.build_all([PROJECT], shelf, tmp_path / "scratch", HOW, threads=1)
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", "--strip-all", "-o", str(stripped), str(built[0][1])], check=True)
    raw = stripped.read_bytes()
    assert b"malloc" in raw  # what it imports keeps its name, as in any real binary
    assert not [f.name for f in dwarf.functions(built[0][1]) if f.name.encode() in raw]


@needs_gcc
def test_an_optimised_project_is_compiled_twice_into_libraries_of_different_names(shelf, tmp_path):
    how = HOW | {"optimised": ["ledger"]}
    built, report = programs.build_all([PROJECT], shelf, tmp_path / "scratch", how, threads=1)
    assert [path.stem for _, path in built] == ["ledger-000", "ledger-001", "ledger.O2-000", "ledger.O2-001"]
    assert set(report) == {"ledger", "ledger.O2"}
    sizes = [{f.name: f.high - f.low for f in dwarf.functions(path)} for _, path in (built[0], built[2])]
    assert sizes[1]["scopes"] < sizes[0]["scopes"]


@needs_gcc
def test_the_same_sources_give_the_same_bytes(shelf, tmp_path):
    runs = [programs.build_all([PROJECT], shelf, tmp_path / name, HOW, threads=2)[0] for name in ("a", "b")]
    stripped = []
    for built in runs:
        subprocess.run(["strip", "--strip-all", str(built[0][1])], check=True)
        stripped.append(built[0][1].read_bytes())
    assert stripped[0] == stripped[1]


def test_a_member_that_leads_out_of_the_archive_is_refused(tmp_path):
    path = archive(tmp_path / "bad.tar.gz", {"../outside.c": b"int x;"})
    with pytest.raises(ValueError, match="leads out of the archive"):
        programs.unpack(path, tmp_path / "folder")
    assert not (tmp_path / "outside.c").exists()


def test_without_gcc_the_stage_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    with pytest.raises(programs.ToolMissing, match="gcc and strip are not here") as caught:
        programs.build_all([PROJECT], tmp_path, tmp_path, HOW, threads=1)
    assert "\n" not in str(caught.value)


def test_an_unknown_project_is_named_with_the_known_ones(tmp_path):
    p = freeze({"programs": HOW | {"projects": ["cmark", "nonesuch"], "validation": [], "test": []}, "threads": 1,
                "profile": "x"})  # fmt: skip
    with pytest.raises(ValueError, match="nonesuch is not among brotli, cmark"):
        programs.prepare(p, tmp_path)


def fixture_binary():
    head, *lines = map(json.loads, (SOURCE / "ledger.O0.jsonl").read_text().splitlines())
    return Binary(head["base"], head["end"], head["functions"], lines)


def test_decompiled_functions_get_true_names_of_variables_and_of_called_functions():
    found = {f.function: f for f in programs.with_truth("ledger", SOURCE / "ledger.O0.so", fixture_binary())}
    assert len(found) == 8
    delegate = found["delegate"]
    assert delegate.names == {"a0": "source", "a1": "bound", "v1": "parsed", "v0": "clean"}
    assert set(delegate.functions.values()) == {"delegate", "parse_number", "classify"}
    assert all(name in delegate.code for name in delegate.functions)


@needs_gcc
def test_each_step_is_counted_and_a_function_that_fails_costs_only_itself(shelf, tmp_path, monkeypatch):
    built, _ = programs.build_all([PROJECT], shelf, tmp_path / "scratch", HOW, threads=1)

    def decompile_cached(path, cache, **limits):
        binary = fixture_binary()
        broken = [{"address": f["address"], "size": f["size"], "error": "KeyError: x"} for f in binary.functions[:1]]
        fits = path.stem == "ledger-000"
        return binary._replace(functions=broken + binary.functions[1:]) if fits else Binary(0, 0, 0, [], "empty")

    monkeypatch.setattr(programs, "decompile_cached", decompile_cached)
    shutil.copy(SOURCE / "ledger.O0.so", tmp_path / "ledger-000.so")  # the addresses of the committed text
    built[0] = (PROJECT, tmp_path / "ledger-000.so")
    records, counts = programs.recover_all(built, HOW, threads=1)
    assert counts == {"found": 9, "of_the_size": 8, "decompiled": 7, "failed": 1, "with_truth": 7, "with_names": 7}
    assert "classify" not in {record.function for record in records}
    rows = programs.by_project(records)["kept"]["ledger"]
    assert rows == {"binaries": 1, "functions": 7, "with_names": 7, "variables": sum(len(r.names) for r in records)}


def test_projects_that_are_not_named_for_another_part_teach_and_a_stranger_is_named():
    how = {"projects": ["a", "b", "c", "d"], "validation": ["b"], "test": ["d"]}
    assert programs.projects_of(how) == {"train": ["a", "c"], "validation": ["b"], "test": ["d"]}
    for wrong in ({"test": ["x"]}, {"test": ["b"]}):
        with pytest.raises(ValueError, match="must be in `projects`"):
            programs.projects_of(how | wrong)


def test_a_function_without_a_true_name_is_kept_for_the_context_that_it_gives(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "decompile_cached", lambda path, cache, **limits: fixture_binary())
    monkeypatch.setattr(programs.dwarf, "align", lambda variables, known: {})
    shutil.copy(SOURCE / "ledger.O0.so", tmp_path / "ledger-000.so")
    if not shutil.which("strip"):
        pytest.skip("strip is not here")
    records, counts = programs.recover_all([(PROJECT, tmp_path / "ledger-000.so")], HOW, threads=1)
    assert len(records) == counts["with_truth"] == 8 and counts["with_names"] == 0


def test_every_project_has_its_archive_among_the_pinned_ones():
    from prefcore.data import sources

    pinned = {file.path for file in sources.pinned()}
    assert {f"programs/{project.archive}.tar.gz" for project in programs.PROJECTS} <= pinned
    assert decompiler.WORKER.exists()
