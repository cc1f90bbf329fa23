"""Several continuations of each prompt from the likeliest tokens; greedy ones too, and how sure each token was."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.engine.sample import Written, write


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
    return [one for (one,) in found]


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

    One uniform number for each row and step, drawn beforehand, so that the batches of at most `rows` do not matter.
    `logps` are under the policy itself, whatever temperature and top_k.
    """
    if temperature <= 0 or top_k < 1 or each < 1:
        raise ValueError(f"temperature {temperature}, top_k {top_k} and each {each} must be above 0")
    asked = [prompt for prompt in prompts for _ in range(each)]
    uniforms = np.random.default_rng(seed).random((len(asked), max_new_tokens))
    choose = partial(draw_likely, temperature=temperature, top_k=top_k)
    found = [_read(one, tokenizer) for one in write(policy, tokenizer, asked, uniforms, choose, rows)]
    return [found[i : i + each] for i in range(0, len(found), each)]


def draw_likely(logits: Tensor, uniforms: Tensor, *, temperature: float, top_k: int) -> tuple[Tensor, Tensor]:
    """One of the top_k likeliest tokens for each row of logits [B, V] by its uniform number [B], and its logp [B]."""
    logits = logits.float()
    best, places = logits.topk(min(top_k, logits.shape[1]), dim=1)
    cumulative = (best / temperature).softmax(1).cumsum(1)
    picked = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:]).clamp(max=best.shape[1] - 1)
    logps = best.gather(1, picked) - logits.logsumexp(1, keepdim=True)
    return places.gather(1, picked).squeeze(1), logps.squeeze(1)


def _read(one: Written, tokenizer) -> Continuation:
    texts = tuple(tokenizer.decode([token]) for token in one.ids)
    return Continuation(tokenizer.decode(one.ids), one.finished, texts, one.logps[: len(one.ids)])
