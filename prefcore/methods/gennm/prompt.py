"""What the model reads and writes: a function is the prompt, and each of its identifiers a branch of it, `v3: count`.

Departs from the paper, which asks for all names in one answer: here each name is an answer of its own, so that no form
can be broken, no number of identifiers is too large, and every name has a probability. Of the functions in the code
only the one at hand (`f0`) is named, so that each has one name in the whole binary.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from prefcore.methods.gennm.corpus import KEYWORDS, Item

LONGEST = 40  # letters of a name
TOGETHER = 8  # identifiers that share a prompt where the function does not fit into one


def nameable(item: Item) -> list[str]:
    """All parameters and variables of a function in order of their places in the code, then the function itself."""
    return [*dict.fromkeys(re.findall(r"\b[av]\d+\b", item.code)), "f0"]


def true_names(item: Item) -> dict[str, str]:
    """Placeholder -> true name of all that has one, the function among them."""
    return {**{id: name for id, name in item.names.items() if usable(name)}, "f0": item.function}


def write(item: Item, hints: Sequence[str] = ()) -> str:
    """The prompt: code, then hints (none in the first round)."""
    return f"{item.code}\n" + "".join(f"// {hint}\n" for hint in hints)


def parts(item: Item, ids: Sequence[str], tokenizer, most: int) -> list[list[str]]:
    """The identifiers by prompt: all in one where the function fits `most` tokens, else TOGETHER in each."""
    if not ids or count(write(item), tokenizer) <= most:
        return [list(ids)] if ids else []
    return [list(ids[start : start + TOGETHER]) for start in range(0, len(ids), TOGETHER)]


def fit(item: Item, ids: Sequence[str], hints: Sequence[str], tokenizer, most: int) -> str:
    """The prompt in at most `most` tokens: the last hints go first, then code, from its end, but for its first line.

    Of the code, lines without any of these identifiers go first, and last of all the first line of each identifier.
    """
    lines = item.code.splitlines()
    found = [set(re.findall(r"\w+", line)) & set(ids) for line in lines]
    firsts = {next((i for i, inside in enumerate(found) if id in inside), 0) for id in ids}
    going = sorted(range(1, len(lines)), key=lambda i: (i in firsts, bool(found[i]), -i))

    def without(gone: int) -> str:
        left = set(range(len(lines))) - set(going[: max(0, gone - len(hints))])
        code = "\n".join(lines[i] for i in sorted(left))
        return write(item._replace(code=code), hints[: max(0, len(hints) - gone)])

    steps = range(len(hints) + len(going))  # the last resort, all of them gone, is not measured
    return without(bisect_left(steps, True, key=lambda gone: count(without(gone), tokenizer) <= most))


def count(text: str, tokenizer) -> int:
    """Tokens of a text."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def opening(id: str) -> str:
    """How a branch begins: which identifier it names. The name follows after a space."""
    return f"{id}:"


def read(text: str) -> str:
    """The name that a branch spells, or "" where it spells none: a keyword, a placeholder, more than one word."""
    name = text.strip()
    return name if usable(name) else ""


def usable(name: str) -> bool:
    """Whether a name can stand in C code and says something."""
    return (re.fullmatch(r"[A-Za-z_]\w*", name) is not None and len(name) <= LONGEST and name not in KEYWORDS
            and not re.fullmatch(r"[avfgL]\d+|_*", name))  # fmt: skip


def signature(item: Item) -> str:
    """The function's first line."""
    return re.split(r"\s*\{", item.code, maxsplit=1)[0].strip()


def rename_distinct(names: Mapping[str, str]) -> dict[str, str]:
    """The names as they can stand together in one function: of equal ones all but the first get a number."""
    out: dict[str, str] = {}
    for id, name in names.items():
        free = (name if number == 1 else f"{name}_{number}" for number in range(1, len(names) + 2))
        out[id] = next(candidate for candidate in free if candidate not in out.values())
    return out
