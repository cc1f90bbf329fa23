"""The rules that make decompiled functions a fair data set: placeholders, splits, near duplicates, frequencies.

GenNm (arXiv 2306.02546, V-A): a binary stays only if more than 70 % of its functions are new; the split is
by project; test functions more than 90 % similar to a training one are set aside.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz import fuzz, process

NEW_SHARE = 0.7  # of a binary's function names
SIMILAR = 90.0  # rapidfuzz ratio, in percent
TRIVIAL = re.compile(r"v\d+|a\d+|[\d_]+|[ijk]|ret")  # true names that say nothing
KEYWORDS = frozenset("""auto break case char const continue default do double else enum extern float for goto if int
long register return short signed sizeof static struct switch typedef union unsigned void
volatile while""".split())  # fmt: skip
_START = re.compile(r"^[A-Za-z_][^\n;={}]*\([^\n]*\)\s*\n?\{", re.M)
_LOCAL = re.compile(  # a type of one word or more, a name, and what an array has; never `return x;` or `goto end;`
    r"^[ \t]+(?!(?:return|goto|case|else|break|continue|do|throw|delete)\b)[A-Za-z_](?:[\w \t*]|::)*?[ \t*]"
    r"([A-Za-z_]\w*)[ \t]*(?:\[\w*\])*(?:[ \t]*=[^=;\n][^;\n]*)?;", re.M
)  # fmt: skip
_PLACE = re.compile(r"@<[^>\n]*>")  # IDA's registers: int __usercall f@<eax>(int a1@<edi>)
_ATTRIBUTE = re.compile(r"__(?:attribute__|declspec)\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*")


class Item(NamedTuple):
    """One function as models see it. `names`: placeholder -> true name of a variable; the function itself is `f0`.

    `calls`: placeholder (f1, f2, ...) -> key of a function of the same binary; `key` is this function's own.
    """

    key: str
    project: str
    binary: str
    function: str
    code: str
    names: dict[str, str]
    calls: dict[str, str]
    renamed: dict[str, str]  # the decompiler's identifier -> placeholder


class Part(NamedTuple):
    """Functions of one use. `asked` are those that are learnt from or scored; all of `everything` give them context."""

    asked: list[Item]
    everything: list[Item]


class Split(NamedTuple):
    """Functions by use, each project in one of train, validation and test.

    `leaky`: those of the test that are too similar to a training function, `optimised`: those of test projects at -O2.
    """

    train: Part
    validation: Part
    test: Part
    leaky: Part
    optimised: Part


def normalise(row: Mapping) -> Item:
    """A decompiled function with placeholders: a0, ... for parameters, v0, ... for variables, f0, ... and g0, ....

    row: `function`, `code` and `names` (identifier -> true name), and where known `project`, `binary`, `functions`
    (`sub_...` -> true name) and `image` (addresses of the binary). Comments, type definitions and addresses go.
    """
    code = strip_comments(row["code"])
    start = _START.search(code)
    code = code[start.start() :] if start else code
    code = re.sub(r"::0x[0-9a-fA-F]+::", "", code).strip()
    code = _ATTRIBUTE.sub("", _PLACE.sub("", code))
    own = _own_name(code)
    order = [*parameters(code), *_LOCAL.findall(code), *row.get("names", {})]
    arguments = set(parameters(code))
    mapping: dict[str, str] = {own: "f0"} if own else {}
    counts: Counter = Counter()
    for name in dict.fromkeys(order):
        if name not in mapping and name not in KEYWORDS:
            kind = "a" if name in arguments else "v"
            mapping[name] = f"{kind}{counts[kind]}"
            counts[kind] += 1
    for pattern, kind in (
        (r"\b(?:sub|FUN)_[0-9a-fA-F]+\b", "f"), (r"\b(?:g|DAT)_[0-9a-fA-F]+\b", "g"), (r"\b(?:LABEL|LAB)_\w+", "L"),
    ):  # fmt: skip
        for name in dict.fromkeys(re.findall(pattern, code)):
            if name not in mapping:
                mapping[name] = f"{kind}{counts[kind] + (kind == 'f')}"
                counts[kind] += 1
    code = rename(code, mapping)
    if row.get("image"):
        code = hide_addresses(code, *row["image"])
    code = re.sub(r"^( {4})+", lambda found: " " * (len(found[0]) // 4), code, flags=re.M)
    binary = row.get("binary") or row.get("project") or ""
    names = {mapping[name]: true for name, true in row.get("names", {}).items()
             if name in mapping and not TRIVIAL.fullmatch(true) and true != name}  # fmt: skip
    calls = {mapping[name]: f"{binary}:{name}" for name in row.get("functions", {}) if mapping.get(name, "f0") != "f0"}
    return Item(f"{binary}:{own}", row.get("project", ""), binary, row["function"], re.sub(r"\n\s*\n", "\n", code),
                names, calls, mapping)  # fmt: skip


def strip_comments(code: str) -> str:
    """The code without `// ...` and `/* ... */`, which hold addresses and places on the stack; strings stay."""
    pattern = r"(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|//[^\n]*|/\*.*?\*/"
    return re.sub(r"[ \t]+$", "", re.sub(pattern, lambda m: m[1] or "", code, flags=re.S), flags=re.M)


def rename(code: str, names: Mapping[str, str]) -> str:
    """The code with whole identifiers replaced, all at once; text in quotes and field names after . and -> stay."""
    pattern = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|(?:->|\.)\s*[A-Za-z_]\w*|[A-Za-z_]\w*"
    return re.sub(pattern, lambda found: names.get(found[0], found[0]), code)


def hide_addresses(code: str, low: int, high: int) -> str:
    """The code with every number that may be an address of the binary replaced by ADDRESS."""

    def one(found):
        return "ADDRESS" if low <= int(found[0], 0) <= high else found[0]

    return re.sub(r"\b(?:0x[0-9a-fA-F]+|[1-9]\d{5,})\b", one, code)


def _own_name(code: str) -> str:
    found = (head[1] for head in re.finditer(r"([A-Za-z_]\w*)\s*\(", code))
    return next((name for name in found if name not in KEYWORDS), "")


def parameters(code: str) -> list[str]:
    """Names of the parameters in the function's first line."""
    head = re.search(r"\(([^{]*)\)\s*\{", code)
    found = [re.findall(r"[A-Za-z_]\w*", part.split("[")[0]) for part in (head[1].split(",") if head else [])]
    return [words[-1] for words in found if len(words) > 1 and words[-1] not in KEYWORDS]


