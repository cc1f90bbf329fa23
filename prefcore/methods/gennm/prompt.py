"""What the model reads and writes: a function, hints from its neighbours, and the identifiers that want names.

Departs from the paper: the answer is `a0: head, v0: fresh` instead of a Python dictionary, which takes twice the
tokens; and of the functions only the one at hand (`f0`) is named, so that each has one name in the whole binary.
"""

import re
from collections.abc import Mapping, Sequence

from prefcore.methods.gennm.corpus import KEYWORDS, Item

ANSWER = re.compile(r"([avf]\d+): ([A-Za-z_]\w*)")
LONGEST = 40  # letters of a name


def wanted(item: Item, most: int) -> list[str]:
    """Identifiers to name, at most so many: parameters and variables in order of their places in the code, then f0."""
    found = dict.fromkeys(re.findall(r"\b[av]\d+\b", item.code))
    known = [name for name in found if name in item.names] if item.names else list(found)
    return [*known[: most - 1], "f0"]


def write(item: Item, ids: Sequence[str], hints: Sequence[str] = ()) -> str:
    """The question: code, hints (none in the first round), identifiers."""
    context = "".join(f"// {hint}\n" for hint in hints)
    return f"{item.code}\n{context}Q: {', '.join(ids)}\nA:"


def fit(item: Item, ids: Sequence[str], hints: Sequence[str], tokenizer, most: int) -> str:
    """The question in at most `most` tokens: the last hints go first, then the last lines of the code."""
    hints, lines = list(hints), item.code.splitlines()
    while len(tokenizer(text := write(item._replace(code="\n".join(lines)), ids, hints))["input_ids"]) > most:
        if not hints and len(lines) <= 1:
            break
        (hints or lines).pop()
    return text


def answer(names: Mapping[str, str], ids: Sequence[str]) -> str:
    """The response that names these identifiers, in this order."""
    return " " + ", ".join(f"{id}: {names[id]}" for id in ids)


def true_names(item: Item) -> dict[str, str]:
    """Placeholder -> true name, that of the function among them."""
    return {**item.names, "f0": item.function}


def parse(text: str, ids: Sequence[str]) -> dict[str, str]:
    """Identifier -> name, of those pairs in the text that keep to the form and were asked for; the first one counts.

    Nothing is evaluated. A name that is a keyword, a placeholder or longer than LONGEST letters is no name.
    """
    found: dict[str, str] = {}
    for part in text.strip().split(", "):
        match = ANSWER.fullmatch(part.strip())
        if match and match[1] in ids and match[1] not in found and usable(match[2]):
            found[match[1]] = match[2]
    return found


def usable(name: str) -> bool:
    """Whether a name can stand in C code and says something."""
    return len(name) <= LONGEST and name not in KEYWORDS and not re.fullmatch(r"[avfgL]\d+|_*", name)


def signature(item: Item) -> str:
    """The function's first line."""
    return re.split(r"\s*\{", item.code, maxsplit=1)[0].strip()

