"""Attention along a layout: a prompt to itself, its answers to the prompt, each answer to itself.

The dense mask of a prompt with K answers hides half of its products and more with each answer. Here none is computed
that is hidden, and no prompt is copied for its answers: the two parts of an answer's attention are added by their
normalisers, as flash attention adds blocks (arXiv 2205.14135, section 3.1).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from prefcore.engine.decoder import attending, find_additions
from prefcore.engine.layout import Layout, Spans, fold, unfold
from prefcore.engine.machine import small_products

NAME = "prefcore_layout"
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_current: list[Layout] = []
_calls = 0


@contextmanager
def along(model, layout: Layout) -> Iterator[None]:
    """While it is open, the model's attention takes its one row of tokens as laid out so."""
    _current.append(layout)
    try:
        with attending(model, NAME):
            yield
    finally:
        _current.pop()


def current_layout() -> Layout | None:
    """What tokens are laid out along just now; None where nothing is."""
    return _current[-1] if _current else None


def attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **more) -> tuple[Tensor, None]:
    """What transformers calls in each layer: query [1, heads, N, D], key and value of as many or fewer heads.

    Returns [1, N, heads, D]. ValueError for attention that is more than the softmax of scaled products.
    """
    extra = find_additions(more) + ["dropout"] * bool(dropout)
    if extra or len(query) != 1 or query.shape[2] != key.shape[2] or query.shape[-1] != value.shape[-1]:
        raise ValueError(f"this attention cannot be split along a layout ({', '.join(extra) or 'another shape'})")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    global _calls
    _calls += 1
    # under autocast the rotated ones are float32 and the values are not: the wider is faster on a CPU
    split, kind = (SplitAttention.apply, query) if query.device.type == "cpu" else (split_plainly, value)
    rows = (x[0].transpose(0, 1).to(kind.dtype).contiguous() for x in (query, key, value))
    return split(*rows, _current[-1], scaling)[None], None


AttentionInterface.register(NAME, attend)


def count_calls() -> int:
    """How many layers have attended along a layout in this process. A family that never asks would ignore it."""
    return _calls


class SplitAttention(torch.autograd.Function):
    """query [N, heads, D], key and value [N, fewer heads, D], Layout, scale -> [N, heads, D], on a CPU.

    Each part's backward pass gets the whole output and the whole normaliser, so that it sees the weights that its keys
    really have; a normaliser of infinity where a stretch has ended makes every weight there zero.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        rows, logs = zip(*(_attend(*part, scale) for part in _parts(query, key, value, layout)), strict=True)
        if len(rows) == 3:
            total = torch.logaddexp(logs[1], logs[2])
            shares = [(log - total).exp()[..., None].to(query.dtype) for log in logs[1:]]
            rows, logs = (rows[0], rows[1] * shares[0] + rows[2] * shares[1]), (logs[0], total)
        out, logs = torch.cat(rows), torch.cat(logs)
        ctx.layout, ctx.scale = layout, scale
        ctx.save_for_backward(query, key, value, out, logs)
        return out

    @staticmethod
    def backward(ctx, upstream: Tensor):
        query, key, value, out, logs = ctx.saved_tensors
        parts = _parts(query, key, value, ctx.layout)
        near = [(x[: ctx.layout.size], x[ctx.layout.size :]) for x in (upstream, out, logs)]
        slopes = [_backward(*part, *(x[i > 0] for x in near), ctx.scale) for i, part in enumerate(parts)]
        (q, k, v), *rest = slopes
        if rest:
            (q_far, k_far, v_far), (q_own, k_own, v_own) = rest
            q, k, v = (torch.cat(two) for two in ((q, q_far + q_own), (k + k_far, k_own), (v + v_far, v_own)))
        return q, k, v, None, None


def _parts(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> list[tuple]:
    """(tokens that ask, their Spans, keys, values, their Spans, whether only the past is seen) of each product."""
    size, prompts = layout.size, layout.prompts
    parts = [(query[:size], prompts, key[:size], value[:size], prompts, True)]
    if size < len(query):
        asked = query[size:]
        parts += [
            (asked, layout.answers, key[:size], value[:size], prompts, False),
            (asked, layout.branches, key[size:], value[size:], layout.branches, True),
        ]
    return parts


def _attend(query, asking: Spans, key, value, asked: Spans, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """(output [N, heads, D], logarithm of the normaliser [N, heads]) of one part."""
    operands = _heads(query, asking), _heads(key, asked), _heads(value, asked)
    with small_products():
        out, log = _flash(*operands, 0.0, causal, attn_mask=_hide(asked, causal, query.dtype), scale=scale)
    return _rows(out, asking), _rows(log, asking)


def _backward(query, asking, key, value, asked, causal, upstream, out, log, scale) -> tuple[Tensor, ...]:
    """The gradients of one part, as rows of its query, key and value."""
    operands = _heads(query, asking), _heads(key, asked), _heads(value, asked)
    norm = fold(log, asking)
    if asking.ended is not None:
        norm = norm.masked_fill(asking.ended[..., None], torch.inf)
    given = _heads(upstream, asking), *operands, _heads(out, asking), norm.transpose(1, 2)
    with small_products():
        slopes = _flash_backward(*given, 0.0, causal, attn_mask=_hide(asked, causal, query.dtype), scale=scale)
    return tuple(_rows(slope, where) for slope, where in zip(slopes, (asking, asked, asked), strict=True))


def _heads(x: Tensor, where: Spans) -> Tensor:
    """Rows of tokens [N, heads, D] as [S, heads, L, D]."""
    return fold(x, where).transpose(1, 2)


def _rows(x: Tensor, where: Spans) -> Tensor:
    """[S, heads, L, ...] as rows of tokens [N, heads, ...]."""
    return unfold(x.transpose(1, 2), where)


def _hide(asked: Spans, causal: bool, dtype: torch.dtype) -> Tensor | None:
    """What is added to the products with keys behind a stretch's end, [S, 1, 1, L]; the causal parts never see them."""
    if causal or asked.ended is None:
        return None
    return torch.zeros(asked.ended.shape, dtype=dtype).masked_fill_(asked.ended, -torch.inf)[:, None, None]


def split_plainly(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """The same by PyTorch's own attention, where each answer's keys are its prompt's and its own: on a GPU."""
    size, prompts, branches = layout.size, layout.prompts, layout.branches
    grouped = {"scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
    near = [_heads(x[:size], prompts) for x in (query, key, value)]
    rows = [_rows(scaled_dot_product_attention(*near, is_causal=True, **grouped), prompts)]
    if size < len(query):
        own = [_heads(x[size:], branches) for x in (query, key, value)]
        both = zip(near[1:], own[1:], strict=True)
        keys, values = (torch.cat([x.index_select(0, layout.owner), y], 2) for x, y in both)
        length, device = branches.width, query.device
        past = torch.ones(length, prompts.width + length, dtype=torch.bool, device=device).tril(prompts.width)
        if prompts.ended is not None:
            there = ~prompts.ended[layout.owner]
            past = past & torch.cat([there, there.new_ones(branches.count, length)], 1)[:, None, None]
        rows.append(_rows(scaled_dot_product_attention(own[0], keys, values, attn_mask=past, **grouped), branches))
    return torch.cat(rows)
