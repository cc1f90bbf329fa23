"""What the model reads and writes: a function, hints from its neighbours, and the identifiers that want names.

Departs from the paper: the answer is `a0: head, v0: fresh` instead of a Python dictionary, which takes twice the
tokens; and of the functions only the one at hand (`f0`) is named, so that each has one name in the whole binary.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from prefcore.methods.gennm.corpus import KEYWORDS, Item

ANSWER = re.compile(r"([avf]\d+): ([A-Za-z_]\w*)")
LONGEST = 40  # letters of a name


def nameable(item: Item) -> list[str]:
    """All parameters and variables of a function, in order of their places in the code."""
    return list(dict.fromkeys(re.findall(r"\b[av]\d+\b", item.code)))


def wanted(item: Item, most: int) -> list[str]:
    """What one question of training or of the test asks for: the first `most` - 1 that have a true name, then f0.

    Where no true name is known, the first of all.
    """
    known = [name for name in nameable(item) if name in item.names] if item.names else nameable(item)
    return [*known[: most - 1], "f0"]


def parts(item: Item, most: int) -> list[list[str]]:
    """All that can be named in a function, in questions of at most `most` (2 or more), each as in training: f0 last."""
    found = nameable(item)
    return [[*found[start : start + most - 1], "f0"] for start in range(0, max(len(found), 1), most - 1)]


def write_question(item: Item, ids: Sequence[str], hints: Sequence[str] = ()) -> str:
    """The question: code, hints (none in the first round), identifiers."""
    context = "".join(f"// {hint}\n" for hint in hints)
    return f"{item.code}\n{context}Q: {', '.join(ids)}\nA:"


def fit(item: Item, ids: Sequence[str], hints: Sequence[str], tokenizer, most: int) -> str:
    """The question in at most `most` tokens: the last hints go first, then code, from its end, but for its first line.

    Of the code, lines without any of these identifiers go first, and last of all the first line of each identifier.
    """
    lines = item.code.splitlines()
    found = [set(re.findall(r"\w+", line)) & set(ids) for line in lines]
    firsts = {next((i for i, inside in enumerate(found) if id in inside), 0) for id in ids}
    going = sorted(range(1, len(lines)), key=lambda i: (i in firsts, bool(found[i]), -i))

    def without(gone: int) -> str:
        left = set(range(len(lines))) - set(going[: max(0, gone - len(hints))])
        code = "\n".join(lines[i] for i in sorted(left))
        return write_question(item._replace(code=code), ids, hints[: max(0, len(hints) - gone)])

    steps = range(len(hints) + len(going))  # the last resort, all of them gone, is not measured
    return without(bisect_left(steps, True, key=lambda gone: len(tokenizer(without(gone))["input_ids"]) <= most))


def write_answer(names: Mapping[str, str], ids: Sequence[str]) -> str:
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
