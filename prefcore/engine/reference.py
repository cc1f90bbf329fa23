"""The frozen reference: its log-probabilities, computed once and kept by content.

A cache entry is named by what it depends on (token ids, weights, dtype, version of this computation), so a changed
model, tokenizer or length limit can never meet an old number.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefcore.data.types import Example
from prefcore.engine.collate import Plan, collate, longest, size
from prefcore.engine.decoder import describe_settings, unwrap
from prefcore.engine.logps import UNFIT, branch_logps, choose_path, frozen_depth, run_trunk, to_device
from prefcore.engine.progress import track

VERSION = "2"  # raise it when logps.py changes its numbers
TOKENS = 4096  # per forward pass
TRUNK_BYTES = 2 * 2**30  # at most this much of the frozen layers' output is kept


def attach(plan: Plan, policy, *, cache: Path | None) -> Plan:
    """The plan with the reference's log-probabilities of every example and every mismatched answer.

    The reference is the policy as it is now, an adapter switched off. Where the lowest layers are frozen, their output
    is kept too, so that training runs only the layers above.
    """
    mismatches = [example for step in plan.mismatches for example in step]
    unique = {(example.prompt, example.completions): example for example in mismatches}
    depth = usable_depth(policy, plan.examples, plan.pad_id)
    answers = frozen(policy, plan.examples, depth, pad_id=plan.pad_id, cache=cache)
    plan = plan._replace(depth=depth, ref_logps=answers.logps, trunk=answers.trunk)
    if not unique:
        return plan
    others = frozen(policy, list(unique.values()), depth, pad_id=plan.pad_id, cache=cache)
    place = {key: i for i, key in enumerate(unique)}
    steps = [[place[e.prompt, e.completions] for e in step] for step in plan.mismatches]
    return plan._replace(
        ref_mismatch_logps=[others.logps[step, 0] for step in steps],
        mismatch_trunk=[[others.trunk[i] for i in step] for step in steps] if depth else [],
    )


class Frozen(NamedTuple):
    """What the frozen model says of some examples: logps [n, K]; trunk: for each, [T, H], the first layers' output."""

    logps: np.ndarray
    trunk: list[Tensor]


def usable_depth(policy, examples: Sequence[Example], pad_id: int) -> int:
    """Frozen layers whose output may be kept: 0 where it takes too much memory or does not give the same numbers."""
    depth, width = frozen_depth(policy), unwrap(policy).config.get_text_config().hidden_size
    if depth == 0 or sum(map(size, examples)) * width * 4 > TRUNK_BYTES:
        return 0
    if choose_path(policy, longest(examples)) is not branch_logps:
        return 0
    device = next(policy.parameters()).device
    batch = to_device(collate(examples[:2], pad_id=pad_id), device)
    with torch.no_grad():
        whole = branch_logps(policy, batch)
        try:
            halves = branch_logps(policy, batch | {"trunk": run_trunk(policy, batch, depth), "depth": depth})
        except UNFIT:
            return 0
    return depth if torch.allclose(whole, halves, rtol=1e-4, atol=1e-3) else 0


def frozen(policy, examples: Sequence[Example], depth: int, *, pad_id: int, cache: Path | None) -> Frozen:
    """Log-probabilities under the frozen model and, for depth > 0, the first layers' output; from cache if there."""
    path = cache / f"{fingerprint(policy, examples)}-{depth}.safetensors" if cache else None
    if path and path.exists():
        kept = load_file(path)
        return Frozen(kept["logps"].numpy(), list(kept["trunk"].split([size(e) for e in examples])) if depth else [])
    if depth == 0:
        result = Frozen(logps(policy, examples, pad_id=pad_id), [])
    else:
        result = _score_halves(policy, examples, depth, pad_id)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        tensors = {"logps": torch.from_numpy(result.logps)} | ({"trunk": torch.cat(result.trunk)} if depth else {})
        save_file(tensors, aside)
        aside.rename(path)
    return result


def _score_halves(policy, examples: Sequence[Example], depth: int, pad_id: int) -> Frozen:
    out = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    trunk: list = [None] * len(examples)
    device = next(policy.parameters()).device
    with torch.no_grad(), without_adapter(policy):
        for rows in track(token_batches(examples, TOKENS), "reference log-probabilities"):
            batch = to_device(collate([examples[i] for i in rows], pad_id=pad_id), device)
            lower = run_trunk(policy, batch, depth)
            out[rows] = branch_logps(policy, batch | {"trunk": lower, "depth": depth}).cpu().numpy()
            for i, states in zip(rows, lower.cpu(), strict=True):
                trunk[i] = states[: size(examples[i])].clone()
    return Frozen(out, trunk)


def logps(policy, examples: Sequence[Example], *, pad_id: int) -> np.ndarray:
    """Summed log-probabilities [n, K] float32 under the frozen model (adapters off), without gradient."""
    with without_adapter(policy):
        return score_all(policy, examples, pad_id=pad_id)


def score_all(policy, examples: Sequence[Example], *, pad_id: int) -> np.ndarray:
    """Summed log-probabilities [n, K] float32 under the policy as it is, without gradient and without cache."""
    score = choose_path(policy, longest(examples))
    out = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    device = next(policy.parameters()).device
    with torch.no_grad():
        for rows in track(token_batches(examples, TOKENS), "scoring"):
            batch = to_device(collate([examples[i] for i in rows], pad_id=pad_id), device)
            out[rows] = score(policy, batch).cpu().numpy()
    return out


def token_batches(examples: Sequence[Example], tokens: int) -> list[list[int]]:
    """Positions of the examples, similar lengths together, at most about `tokens` padded tokens a batch."""
    batches, widest = [[]], 0
    for i in sorted(range(len(examples)), key=lambda i: (size(examples[i]), i)):
        widest = max(widest, size(examples[i]))
        if batches[-1] and (len(batches[-1]) + 1) * widest > tokens:
            batches.append([])
            widest = size(examples[i])
        batches[-1].append(i)
    return batches


def without_adapter(policy):
    """A context in which a PEFT policy is its base model, and any other model is itself."""
    return policy.disable_adapter() if hasattr(policy, "disable_adapter") else nullcontext()


def fingerprint(policy, examples: Sequence[Example]) -> str:
    """sha256 over token ids, frozen weights, dtype and version."""
    digest = hashlib.sha256(f"{VERSION} {next(policy.parameters()).dtype} {weight_hash(policy)}".encode())
    for example in examples:
        digest.update(repr((example.prompt, example.completions)).encode())
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
