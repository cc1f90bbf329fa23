"""Values and functions as text: equal for equal contents in every process, another one for any other content."""

import os
import subprocess
import sys
from functools import cache, partial, wraps
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore.data.types import freeze
from prefcore.engine import content
from prefcore.engine.content import describe
from prefcore.methods import bco, dpo, kto

WIDE = torch.tensor([1.0, 2.0], dtype=torch.float64)
SCALE = 2.0  # a constant of this file


def text(value):
    return list(describe(value))


# --- values ---------------------------------------------------------------------------------------------------------

DIFFERENT = {
    "numbers": (0.1, 0.2),
    "a number and its text": (1, "1"),
    "kinds of number": (1, 1.0),
    "lists whose digits are the same": ([1, 23], [12, 3]),
    "lists of lists": ([[1], 2], [[1, 2]]),
    "names": ({"beta": 0.1}, {"gamma": 0.1}),
    "sets": ({"a", "b"}, {"a", "c"}),
    "arrays": (np.array([1, 2]), np.array([1, 3])),
    "precisions of an array": (np.zeros(2), np.zeros(2, np.float32)),
    "shapes": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "tensors": (torch.tensor(1.0), torch.tensor(2.0)),
    "the last bit of a wide tensor": (WIDE, torch.nextafter(WIDE, WIDE + 1)),
    "large whole numbers": (torch.tensor(2**40), torch.tensor(2**40 + 1)),
    "half precision": (torch.ones(2).bfloat16(), torch.ones(2).half()),
    "parameters": (freeze({"beta": 0.1}), freeze({"beta": 0.2})),
    "functions of one file": (bco.loss, bco.pooled_loss),
    "functions of one name": (dpo.loss, kto.loss),
    "functions of another package": (torch.relu, torch.tanh),
    "ufuncs": (np.exp, np.log),
    "unnamed functions": (lambda x: x + 1, lambda x: x + 2),
    "functions with other constants inside": (lambda x: [i * 2 for i in x], lambda x: [i * 3 for i in x]),
    "functions with other sets inside": (lambda x: x in {1, 2}, lambda x: x in {1, 3}),
    "functions of other attributes": (lambda x: x.min(), lambda x: x.max()),
    "defaults": (lambda x, b=1: x, lambda x, b=2: x),
    "keyword defaults": (lambda x, *, b=1: x, lambda x, *, b=2: x),
    "arguments bound in advance": (partial(dpo.loss, beta=0.1), partial(dpo.loss, beta=0.2)),
    "functions bound in advance": ([partial(bco.loss, beta=0.1)], [partial(bco.pooled_loss, beta=0.1)]),
}


@pytest.mark.parametrize("one, other", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_has_another_text(one, other):
    assert text({"x": one}) != text({"x": other})
    assert text({"x": one}) == text({"x": one})


def test_equal_contents_have_one_text_whatever_their_order_or_identity():
    for make in (lambda: torch.arange(4).float(), lambda: np.arange(4), lambda: {"a", "b"}, lambda: freeze({"a": [1]})):
        assert text({"x": make(), "y": 1}) == text({"y": 1, "x": make()})
    assert text(torch.arange(6).reshape(2, 3).T) == text(torch.arange(6).reshape(2, 3).T.contiguous())


def test_a_model_is_its_weights_and_its_settings():
    def make(theta=10000.0):
        torch.manual_seed(0)
        sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        turns = {"rope_type": "default", "rope_theta": theta}
        return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, rope_parameters=turns))

    plain, moved = text(make()), make()
    assert text(make()) == plain != text(make(500.0))
    moved.model.norm.weight.data[0] += 1e-6
    assert text(moved) != plain


@pytest.mark.parametrize("value", [pd.DataFrame({"a": [1]}), SimpleNamespace(beta=0.1), np.array([{}]), iter([1])])
def test_an_object_that_nobody_can_compare_is_refused_by_name(value):
    with pytest.raises(TypeError, match=f"a {type(value).__name__} is neither a number"):
        text({"x": value})


