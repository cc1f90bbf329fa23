"""Two scorers of a text, of different kind and taught on disjoint halves of the training texts.

The proxy (ridge regression on sentence embeddings) makes the preferences; the gold scorer (a language model that gives
the distribution of human ratings over its digit tokens) is used in evaluation only, so that gaming the proxy shows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from prefcore.data.types import Example, LossOutput
from prefcore.engine import collate, models, reference

RATINGS = np.arange(-4, 5)
MAX_TOKENS = 96
QUESTION = "\nSentiment:"


def fit_proxy(embeddings: np.ndarray, means: np.ndarray, path: Path) -> None:
    """Ridge regression from embedding to mean rating; its strength by leave-one-out on the training texts."""
    from sklearn.linear_model import RidgeCV

    ridge = RidgeCV(alphas=np.logspace(-2, 2, 9)).fit(embeddings.astype(np.float64), means)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link into DVC's cache
    save_file({"weight": ridge.coef_.astype(np.float64), "bias": np.array([ridge.intercept_])}, path)


def proxy_scores(texts: Sequence[str], path: Path, encoder, tokenizer) -> np.ndarray:
    """Predicted mean rating [n] of each text, in rating points."""
    fitted = load_file(path)
    return models.embed(texts, encoder, tokenizer).astype(np.float64) @ fitted["weight"] + fitted["bias"][0]


def rating_examples(texts: Sequence[str], tokenizer, shares: np.ndarray | None = None) -> list[Example]:
    """Each text as a prompt with nine one-token completions, the digits 0 to 8; columns share_0 ... share_8."""
    digits = [collate.encode_text(str(d), tokenizer) for d in range(len(RATINGS))]
    if any(len(ids) != 1 for ids in digits):
        raise ValueError(f"this tokenizer has no single token for each digit 0 to 8: {digits}")
    question = collate.encode_text(QUESTION, tokenizer)
    examples = []
    for i, text in enumerate(texts):
        ids = collate.encode_text(text, tokenizer)[:MAX_TOKENS]
        columns = {f"share_{k}": float(s) for k, s in enumerate(shares[i])} if shares is not None else {}
        examples.append(Example(f"{i}", tuple(ids + question), tuple(map(tuple, digits)), columns))
    return examples


def histogram(ratings: Sequence[int]) -> np.ndarray:
    """Share [9] of raters that gave -4 ... +4."""
    return np.bincount(np.asarray(ratings) + 4, minlength=len(RATINGS)) / len(ratings)


def rating_loss(logps: Tensor, ref_logps, batch, state) -> LossOutput:
    """Cross-entropy between the raters' shares and the model's distribution over the nine digits, logps [B, 9]."""
    shares = torch.stack([batch[f"share_{k}"] for k in range(len(RATINGS))], dim=1)
    return LossOutput(-(shares * logps.log_softmax(1)).sum(1), logps.detach())


def rating_shares(texts: Sequence[str], rater, tokenizer) -> np.ndarray:
    """The rater's distribution [n, 9] over the ratings -4 ... +4 for each text."""
    logps = reference.score_all(rater, rating_examples(texts, tokenizer), pad_id=tokenizer.pad_token_id)
    weights = np.exp(logps - logps.max(1, keepdims=True)).astype(np.float64)
    return weights / weights.sum(1, keepdims=True)


def gold_scores(texts: Sequence[str], rater, tokenizer) -> np.ndarray:
    """Expected rating [n] of each text, in rating points."""
    return rating_shares(texts, rater, tokenizer) @ RATINGS
