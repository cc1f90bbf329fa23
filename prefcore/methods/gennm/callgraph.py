"""Who calls whom, and what a function's neighbours show of it (arXiv 2306.02546, eqs. 2 and 3).

Each caller gives its call expressions, each callee its first line, both with the names that are known of *them*: true
names in training, predictions at inference. Names then travel: predict, give hints, predict again.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from prefcore.methods.gennm.corpus import Item, rename
from prefcore.methods.gennm.prompt import signature

CALLEES, CALL_SITES = 4, 5  # hints of each kind
LONGEST = 120  # letters of a hint
Names = Mapping[str, Mapping[str, str]]  # key of a function -> placeholder -> name


def callers(items: Sequence[Item]) -> dict[str, list[tuple[Item, str]]]:
    """Key of a function -> (caller, the caller's placeholder for it), callers in the order of `items`."""
    known, found = {item.key for item in items}, {}
    for item in items:
        for placeholder, key in item.calls.items():
            if key in known:
                found.setdefault(key, []).append((item, placeholder))
    return found


def call_sites(code: str, function: str) -> Iterator[str]:
    """Call expressions of a function in the code, up to their closing parenthesis; its own definition is none."""
    body = code.find("{")
    for match in re.finditer(rf"\b{re.escape(function)}\(", code):
        depth, end = 0, match.start()
        for end in range(match.end() - 1, len(code)):
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            if depth == 0:
                break
        if match.start() > body and depth == 0:
            yield re.sub(r"\s+", " ", code[match.start() : end + 1])


def known_names(item: Item, names: Names) -> dict[str, str]:
    """What is known of a function's identifiers: its own names, and its callees' names of themselves."""
    theirs = {placeholder: names[key]["f0"] for placeholder, key in item.calls.items() if "f0" in names.get(key, {})}
    return {**theirs, **names.get(item.key, {})}


def informed(item: Item, names: Names) -> bool:
    """Whether a function knows enough of itself to give hints (the released code's gate).

    It has more than one string of over 20 letters, or at most 30 % of its callees are nameless.
    """
    strings = [s for s in re.findall(r"\"((?:\\.|[^\"\\\n])*)\"", item.code) if len(s) > 20]
    return len(strings) > 1 or nameless_share(item, names) <= 0.3


def nameless_share(item: Item, names: Names) -> float:
    """Share of the functions called in the code that have no name; 0 where nothing is called."""
    called = set(re.findall(r"\b([A-Za-z_]\w*)\(", item.code.partition("{")[2])) - {"if", "for", "while", "switch",
                                                                                    "return", "sizeof"}  # fmt: skip
    known = known_names(item, names)
    unknown = [name for name in called if re.fullmatch(r"f\d+", name) and name not in known]
    return len(unknown) / len(called) if called else 0.0


def hints(item: Item, items: Mapping[str, Item], called_by: Mapping, names: Names) -> list[str]:
    """Lines of context: first lines of callees, then call expressions of callers, with the names known of them."""
    out = []
    for key in dict.fromkeys(item.calls.values()):
        if key in items and key != item.key and names.get(key) and informed(items[key], names):
            out.append("calls " + rename(signature(items[key]), known_names(items[key], names))[:LONGEST])
    sites = []
    for caller, placeholder in called_by.get(item.key, []):
        if caller.key != item.key and names.get(caller.key) and informed(caller, names):
            known = {**known_names(caller, names), placeholder: "f0"}  # its own name is the question
            sites += ["called " + rename(site, known)[:LONGEST] for site in call_sites(caller.code, placeholder)]
    return out[:CALLEES] + list(dict.fromkeys(sites))[:CALL_SITES]


def all_hints(items: Sequence[Item], names: Names, everything: Sequence[Item] = ()) -> list[list[str]]:
    """The hints of each function by what is known of `everything` around it (these functions, where none are given)."""
    everything = everything or items
    by_key, called_by = {item.key: item for item in everything}, callers(everything)
    return [hints(item, by_key, called_by, names) for item in items]


def near(items: Sequence[Item], everything: Sequence[Item], rounds: int) -> list[Item]:
    """These functions and all that can change their names in so many rounds, in the order of `everything`.

    In each round a name travels two calls at most: from a function to a neighbour, whose hint shows it, to the next.
    """
    called_by, reached = callers(everything), {item.key for item in items}
    by_key = {item.key: item for item in everything}
    for _ in range(2 * rounds):
        around = [by_key[key] for key in reached if key in by_key]
        reached |= {key for item in around for key in item.calls.values()}
        reached |= {caller.key for item in around for caller, _ in called_by.get(item.key, [])}
    return [item for item in everything if item.key in reached]


def propagate(items: Sequence[Item], predict: Callable, rounds: int) -> list[dict[str, dict[str, str]]]:
    """Names after each round: the first without hints, each later one with hints from the names before it.

    predict(items, hints) -> a mapping placeholder -> name for each item. Only functions whose hints have changed are
    predicted again; the loop ends early where none has.
    """
    before: list[list[str]] = [[] for _ in items]
    names = dict(zip((item.key for item in items), predict(items, before), strict=True))
    out = [names]
    for _ in range(rounds):
        now = all_hints(items, names)
        changed = [i for i, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
        if not changed:
            break
        found = predict([items[i] for i in changed], [now[i] for i in changed])
        names = names | {items[i].key: new for i, new in zip(changed, found, strict=True)}
        before = now
        out.append(names)
    return out
