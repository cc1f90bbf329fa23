"""Values and functions as text that is equal for equal contents, in every process: what a run is recognised by.

A function stands for the code that it runs. Of a file, prefcore's or the user's, that is the whole file with all that
it imports, without comments and docstrings; of a notebook, its bytecode and the functions that it calls. Installed
packages are left out, as their versions are pinned.
"""

import ast
import dis
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch

import prefcore
from prefcore.engine.decoder import describe_settings

ROOT, LIBRARY = Path(prefcore.__file__).parent, Path(sysconfig.get_path("stdlib")).resolve()
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
VALUES = (*PLAIN, tuple, list, set, frozenset, Mapping, np.ndarray, torch.Tensor, torch.nn.Module)


def describe(value, modules: Iterable[str] = ()) -> Iterator[str]:
    """The text of a value, of all functions in it, and of these modules, piece by piece.

    TypeError where the value holds an object that is neither data nor a function. ValueError where a function reads a
    value from around it (a closure, or a notebook's name), which may change without its code: it has to be handed over.
    """
    functions, modules = [], set(modules)
    yield from _value(value, functions)
    yield from _code(functions, modules)
    yield from _sources(modules)


# --- values ---------------------------------------------------------------------------------------------------------


def _value(value, functions: list) -> Iterator[str]:
    """The text of a value; the functions in it are named, and put into `functions`."""
    if isinstance(value, PLAIN):
        yield repr(value)
    elif isinstance(value, Mapping):
        yield f"mapping of {len(value)}"
        for key in sorted(value, key=repr):
            yield repr(key)
            yield from _value(value[key], functions)
    elif isinstance(value, tuple | list):
        yield f"list of {len(value)}"
        for item in value:
            yield from _value(item, functions)
    elif isinstance(value, set | frozenset):  # its order depends on the process
        yield f"set of {len(value)}"
        yield from sorted(repr(list(_value(item, functions))) for item in value)
    elif isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        yield f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value)).hexdigest()}"
    elif isinstance(value, torch.nn.Module):  # a second model, say
        settings = describe_settings(value) if hasattr(value, "config") else ""
        yield from _value([repr(value), settings, value.state_dict()], functions)
    elif isinstance(value, partial):
        yield "partial"
        yield from _value([value.func, value.args, value.keywords], functions)
    elif _is_function(value):
        yield f"{value.__module__}.{getattr(value, '__qualname__', value.__name__)}"
        functions.append(value)
    else:
        raise TypeError(
            f"a {type(value).__name__} is neither a number, a text, an array, a model nor a function: nobody can tell "
            "whether it has changed: hand over the numbers of it that are needed"
        )


def _is_function(value) -> bool:
    """Functions and classes, not objects that can be called: those hold numbers that nobody sees."""
    bound = isinstance(value, MethodType) and not isinstance(value.__self__, type)
    return callable(value) and hasattr(value, "__name__") and not bound


# --- functions ------------------------------------------------------------------------------------------------------


def _code(functions: list, modules: set[str]) -> Iterator[str]:
    """The bytecode of these functions and of those that they call, with the values that it may read from around it;
    `modules` gets the names of the modules that they come from or use."""
    seen = set()
    for function in functions:  # which grows on the way
        if id(function) in seen:
            continue
        seen.add(id(function))
        functions += [function.__wrapped__] if hasattr(function, "__wrapped__") else []  # under a decorator
        modules.add(function.__module__)
        function = getattr(function, "__func__", function)
        if isinstance(function, type) and not hasattr(sys.modules.get(function.__module__), "__file__"):
            functions += [getattr(part, "__func__", part) for part in vars(function).values() if _has_code(part)]
        elif isinstance(function, FunctionType):
            yield from _function(function, functions, modules)


def _has_code(part) -> bool:
    return isinstance(getattr(part, "__func__", part), FunctionType)


def _function(function: FunctionType, functions: list, modules: set[str]) -> Iterator[str]:
    home, file = function.__globals__.get("__name__", ""), function.__globals__.get("__file__")
    enclosed = _enclosed(function)
    if file and _source(home, file) is None:  # of an installed package: a decorator, say
        functions += filter(_is_function, enclosed.values())
        return
    yield repr(_instructions(function.__code__, function.__doc__))
    yield from _value([function.__defaults__, function.__kwdefaults__], functions)
    names, imported = _reads(function.__code__)
    modules |= imported
    modules.add(home)
    known = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, value in sorted(enclosed.items()):
        yield from _around(function, name, value, functions, modules)
    for name, value in sorted(known.items()) if home.partition(".")[0] != "prefcore" else ():
        if file and isinstance(value, VALUES):  # a constant of the user's file
            yield from _value(value, functions)
        else:
            yield from _around(function, name, value, functions, modules)


def _around(function: FunctionType, name: str, value, functions: list, modules: set[str]) -> Iterator[str]:
    """What a function may read from around it: modules, functions, and objects of prefcore that are no data."""
    if isinstance(value, ModuleType):
        modules.add(value.__name__)
    elif _is_function(value) or isinstance(value, partial):
        yield from _value(value, functions)
    elif type(value).__module__.partition(".")[0] == "prefcore" and not isinstance(value, VALUES):
        functions.append(type(value))
    else:
        raise ValueError(
            f"{function.__name__} reads {name} (a {type(value).__name__}) from around it, where nobody sees it change: "
            "hand it over in the settings, and let the function take it as an argument"
        )


def _enclosed(function: FunctionType) -> dict:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a function inside a function, before its name is bound
            continue
    return found


def _instructions(code: CodeType, docstring: str | None = None) -> list:
    constants = [_constant(value) for value in code.co_consts if value is not None and value != docstring]
    return [code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants]


def _constant(value):
    if isinstance(value, CodeType):
        return _instructions(value)
    return list(_value(value, [])) if isinstance(value, VALUES) else repr(value)


def _reads(code: CodeType) -> tuple[set[str], set[str]]:
    """(global names, modules) that the bytecode reads, that of functions and comprehensions inside it too."""
    names, modules, package = set(), set(), ""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            package = step.argval
            modules.add(package)
        elif step.opname == "IMPORT_FROM":
            modules.add(f"{package}.{step.argval}")
        elif isinstance(step.argval, CodeType):
            inner = _reads(step.argval)
            names, modules = names | inner[0], modules | inner[1]
    return names, modules


# --- files ----------------------------------------------------------------------------------------------------------


def _sources(modules: set[str]) -> Iterator[str]:
    """The files of these modules and of all that they import, as trees without comments and docstrings."""
    trees, waiting = {}, list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in trees else _source(name, getattr(sys.modules.get(name), "__file__", None))
        if path is None:
            continue
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(trees[name]):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = resolve_name("." * node.level + (node.module or ""), package)
                waiting += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    for name in sorted(trees):
        yield name + ast.dump(trees[name])


def _source(name: str, file: str | None) -> Path | None:
    """The source of a module of prefcore or of the user; None for installed packages, and for what is no module."""
    if name.partition(".")[0] == "prefcore":
        path = ROOT.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return path if path.exists() else None
    if not file or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    installed = path.is_relative_to(LIBRARY) or {"site-packages", "dist-packages"} & set(path.parts)
    return None if installed else path
