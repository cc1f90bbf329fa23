"""From params.yaml to the values of one notebook: chosen by the command line, read in the notebook as one object."""

import os
from collections.abc import Mapping
from pathlib import Path

from prefcore.data.types import Parameters, freeze
from prefcore.lab import notebooks


def choose(path: str | Path, params: Mapping) -> dict:
    """notebooks.merge_parameters for this notebook, less those of `common` that its parameters cell does not name.

    A chapter that trains no adapter needs no rank. What its own blocks hold must all be there.
    """
    merged = notebooks.merge_parameters(params, Path(path).stem)
    spare = set(params["common"] or {}) - set(notebooks.parameters(path))
    return {name: value for name, value in merged.items() if name not in spare}


def read(chapter: str, namespace: Mapping) -> Parameters:
    """The values that a notebook's parameters cell has bound, as one frozen object: p.beta.

    chapter names the file in notebooks/, whose parameters cell says which names are parameters; the values are those
    of `namespace`, where papermill or a reader may have changed them. Changes to the repository's top, from where all
    paths are told, as Jupyter starts a kernel in the notebook's folder.
    """
    work_at_top()
    names = notebooks.parameters(Path("notebooks") / f"{chapter}.ipynb")
    if missing := [name for name in names if name not in namespace]:
        raise NameError(f"{', '.join(missing)} is not set: run the parameters cell of {chapter}.ipynb first")
    return freeze({name: namespace[name] for name in names})


def work_at_top() -> None:
    """Change to the nearest folder above that holds params.yaml; stay where there is none."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "params.yaml").exists():
            os.chdir(folder)
            return
