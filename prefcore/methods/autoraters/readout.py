"""From what a judge may write to a probability: greedily, in the mean, or by drawing; and from its verdict.

chances [n, 99]: how likely each answer .01 to .99 is written.
"""

import numpy as np
import torch

from prefcore.data.types import Parameters
from prefcore.engine.collate import Plan
from prefcore.methods.autoraters import answer, prompt, tree
from prefcore.methods.autoraters.tree import ANSWERS, States
from prefcore.scoring import judge


def judge_pairs(shown: Plan, policy, tokenizer, p: Parameters) -> np.ndarray:
    """[2, n, 99]: chances of the answers for the pairs as they are, and with their texts exchanged."""
    chances = tree.read_answers(shown, policy, tokenizer, p.precision).double().exp().numpy()
    return chances.reshape(2, -1, len(ANSWERS))


def parse(written: str) -> float | None:
    """The probability that the strict parser finds in what was written behind the prompt's opening."""
    return answer.parse(f"{prompt.OPENING}{written}</{answer.TAG}>")


def greedy(chances: np.ndarray) -> np.ndarray:
    """The answer [n] that is written digit by digit, the likeliest each time, among the 99."""
    tens = np.pad(chances, ((0, 0), (1, 0))).reshape(-1, 10, 10)
    first = tens.sum(2).argmax(1)
    return (10 * first + tens[np.arange(len(tens)), first].argmax(1)) / 100


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


def verdicts(states: States, policy, tokenizer) -> np.ndarray:
    """[2, n]: P(second is better) by the next-token chances of " A" and " B" behind the question, in both orders."""
    (example,) = judge.verdict_examples([("", "")], tokenizer)
    first, second = tree.head_rows(policy, torch.tensor([id for (id,) in example.completions])).float().cpu()
    return (states.question @ (second - first).detach()).sigmoid().double().numpy().reshape(2, -1)


def transcript(verdict: np.ndarray) -> np.ndarray:
    """What the judge should write of each pair [n]: its verdicts [2, n] in both orders, averaged."""
    return (verdict[0] + 1 - verdict[1]) / 2