def thin(items: Sequence[Item], order: Sequence[str]) -> tuple[list[Item], list[str]]:
    """(functions of binaries that are new enough, binaries left out), reading binaries in this order.

    A binary stays if more than NEW_SHARE of its function names (main excluded) are in no binary that stayed before.
    """
    seen: set[str] = set()
    kept, out = [], []
    for binary in order:
        part = [item for item in items if item.binary == binary]
        names = {item.function for item in part} - {"main"}
        if names and len(names - seen) > NEW_SHARE * len(names):
            kept += part
            seen |= names
        else:
            out.append(binary)
    return kept, out


def split(items: Sequence[Item], parts: Mapping[str, Sequence[str]], eligible: Callable[[Item], bool]) -> Split:
    """Whole projects to the parts train, validation and test, as `parts` names them; those that it does not name go.

    Binaries that are mostly not new go first, those of the training projects being read before others. Then near
    duplicates of training functions leave validation and test. Only eligible functions are asked for.
    """
    use = {project: part for part, projects in parts.items() for project in projects}
    if missing := set(use) - {item.project for item in items}:
        raise ValueError(f"no function of {', '.join(sorted(missing))} is in the corpus; decompile it, or name others")
    own = {part: [item for item in items if use.get(item.project) == part] for part in ("train", "validation", "test")}
    optimised = [item for item in own["test"] if ".O2-" in item.binary]
    plain = [item for part in own.values() for item in part if ".O2-" not in item.binary]
    kept, _ = thin(plain, list(dict.fromkeys(item.binary for item in plain)))
    own = {part: [item for item in kept if use[item.project] == part] for part in own}
    asked = {part: [item for item in own[part] if eligible(item)] for part in own}
    asked["train"] = unique(asked["train"])
    near = {part: similar(asked[part], asked["train"]) for part in ("validation", "test")}
    clean = {part: [x for x, close in zip(asked[part], near[part], strict=True) if not close] for part in near}
    leaky = [item for item, close in zip(asked["test"], near["test"], strict=True) if close]
    return Split(
        Part(asked["train"], own["train"]), Part(clean["validation"], own["validation"]),
        Part(clean["test"], own["test"]), Part(leaky, own["test"]),
        Part([item for item in optimised if eligible(item)], optimised),
    )  # fmt: skip


def choose(items: Sequence[Item], size: int, seed: int) -> list[Item]:
    """At most `size` functions, as evenly from all binaries as can be, neighbours of a place drawn by the seed."""
    rng = np.random.default_rng(seed)
    groups = [[item for item in items if item.binary == binary] for binary in sorted({item.binary for item in items})]
    taken: list[list[Item]] = [[] for _ in groups]
    left, order = size, sorted(range(len(groups)), key=lambda i: len(groups[i]))
    for place, i in enumerate(order):  # the smallest first, so that what they leave over goes to the larger
        count = min(len(groups[i]), -(-left // (len(groups) - place)))
        start = int(rng.integers(len(groups[i]) - count + 1))
        taken[i] = groups[i][start : start + count]
        left -= count
    return [item for group in taken for item in group]


def similar(items: Sequence[Item], others: Sequence[Item]) -> list[bool]:
    """Whether each function, with its true names, is more than SIMILAR percent like one of the others."""
    if not items or not others:
        return [False] * len(items)
    mine, theirs = [truthful(item) for item in items], [truthful(item) for item in others]
    return (process.cdist(mine, theirs, scorer=fuzz.ratio, score_cutoff=SIMILAR) > SIMILAR).any(axis=1).tolist()


def unique(items: Sequence[Item]) -> list[Item]:
    """The functions without exact repetitions (a static function of a header is in many binaries)."""
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(truthful(item), item)
    return list(first.values())


def truthful(item: Item) -> str:
    """The code with true names, as the similarity is measured on."""
    return rename(item.code, {**item.names, "f0": item.function})


def frequencies(train: Sequence[Item]) -> Counter:
    """How often each true name is one of a variable in the training functions."""
    return Counter(name for item in train for name in item.names.values())
