"""Learn from programs of one's own: a folder of binaries with debug information, or a table of named functions.

    python -m prefcore run gennm --train DIR_OR_JSONL [--set policy=HUB_ID_OR_FOLDER accumulation=8] [--name NAME]

Goes on from the newest trained model, or from any causal model that `policy` names, and writes a model to
runs/own/NAME/gennm/model, which `run gennm --data` takes by `--set model=`. Some binaries are kept back, and named
before and after.
"""

import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from prefcore.data.types import Parameters
from prefcore.engine import collate, models
from prefcore.engine import train as engine
from prefcore.engine.progress import show
from prefcore.lab import own
from prefcore.methods.gennm import apply, baselines, callgraph, limits, losses, namer, prompt, recover, report
from prefcore.methods.gennm.corpus import Item, normalise
from prefcore.methods.gennm.world import decompiler, dwarf, programs

KEPT_BACK = 5  # every fifth binary is not learnt from
RATE = 2.0e-5  # learning rate of a model that `policy` names, unless `learning_rates` is set: such models are large


def train(source: str, p: Parameters, by_hand: Collection[str] = (), name: str = "") -> Path:
    """Read, learn, say what it brought on binaries kept back, save; returns the model's folder.

    A run that was stopped goes on from its last checkpoint; what is decompiled is kept by content.
    """
    start = p.policy or p.model or apply.newest_model()
    if not p.policy:
        p = limits.restore(p, start, by_hand)
    rate = RATE if p.policy and "learning_rates" not in by_hand else p.learning_rates["context"]
    items = read(source, p)
    device = str(models.choose_device(p.device, p.threads))
    student = namer.load(start, device=device, dtype=p.dtype)
    named = [item for item in items if item.names and prompt.count(item.code, student.tokenizer) <= p.max_code]
    if not named:
        raise ValueError(f"{source}: of {len(items)} functions none has a variable with a true name and at most "
                         f"{p.max_code} tokens (max_code): compile with -g, or raise max_code")  # fmt: skip
    taught, back = keep_back(named)
    said = {**p._asdict(), "train": source, "start": start}
    profile, folder = own.folder_for(source, "gennm", said, own.fingerprint(source), name)
    before = measure(student, back, items, p)
    student = namer.extend(student, namer.known_names(taught))
    truth = {item.key: prompt.true_names(item) for item in items}
    rows = recover.examples(taught, [[] for _ in taught], student, p)
    rows += recover.examples(taught, callgraph.all_hints(taught, truth, items), student, p)
    plan = collate.make_plan(rows, batch_size=p.batch_size, epochs=p.epochs, seed=p.seed,
                             pad_id=student.tokenizer.pad_token_id)  # fmt: skip
    engine.fit(
        student.policy, plan, losses.name_loss, {}, learning_rate=rate, seed=p.seed, accumulation=p.accumulation,
        checkpoints=Path(".checkpoints") / profile / "gennm", precision=p.precision, label="own programs",
    )  # fmt: skip
    namer.save(student, folder / "model")
    about = {"functions": len(taught), "source": Path(source).name, "start": start, "learning_rate": rate}
    limits.save(folder / "model", p, about)
    after = measure(student, back, items, p)
    print(f"learnt from {len(taught)} of {len(items)} functions; the model is in {folder / 'model'}")
    if back:
        print(f"{len(back)} functions of binaries kept back: mean F1 {before:.3f} before, {after:.3f} after")
    return folder / "model"


def keep_back(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """(functions to learn from, those of every KEPT_BACK-th binary); nothing is kept back of a single binary."""
    binaries = sorted({item.binary for item in items})
    back = set(binaries[KEPT_BACK - 1 :: KEPT_BACK] or binaries[1:][-1:])
    return [item for item in items if item.binary not in back], [item for item in items if item.binary in back]


def measure(student: namer.Namer, items: Sequence[Item], everything: Sequence[Item], p: Parameters) -> float:
    """Mean F1 of the names of these functions' variables after `rounds` of propagation; nan where there are none."""
    if not items:
        return float("nan")
    around = callgraph.near(items, everything, p.rounds)
    last = callgraph.propagate(around, recover.predictor(student, p), p.rounds)[-1]
    named = baselines.by_key(items, [last[item.key] for item in items])
    return float(report.table("own", 0, items, named, {})["f1"].mean())


def read(source: str, p: Parameters) -> list[Item]:
    """All functions of a folder's binaries, or of a table; one line for each file that gives none, and why."""
    if apply.is_table(source):
        return apply.read(source, p).items
    if not Path(source).is_dir():
        raise ValueError(f"{source}: give a folder of binaries with debug information, or a table of functions")
    items: list[Item] = []
    for path in sorted(path for path in Path(source).iterdir() if path.is_file()):
        try:
            found = read_debug(path, p)
        except (dwarf.BinaryError, subprocess.CalledProcessError) as error:
            print(f"note: {error}")
            continue
        print(f"note: {path.name}: {len(found)} functions with debug information")
        items += found
    if not items:
        raise ValueError(f"{source}: no file in it is a binary with debug information (compile with -g, do not strip)")
    return items


def read_debug(path: Path, p: Parameters) -> list[Item]:
    """The functions of a binary, decompiled from a stripped copy, with the names of its debug information."""
    dwarf.check_elf(path)
    with tempfile.TemporaryDirectory() as scratch:
        stripped = Path(scratch) / path.name
        subprocess.run(["strip", "--strip-all", "-o", str(stripped), str(path)], check=True, capture_output=True)
        show(f"decompiling {path} ...")
        sizes = {**apply.BINARY_LIMITS, "limit": p.functions, "seconds": p.backstop_seconds}
        found = decompiler.decompile_cached(stripped, programs.CACHE, **sizes)
    if found.trouble:
        print(f"note: {path.name}: {found.trouble}")
    records = programs.with_truth(path.stem, path, found)
    return [normalise(record._replace(binary=path.name)._asdict()) for record in records]  # lib.so.1 is not lib.so.2
