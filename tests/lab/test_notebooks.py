"""A notebook is run, kept and shown: equal runs give equal bytes, and what goes wrong is named."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from prefcore.engine import progress
from prefcore.lab import notebooks

PARAMETERS = 'name = "a"  # text\nbeta = 0.1  # unit: none, > 0\nsteps = 3  # optimiser steps\nfast = True  # or not'


def write(path, *cells, parameters=PARAMETERS):
    """A notebook of (heading, code) pairs after its parameters; ids are random, as an editor makes them."""
    made = [new_markdown_cell("# A title\n\n## Parameters")]
    made += [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    for heading, source in cells:
        made += [new_markdown_cell(f"## {heading}"), new_code_cell(source)]
    nbformat.write(new_notebook(cells=made, metadata=notebooks.METADATA), path)
    return path


# --- execution --------------------------------------------------------------------------------------------------

NOISY = """import sys, os, time, random
from IPython.display import display
for i in range(3):
    print(i, flush=True)
    print("at", time.time(), file=sys.stderr)
    time.sleep(random.random() / 10)
display({"application/vnd.jupyter.widget-view+json": {"model_id": str(time.time())}}, raw=True)
print(os.path.realpath("."), beta, object())"""
FIGURE = "import matplotlib.pyplot as plt\nfigure, ax = plt.subplots(figsize=(2, 1))\nax.plot([0, 1])"


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """One noisy notebook, run two times over; the folder in which its cells ran, and the two copies."""
    root = tmp_path_factory.mktemp("root")
    path = write(root / "noisy.ipynb", ("Noise", NOISY), ("Figure", FIGURE), ("Save", "steps"))
    outputs = [root / "runs" / str(i) / "notebook.ipynb" for i in range(2)]
    for output in outputs:
        assert notebooks.execute(path, output, {"beta": 0.25}, root=root) == output
    return root, outputs


def test_two_equal_runs_give_equal_bytes(twice):
    first, second = (output.read_bytes() for output in twice[1])
    assert first == second
    assert b"image/png" in first


def test_an_executed_notebook_keeps_results_and_drops_what_passes(twice):
    root, (output, _) = twice
    nb = nbformat.read(output, as_version=4)
    (noise,) = [c.outputs for c in nb.cells if c.source == NOISY]
    assert [o.text for o in noise] == [f"0\n1\n2\n{root.resolve()} 0.25 <object object at 0x0>\n"]
    assert nb.cells[-1].outputs[0].data["text/plain"] == "3"
    assert [c.execution_count for c in nb.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert nb.metadata == notebooks.METADATA and "papermill" not in output.read_text()


WORK = """import sys
from prefcore.engine.progress import track
print("a warning", file=sys.stderr)
print("table", *track(range(3), "sampling"))"""


def test_the_terminal_sees_each_cell_with_its_heading_and_what_cells_write_to_stderr(tmp_path, capfd):
    path = write(tmp_path / "n.ipynb", ("Training", WORK))
    notebooks.execute(path, tmp_path / "out.ipynb", {})
    out, err = capfd.readouterr()
    assert [line.split(maxsplit=1)[1] for line in out.splitlines()] == [
        "n  cell 1/2  Parameters", "n  cell 2/2  Training", "n  done",
    ]  # fmt: skip
    assert "a warning\n" in err and "table" not in err and "sampling" not in err and "\r" not in err


def test_the_line_of_progress_that_moves_in_a_kernel_reaches_the_runner(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(progress, "LOG", 0)  # seconds between two lines of a log: each state is said
    notebooks.execute(write(tmp_path / "n.ipynb", ("Training", WORK)), tmp_path / "out.ipynb", {})
    assert "sampling: 0/3\n" in capfd.readouterr().err
    assert "0/3" not in (tmp_path / "out.ipynb").read_text()


def test_a_failing_cell_is_named_by_its_heading_and_the_copy_stays(tmp_path):
    path = write(tmp_path / "n.ipynb", ("Training", "print('so far')\nraise ValueError('beta is -1')"), ("Save", "1"))
    with pytest.raises(RuntimeError, match=r"n\.ipynb: under 'Training': ValueError: beta is -1 .*out\.ipynb") as error:
        notebooks.execute(path, tmp_path / "out.ipynb", {"beta": -1.0})
    assert "Save" not in str(error.value)
    assert "so far" in (tmp_path / "out.ipynb").read_text()


def test_data_that_cannot_be_used_are_one_line_and_no_traceback(tmp_path, capfd):
    code = "from prefcore.data.types import DataError\nraise DataError('own.jsonl:3: is empty')"
    with pytest.raises(RuntimeError, match=r"under 'Data': DataError: own\.jsonl:3: is empty"):
        notebooks.execute(write(tmp_path / "n.ipynb", ("Data", code)), tmp_path / "out.ipynb", {"beta": 1.0})
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "source, message", [("import sys; sys.exit(0)", "SystemExit"), ("import os; os._exit(0)", "kernel died")]
)
def test_stopping_early_is_no_success(tmp_path, source, message):
    path = write(tmp_path / "n.ipynb", ("Training", source), ("Save", "1"))
    with pytest.raises(RuntimeError, match=f"under 'Training': .*{message}"):
        notebooks.execute(path, tmp_path / "out.ipynb", {})


def test_an_unknown_parameter_stops_before_anything_runs(tmp_path):
    path = write(tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="has no parameter betta; it has name, beta, steps, fast"):
        notebooks.execute(path, tmp_path / "out.ipynb", {"betta": 1.0, "steps": 1})
    assert not (tmp_path / "out.ipynb").exists()


def test_an_executed_notebook_becomes_a_page_to_read(twice, tmp_path):
    page = notebooks.export_html(twice[1][0], tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "A title" in page and "data:image/png;base64" in page


# --- form -------------------------------------------------------------------------------------------------------


def test_clean_leaves_source_and_tags_and_nothing_that_passes(tmp_path, changed):
    path = write(tmp_path / "n.ipynb", ("Save", "print(1)"), ("Empty", "  "))

    def run(nb):
        nb.cells[3].update(execution_count=7, outputs=[new_output("stream", name="stdout", text="1\n")])
        nb.cells[3].metadata.update(collapsed=True, execution={"iopub.status.busy": "2020"})
        nb.metadata.update(language_info={"name": "python", "version": "3.99"}, widgets={})

    before = [c.source for c in nbformat.read(path, as_version=4).cells]
    notebooks.clean(changed(path, run))
    nb = json.loads(path.read_text())
    assert ["".join(c["source"]) for c in nb["cells"]] == before[:-1]
    assert [c["id"] for c in nb["cells"]] == [f"cell-{i}" for i in range(5)]
    assert [c["metadata"] for c in nb["cells"]] == [{}, {"tags": ["parameters"]}, {}, {}, {}]
    assert (nb["cells"][3]["outputs"], nb["cells"][3]["execution_count"]) == ([], None)
    assert nb["metadata"] == notebooks.METADATA


def test_cleaning_twice_is_cleaning_once(tmp_path):
    path = write(tmp_path / "n.ipynb", ("Save", "é = 1"))
    notebooks.clean(path)
    once = path.read_bytes()
    notebooks.clean(path)
    assert path.read_bytes() == once and once.endswith(b"}\n")