def test_a_method_of_an_object_is_refused_as_its_object_is_not_seen():
    with pytest.raises(TypeError, match="a method is neither"):
        text({"x": torch.nn.Linear(2, 2).forward})


STABLE = """
from prefcore.engine.content import describe
print(hash("a"), *describe([{"one", "two", "three"}, lambda x: x in {"one", "two", "three"}]), sep="\\n")
"""


def test_the_text_is_the_same_in_every_process():
    """Sets of strings come in another order in each process, as their hashes are seeded."""
    found = []
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", STABLE], env=env, capture_output=True, text=True, check=True)
        found.append(done.stdout.splitlines())
    assert found[0][0] != found[1][0] and found[0][1:] == found[1][1:] and len(found[0]) > 3


# --- what a function reads ------------------------------------------------------------------------------------------


def run_cell(monkeypatch, source, **names):
    """A function `objective` as a notebook's cell defines it: in __main__, which has no file."""
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    vars(notebook).update({"dpo": dpo, "torch": torch, "np": np, "wraps": wraps, **names})
    exec(source, vars(notebook))
    return notebook.objective


PLAIN_CELL = """
def objective(logps, beta):
    return dpo.loss(logps, logps, beta=beta)
"""
READING = {
    "a number": "def objective(logps): return logps * beta",
    "a number in a comprehension": "def objective(logps): return [x * beta for x in logps]",
    "a number in a function inside": "def objective(logps):\n    def inner(x): return x * beta\n    return inner(1)",
    "a number in a function that it calls": "def helper(x): return x * beta\ndef objective(x): return helper(x)",
    "a number two functions down": """
def deep(x): return x * beta
def helper(x): return deep(x)
def objective(logps): return helper(logps)""",
    "a number in a closure": """
def make(b):
    def loss(logps): return logps * b
    return loss
objective = make(beta)""",
    "a number two closures down": """
def make(b):
    def step(logps): return logps * b
    def loss(logps): return step(logps)
    return loss
objective = make(beta)""",
    "a number under a decorator": """
def twice(function):
    @wraps(function)
    def loss(logps): return function(logps) * beta
    return loss
@twice
def objective(logps): return logps""",
    "a number under torch's decorator": "@torch.no_grad()\ndef objective(logps): return logps * beta",
    "a number of a class": """
class Loss:
    def __call__(self, logps): return logps * beta
def objective(logps): return Loss()(logps)""",
    "a frozen object": "def objective(logps): return logps * p.beta",
    "a list": "def objective(logps): return logps * numbers[0]",
    "an array": "def objective(logps): return logps * array",
    "a tensor": "def objective(logps): return logps * tensor",
    "a table": "def objective(logps): return logps * table.beta[0]",
    "an object": "def objective(logps): return logps * space.beta",
    "an object's method": "objective_of = space.scale\ndef objective(logps): return objective_of(logps)",
}


class Space(SimpleNamespace):
    def scale(self, logps):
        return logps * self.beta


@pytest.mark.parametrize("source", READING.values(), ids=READING)
def test_what_a_notebooks_function_reads_from_around_it_is_refused_with_what_to_do(monkeypatch, source):
    names = {
        "beta": 0.1, "p": freeze({"beta": 0.1}), "numbers": [0.1], "array": np.ones(1), "tensor": torch.ones(1),
        "table": pd.DataFrame({"beta": [0.1]}), "space": Space(beta=0.1),
    }  # fmt: skip
    objective = run_cell(monkeypatch, source, **names)
    with pytest.raises(ValueError, match=r"reads \w+ \(a .*\) from around it.*hand it over in the settings"):
        text(objective)


def test_names_that_are_attributes_or_arguments_are_not_read_from_around(monkeypatch):
    """A notebook may well hold a table `rewards` while its loss returns `out.rewards`."""
    source = "def objective(out, beta):\n    loss = out.rewards * beta\n    return loss, [x for x in out.losses]"
    names = {"rewards": pd.DataFrame(), "losses": [1], "loss": 0.3, "beta": 0.1, "x": 1.0}
    assert text(run_cell(monkeypatch, source, **names)) == text(run_cell(monkeypatch, source))


