"""The frozen reference: its log-probabilities, computed once and kept by content.

A cache entry is named by what it depends on (token ids, weights, dtype, version of this computation), so a changed
model, tokenizer or length limit can never meet an old number.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from prefcore.data import files
from prefcore.data.types import Example
from prefcore.engine.collate import Plan, States, collate, longest
from prefcore.engine.decoder import describe_settings, unwrap
from prefcore.engine.layout import count_tokens, join, part
from prefcore.engine.logps import UNFIT, branch_logps, choose_path, frozen_depth, make_probe, run_trunk, to_device
from prefcore.engine.machine import check_precision
from prefcore.engine.progress import track

VERSION = "3"  # raise it when logps.py changes its numbers
TOKENS = 4096  # per forward pass
TRUNK_BYTES = 2 * 2**30  # at most this much of the frozen layers' output is kept


def attach(plan: Plan, policy, *, cache: Path | None, precision: str = "float32") -> Plan:
    """The plan with the reference's log-probabilities of every example and every mismatched answer.

    The reference is the policy as it is now, an adapter switched off, in the precision in which the policy is trained:
    else the two would differ at step 0. Where the lowest layers are frozen, their output is kept too, so that training
    runs only the layers above.
    """
    check_precision(precision, next(policy.parameters()).device)
    mismatches = [example for step in plan.mismatches for example in step]
    examples = plan.examples + mismatches
    depth = usable_depth(policy, examples)
    answers = frozen(policy, examples, depth, pad_id=plan.pad_id, cache=cache, precision=precision)
    n = len(plan.examples)
    plan = plan._replace(depth=depth, ref_logps=answers.logps[:n], trunk=answers.trunk[:n])
    if not mismatches:
        return plan
    ends = np.cumsum([len(step) for step in plan.mismatches])[:-1]
    logps, trunk = answers.logps[n:, 0], iter(answers.trunk[n:])
    return plan._replace(
        ref_mismatch_logps=np.split(logps, ends),
        mismatch_trunk=[list(islice(trunk, len(step))) for step in plan.mismatches] if depth else [],
    )


class Frozen(NamedTuple):
    """What the frozen model says of some examples: logps [n, K]; trunk: of each, the first layers' output."""

    logps: np.ndarray
    trunk: list[States]


def usable_depth(policy, examples: Sequence[Example]) -> int:
    """Frozen layers whose output may be kept: 0 where it takes too much memory or does not give the same numbers."""
    depth, width = frozen_depth(policy), unwrap(policy).config.get_text_config().hidden_size
    if depth == 0 or count_tokens(examples) * width * 4 > TRUNK_BYTES:
        return 0
    if choose_path(policy, longest(examples)) is not branch_logps:
        return 0
    batch = make_probe(policy)
    with torch.no_grad():
        whole = branch_logps(policy, batch)
        try:
            halves = branch_logps(policy, batch | {"trunk": run_trunk(policy, batch, depth), "depth": depth})
        except UNFIT:
            return 0
    return depth if torch.allclose(whole, halves, rtol=1e-4, atol=1e-3) else 0


def frozen(
    policy, examples: Sequence[Example], depth: int, *, pad_id: int, cache: Path | None, precision: str = "float32"
) -> Frozen:
    """Log-probabilities under the frozen model and, for depth > 0, the first layers' output; from cache if there."""
    path = cache / f"{fingerprint(policy, examples, precision)}-{depth}.safetensors" if cache else None
    if path and path.exists():
        kept = load_file(path)
        return Frozen(kept["logps"].numpy(), part(kept["trunk"][None], examples) if depth else [])
    out = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    trunk: list = [None] * len(examples) if depth else []
    score = branch_logps if depth else choose_path(policy, longest(examples))
    with torch.no_grad(), without_adapter(policy):
        for rows, chosen, batch in _batches(policy, examples, pad_id, "reference log-probabilities"):
            if depth:
                batch |= {"trunk": run_trunk(policy, batch, depth, precision), "depth": depth}
                for i, states in zip(rows, part(batch["trunk"].cpu(), chosen), strict=True):
                    trunk[i] = states
            out[rows] = score(policy, batch, precision).cpu().numpy()
    if path:
        tensors = {"logps": torch.from_numpy(out)} | ({"trunk": join(examples, trunk)[0]} if depth else {})
        with files.whole(path) as aside:
            save_file(tensors, aside)
    return Frozen(out, trunk)


def logps(policy, examples: Sequence[Example], *, pad_id: int, precision: str = "float32") -> np.ndarray:
    """Summed log-probabilities [n, K] float32 under the frozen model (adapters off), without gradient."""
    with without_adapter(policy):
        return score_all(policy, examples, pad_id=pad_id, precision=precision)


