"""Where the tokens of a batch lie: one flat row, each distinct prompt once, then the distinct answers of each prompt.

Nothing is padded, and what several examples share (a prompt, an answer that is in several pairs) is read once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.data.types import Example

Tokens = tuple[int, ...]
Answers = dict[tuple[Tokens, str], dict[Tokens, None]]  # of each distinct prompt (and what it shows) its completions


class Spans(NamedTuple):
    """Stretches of the flat row, side by side as a rectangle [S, L] for a product of matrices.

    index [S, L]: the token in each cell, the stretch's own last one where it has ended (so that what is not finite
    stays with its own); ended [S, L]: True there; back [N]: the cell of each token. None where all stretches have one
    length, so that a view is enough.
    """

    count: int
    width: int
    index: Tensor | None = None
    ended: Tensor | None = None
    back: Tensor | None = None


class Layout(NamedTuple):
    """prompts: each prompt; answers: all answers of a prompt as one stretch; branches: each answer that has tokens.

    The first `size` tokens of the row are the prompts'; those of answers and branches count from there. owner: the
    prompt of each branch.
    """

    size: int
    prompts: Spans
    answers: Spans
    branches: Spans
    owner: Tensor


def distinct(examples: Sequence[Example]) -> Answers:
    """Each prompt of the examples with its different completions, in the order in which they come."""
    found: Answers = {}
    for example in examples:
        found.setdefault((example.prompt, example.shown), {}).update(dict.fromkeys(example.completions))
    return found


def pieces(found: Answers) -> list[tuple]:
    """What the flat row is put together from: (prompt,) for each, then (prompt, completion) for each."""
    return [(prompt,) for prompt in found] + [(prompt, answer) for prompt in found for answer in found[prompt]]


def read_length(piece: tuple) -> int:
    """Tokens of a piece that the network reads: the last one of a completion is only predicted."""
    return len(piece[0][0]) if len(piece) == 1 else len(piece[1]) - 1


def lay_out(found: Answers) -> Layout:
    """The layout of these prompts and completions."""
    prompts = [len(prompt) for prompt, _ in found]
    reads = [[len(answer) - 1 for answer in answers if len(answer) > 1] for answers in found.values()]
    owner = [g for g, lengths in enumerate(reads) for _ in lengths]
    stretches = map(spans, (prompts, list(map(sum, reads)), sum(reads, [])))
    return Layout(sum(prompts), *stretches, torch.tensor(owner))


def spans(lengths: Sequence[int]) -> Spans:
    """Stretches of these lengths that follow each other."""
    count, width = len(lengths), max(lengths, default=0)
    if min(lengths, default=0) == width:
        return Spans(count, width)
    sizes = np.array(lengths)[:, None]
    inside, ends = np.arange(width) < sizes, np.cumsum(sizes)[:, None]
    index = np.minimum(ends - sizes + np.arange(width), np.maximum(ends - 1, 0))
    return Spans(count, width, *map(torch.from_numpy, (index, ~inside, np.flatnonzero(inside))))


def fold(x: Tensor, where: Spans) -> Tensor:
    """The tokens' rows [N, ...] as a rectangle [S, L, ...]; cells after a stretch's end hold some row."""
    if where.index is not None:
        x = x.index_select(0, where.index.flatten())
    return x.view(where.count, where.width, *x.shape[1:])


def unfold(x: Tensor, where: Spans) -> Tensor:
    """The rows [N, ...] of the tokens in a rectangle [S, L, ...]."""
    x = x.flatten(0, 1)
    return x if where.back is None else x.index_select(0, where.back)


def part(states: Tensor, examples: Sequence[Example]) -> list[tuple[Tensor, ...]]:
    """For each example the states [T, H] of its prompt and of its completions, from their flat row [1, N, H].

    What examples share is the same tensor.
    """
    names = pieces(distinct(examples))
    of = dict(zip(names, states[0].split([read_length(name) for name in names]), strict=True))
    keys = [((example.prompt, example.shown), example.completions) for example in examples]
    return [(of[(key,)], *(of[key, answer] for answer in answers)) for key, answers in keys]


def join(examples: Sequence[Example], states: Sequence[Sequence[Tensor]]) -> Tensor:
    """The flat row [1, N, H] of these examples from what `part` gives, in whatever company each was."""
    of: dict[tuple, Tensor] = {}
    for example, (first, *others) in zip(examples, states, strict=True):
        key = example.prompt, example.shown
        of |= {(key,): first} | {(key, answer): o for answer, o in zip(example.completions, others, strict=True)}
    return torch.cat([of[piece] for piece in pieces(distinct(examples))])[None]


def count_tokens(examples: Sequence[Example]) -> int:
    """Tokens that the network reads of these examples in one batch."""
    return sum(map(read_length, pieces(distinct(examples))))
