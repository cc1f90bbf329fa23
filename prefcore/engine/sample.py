"""Batched generation: ancestral sampling, one uniform number per row and step, so that batches do not matter.

A prompt is read once, however many continuations it gets, and a row leaves its batch when it has ended; where rows
repeat long prompts, these are kept once too (shared_prompts.py). `write` is the loop; what it takes from a step's
logits is up to its caller: here a draw from the whole vocabulary.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from os.path import commonprefix
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from prefcore.data.types import Example
from prefcore.engine.collate import pad_left
from prefcore.engine.decoding import step_by_step
from prefcore.engine.machine import check_precision
from prefcore.engine.progress import track
from prefcore.engine.reference import merged, score_all
from prefcore.engine.shared_prompts import Rows, can_share

BLOCK = 512  # words whose weights are summed before one of them is looked for; about the root of a vocabulary's size
PADDING = 16  # tokens that longer prompts may pad a group by; one more pass over the weights costs about 30
SHARED = 128  # tokens: prompts that begin with as many equal ones are read once that far
REPEATED = 2**30  # bytes of keys and values that rows would only repeat: from there on they are kept once (LOG.md)


class Sample(NamedTuple):
    """A continuation: token ids (without EOS), text, whether it ended by itself, log-probability (EOS included).

    The log-probability is nan where the policy's own is not known.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    logp: float


class Written(NamedTuple):
    """Token ids of a continuation (without EOS), whether it ended by itself, log-probability of each (EOS's too)."""

    ids: tuple[int, ...]
    finished: bool
    logps: tuple[float, ...]


