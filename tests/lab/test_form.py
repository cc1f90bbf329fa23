"""What is wrong with the form of a chapter is said, cell by cell; nothing is wrong with ours."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from prefcore.lab import form, notebooks

ROOT = Path(__file__).resolve().parents[2]
OURS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = 'name = "a"  # text\nbeta = 0.1  # unit: none, > 0\nsteps = 3  # optimiser steps\nfast = True  # or not'


def good(path):
    """A notebook in which nothing is wrong."""
    cells = []
    for i, heading in enumerate(form.HEADINGS):
        source = PARAMETERS if heading == "Parameters" else f"x{i} = 1\nx{i}"
        tags = {"tags": ["parameters"]} if heading == "Parameters" else {}
        cells += [new_markdown_cell(f"## {heading}\n\nProse."), new_code_cell(source, metadata=tags)]
    nbformat.write(new_notebook(cells=cells), path)
    notebooks.clean(path)
    return path


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.stem)
def test_our_notebook_is_in_form(path):
    assert form.check(path) == []


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.stem)
def test_our_loops_use_what_they_name(path):
    """`for name, files in results.items()` beside a use of an older name counted one profile twice."""
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source if cell.cell_type == "code" else "")):
            loops = getattr(node, "generators", [])
            read = {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}
            named = {name.id for loop in loops for name in ast.walk(loop.target) if isinstance(name, ast.Name)}
            assert all(name.startswith("_") for name in named - read), ast.unparse(node)


def test_nothing_is_wrong_with_a_good_notebook(tmp_path):
    assert form.check(good(tmp_path / "dpo.ipynb")) == []


CODE = 5  # the code cell under "The data"


def source(text):
    return lambda nb: nb.cells[CODE].update(source=text)


def parameter(line):
    return lambda nb: nb.cells[3].update(source=f"{PARAMETERS}\n{line}")


@pytest.mark.parametrize(
    "change, message",
    [
        (source("\n".join("x = 1" for _ in range(26))), "cell 5 has 26 lines; at most 25"),
        (source(f"y = {'1' * 120}"), "cell 5 has a line of 124 columns; at most 120"),
        (source("class Net:\n    pass"), "cell 5 defines the class Net"),
        (source("def f(x):\n" + "    x += 1\n" * 11 + "    return x"), "cell 5 defines f in 13 lines; at most 12"),
        (source("print(beta)"), "cell 5 uses beta by name; read p.beta"),
        (source("def f():\n    return [beta for _ in (1, 2)]"), "cell 5 uses beta by name; read p.beta"),
        (source("beta = 2"), "cell 5 uses beta by name; read p.beta, and bind another name"),
        (source("x0 = 2"), "cell 5 binds x0, which cell 1 has bound before"),
        (source("import x0"), "cell 5 binds x0, which cell 1 has bound before"),
        (source("for x0 in (1, 2):\n    pass"), "cell 5 binds x0, which cell 1 has bound before"),
        (source("%matplotlib inline"), "cell 5 is not plain Python: line 1"),
        (source("open('/data/x')"), "cell 5 names an absolute path (/data/x)"),
        (source("open(f'/data/{1}')"), "cell 5 names an absolute path (/data/)"),
        (source("open('~/x')"), "cell 5 names an absolute path (~/x)"),
        (source("open('C:/x')"), "cell 5 names an absolute path (C:/x)"),
        (source("# as in /home/me/x"), "cell 5 names an absolute path (/home/)"),
        (source("load('https://example.org/x')"), "cell 5 names a network address (https://)"),
        (source("from urllib.request import urlopen"), "cell 5 imports urllib.request, a network module"),
        (lambda nb: nb.cells.pop(CODE - 1), "cell 4 is code without markdown before it"),
        (lambda nb: nb.cells[CODE].update(execution_count=1), "cell 5 has an execution count"),
        (
            lambda nb: nb.cells[CODE].update(outputs=[new_output("stream", text="1")]),
            "cell 5 has outputs",
        ),
        (lambda nb: nb.cells[CODE].update(id="0a1b"), "is not as clean() writes it"),
        (lambda nb: nb.metadata.kernelspec.update(name="my-env"), "name must be python3"),
        (lambda nb: nb.metadata.pop("kernelspec"), "name must be python3"),
        (lambda nb: nb.cells[0].update(source="## Claim"), "its headings are ['Claim', 'Parameters'"),
        (lambda nb: nb.cells[0].update(source="## Method and claim\n\n## More"), "'Method and claim', 'More'"),
        (lambda nb: nb.cells[3].metadata.clear(), 'must have one cell tagged "parameters"'),
        (parameter("x = 1"), "cell 3 has the line 'x = 1'"),
        (parameter("x = 1  #"), "cell 3 has the line 'x = 1  #'"),
        (parameter("x = '# not a comment'"), "each must be `name = literal  # comment`"),
        (parameter("x = 2 ** 3  # eight"), "each must be"),
        (parameter("x = 1; y = 2  # two"), "each must be"),
        (parameter("x = [  # two lines\n]"), "each must be"),
        (parameter("print(1)  # call"), "each must be"),
        (parameter("x = []  # [] = none"), "has a second = in the line"),
    ],
)
def test_what_is_wrong_with_a_notebook_is_said(tmp_path, change, message, changed):
    problems = form.check(changed(good(tmp_path / "dpo.ipynb"), change))
    assert any(message in problem for problem in problems), problems
    assert all(problem.startswith("dpo.ipynb: ") for problem in problems)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join("x = 1" for _ in range(25)),
        "def f(x):\n" + "    x += 1\n" * 10 + "    return x",
        "def f(beta):\n    return [beta for beta in (beta, 1)]",
        "x0 += 1",
        "fig, ax = p.beta, 1",
        "root = 'runs'\nf'{root}/dpo/model'",
        "'tokens/s', ' / '.join('ab'), 'a/b'.split('/')",
        "import prefcore.scoring.metrics as metrics",
    ],
)
def test_what_is_allowed_is_not_a_problem(tmp_path, text, changed):
    assert form.check(changed(good(tmp_path / "dpo.ipynb"), source(text))) == []


def test_the_parameters_cell_may_be_long(tmp_path, changed):
    lines = "\n".join(f"p{i} = {i}  # unit" for i in range(30))
    assert form.check(changed(good(tmp_path / "dpo.ipynb"), parameter(lines))) == []


def test_the_comparison_has_headings_of_its_own(tmp_path, changed):
    path = changed(good(tmp_path / "overview.ipynb"), lambda nb: nb.cells[0].update(source="## What the papers claim"))
    assert form.check(path) == []
