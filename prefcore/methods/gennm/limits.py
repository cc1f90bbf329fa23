"""What a model was trained to read and write: limits that lie beside its weights and go where it goes.

Whoever uses a model takes them from there, not from the profile that params.yaml happens to name: a model that was
trained on functions of up to 512 tokens reads as many of a longer one at a time.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from prefcore.data.types import Parameters
from prefcore.engine import ranks

FILE = "limits.json"


class Limits(NamedTuple):
    """Numbers of tokens under the model's own tokenizer, but for the last."""

    max_code: int  # of a function; training saw no longer one
    max_prompt: int  # of code and hints
    max_name: int  # of a name, its end among them
    rounds: int  # of propagation, with which the model was evaluated


LEAST = Limits(max_code=1, max_prompt=1, max_name=1, rounds=0)


def save(folder: str | Path, p: Parameters, trained: Mapping) -> Path:
    """Write the limits of these parameters into a model's folder; `trained` says on what and how, for a reader."""
    content = {"limits": _checked(p._asdict(), "parameters")._asdict(), "trained": dict(trained)}
    path = Path(folder) / FILE
    if ranks.is_first():
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(folder: str | Path) -> Limits:
    """The limits of the model in this folder; FileNotFoundError or ValueError where it has none that can be used."""
    path, names = Path(folder) / FILE, ", ".join(Limits._fields)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, and nothing else says how much this model can read at once: train it with "
            f"`dvc repro gennm`, copy the file from where it was trained, or give all of {names} with --set"
        )
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8"))["limits"], str(path))
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f'{path} must hold {{"limits": {{...}}}} with numbers for {names}') from None


def restore(p: Parameters, folder: str | Path, by_hand: Collection[str]) -> Parameters:
    """The parameters with the limits of the model in `folder`; those named in `by_hand` stay as they are."""
    kept = {name: value for name, value in p._asdict().items() if name in Limits._fields and name in by_hand}
    if len(kept) < len(Limits._fields):
        kept = load(folder)._asdict() | kept
    return p._replace(**_checked(kept, "--set")._asdict())


def _checked(values: Mapping, where: str) -> Limits:
    found = Limits(*(values[name] for name in Limits._fields))
    for name, value, least in zip(Limits._fields, found, LEAST, strict=True):
        if type(value) is not int or value < least:
            raise ValueError(f"{where}: {name} is {value!r}; it must be a whole number of at least {least}")
    return found
