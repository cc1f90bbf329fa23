"""Use it: names for a stripped binary, or for functions that another decompiler wrote, by a trained model.

    python -m prefcore run gennm --data BINARY_OR_JSONL [--set model=FOLDER]

Every variable of every function gets a name with its probability. Writes runs/own/NAME/gennm/names.json, which a
decompiler's plug-in can read, and names.c for a person. What a run that was stopped has decompiled and named is kept by
content, and not done again. The model reads within the limits that it was trained with (limits.py).
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prefcore.data import rows
from prefcore.data.types import Parameters
from prefcore.engine import models, reference
from prefcore.engine.progress import show, track
from prefcore.lab import own
from prefcore.methods.gennm import callgraph, limits, namer, prompt, recover, report, validation
from prefcore.methods.gennm.corpus import Item, normalise, rename
from prefcore.methods.gennm.world import decompiler, dwarf
from prefcore.methods.gennm.world.programs import CACHE

KEPT = Path("build/named")  # answers of all runs
BINARY_LIMITS = {"least": 1, "most": 2**20}  # bytes of a function
TOGETHER = 32  # functions that are named before what is known of them is written down


class Functions(NamedTuple):
    """What came out of the data: functions, the address of each by key (of a binary), and sentences on the rest."""

    items: list[Item]
    addresses: dict[str, int]
    notes: list[str]


def run(data: str, p: Parameters, by_hand: Collection[str] = ()) -> Path:
    """Read, predict, print, write; returns the path of what was written. Nothing is trained.

    by_hand: names of parameters that a person has set; where they are limits, they go before the model's own.
    """
    folder = p.model or newest_model()
    p = limits.restore(p, folder, by_hand)
    found = read(data, p)
    device = str(models.choose_device(p.device, p.threads))
    used = namer.load(folder, device=device, dtype=p.dtype)
    encoder_tokenizer, encoder = models.load_encoder(p.encoder, device=device)
    longer = find_longer(found.items, used.tokenizer, p.max_code)
    for note in longer:
        print(f"note: {note}")
    known = {name: getattr(p, name) for name in limits.Limits._fields}
    identity = f"{reference.weight_hash(used.policy)} {known}"
    answers: dict[str, recover.Answer] = {}

    def predict(items, hints):
        latest = predict_kept(items, hints, lambda *asked: recover.predict(used, *asked, p), KEPT, identity)
        for item, (named, sure) in zip(items, latest, strict=True):
            before = answers.get(item.key, recover.Answer({}, {}))
            answers[item.key] = recover.Answer(before.names | named, before.confidence | sure)
        return [answer.names for answer in latest]

    rounds = callgraph.propagate(found.items, predict, p.rounds)
    final = validation.validate(rounds, found.items, lambda names: models.embed(names, encoder, encoder_tokenizer))
    records = [record_of(item, final[item.key], answers[item.key], found.addresses) for item in found.items]
    if any(item.names for item in found.items):
        print(rate(found.items, final))
    print(f"limits of {folder}: {', '.join(f'{name} {value}' for name, value in known.items())}")
    print(f"{count(found.items, final)}; {len(longer)} of {len(records)} functions are longer than max_code")
    notes = [*found.notes, *longer]
    path = write({"data": data, "model": folder, "limits": known, "functions": records, "notes": notes}, p)
    print(f"{len(records)} functions, {len(notes)} notes; names are in {path} and {path.with_suffix('.c')}")
    return path


def predict_kept(
    items: Sequence[Item], hints: recover.Hints, predict: Callable, folder: Path, identity: str
) -> list[recover.Answer]:
    """predict(items, hints) -> Answers, TOGETHER functions at a time, each kept in `folder` by content.

    identity: what else decides an answer, the weights of the model before all.
    """
    asked = zip(items, hints, strict=True)
    names = [hashlib.sha256(json.dumps([identity, item.code, list(told)]).encode()).hexdigest() for item, told in asked]
    paths = [folder / f"{name}.json" for name in names]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for start in track(range(0, len(missing), TOGETHER), "naming"):
        some = missing[start : start + TOGETHER]
        for i, answer in zip(some, predict([items[i] for i in some], [hints[i] for i in some]), strict=True):
            aside = paths[i].with_suffix(".partial")
            aside.write_text(json.dumps(answer), encoding="utf-8")
            aside.replace(paths[i])
    return [recover.Answer(*json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def write(content: Mapping, p: Parameters) -> Path:
    """Write names.json, for a plug-in of a decompiler, and names.c into a folder of this run; the path of the first."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path = own.folder_for(content["data"], "gennm", p._asdict(), text)[1] / "names.json"
    path.write_text(text, encoding="utf-8")
    listing = "\n\n".join(readable(record) for record in content["functions"])
    path.with_suffix(".c").write_text(listing + "\n", encoding="utf-8")
    return path


