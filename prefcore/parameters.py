"""From params.yaml to the values of one notebook: what the command line and the toy world pass to papermill."""

from collections.abc import Mapping
from pathlib import Path

from prefcore import notebooks


def choose(path: str | Path, params: Mapping) -> dict:
    """notebooks.merge_parameters for this notebook, less those of `common` that its parameters cell does not name.

    A chapter that trains no adapter needs no rank. What its own blocks hold must all be there.
    """
    merged = notebooks.merge_parameters(params, Path(path).stem)
    spare = set(params["common"] or {}) - set(notebooks.parameters(path))
    return {name: value for name, value in merged.items() if name not in spare}
