"""Which values a notebook gets, and what is said about those that it does not take."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from prefcore.lab import parameters

ROOT = Path(__file__).resolve().parents[2]
OURS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem not in ("index", "doctor")]
CELL = 'name = "a"  # text\nbeta = 0.1  # unit: none, > 0\nsteps = 3  # optimiser steps\nfast = True  # or not'
PARAMS = {
    "profile": "quick",
    "common": {"name": "b", "rank": 16},
    "methods": {"n": {"beta": 0.2}},
    "quick": {"n": {"steps": 5, "fast": False}},
}


def write(path, source):
    """A notebook that is its parameters cell."""
    nbformat.write(new_notebook(cells=[new_code_cell(source, metadata={"tags": ["parameters"]})]), path)
    return path


# --- the notebooks of this repository ---------------------------------------------------------------------------


def test_there_are_notebooks():
    assert OURS, f"{ROOT / 'notebooks'} has no notebook"


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.stem)
def test_our_parameters_cell_is_the_quick_profile_of_params_yaml(path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    expected = parameters.choose(path, {**params, "profile": "quick"})
    found = parameters.defaults(path)
    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}


# --- from params.yaml -------------------------------------------------------------------------------------------


def test_later_blocks_win_in_the_merge():
    params = {
        "profile": "quick",
        "common": {"seed": 0, "beta": 1, "size": 1},
        "methods": {"dpo": {"beta": 2, "size": 2}, "compare": None},
        "quick": {"dpo": {"size": 3}, "compare": {}},
    }
    assert parameters.merge(params, "dpo") == {"profile": "quick", "seed": 0, "beta": 2, "size": 3}
    assert parameters.merge(params, "compare") == {"profile": "quick", "seed": 0, "beta": 1, "size": 1}


@pytest.mark.parametrize(
    "params, missing",
    [
        ({"methods": {"dpo": {}}, "quick": {"dpo": {}}}, "common"),
        ({"common": {}, "methods": {}, "quick": {"dpo": {}}}, "methods.dpo"),
        ({"common": {}, "methods": {"dpo": {}}, "quick": {}}, "quick.dpo"),
    ],
)
def test_a_missing_block_is_named(params, missing):
    with pytest.raises(ValueError, match=f"no block {missing}, which dpo needs"):
        parameters.merge({"profile": "quick"} | params, "dpo")


def test_a_notebook_gets_of_common_what_it_names_and_all_of_its_own_blocks(tmp_path):
    path = write(tmp_path / "n.ipynb", "profile = 'quick'\nname = 'a'\nbeta = 0.1\nsteps = 3\nfast = True")
    assert parameters.choose(path, PARAMS) == {
        "profile": "quick", "name": "b", "beta": 0.2, "steps": 5, "fast": False,
    }  # fmt: skip


def test_a_name_of_common_that_its_own_block_sets_too_is_not_left_out(tmp_path):
    path = write(tmp_path / "n.ipynb", "profile = 'quick'\nrank = 1")
    own = PARAMS | {"methods": {"n": {"rank": 2}}, "quick": {"n": {}}}
    assert parameters.choose(path, own) == {"profile": "quick", "rank": 2}


def test_a_block_that_is_not_there_is_named(tmp_path):
    path = write(tmp_path / "n.ipynb", "beta = 0.1")
    with pytest.raises(ValueError, match="no block methods.n"):
        parameters.choose(path, PARAMS | {"methods": {}})


# --- in the notebook --------------------------------------------------------------------------------------------


def test_parameters_are_the_literals_of_the_tagged_cell(tmp_path):
    path = write(tmp_path / "n.ipynb", CELL + "\nlow = -1.0e-6  # nats\nall = [1]  # list")
    nb = nbformat.read(path, as_version=4)
    nbformat.write(new_notebook(cells=[*nb.cells, new_code_cell("beta = 7")]), path)
    expected = {"name": "a", "beta": 0.1, "steps": 3, "fast": True, "low": -1e-6, "all": [1]}
    assert parameters.defaults(path) == expected


@pytest.mark.parametrize(
    "line, message",
    [
        ("x = 2 ** 3", "line 2: x = 2 ** 3 is not a literal"),
        ("x = open('f')", "is not a literal"),
        ("x, y = 1, 2", "is not `name = literal`"),
        ("import os", "is not `name = literal`"),
        ("beta = 3", "sets beta a second time"),
    ],
)
def test_a_parameter_that_is_no_literal_is_refused_with_its_line(tmp_path, line, message):
    path = write(tmp_path / "n.ipynb", f"beta = 1\n{line}")
    with pytest.raises(ValueError) as error:
        parameters.defaults(path)
    assert message in str(error.value)


def test_one_cell_holds_the_parameters(tmp_path, changed):
    path = changed(write(tmp_path / "n.ipynb", CELL), lambda nb: nb.cells[0].metadata.pop("tags"))
    with pytest.raises(ValueError, match="0 cells are tagged"):
        parameters.defaults(path)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"beta": "1e-6"}, "beta is '1e-6' (str), but the notebook has 0.1 (float); YAML reads 1e-6 as a string"),
        ({"steps": 2.5}, "steps is 2.5 (float), but the notebook has 3 (int)"),
        ({"steps": True}, "steps is True (bool), but the notebook has 3 (int)"),
        ({"fast": 1}, "fast is 1 (int), but the notebook has True (bool)"),
        ({"name": None}, "name is None (NoneType), but the notebook has 'a' (str)"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path, values, message):
    with pytest.raises(TypeError) as error:
        parameters.check(write(tmp_path / "n.ipynb", CELL), values)
    assert message in str(error.value)


def test_a_notebook_reads_what_its_parameters_cell_names_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params.yaml").write_text("")
    write(tmp_path / "notebooks" / "n.ipynb", "profile = 'quick'\nbeta = 0.1\nrates = []")
    monkeypatch.chdir(tmp_path / "notebooks")
    p = parameters.read("n", {"profile": "quick", "beta": 0.5, "rates": [1.0], "rate": 3.0, "In": [], "loss": len})
    assert p._asdict() == {"chapter": "n", "profile": "quick", "beta": 0.5, "rates": [1.0]} and p.beta == 0.5
    assert Path.cwd() == tmp_path  # paths are told from the repository's top
    with pytest.raises(AttributeError):
        p.beta = 0.1
    assert p._replace(beta=0.2).beta == 0.2 and p.beta == 0.5


def test_a_parameters_cell_that_has_not_run_is_named(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params.yaml").write_text("")
    write(tmp_path / "notebooks" / "n.ipynb", "profile = 'quick'\nbeta = 0.1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NameError, match="beta is not set: run the parameters cell of n.ipynb"):
        parameters.read("n", {"profile": "quick"})


def test_reading_parameters_imports_nothing_that_runs_notebooks_and_no_torch():
    """What a kernel needs before its first cell, and what runs a notebook before its kernel, wait for this import."""
    code = "import sys; from prefcore.lab import parameters; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "nbformat", "papermill", "jsonschema"}.isdisjoint(done.stdout.split())