def score_all(policy, examples: Sequence[Example], *, pad_id: int, precision: str = "float32") -> np.ndarray:
    """Summed log-probabilities [n, K] float32 under the policy as it is, without gradient and without cache."""
    score = choose_path(policy, longest(examples))
    out = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    with torch.no_grad(), merged(policy):
        for rows, _, batch in _batches(policy, examples, pad_id, "scoring"):
            out[rows] = score(policy, batch, precision).cpu().numpy()
    return out


def score_attached(policy, plan: Plan) -> np.ndarray:
    """score_all of an attached plan's examples: the layers that no training has changed are not run again."""
    if not plan.depth:
        return score_all(policy, plan.examples, pad_id=plan.pad_id)
    out = np.empty_like(plan.ref_logps)
    with torch.no_grad(), merged(policy):
        for rows, chosen, batch in _batches(policy, plan.examples, plan.pad_id, "scoring"):
            kept = join(chosen, [plan.trunk[i] for i in rows]).to(batch["input_ids"].device)
            out[rows] = branch_logps(policy, batch | {"trunk": kept, "depth": plan.depth}).cpu().numpy()
    return out


def _batches(policy, examples: Sequence[Example], pad_id: int, label: str) -> Iterator[tuple[list[int], list, dict]]:
    """(places, examples without columns, collated batch on the policy's device), until all examples have come."""
    device = next(policy.parameters()).device
    for rows in track(token_batches(examples, TOKENS), label):
        chosen = [examples[i]._replace(columns={}) for i in rows]
        yield rows, chosen, to_device(collate(chosen, pad_id=pad_id), device)


def token_batches(examples: Sequence[Example], tokens: int) -> list[list[int]]:
    """Positions of the examples in batches of about `tokens`: those of one prompt together, then similar sizes."""
    units, last = [], {}
    for i, example in enumerate(examples):
        key, answers = (example.prompt, example.shown), set(example.completions)
        more = sum(len(answer) - 1 for answer in answers - last.get(key, {"answers": set()})["answers"])
        if key not in last or last[key]["size"] + more > tokens:
            last[key] = {"size": len(example.prompt), "rows": [], "answers": set()}
            units.append(last[key])
            more = sum(len(answer) - 1 for answer in answers)
        last[key]["size"] += more
        last[key]["rows"].append(i)
        last[key]["answers"] |= answers
    batches, filled = [[]], 0
    for unit in sorted(units, key=lambda unit: (unit["size"], unit["rows"][0])):
        if batches[-1] and filled + unit["size"] > tokens:
            batches.append([])
            filled = 0
        batches[-1] += unit["rows"]
        filled += unit["size"]
    return batches


def without_adapter(policy):
    """A context in which a PEFT policy is its base model, and any other model is itself."""
    return policy.disable_adapter() if hasattr(policy, "disable_adapter") else nullcontext()


@contextmanager
def merged(policy) -> Iterator[None]:
    """A context in which a PEFT policy's plain LoRA maps are one product each, to draw and score without gradient.

    The base weights come back bit by bit, as they are put aside and not computed back. An adapter of another kind, and
    any other model, stays as it is; so does one that is finer than its base, whose rounding would undo what it learnt.
    """
    layers = [part for part in policy.modules() if hasattr(part, "get_delta_weight")]
    if not layers or not all(map(_is_plain_lora, layers)):
        yield
        return
    kept = [(part.get_base_layer().weight, part.get_base_layer().weight.data) for part in layers]
    try:
        for part, (weight, data) in zip(layers, kept, strict=True):
            weight.data = data + sum(part.get_delta_weight(name).detach() for name in part.active_adapters)
        with policy.disable_adapter():
            yield
    finally:
        for weight, data in kept:
            weight.data = data


def _is_plain_lora(part) -> bool:
    from peft.tuners.lora import Linear

    if type(part) is not Linear or part.lora_variant or part.merged or part.disable_adapters:
        return False
    return {part.get_base_layer().weight.dtype} == {weight.dtype for weight in part.lora_A.parameters()}


def fingerprint(policy, examples: Sequence[Example], precision: str = "float32") -> str:
    """sha256 over token ids, frozen weights, dtype, precision and version."""
    digest = hashlib.sha256(f"{VERSION} {next(policy.parameters()).dtype} {precision} {weight_hash(policy)}".encode())
    for example in examples:
        digest.update(repr((example.prompt, example.completions, example.shown)).encode())
    return digest.hexdigest()


def weight_hash(policy) -> str:
    """sha256 of the base model's weights and settings, independent of names' order and of adapters; sensitive to value
    and dtype. The same weights with another rotary base are another model.
    """
    model = unwrap(policy)
    digest = hashlib.sha256(describe_settings(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if "lora_" in name:
            continue
        digest.update(f"{name.replace('.base_layer', '')} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
