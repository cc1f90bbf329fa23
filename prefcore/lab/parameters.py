"""From params.yaml to the values of one notebook: chosen by the command line, read in the notebook as one object.

Reads notebooks as the JSON that they are: every kernel imports this, and needs nothing that runs or checks notebooks.
"""

import ast
import json
import os
from collections.abc import Mapping
from pathlib import Path

from prefcore.data.types import Parameters, freeze

PAGES = ("overview", "index", "doctor")  # notebooks that test no paper


def merge(params: Mapping, method: str) -> dict:
    """Parameters of a notebook from the content of params.yaml: profile, then common, methods.<m>, <profile>.<m>.

    Later blocks win. A block may be empty but not missing (ValueError).
    """
    profile = params.get("profile")
    merged = {"profile": profile}
    for path in (("common",), ("methods", method), (profile, method)):
        block = params
        for key in path:
            if not isinstance(block, Mapping) or key not in block:
                raise ValueError(f"params.yaml has no block {'.'.join(map(str, path))}, which {method} needs")
            block = block[key]
        merged |= block or {}
    return merged


def settings_of(params: Mapping, profile: str, method: str) -> dict:
    """What a block of settings (hub) says of a method, as if each were given by --set; nothing without a name.

    ValueError for a block that is none, or says nothing of this method.
    """
    if not profile:
        return {}
    blocks = params.get(profile) if profile not in ("common", "methods", "profile", "launch") else None
    if not isinstance(blocks, Mapping) or "shared" in blocks:
        raise ValueError(f"--profile {profile}: it holds no settings for `run`; hub does")
    if method not in blocks:
        raise ValueError(f"--profile {profile}: it has no settings for {method}; it has {', '.join(blocks)}")
    return dict(blocks[method])


def chapters() -> list[str]:
    """The notebooks of the current folder that test a paper, DPO first."""
    found = {path.stem for path in Path("notebooks").glob("*.ipynb")} - set(PAGES)
    return sorted(found, key=lambda name: (name != "dpo", name))


def defaults(path: str | Path) -> dict:
    """Names and values of the notebook's cell tagged "parameters".

    Raises ValueError if there is not exactly one, and with its line for what is not `name = literal`.
    """
    cells = [cell for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"] if is_parameters(cell)]
    if len(cells) != 1:
        raise ValueError(f'{path}: {len(cells)} cells are tagged "parameters"; there must be one')
    values = {}
    for node in ast.parse("".join(cells[0]["source"])).body:
        where = f"{path}: parameters, line {node.lineno}: {ast.unparse(node)}"
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise ValueError(f"{where} is not `name = literal`")
        name = node.targets[0].id
        if name in values:
            raise ValueError(f"{where} sets {name} a second time")
        try:
            values[name] = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"{where} is not a literal") from None
    return values


def is_parameters(cell: Mapping) -> bool:
    """Whether this is the cell that papermill replaces."""
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])


def choose(path: str | Path, params: Mapping) -> dict:
    """What `merge` gives for this notebook, less those of `common` that its parameters cell does not name.

    A chapter that trains no adapter needs no rank. What its own blocks hold must all be there.
    """
    merged = merge(params, Path(path).stem)
    spare = set(params["common"] or {}) - set(defaults(path))
    return {name: value for name, value in merged.items() if name not in spare}


def check(path: str | Path, values: Mapping) -> None:
    """Raises ValueError for a name that the parameters cell lacks, TypeError for a value of another kind."""
    known = defaults(path)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{path} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    for name, value in values.items():
        default = known[name]
        kinds = (int, float) if type(default) is float else (type(default),)
        if default is not None and type(value) not in kinds:
            hint = "; YAML reads 1e-6 as a string, write 1.0e-6" if isinstance(value, str) else ""
            raise TypeError(
                f"{path}: {name} is {value!r} ({type(value).__name__}), "
                f"but the notebook has {default!r} ({type(default).__name__}){hint}"
            )


def read(chapter: str, namespace: Mapping) -> Parameters:
    """The values that a notebook's parameters cell has bound, as one frozen object: p.beta.

    chapter names the file in notebooks/, whose parameters cell says which names are parameters; the values are those
    of `namespace`, where papermill or a reader may have changed them; p.chapter is its name. Changes to the
    repository's top, from where all paths are told, as Jupyter starts a kernel in the notebook's folder.
    """
    work_at_top()
    names = defaults(Path("notebooks") / f"{chapter}.ipynb")
    if missing := [name for name in names if name not in namespace]:
        raise NameError(f"{', '.join(missing)} is not set: run the parameters cell of {chapter}.ipynb first")
    return freeze({"chapter": chapter} | {name: namespace[name] for name in names})


def work_at_top() -> None:
    """Change to the nearest folder above that holds params.yaml; stay where there is none."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "params.yaml").exists():
            os.chdir(folder)
            return
