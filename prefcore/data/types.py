"""The kinds of preference data, and what a loss returns. Every method takes one of these; nothing else travels.

`tokens` of a record are the token ids of its completions as a policy has sampled them, EOS not among them. A text alone
does not say them: another sequence of tokens may spell it. They are None where a file or a person gave the text.
`weight` of a record multiplies its loss (as often as that is the row there); None where the data have no weights.
"""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # what only runs a notebook handles no tensor, and needs not wait for torch
    from torch import Tensor

Parameters = tuple  # the values of a run by name, p.beta: a named tuple that `freeze` makes, read and never changed
Tokens = tuple[int, ...]
Prompt = str | Sequence[Mapping[str, str]]  # plain text, or chat messages [{"role": ..., "content": ...}]


class DataError(ValueError):
    """Data that cannot be used. One line: `file:line: field 'x': what is wrong; what to do`."""


class Pair(NamedTuple):
    """Two completions of one prompt; `chosen` is the better one.

    `finished` says for each completion whether it ends by itself (an EOS follows) or was cut at a length limit.
    """

    id: str
    prompt: Prompt
    chosen: str
    rejected: str
    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None  # how much better, in the data's own unit
    strength: float | None = None  # P(chosen is better), in [0, 1]
    votes: tuple[int, ...] | None = None  # 1 for chosen, 0 for rejected
    finished: tuple[bool, bool] = (True, True)
    tokens: tuple[Tokens, Tokens] | None = None
    weight: float | None = None


class Unary(NamedTuple):
    """One completion with a thumbs-up (True) or thumbs-down (False)."""

    id: str
    prompt: Prompt
    completion: str
    label: bool
    finished: bool = True
    tokens: Tokens | None = None
    weight: float | None = None


class Scored(NamedTuple):
    """One completion with a real-valued score, higher is better."""

    id: str
    prompt: Prompt
    completion: str
    score: float
    finished: bool = True
    tokens: Tokens | None = None
    weight: float | None = None


class Ranked(NamedTuple):
    """K completions of one prompt with a score each; `domain` is the prompt's kind of text (may be empty)."""

    id: str
    prompt: Prompt
    completions: tuple[str, ...]
    scores: tuple[float, ...]
    finished: tuple[bool, ...]
    domain: str = ""
    tokens: tuple[Tokens, ...] | None = None
    weight: float | None = None


class Voted(NamedTuple):
    """Two texts and the individual votes: 1 prefers a, 0 prefers b, 0.5 a tie."""

    id: str
    prompt: Prompt
    a: str
    b: str
    votes: tuple[float, ...]


class Example(NamedTuple):
    """Token ids of a prompt with its K completions (EOS included), and named numbers that the loss needs.

    shown: what the prompt holds besides its tokens, by name (a picture). Examples whose prompts are alike in both are
    read together.
    """

    id: str
    prompt: Tokens
    completions: tuple[Tokens, ...]
    columns: Mapping[str, float] = {}
    shown: str = ""


class LossOutput(NamedTuple):
    """losses [B]: per example, no reduction. rewards [B, K]: beta x (policy - reference) log-probability, detached."""

    losses: "Tensor"
    rewards: "Tensor"


def freeze(values: Mapping) -> Parameters:
    """The values as Parameters; p._replace(beta=0.2) gives a copy with another value."""
    return namedtuple("Parameters", values)(*values.values())
