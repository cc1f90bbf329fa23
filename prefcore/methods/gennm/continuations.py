"""Continuations of branches: the prompt is read once for all branches, each goes on after tokens that are given.

`draw` writes in the tokenizer's tokens, the likeliest or random ones; `choose` takes one of the tokens behind them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.engine.sample import Written, write

Branch = tuple[Sequence[int], Sequence[int]]  # a prompt, and the tokens with which its branch begins


class Continuation(NamedTuple):
    """What was written after the given tokens, whether it ended by itself, and its log-probability (end included)."""

    text: str
    finished: bool
    logp: float


def draw(
    policy,
    tokenizer,
    branches: Sequence[Branch],
    *,
    words: int,
    each: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    rows: int,
) -> list[list[Continuation]]:
    """`each` continuations of every branch from the top_k likeliest of the first `words` tokens; top_k 1 is greedy.

    A continuation has at most `max_new_tokens` tokens, its end among them.
    temperature: nats are divided by it. One uniform number for each row and step, drawn beforehand, so that the batches
    of at most `rows` do not matter. `logp` is at temperature 1 among the first `words` tokens.
    """
    if temperature <= 0 or top_k < 1 or each < 1:
        raise ValueError(f"temperature {temperature}, top_k {top_k} and each {each} must be above 0")
    many = [branch for branch in branches for _ in range(each)]
    uniforms = torch.from_numpy(np.random.default_rng(seed).random((len(many), max_new_tokens))).float()

    def pick(logits, row, step):
        numbers = uniforms[row.cpu(), step.clamp(0, max_new_tokens - 1).cpu()].to(logits.device)
        return draw_likely(logits[:, :words], numbers, temperature=temperature, top_k=top_k)

    found = [_read(one, given, tokenizer, max_new_tokens) for one, (_, given) in
             zip(_write(policy, tokenizer, many, pick, max_new_tokens, rows), many, strict=True)]  # fmt: skip
    return [found[i : i + each] for i in range(0, len(found), each)]


def choose(policy, tokenizer, branches: Sequence[Branch], *, words: int, rows: int) -> list[tuple[int, float]]:
    """For each branch the likeliest of the tokens behind the first `words`, counted from 0, and its probability."""

    def pick(logits, row, step):
        logps, places = logits[:, words:].log_softmax(1).max(1)
        done = step > 0
        return torch.where(done, tokenizer.eos_token_id, places + words), torch.where(done, 0.0, logps)

    written = _write(policy, tokenizer, branches, pick, 2, rows)
    return [(one.ids[-1] - words, float(np.exp(sum(one.logps)))) for one in written]


def draw_likely(logits: Tensor, uniforms: Tensor, *, temperature: float, top_k: int) -> tuple[Tensor, Tensor]:
    """One of the top_k likeliest tokens for each row of logits [B, V] by its uniform number [B], and its logp [B]."""
    best, places = logits.topk(min(top_k, logits.shape[1]), dim=1)
    cumulative = (best / temperature).softmax(1).cumsum(1)
    picked = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:]).clamp(max=best.shape[1] - 1)
    logps = best.gather(1, picked) - logits.logsumexp(1, keepdim=True)
    return places.gather(1, picked).squeeze(1), logps.squeeze(1)


def _write(policy, tokenizer, branches: Sequence[Branch], pick: Callable, steps: int, rows: int) -> list[Written]:
    """The given tokens of each branch, with log-probability 0, and then up to `steps` that pick takes, or some more.

    pick(logits [B, V], rows [B], steps taken [B]) -> (tokens [B], log-probabilities [B]). The sampler hands each row's
    numbers on; here they are the row's own place, by which `go_on` knows what is given.
    """
    if not branches:
        return []
    device, width = next(policy.parameters()).device, max(len(given) for _, given in branches)
    forced = torch.full((len(branches), width + 1), -1, device=device)
    for i, (_, given) in enumerate(branches):
        forced[i, : len(given)] = torch.tensor(given, device=device)
    lengths, taken = (forced >= 0).sum(1), torch.zeros(len(branches), dtype=torch.long, device=device)

    def go_on(logits, row):
        row = row.long()
        step = taken[row]
        taken[row] += 1
        given = forced[row, step.clamp(max=width)]
        tokens, logps = pick(logits.float(), row, step - lengths[row])
        return torch.where(given >= 0, given, tokens), torch.where(given >= 0, torch.zeros_like(logps), logps)

    places = np.tile(np.arange(len(branches), dtype=float)[:, None], (1, width + steps))
    return write(policy, tokenizer, [prompt for prompt, _ in branches], places, go_on, rows)


def _read(one: Written, given: Sequence[int], tokenizer, most: int) -> Continuation:
    ids, finished = one.ids[len(given) :], one.finished
    if len(ids) + finished > most:  # a branch that began shorter than others had room for more
        ids, finished = ids[:most], False
    return Continuation(tokenizer.decode(ids), finished, sum(one.logps[: len(given) + len(ids) + finished]))