def read(data: str, p: Parameters) -> Functions:
    """The functions of a binary or of a table of functions, at least one; prints what was left out and why."""
    found = read_functions(data, p) if is_table(data) else read_binary(data, p)
    for note in found.notes:
        print(f"note: {note}")
    if not found.items:
        raise ValueError(f"{data}: no function to name; {found.notes[-1] if found.notes else 'the data are empty'}")
    return found


def is_table(data: str) -> bool:
    """Whether the file is a list of decompiled functions rather than a binary."""
    return Path(data.removesuffix(".gz")).suffix in rows.SUFFIXES


def newest_model() -> str:
    """The model that a run of the notebook has saved: of the study, else of quick."""
    for profile in ("study", "quick"):
        folder = Path("runs") / profile / "gennm" / "model"
        if folder.is_dir():
            return str(folder)
    raise FileNotFoundError("no trained model: call `dvc repro gennm` first, or name a folder with --set model=FOLDER")


def read_binary(path: str, p: Parameters) -> Functions:
    """Decompile a binary; functions that fail are named in the notes."""
    sizes = {**BINARY_LIMITS, "limit": p.functions, "seconds": p.backstop_seconds}
    dwarf.check_elf(path)
    show(f"decompiling {path} ...")
    found = decompiler.decompile_cached(Path(path), CACHE, **sizes)
    notes = [f"{path}: {found.trouble}"] if found.trouble else []
    notes += [f"function at {f['address']:#x}: {f['error']}" for f in found.functions if "error" in f]
    if found.found == 0 and not found.trouble:
        notes.append(f"{path}: holds no function that the decompiler finds; is it packed?")
    elif len(found.functions) < found.found:
        notes.append(f"{found.found} functions found, {len(found.functions)} of them decompiled (by size; `functions` "
                     f"{p.functions} at most)")  # fmt: skip
    items, addresses = [], {}
    inside = {f"sub_{found.base + f['address']:x}": "" for f in found.functions if "code" in f}
    for function in found.functions:
        if "code" not in function:
            continue
        name = f"sub_{found.base + function['address']:x}"
        item = normalise({"binary": Path(path).name, "function": name, "code": function["code"],
                          "functions": inside, "image": (found.base, found.end)})  # fmt: skip
        items.append(item)
        addresses[item.key] = function["address"]
    return Functions(items, addresses, notes)


def read_functions(path: str, p: Parameters) -> Functions:
    """Rows with `function`, `code` and perhaps `names`; a row that cannot be used is named, the rest goes on."""
    items, notes = [], []
    for row in rows.rows(path):
        try:
            items.append(checked(row))
        except rows.DataError as error:
            notes.append(str(error))
    if len(items) > p.functions:
        notes.append(f"{len(items)} functions, the first {p.functions} are read (`functions`)")
    return Functions(link(items[: p.functions]), {}, notes)


