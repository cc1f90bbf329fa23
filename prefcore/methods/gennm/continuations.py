"""Several continuations of each prompt, the prompt read once; greedy ones too, and how sure each token was.

sample.py draws one continuation a prompt; here a prompt's keys and values are shared by its continuations.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from prefcore.engine.collate import pad_left
from prefcore.engine.progress import track
from prefcore.engine.sample import cut


class Continuation(NamedTuple):
    """Text, whether it ended by itself, and each token's text with the log-probability that the policy gave it."""

    text: str
    finished: bool
    tokens: tuple[str, ...]
    logps: tuple[float, ...]


def greedy(policy, tokenizer, prompts: Sequence, *, max_new_tokens: int, rows: int) -> list[Continuation]:
    """The continuation of each prompt (token ids) by its likeliest tokens; at most `rows` prompts in one batch."""
    found = draw(policy, tokenizer, prompts, each=1, max_new_tokens=max_new_tokens, temperature=1.0, top_k=1, seed=0,
                 rows=rows)  # fmt: skip
    return [one for one, in found]


@torch.no_grad()
def draw(
    policy,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    each: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    rows: int,
) -> list[list[Continuation]]:
    """`each` continuations of every prompt from the top_k likeliest tokens at a temperature (nats are divided by it).

    One uniform number for each row and step, drawn beforehand, so that the batches do not matter. `logps` are under the
    policy itself, whatever temperature and top_k.
    """
    if temperature <= 0 or top_k < 1 or each < 1:
        raise ValueError(f"temperature {temperature}, top_k {top_k} and each {each} must be above 0")
    uniforms = np.random.default_rng(seed).random((len(prompts), each, max_new_tokens))
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    step, out = max(1, rows // each), {}
    for start in track(range(0, len(order), step), "writing"):
        chosen = order[start : start + step]
        drawn = _draw_batch(policy, tokenizer, [prompts[i] for i in chosen], torch.from_numpy(uniforms[chosen]),
                            temperature, top_k)  # fmt: skip
        out.update(zip(chosen, drawn, strict=True))
    return [out[i] for i in range(len(prompts))]


def _draw_batch(policy, tokenizer, prompts, uniforms, temperature, top_k) -> list[list[Continuation]]:
    device, eos = next(policy.parameters()).device, tokenizer.eos_token_id
    count, each, steps = uniforms.shape
    uniforms = uniforms.reshape(count * each, steps).to(device, torch.float32)
    ids, seen = (part.to(device) for part in pad_left(prompts, tokenizer.pad_token_id))
    cache = DynamicCache(config=policy.config)
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    how = {"cache": cache, "use_cache": True, "logits_to_keep": 1}
    logits = policy(input_ids=ids, attention_mask=seen, position_ids=positions, **how).logits[:, -1]
    cache.batch_repeat_interleave(each)
    logits, seen = logits.repeat_interleave(each, 0), seen.repeat_interleave(each, 0)
    tokens = torch.full((count * each, steps), -1, device=device)
    scores = torch.zeros(count * each, steps, device=device)
    alive = torch.ones(count * each, dtype=torch.bool, device=device)
    for step in range(steps):
        logps = logits.float().log_softmax(1)
        best, places = logps.topk(min(top_k, logps.shape[1]), dim=1)
        cumulative = (best / temperature).softmax(1).cumsum(1)
        picked = torch.searchsorted(cumulative, uniforms[:, step, None] * cumulative[:, -1:])
        picked = picked.clamp(max=best.shape[1] - 1)
        token = places.gather(1, picked).squeeze(1)
        tokens[:, step] = torch.where(alive, token, -1)
        scores[:, step] = best.gather(1, picked).squeeze(1)
        alive = alive & (token != eos)
        if not alive.any() or step + 1 == steps:
            break
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        now = seen.sum(1, keepdim=True) - 1
        logits = policy(input_ids=token[:, None], attention_mask=seen, position_ids=now, **how).logits[:, -1]
    flat = [_read(row, score, tokenizer) for row, score in zip(tokens.tolist(), scores.tolist(), strict=True)]
    return [flat[i : i + each] for i in range(0, len(flat), each)]


def _read(row: list[int], scores: list[float], tokenizer) -> Continuation:
    drawn, ended = cut(row, tokenizer.eos_token_id)
    texts = tuple(tokenizer.decode([token]) for token in drawn)
    return Continuation(tokenizer.decode(drawn), ended, texts, tuple(scores[: len(drawn)]))
