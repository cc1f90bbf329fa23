"""Use it: names for a stripped binary, or for functions that another decompiler wrote, by a trained model.

    python -m prefcore run gennm --data BINARY_OR_JSONL [--set model=FOLDER]

Prints each function with its names and writes runs/own/gennm/names.json, which a decompiler's plug-in can read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from prefcore.data import rows
from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.engine.progress import show
from prefcore.methods.gennm import callgraph, recover, report, validation
from prefcore.methods.gennm.corpus import Item, frequencies, normalise, rename
from prefcore.methods.gennm.world import decompiler, dwarf

OUT = Path("runs/own/gennm")
BINARY_LIMITS = {"least": 16, "most": 4096}  # bytes of a function


class Read(NamedTuple):
    """What came out of the data: functions, the address of each by key (of a binary), and sentences on the rest."""

    items: list[Item]
    addresses: dict[str, int]
    notes: list[str]


def run(data: str, p: Parameters) -> Path:
    """Read, predict, print, write; returns the path of what was written. Nothing is trained."""
    found = read_functions(data, p) if is_table(data) else read_binary(data, p)
    for note in found.notes:
        print(f"note: {note}")
    if not found.items:
        raise ValueError(f"{data}: no function to name; {found.notes[-1] if found.notes else 'the data are empty'}")
    device = str(models.choose_device(p.device, p.threads))
    folder = p.model or newest_model()
    tokenizer, policy = models.load_policy(folder, device=device, dtype=p.dtype)
    encoder_tokenizer, encoder = models.load_encoder(p.encoder, device=device)
    answers: dict[str, recover.Answer] = {}

    def predict(items, hints):
        found_now = recover.predict(policy, tokenizer, items, hints, p)
        answers.update({item.key: answer for item, answer in zip(items, found_now, strict=True)})
        return [answer.names for answer in found_now]

    rounds = callgraph.propagate(found.items, predict, p.rounds)
    final = validation.validate(rounds, found.items, lambda names: models.embed(names, encoder, encoder_tokenizer))
    records = [describe(item, final[item.key], answers[item.key], found.addresses) for item in found.items]
    for record in records:
        print(tell(record))
    if any(item.names for item in found.items):
        print(rate(found.items, final))
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "names.json"
    written = {"data": data, "model": folder, "functions": records, "notes": found.notes}
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(records)} functions, {len(found.notes)} notes; names are in {path}")
    return path


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


def read_binary(path: str, p: Parameters) -> Read:
    """Decompile a binary; functions that fail are named in the notes."""
    limits = {**BINARY_LIMITS, "limit": p.functions, "seconds": p.backstop_seconds}
    dwarf.check_elf(path)
    show(f"decompiling {path} ...")
    found = decompiler.decompile(path, **limits)
    notes = [f"{path}: {found.trouble}"] if found.trouble else []
    notes += [f"function at {f['address']:#x}: {f['error']}" for f in found.functions if "error" in f]
    if found.found == 0 and not found.trouble:
        notes.append(f"{path}: holds no function that the decompiler finds")
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
    return Read(items, addresses, notes)


def read_functions(path: str, p: Parameters) -> Read:
    """Rows with `function`, `code` and perhaps `names`; a row that cannot be used is named, the rest goes on."""
    items, notes = [], []
    for row in rows.rows(path):
        try:
            items.append(checked(row))
        except rows.DataError as error:
            notes.append(str(error))
    if len(items) > p.functions:
        notes.append(f"{len(items)} functions, the first {p.functions} are read (`functions`)")
    return Read(link(items[: p.functions]), {}, notes)


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
    code, names = row.values.get("code"), row.values.get("names") or {}
    if not isinstance(code, str) or "{" not in code:
        raise rows.fault(row, "code", f"{rows.short(code)} is no function; give its C text")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise rows.fault(row, "names", "must map identifiers to true names; leave it out if there are none")
    binary = str(row.values.get("binary") or row.values.get("project") or "data")
    found = normalise({**row.values, "function": str(row.values.get("function", "")), "binary": binary, "names": names})
    return found._replace(key=f"{found.key}:{row.id}")  # two rows may hold functions of one name


def describe(item: Item, names: Mapping[str, str], answer: recover.Answer, addresses: Mapping[str, int]) -> dict:
    """What is known of one function, identifiers as its decompiler wrote them."""
    back = {placeholder: name for name, placeholder in item.renamed.items()}
    given = {back[id]: {"name": name, "confidence": round(answer.confidence.get(id, 0.0), 4),
                        "voted": answer.names.get(id) != name} for id, name in names.items() if id in back}  # fmt: skip
    own = given.pop(back.get("f0", ""), None)
    record = {"function": back.get("f0", item.function), "name": own, "variables": given}
    record["code"] = rename(item.code, names)
    if item.key in addresses:
        record = {"address": hex(addresses[item.key]), **record}
    return record


def tell(record: Mapping) -> str:
    """The function as a person reads it: names with confidences, then the code."""
    def sure(one) -> str:
        return f"{one['name']} ({'by vote' if one['voted'] else format(one['confidence'], '.2f')})"

    head = f"--- {record['function']}" + (f" -> {sure(record['name'])}" if record["name"] else "")
    names = [f"  {id} -> {sure(one)}" for id, one in record["variables"].items()]
    return "\n".join([head, *names, record["code"]])


def rate(items: list[Item], names: Mapping) -> str:
    """Where the data hold true names: precision and recall of the names given, missing ones counted as 0."""
    scores = report.table("names", 0, items, names, frequencies([]), [])
    means = scores[["precision", "recall", "f1", "exact", "answered"]].mean()
    return f"{len(scores)} variables with true names: " + ", ".join(f"{k} {v:.3f}" for k, v in means.items())