def link(items: list[Item]) -> list[Item]:
    """The functions with `calls` filled in: an identifier that another function of the same binary is defined as."""
    own = {(item.binary, name): item.key for item in items for name, place in item.renamed.items() if place == "f0"}
    return [
        item._replace(calls={place: own[item.binary, name] for name, place in item.renamed.items()
                             if place[0] == "f" and place != "f0" and (item.binary, name) in own})
        for item in items
    ]  # fmt: skip


def checked(row) -> Item:
    """One row as a function; raises DataError with its place."""
    if isinstance(row, rows.DataError):
        raise row
    rows.refuse_weight(row)
    code, names = row.values.get("code"), row.values.get("names") or {}
    if not isinstance(code, str) or "{" not in code:
        raise rows.fault(row, "code", f"{rows.short(code)} is no function; give its C text")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise rows.fault(row, "names", "must map identifiers to true names; leave it out if there are none")
    binary = str(row.values.get("binary") or row.values.get("project") or "data")
    found = normalise({**row.values, "function": str(row.values.get("function", "")), "binary": binary, "names": names})
    return found._replace(key=f"{found.key}:{row.id}")  # two rows may hold functions of one name


def find_longer(items: Sequence[Item], tokenizer, most: int) -> list[str]:
    """A sentence for each function with more tokens than any that the model was trained on; it is named all the same.

    Where it does not fit a prompt, prompt.fit shows of it the lines of the variables that are asked for.
    """
    sizes = [len(tokenizer(item.code)["input_ids"]) for item in items]
    return [
        f"{original_name(item)}: {size} tokens, and the model has learnt from at most {most} (max_code); less sure"
        for item, size in zip(items, sizes, strict=True) if size > most
    ]  # fmt: skip


def original_name(item: Item) -> str:
    """What the decompiler calls the function."""
    return next((name for name, placeholder in item.renamed.items() if placeholder == "f0"), item.function)


def record_of(item: Item, names: Mapping[str, str], answer: recover.Answer, addresses: Mapping[str, int]) -> dict:
    """What is known of one function, identifiers as its decompiler wrote them."""
    back = {placeholder: name for name, placeholder in item.renamed.items()}
    given = {back[id]: {"name": name, "confidence": round(answer.confidence.get(id, 0.0), 4),
                        "voted": answer.names.get(id) != name} for id, name in names.items() if id in back}  # fmt: skip
    own = given.pop(back.get("f0", ""), None)
    record = {"function": original_name(item), "name": own, "variables": given}
    record["code"] = rename(item.code, prompt.rename_distinct({**back, **names}))  # the rest as it was called before
    if item.key in addresses:
        record = {"address": hex(addresses[item.key]), **record}
    return record


def readable(record: Mapping) -> str:
    """The function as a person reads it: a comment with names and confidences, then the code."""

    def sure(one) -> str:
        return f"{one['name']} ({'by vote' if one['voted'] else format(one['confidence'], '.2f')})"

    place = f" at {record['address']}" if "address" in record else ""
    head = f"/* {record['function']}{place}" + (f" -> {sure(record['name'])}" if record["name"] else "")
    names = [f" * {id} -> {sure(one)}" for id, one in record["variables"].items()]
    return "\n".join([head, *names, " */", record["code"]])


def count(items: Sequence[Item], names: Mapping) -> str:
    """How many variables there are to name, all of which were asked for, and how many have a name."""
    asked = [(item.key, id) for item in items for id in prompt.nameable(item) if id != "f0"]
    return f"{len(asked)} variables asked for, {sum(id in names[key] for key, id in asked)} named"


def rate(items: list[Item], names: Mapping) -> str:
    """Where the data hold true names: precision and recall of the names given, missing ones counted as 0."""
    scores = report.table("names", 0, items, names, {})
    means = scores[["precision", "recall", "f1", "exact", "answered"]].mean()
    return f"{len(scores)} variables with true names: " + ", ".join(f"{k} {v:.3f}" for k, v in means.items())
