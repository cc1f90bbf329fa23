"""Which run a checkpoint belongs to, and which of them is whole.

A run is its data and their order, the weights it starts from, the settings that are handed to its loss, and the code
that its loss runs. `identity` is a hash over all of these; a run goes on from the checkpoints of its own identity only.
"""

import ast
import hashlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import numpy as np
import torch

from prefcore.engine.collate import Plan
from prefcore.engine.reference import weight_hash

DONE = "complete"  # the file that makes a checkpoint count
VALUES = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, np.ndarray, np.generic, torch.Tensor)


def last_whole(folder: Path, identity: str) -> Path | None:
    """The newest whole checkpoint of this very run; whatever belongs to another run, or is broken, is removed."""
    record = folder / "run.json"
    if not record.exists() or json.loads(record.read_text())["identity"] != identity:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        aside = record.with_suffix(".partial")
        aside.write_text(json.dumps({"identity": identity}))
        aside.rename(record)
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / DONE).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def identity(policy, plan: Plan, loss: Callable, settings: Mapping, schedule: Mapping) -> str:
    """sha256 over all that decides a run. settings: what the loss is called with; schedule: what the optimiser is.

    Raises ValueError where the loss reads a value from around it (a closure, or a notebook's name): nobody could see
    that it has changed, so it has to be in `settings`.
    """
    digest = hashlib.sha256()
    modules = {"prefcore.engine.train"}
    for piece in _code(loss, modules):
        digest.update(piece.encode())
    for piece in [*_content(settings, modules), *_content(schedule, modules), *_sources(modules)]:
        digest.update(piece.encode())
    digest.update(weight_hash(policy).encode())
    for name, parameter in sorted(policy.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for example in plan.examples:
        digest.update(repr((example.prompt, example.completions, sorted(example.columns.items()))).encode())
    digest.update(repr((plan.batches, [[e.id for e in step] for step in plan.mismatches])).encode())
    if plan.ref_logps is not None:
        digest.update(plan.ref_logps.tobytes())
    return digest.hexdigest()


def _content(value, modules: set[str]) -> Iterator[str]:
    """A setting as text that is equal for equal settings."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield f"{key!r}:"
            yield from _content(value[key], modules)
    elif isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(value.detach().cpu().float() if isinstance(value, torch.Tensor) else value)
        yield f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    elif isinstance(value, list | tuple):
        yield f"{len(value)}["
        for item in value:
            yield from _content(item, modules)
    elif value is None or isinstance(value, VALUES):
        yield repr(value)
    elif callable(value):
        yield from _code(value, modules)
    else:
        raise TypeError(f"a setting is a {type(value).__name__}; it must be a number, a text, an array or a function")


def _code(function: Callable, modules: set[str]) -> Iterator[str]:
    """The code of a loss outside prefcore, comments apart, function by function; `modules` gets the names of ours.

    Functions of other packages are left out: their versions are pinned.
    """
    seen, waiting, home = set(), [function], None
    while waiting:
        item = waiting.pop()
        while isinstance(item, partial):
            yield from _content({"args": item.args, "keywords": item.keywords}, modules)
            item = item.func
        item = getattr(item, "__func__", item)  # a method as the function that it is
        home = home or getattr(item, "__module__", None)
        if not isinstance(item, FunctionType):
            modules.add(type(item).__module__)
            continue
        ours = item.__module__.startswith("prefcore.")
        if ours:
            modules.add(item.__module__)
        if item in seen or not (ours or item.__module__ == home):
            continue
        seen.add(item)
        around = inspect.getclosurevars(item)
        constants = item.__module__ != "__main__"  # of a file; what a notebook binds may be bound anew
        if not ours:  # what a module of ours holds is in its source
            yield repr((_instructions(item.__code__), item.__defaults__, item.__kwdefaults__))
        for name, value in sorted({**({} if ours else around.globals), **around.nonlocals}.items()):
            if isinstance(value, ModuleType | type):
                modules.add(value.__name__ if isinstance(value, ModuleType) else value.__module__)
            elif value is None or isinstance(value, VALUES):
                if constants and name in around.globals:
                    yield from _content({name: value}, modules)
                    continue
                raise ValueError(
                    f"the loss reads {name} from around {item.__name__}, where nobody sees it change: hand it over in "
                    "settings, and take it as an argument"
                )
            else:
                waiting.append(value)


def _instructions(code: CodeType) -> tuple:
    constants = [_instructions(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return code.co_code.hex(), code.co_names, code.co_varnames, constants


def _sources(modules: set[str]) -> Iterator[str]:
    """The modules of prefcore among these, with all that they import, as trees without comments and docstrings."""
    trees, waiting = {}, [name for name in modules if name.startswith("prefcore.")]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in trees or module is None or hasattr(module, "__path__"):  # a package is a docstring
            continue
        trees[name] = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(trees[name]):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("prefcore"):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    for name in sorted(trees):
        yield name + ast.dump(trees[name])
