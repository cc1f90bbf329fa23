"""A judge of two texts: a language model reads both; its next-token probabilities of " A" and " B" are the verdict."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prefcore.data.types import Example, LossOutput
from prefcore.engine import collate, reference

VERDICTS = (" A", " B")
QUESTION = "The more positive text is"
MAX_TOKENS = 64


def verdict_examples(
    pairs: Sequence[tuple[str, str]], tokenizer, wins: Sequence[float] | None = None, question: str = QUESTION
) -> list[Example]:
    """Each (first, second) as a prompt with the two verdicts as completions; column share_0 = P(first is better)."""
    answers = tuple(tuple(collate.encode_text(verdict, tokenizer)) for verdict in VERDICTS)
    if any(len(ids) != 1 for ids in answers):
        raise ValueError(f"this tokenizer has no single token for each of {VERDICTS}: {answers}")
    pieces = [collate.encode_text(piece, tokenizer) for piece in ("Text A: ", "\nText B: ", f"\n{question}")]
    examples = []
    for i, pair in enumerate(pairs):
        first, second = (collate.encode_text(text, tokenizer)[:MAX_TOKENS] for text in pair)
        columns = {"share_0": float(wins[i])} if wins is not None else {}
        examples.append(Example(f"{i}", (*pieces[0], *first, *pieces[1], *second, *pieces[2]), answers, columns))
    return examples


def verdict_loss(logps: Tensor, ref_logps, batch, state) -> LossOutput:
    """Cross-entropy between the share of raters who prefer the first text and the verdict, logps [B, 2]."""
    share = torch.stack([batch["share_0"], 1 - batch["share_0"]], dim=1)
    return LossOutput(-(share * logps.log_softmax(1)).sum(1), logps.detach())


def verdicts(pairs: Sequence[tuple[str, str]], judge, tokenizer, question: str = QUESTION) -> np.ndarray:
    """P(first shown is better) [n] for each (first, second)."""
    examples = verdict_examples(pairs, tokenizer, question=question)
    logps = reference.score_all(judge, examples, pad_id=tokenizer.pad_token_id).astype(np.float64)
    return 1 / (1 + np.exp(logps[:, 1] - logps[:, 0]))


def both_orders(
    pairs: Sequence[tuple[str, str]], judge, tokenizer, question: str = QUESTION
) -> tuple[np.ndarray, np.ndarray]:
    """(p_ab, p_ba) [n] each: the verdict for the first shown with a first, and with b first."""
    return tuple(verdicts(shown, judge, tokenizer, question) for shown in (pairs, [(b, a) for a, b in pairs]))


def share_preferring(a: Sequence[int], b: Sequence[int]) -> float:
    """P(a rating of a is above an independent rating of b), a tie half: from two lists of human ratings."""
    difference = np.subtract.outer(np.asarray(a), np.asarray(b))
    return float((difference > 0).mean() + (difference == 0).mean() / 2)