def test_a_notebooks_function_may_call_functions_modules_and_classes(monkeypatch):
    source = """
class Rule:
    share = staticmethod(lambda x: x * {})
def helper(x): return Rule.share(x)
def objective(logps, beta):
    from prefcore.methods import kto
    return dpo.loss(helper(logps), np.exp(logps), beta=beta), kto
"""
    one, other = (run_cell(monkeypatch, source.format(number)) for number in (2, 3))
    pieces = text(one)
    assert text(one) == pieces != text(other)
    named = [piece.partition("Module")[0] for piece in pieces]
    assert {"prefcore.methods.dpo", "prefcore.methods.kto", "prefcore.engine.shapes"} <= set(named)
    assert not any(name.startswith(("numpy", "torch", "functools")) for name in named)


def test_a_comment_or_a_docstring_of_a_notebooks_function_is_no_change_but_code_is(monkeypatch):
    plain = text(run_cell(monkeypatch, PLAIN_CELL))
    commented = PLAIN_CELL.replace("):\n", '):\n    """Says what it does."""  # and why\n\n')
    assert commented != PLAIN_CELL and text(run_cell(monkeypatch, commented)) == plain
    assert text(run_cell(monkeypatch, PLAIN_CELL.replace("beta=beta", "beta=2 * beta"))) != plain


def scaled(logps):
    return SCALE * logps


def test_a_constant_of_the_users_file_is_part_of_it(monkeypatch):
    plain = text(scaled)
    assert any(piece.startswith(f"{__name__}Module") for piece in plain)  # the file itself
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    assert text(scaled) != plain


def test_a_function_under_a_cache_or_a_decorator_of_a_package_is_seen():
    def make(number):
        @torch.no_grad()
        @wraps(print)
        def inner(x, scale=number):
            return x * scale

        return cache(inner)

    assert text(make(1)) == text(make(1)) != text(make(2))


def test_a_function_that_calls_itself_or_one_that_is_not_yet_bound_has_a_text():
    def again(x):
        return again(x - 1) if x else later

    assert text(again) == text(again)
    later = 1  # noqa: F841
    with pytest.raises(ValueError, match="again reads later"):
        text(again)


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_stands_for_its_code_and_that_of_all_that_it_imports(monkeypatch, tmp_path):
    import shutil

    shutil.copytree(content.ROOT, tmp_path / "prefcore", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(content, "ROOT", tmp_path / "prefcore")
    plain = text(dpo.loss)

    def with_edit(name, edit):
        path = tmp_path / "prefcore" / name
        before = path.read_text(encoding="utf-8")
        path.write_text(edit(before), encoding="utf-8")
        found = text(dpo.loss)
        path.write_text(before, encoding="utf-8")
        return found

    shapes = (content.ROOT / "engine/shapes.py").read_text(encoding="utf-8")
    assert '"""Raise ValueError unless the tensors have' in shapes and "if not agree:" in shapes
    for name in ("engine/shapes.py", "methods/dpo.py", "methods/kto.py"):
        assert with_edit(name, lambda source: source + "\n# a remark\n") == plain
        assert with_edit(name, lambda source: source.replace('"""', '"""Once more. ', 1)) == plain
    docstring, code = ('"""Raise ValueError', '"""Raise an error'), ("if not agree:", "if agree:")
    assert with_edit("engine/shapes.py", lambda source: source.replace(*docstring)) == plain
    assert with_edit("engine/shapes.py", lambda source: source.replace(*code)) != plain
    assert with_edit("methods/dpo.py", lambda source: source + "\nEXTRA = 1\n") != plain
    assert with_edit("methods/kto.py", lambda source: source + "\nEXTRA = 1\n") == plain  # which dpo.py does not import
