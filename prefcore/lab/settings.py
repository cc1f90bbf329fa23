"""`--set key=value`: a value as the kind that its parameter has, and never as what YAML would make of the letters.

YAML itself cuts a text at ` #`, takes `no` for false, 010 for 8 and 1e-3 for a text.
"""

import re
from collections.abc import Mapping, Sequence

import yaml

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
WORDS = {"true": True, "false": False}
COUNTS = ("epochs", "batch_size", "max_prompt", "max_completion", "max_new_tokens", "lora_rank", "threads", "seeds")
FIXED = {"profile": "your own data have a profile of their own; name the run with --name", "data": "use --data",
         "drop_bad": "use --drop-bad"}  # fmt: skip


def read(items: Sequence[str], values: Mapping, known: Mapping) -> dict:
    """The values that `key=value` items give, by key. values: those in force; known: those of a larger profile, as far
    as there are any, which show what a list may hold where that of `values` is empty.

    Raises ValueError with the item for a key that is unknown or not to be set, a list that is none, an element of
    another kind, and a number that no run could have.
    """
    found = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or key not in values:
            raise ValueError(f"--set {item}: give key=value with one of {', '.join(sorted(values))}")
        if key in found:
            raise ValueError(f"--set {item}: {key} is set twice; give one value")
        if key in FIXED:
            raise ValueError(f"--set {item}: {key} is not set here: {FIXED[key]}")
        try:
            found[key] = _value(text, values[key], known.get(key))
        except ValueError as error:
            raise ValueError(f"--set {item}: {error}") from None
        number = isinstance(found[key], int | float) and not isinstance(found[key], bool)
        if number and (found[key] < 0 or key in COUNTS and found[key] == 0):
            raise ValueError(f"--set {item}: {key} must be above 0" + (" or 0" if key not in COUNTS else ""))
    return found


def columns(text: str) -> dict[str, str]:
    """What a reader calls a column -> what the data call it, from --columns NAME=COLUMN,..."""
    found = {}
    for item in text.split(",") if text else ():
        name, equals, own = (part.strip() for part in item.partition("="))
        if not (name and equals and own):
            raise ValueError(f"--columns {item}: give NAME=COLUMN, as chosen=best")
        found[name] = own
    return found


def _value(text: str, like, known):
    """A text as a value like `like`; where it is not of that kind, as what it looks like (and refused later)."""
    if isinstance(like, str):
        return "" if text in ("''", '""') else text
    if isinstance(like, list):
        return _items(text, like, known)
    if isinstance(like, Mapping):
        return _entries(text, like)
    return _scalar(text.strip())


def _scalar(text: str):
    if text in WORDS:
        return WORDS[text]
    if not NUMBER.fullmatch(text):
        return text
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _items(text: str, like: list, known) -> list:
    node = _composed(text)
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError(f"give a list, as [{text}]")
    found = [_plain(one) for one in node.value]
    allowed = [*like, *(known or [])]
    if allowed and all(isinstance(one, str) for one in allowed):
        found = [one.value if isinstance(one, yaml.ScalarNode) else _plain(one) for one in node.value]
    for one in found:
        kinds = (int, float) if allowed and isinstance(allowed[0], float) else tuple({type(a) for a in allowed})
        if allowed and (not isinstance(one, kinds) or isinstance(one, bool) is not isinstance(allowed[0], bool)):
            raise ValueError(f"{one!r} is of another kind than {allowed[0]!r}; give a list of such")
    return found


def _entries(text: str, like: Mapping) -> dict:
    node = _composed(text)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"give names with values, as {{{next(iter(like), 'name')}: ...}}")
    found = _plain(node)
    for name, one in found.items():
        if like and name not in like:
            raise ValueError(f"there is no {name}; it has {', '.join(like)}")
        if like and isinstance(like[name], int | float) and not isinstance(one, int | float):
            raise ValueError(f"{name} is {one!r}, which is no number")
    return {**like, **found}


def _composed(text: str):
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"cannot be read ({' '.join(str(error).split())})") from None


def _plain(node):
    """What a piece of YAML says, its numbers in decimal and its words as they are."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(one) for one in node.value]
    if isinstance(node, yaml.MappingNode):
        return {_plain(name): _plain(one) for name, one in node.value}
    return node.value if node.style in ("'", '"') else _scalar(node.value)