def sample(
    policy,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    batch_size: int = 128,
    precision: str = "float32",
) -> list[Sample]:
    """One continuation of each prompt (token ids). `logp` is under the policy itself, whatever the temperature.

    precision: bfloat16 draws from a copy with weights rounded to it, almost twice as fast; as these are not quite the
    policy's own odds, `logp` is nan until `rescore` gives it. ValueError where the processor has no such products.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    check_precision(precision, next(policy.parameters()).device)
    uniforms = np.random.default_rng(seed).random((len(prompts), max_new_tokens))
    rounded = precision == "bfloat16"
    writer, choose = round_weights(policy) if rounded else policy, partial(draw_token, temperature=temperature)
    drawn = write(writer, tokenizer, prompts, uniforms, choose, batch_size)
    return [
        Sample(one.ids, tokenizer.decode(one.ids), one.finished, math.nan if rounded else sum(one.logps))
        for one in drawn
    ]


def sample_several(policy, tokenizer, prompts: Sequence[Sequence[int]], answers: int, **how) -> list[list[Sample]]:
    """So many continuations of each prompt; `how` as `sample` has it."""
    drawn = sample(policy, tokenizer, [prompt for prompt in prompts for _ in range(answers)], **how)
    return [drawn[i : i + answers] for i in range(0, len(drawn), answers)]


def rescore(policy, tokenizer, prompts: Sequence[Sequence[int]], drawn: Sequence[Sample]) -> list[Sample]:
    """The same continuations of the same prompts with their log-probabilities under the policy as it is."""
    ends = [(tokenizer.eos_token_id,) if one.finished else () for one in drawn]
    rows = [Example("", tuple(p), (one.ids + end,)) for p, one, end in zip(prompts, drawn, ends, strict=True)]
    logps = score_all(policy, rows, pad_id=tokenizer.pad_token_id)[:, 0]
    return [one._replace(logp=logp) for one, logp in zip(drawn, logps.tolist(), strict=True)]


def round_weights(policy):
    """A copy of the policy with weights in bfloat16; buffers, such as rotary frequencies, stay as exact as they are.

    On SmolLM2-135M its next tokens are about 0.007 nats from the policy's own; autocast, with sums in float32, is half
    as far and a tenth slower.
    """
    rounded = {id(p): nn.Parameter(p.detach().to(torch.bfloat16), requires_grad=False) for p in policy.parameters()}
    return copy.deepcopy(policy, rounded)


def draw_token(logits: Tensor, uniforms: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """A token for each row of logits [B, V] by its uniform number [B], and its log-probability at temperature 1, [B].

    Inverse of the distribution function, words in the vocabulary's order. The logits may be overwritten.
    """
    logits = logits.float()
    if temperature == 1:
        return invert(logits, uniforms)
    tokens, _ = invert(logits / temperature, uniforms)
    return tokens, (logits.gather(1, tokens[:, None]) - logits.logsumexp(1, keepdim=True)).squeeze(1)


def invert(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens [B] at these shares [B] of softmax(logits [B, V]), their log-probabilities [B]), logits overwritten.

    One exponential a word, and no running sum over all of them: that of the blocks' sums finds the block, that of its
    words the word.
    """
    rows, words = logits.shape
    width = max(size for size in range(1, BLOCK + 1) if words % size == 0)
    weights = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    ends = weights.view(rows, -1, width).sum(2).cumsum(1)
    wanted = uniforms[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, wanted).clamp(max=words // width - 1)
    start = pad(ends, (1, 0)).gather(1, block)
    inside = weights.gather(1, block * width + torch.arange(width, device=weights.device)).cumsum(1)
    place = torch.searchsorted(inside, torch.minimum(wanted - start, inside[:, -1:])).clamp(max=width - 1)
    tokens = block * width + place
    return tokens.squeeze(1), (weights.gather(1, tokens) / ends[:, -1:]).log().squeeze(1)


def write(
    policy, tokenizer, prompts: Sequence[Sequence[int]], uniforms: np.ndarray, choose: Callable, batch_size: int
) -> list[Written]:
    """A continuation of each of n prompts (token ids), at most as long as its row of uniform numbers [n, steps].

    choose(logits [B, V], uniforms [B]) gives the next tokens [B] and what is recorded as their log-probabilities [B].
    """
    prompts = [tuple(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
    device, out = next(policy.parameters()).device, {}
    with torch.no_grad(), merged(policy), step_by_step(policy):
        for start in track(range(0, len(order), batch_size), "sampling"):
            rows = order[start : start + batch_size]
            numbers = torch.from_numpy(uniforms[rows]).to(device, torch.float32)
            written = _write_batch(policy, tokenizer, [prompts[i] for i in rows], numbers, choose)
            out.update(zip(rows, written, strict=True))
    return [out[i] for i in range(len(prompts))]


def _write_batch(policy, tokenizer, prompts: list[tuple], uniforms: Tensor, choose: Callable) -> list[Written]:
    eos, steps = tokenizer.eos_token_id, uniforms.shape[1]
    logits, memory = _begin(policy, prompts, tokenizer.pad_token_id, steps)
    tokens = torch.full_like(uniforms, eos, dtype=torch.long)
    logps, rows = torch.zeros_like(uniforms), torch.arange(len(prompts), device=uniforms.device)  # rows that go on
    for step in range(steps):
        chosen, logp = choose(logits, uniforms[rows, step])
        tokens[rows, step], logps[rows, step] = chosen, logp
        going = (chosen != eos).nonzero().squeeze(1)
        if step + 1 == steps or not len(going):
            break
        if len(going) < len(rows):
            memory.keep(going)
            rows, chosen = rows[going], chosen[going]
        logits = None  # the next ones take their place; fresh memory would cost more than the draw
        logits = memory.read(policy, chosen)
    lengths = [row.index(eos) if eos in row else steps for row in tokens.tolist()]
    return [
        Written(tuple(row[:n]), n < steps, tuple(scores[: n + 1]))
        for row, scores, n in zip(tokens.tolist(), logps.tolist(), lengths, strict=True)
    ]


def _begin(policy, prompts: list[tuple], pad_id: int, steps: int) -> tuple[Tensor, "Rows | Apart"]:
    """(logits [B, V] after each prompt, what the rows see from there on)."""
    unlike, logits, cache, seen = _read(policy, list(dict.fromkeys(prompts)), pad_id)
    number = {prompt: i for i, prompt in enumerate(unlike)}
    owner = torch.tensor([number[prompt] for prompt in prompts], device=logits.device)
    if can_share(policy):
        kept = sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values))
        if kept * (len(prompts) / len(unlike) - 1) >= REPEATED:
            return logits[owner], Rows(cache, seen, owner, steps)
    if unlike != prompts:
        cache.reorder_cache(owner)
    return logits[owner], Apart(cache, seen[owner])


class Apart:
    """Rows that have keys and values of their prompts to themselves; seen [B, T]: 1 where they are of a token."""

    def __init__(self, cache: DynamicCache, seen: Tensor):
        self.cache, self.seen = cache, seen

    def keep(self, going: Tensor) -> None:
        """Go on with these rows alone."""
        self.cache.reorder_cache(going)
        self.seen = self.seen[going]

    def read(self, policy, chosen: Tensor) -> Tensor:
        """Logits [B, V] after one more token of each row."""
        self.seen = pad(self.seen, (0, 1), value=1)
        return _predict(policy, chosen[:, None], self.seen, self.cache)


def _read(policy, unlike: list[tuple], pad_id: int) -> tuple[list[tuple], Tensor, DynamicCache, Tensor]:
    """(the prompts, no two alike, in the order of what follows; logits [P, V] after each; keys and values; 1 where
    these are of a token [P, T]).

    Prompts of unlike lengths are read apart, and their keys and values put side by side so that they end together; a
    long common beginning is read once. Only a state that is more than keys and values (a convolution's) comes from one
    pass.
    """
    device = next(policy.parameters()).device
    kinds = {type(layer) for layer in DynamicCache(config=policy.config).layers}
    parts = []
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        parts.append((unlike, *_read_group(policy, unlike, pad_id, 0, DynamicCache(config=policy.config))))
        families = []
    else:
        families = _families(unlike) if kinds <= {DynamicLayer} else [(0, _group(unlike))]
    for start, groups in families:
        begun = DynamicCache()
        if start:
            first = torch.tensor([groups[0][0][:start]], device=device)
            _predict(policy, first, torch.ones_like(first), begun)
        for group in groups:
            parts.append((group, *_read_group(policy, group, pad_id, start, copy.deepcopy(begun))))
    groups, logits, caches, masks = zip(*sorted(parts, key=lambda part: part[-1].shape[1]), strict=True)
    width = masks[-1].shape[1]
    for layers in zip(*(cache.layers for cache in caches), strict=True) if len(caches) > 1 else ():
        for name in ("keys", "values"):
            found = [getattr(layer, name) for layer in layers]
            setattr(layers[-1], name, torch.cat([pad(x, (0, 0, width - x.shape[2], 0)) for x in found]))
    seen = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
    return [prompt for group in groups for prompt in group], torch.cat(logits), caches[-1], seen


def _read_group(policy, group: list[tuple], pad_id: int, start: int, cache) -> tuple[Tensor, DynamicCache, Tensor]:
    """The same for prompts whose first `start` tokens `cache` holds already, once for all of them."""
    device = next(policy.parameters()).device
    ids, seen = (part.to(device) for part in pad_left([prompt[start:] for prompt in group], pad_id))
    if start:
        cache.batch_repeat_interleave(len(group))
        seen = pad(seen, (start, 0), value=1)
    return _predict(policy, ids, seen, cache), cache, seen


def _families(prompts: list[tuple]) -> list[tuple[int, list[list[tuple]]]]:
    """(number of tokens that all begin with, prompts in groups) for each family with a long common beginning, and for
    all others together. Every prompt keeps a token or more to itself, which its first answer follows; groups of a
    family are of one length, as padding must not come between two tokens."""
    found: list[tuple[int, list[tuple]]] = []
    for prompt in sorted(prompts):
        start = len(commonprefix([found[-1][1][0][: found[-1][0]], prompt[:-1]])) if found else 0
        if start >= SHARED:
            found[-1] = start, [*found[-1][1], prompt]
        else:
            found.append((len(prompt) - 1, [prompt]))
    together = [(start, family) for start, family in found if len(family) > 1]
    inside = {prompt for _, family in together for prompt in family}
    alone = [prompt for prompt in prompts if prompt not in inside]
    of_one_length = [(start, [list(same) for _, same in groupby(sorted(family, key=len), key=len)])
                     for start, family in together]  # fmt: skip
    return [*([(0, _group(alone))] if alone else []), *of_one_length]


def _group(prompts: list[tuple]) -> list[list[tuple]]:
    """Prompts of ascending lengths in groups; where a longer one would pad its group by over PADDING, one more."""
    groups = [prompts[:1]]
    for prompt in prompts[1:]:
        if (len(prompt) - len(groups[-1][-1])) * len(groups[-1]) > PADDING:
            groups.append([])
        groups[-1].append(prompt)
    return groups


def _predict(policy, ids: Tensor, seen: Tensor, cache) -> Tensor:
    """Logits [B, V] after these tokens [B, t], where `seen` [B, T] says which of them and of those before are real."""
    length = ids.shape[1]
    positions = (seen.cumsum(1) - 1).clamp(min=0)[:, -length:]
    last = torch.tensor([length - 1], device=ids.device)  # a copy of its state; for a slice the head is read once a row
    how = {"attention_mask": seen, "position_ids": positions, "cache": cache, "use_cache": True}
    return policy(input_ids=ids, **how, logits_to_keep=last).logits[:, -1]
