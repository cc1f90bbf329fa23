"""A function of the package by its name, imported only when it is needed, as no command needs all modules."""

import inspect
from collections.abc import Callable
from importlib import import_module


def function(name: str) -> Callable:
    """prefcore.<module>.<function>. ValueError where there is none."""
    module, _, last = f"prefcore.{name}".rpartition(".")
    try:
        found = getattr(import_module(module), last)
    except (ImportError, AttributeError):
        found = None
    if not inspect.isfunction(found):
        raise ValueError(f"there is no function prefcore.{name}; dvc.yaml has the names of all stages")
    return found
