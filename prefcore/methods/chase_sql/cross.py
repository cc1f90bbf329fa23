"""A cross-encoder as a judge: a sentence encoder reads question, query and result together and gives one score.

It learns from the same pairs by the logistic loss of the difference of two scores, -log sigma(s_right - s_wrong), so
the order in which two candidates are shown cannot matter.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.engine.descent import descend
from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.execution import Pool
from prefcore.methods.chase_sql.selector import Comparison, Judge

MAX_TOKENS = 160
BLOCK = 64  # texts read together where nothing is learnt


class Scorer(NamedTuple):
    """An encoder with its tokenizer, and a linear head on the mean of its last layer."""

    encoder: nn.Module
    tokenizer: object
    head: nn.Linear


def score(scorer: Scorer, texts: Sequence[tuple[str, str]]) -> torch.Tensor:
    """Scores [n] of texts, each a question and a query with its result."""
    how = {"padding": True, "truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
    batch = scorer.tokenizer(*map(list, zip(*texts, strict=True)), **how).to(scorer.head.weight.device)
    hidden = scorer.encoder(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].to(hidden.dtype)
    return scorer.head((hidden * mask).sum(1) / mask.sum(1)).squeeze(1)


def text(pool: Pool, place: int) -> tuple[str, str]:
    """What is read of a candidate."""
    result = database.show(pool.results[place])
    return f"{pool.question} {pool.evidence}".strip(), f"{' '.join(pool.sqls[place].split())} gives {result}"


def teach(
    pools: Sequence[Pool], pairs: Sequence[Comparison], labels: np.ndarray, p: Parameters, *, arm: str, seed: int,
    rate: float,
) -> tuple[Scorer, pd.DataFrame]:  # fmt: skip
    """(scorer, history). Of p: encoder, device, threads, batch_size, epochs."""
    tokenizer, encoder = models.load_encoder(p.encoder, device=str(models.choose_device(p.device, p.threads)))
    torch.manual_seed(seed)
    head = nn.Linear(encoder.config.hidden_size, 1).to(next(encoder.parameters()).device)
    scorer = Scorer(encoder, tokenizer, head)
    rng = np.random.default_rng([seed, 2])
    orders = [rng.permutation(len(pairs)) for _ in range(p.epochs)]
    batches = [order[k : k + p.batch_size] for order in orders for k in range(0, len(order), p.batch_size)]

    def loss(batch):
        shown = [(pools[c.pool], c.first, c.second) for c in (pairs[i] for i in batch)]
        both = [text(pool, i) for pool, i, _ in shown] + [text(pool, j) for pool, _, j in shown]
        first, second = score(scorer, both).chunk(2)
        signs = torch.from_numpy(np.where(labels[batch] > 0.5, 1.0, -1.0)).to(first)
        return nn.functional.softplus(-signs * (first - second)).mean(), {}

    history = descend(
        [*encoder.parameters(), *head.parameters()], batches, loss, learning_rate=rate, label=f"{arm}, seed {seed}"
    )
    return scorer, history.assign(arm=arm, seed=seed)


def judge(scorer: Scorer, pools: Sequence[Pool]) -> Judge:
    """A judge of these pools' candidates; each is read once."""

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        wanted = list(dict.fromkeys((c.pool, i) for c in pairs for i in (c.first, c.second)))
        texts = [text(pools[k], i) for k, i in wanted]
        with torch.no_grad():
            parts = [score(scorer, texts[k : k + BLOCK]).double().cpu().numpy() for k in range(0, len(texts), BLOCK)]
        of = dict(zip(wanted, np.concatenate(parts), strict=True))
        return np.array([1 / (1 + np.exp(of[c.pool, c.second] - of[c.pool, c.first])) for c in pairs])

    return verdicts
