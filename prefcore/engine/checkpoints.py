"""Which run a checkpoint belongs to, and which of them is whole.

A run is its data and their order, the weights it starts from, the settings that are handed to its loss, and the code
that its loss runs. `identity` is a hash over all of these; a run goes on from the checkpoints of its own identity only.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from prefcore.data import files
from prefcore.engine import ranks
from prefcore.engine.collate import Plan
from prefcore.engine.content import describe
from prefcore.engine.reference import weight_hash

DONE = "complete"  # the file that makes a checkpoint count


def last_whole(folder: Path, identity: str) -> Path | None:
    """The newest whole checkpoint of this very run; whatever belongs to another run, or is broken, is removed.

    It may have been written by any number of processes. Of several, the first removes and all read.
    """
    ranks.check_agreement(identity, "run")
    if ranks.is_first():
        _tidy(folder, identity)
    ranks.wait()
    whole = [checkpoint for checkpoint in folder.glob("checkpoint-*") if (checkpoint / DONE).exists()]
    last = max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
    ranks.check_agreement(str(last), f"newest checkpoint in {folder}")
    return last


def _tidy(folder: Path, identity: str) -> None:
    record = folder / "run.json"
    if not record.exists() or json.loads(record.read_text())["identity"] != identity:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with files.whole(record) as aside:
            aside.write_text(json.dumps({"identity": identity}))
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / DONE).exists():
            shutil.rmtree(checkpoint)


def identity(policy, plan: Plan, loss: Callable, settings: Mapping, schedule: Mapping) -> str:
    """sha256 over all that decides a run. settings: what the loss is called with; schedule: what the optimiser is.

    Raises ValueError where the loss reads a value from around it (a closure, or a notebook's name): nobody could see
    that it has changed, so it has to be in `settings`. TypeError where the settings hold what is no data (content.py).
    """
    digest = hashlib.sha256()
    for piece in describe([loss, settings, schedule], modules=["prefcore.engine.train"]):
        digest.update(piece.encode() + b"\0")
    digest.update(weight_hash(policy).encode())
    for name, parameter in sorted(policy.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for name, module in policy.named_modules():  # an adapter's alpha is in no weight
        digest.update(repr((name, getattr(module, "scaling", None))).encode())
    for example in [*plan.examples, *(example for step in plan.mismatches for example in step)]:
        digest.update(repr((*example[:3], sorted(example.columns.items()))).encode())
    digest.update(repr((plan.batches, list(map(len, plan.mismatches)), plan.depth)).encode())
    for logps in [plan.ref_logps, *plan.ref_mismatch_logps]:
        digest.update(b"" if logps is None else logps.tobytes())
    return digest.hexdigest()
