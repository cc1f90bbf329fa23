"""Batched generation: ancestral sampling, one uniform number per row and step, so that batches do not matter."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import DynamicCache, StaticCache

from prefcore.engine.collate import pad_left
from prefcore.engine.logps import branch_logps, choose_path
from prefcore.engine.progress import track


class Sample(NamedTuple):
    """A continuation: token ids (without EOS), text, whether it ended by itself, log-probability (EOS included)."""

    ids: tuple[int, ...]
    text: str
    finished: bool
    logp: float


def sample(
    policy,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    batch_size: int = 128,
) -> list[Sample]:
    """One continuation of each prompt (token ids). `logp` is under the policy itself, whatever the temperature."""
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    uniforms = np.random.default_rng(seed).random((len(prompts), max_new_tokens))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: dict[int, Sample] = {}
    for start in track(range(0, len(order), batch_size), "sampling"):
        rows = order[start : start + batch_size]
        drawn = _sample_batch(
            policy, tokenizer, [prompts[i] for i in rows], torch.from_numpy(uniforms[rows]), temperature
        )
        out.update(zip(rows, drawn, strict=True))
    return [out[i] for i in range(len(prompts))]


@torch.no_grad()
def _sample_batch(policy, tokenizer, prompts, uniforms, temperature) -> list[Sample]:
    device = next(policy.parameters()).device
    steps, eos = uniforms.shape[1], tokenizer.eos_token_id
    ids, seen = pad_left(prompts, tokenizer.pad_token_id)
    width = ids.shape[1]
    seen = torch.cat([seen, seen.new_zeros(len(prompts), steps)], 1).bool()
    ids, seen, uniforms = ids.to(device), seen.to(device), uniforms.to(device, torch.float32)
    lengths = seen.sum(1)
    # a model that can take a mask of queries by keys has a cache of one size; any other, of keys alone, one that grows
    square, config = choose_path(policy, width + steps) is branch_logps, policy.config
    cache = StaticCache(config=config, max_cache_len=width + steps) if square else DynamicCache(config=config)
    positions = (seen[:, :width].cumsum(1) - 1).clamp(min=0)
    columns = torch.arange(width + steps, device=device)
    mask = seen[:, None, None] & (columns <= columns[:width, None])
    mask = mask | (columns == columns[:width, None]) if square else seen[:, :width]  # padding rows see themselves
    tokens = torch.full((len(prompts), steps), -1, device=device)
    total = torch.zeros(len(prompts), device=device)
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    for step in range(steps):
        logits = (
            policy(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )
        logps = logits.log_softmax(1)
        cumulative = (logits / temperature).softmax(1).cumsum(1)
        chosen = torch.searchsorted(cumulative, uniforms[:, step, None] * cumulative[:, -1:]).clamp(
            max=logits.shape[1] - 1
        )
        total += torch.where(alive, logps.gather(1, chosen).squeeze(1), 0)
        tokens[:, step] = torch.where(alive, chosen.squeeze(1), -1)
        alive = alive & (chosen.squeeze(1) != eos)
        if not alive.any() or step + 1 == steps:
            break
        seen[:, width + step] = True
        ids, positions = chosen, (lengths + step)[:, None]
        mask = seen[:, None, None] if square else seen[:, : width + step + 1]
    out = []
    for row, score in zip(tokens.tolist(), total.tolist(), strict=True):
        drawn, ended = cut(row, eos)
        out.append(Sample(tuple(drawn), tokenizer.decode(drawn), ended, score))
    return out


def cut(row: Sequence[int], eos: int) -> tuple[list[int], bool]:
    """(drawn tokens without the -1 that follow the end, and without EOS; whether they ended by EOS)."""
    drawn = [token for token in row if token >= 0]
    ended = bool(drawn) and drawn[-1] == eos
    return drawn[:-1] if ended else drawn, ended
