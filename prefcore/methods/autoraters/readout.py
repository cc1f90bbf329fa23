"""From what a judge may write to a probability: greedily, in the mean, by drawing, or past the written number.

chances [n, 99]: how likely each answer .01 to .99 is written (tree.answer_chances).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.methods.autoraters import prompt
from prefcore.methods.autoraters.labels import LabelledPair, add_swapped
from prefcore.methods.autoraters.measures import score_pairs
from prefcore.methods.autoraters.tree import ANSWERS, answer_chances
from prefcore.scoring import judge, scorers
from prefcore.scoring.votes import VotedPair


def judge_pairs(
    pairs: Sequence[VotedPair], policy, tokenizer, p: Parameters, ratings: Mapping[str, int] | None = None
) -> np.ndarray:
    """[2, n, 99]: chances of the answers for the pairs as they are, and with their texts exchanged."""
    shown = add_swapped([LabelledPair(pair, 0.5) for pair in pairs])
    chances = answer_chances(prompt.encode(shown, tokenizer, p, ratings), policy, tokenizer)
    return chances.reshape(2, len(pairs), -1)


def greedy(chances: np.ndarray) -> np.ndarray:
    """The answer [n] that is written digit by digit, the likeliest each time, among the 99."""
    tree = np.pad(chances, ((0, 0), (1, 0))).reshape(-1, 10, 10)
    first = tree.sum(2).argmax(1)
    return (10 * first + tree[np.arange(len(tree)), first].argmax(1)) / 100


def expectation(chances: np.ndarray) -> np.ndarray:
    """The mean [n] of what would be written, given that it is an answer."""
    return chances @ ANSWERS.double().numpy() / chances.sum(1)


def self_consistency(chances: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Share [n] of `size` answers drawn from the model that favour the second text; 0.5 where none can be read.

    .50 itself counts half. Departs from the paper: no reasoning before the answer.
    """
    rng = np.random.default_rng(seed)
    whole = np.column_stack([chances, np.clip(1 - chances.sum(1), 0, 1)])
    drawn = rng.multinomial(size, whole / whole.sum(1, keepdims=True))[:, :-1]
    side = (np.sign(np.arange(1, 100) - 50) + 1) / 2
    return (drawn @ side + 0.5 * (drawn.sum(1) == 0)) / np.maximum(drawn.sum(1), 1)


def verdict_probabilities(pairs: Sequence[VotedPair], policy, tokenizer, question: str) -> np.ndarray:
    """[2, n]: P(second is better) from the next-token chances of " A" and " B", in both orders."""
    first = judge.both_orders([(pair.a, pair.b) for pair in pairs], policy, tokenizer, question)
    return 1 - np.stack(first)


def rate_texts(pairs: Sequence[VotedPair], policy, tokenizer) -> dict[str, int]:
    """The digit that the policy, asked as the shared stage taught it, writes as each text's rating, 0 to 8."""
    texts = sorted({text for pair in pairs for text in (pair.a, pair.b)})
    return dict(zip(texts, scorers.rating_shares(texts, policy, tokenizer).argmax(1).tolist(), strict=True))


def score_answers(arm: str, pairs: Sequence[VotedPair], chances: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Score rows of what is written greedily (`arm`) and of the mean of what would be written (`arm`-mean).

    chances [2, n, 99]: see judge_pairs.
    """
    no_answer = 1 - chances.sum(2).mean(0)
    ways = {arm: greedy, f"{arm}-mean": expectation}
    return pd.concat(score_pairs(name, pairs, np.stack([way(c) for c in chances]), no_answer, seed)
                     for name, way in ways.items())  # fmt: skip
