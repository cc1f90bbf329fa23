"""Which values a notebook gets."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from prefcore.lab import parameters

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


def test_a_notebook_reads_what_its_parameters_cell_names_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params.yaml").write_text("")
    write(tmp_path / "notebooks" / "n.ipynb", "profile = 'quick'\nbeta = 0.1\nrates = []")
    monkeypatch.chdir(tmp_path / "notebooks")
    p = parameters.read("n", {"profile": "quick", "beta": 0.5, "rates": [1.0], "rate": 3.0, "In": [], "loss": len})
    assert p._asdict() == {"profile": "quick", "beta": 0.5, "rates": [1.0]} and p.beta == 0.5
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
