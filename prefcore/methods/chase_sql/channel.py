"""The noisy channel as a judge: which of two queries makes the question likelier, log P(question | query)?

A language model learns to ask what a query answers, from the gold queries of training questions. No pairs are needed,
and no right or wrong candidate.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate, models, reference
from prefcore.lab import pipeline, tasks, training
from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.database import Result
from prefcore.methods.chase_sql.execution import Pool
from prefcore.methods.chase_sql.selector import Comparison, Judge

PROMPT_TOKENS, QUESTION_TOKENS = 160, 64


def example(id: str, sql: str, result: Result, question: str, tokenizer) -> Example:
    """The question as the continuation of a query and its result."""
    prompt = collate.encode_text(f"Query: {' '.join(sql.split())}"[:1000], tokenizer)[:PROMPT_TOKENS]
    prompt += collate.encode_text(f"\nResult: {database.show(result)}"[:200], tokenizer)[:48]
    prompt += collate.encode_text("\nQuestion:", tokenizer)
    ids = collate.encode_text(f" {question}", tokenizer)[:QUESTION_TOKENS]
    return Example(id, tuple(prompt), ((*ids, tokenizer.eos_token_id),))


def teach(
    golds: Sequence[tuple[Pool, str, Result]], p: Parameters, *, arm: str, seed: int, rate: float
) -> tuple[object, object, pd.DataFrame]:
    """(policy with a trained adapter, its tokenizer, history) from (pool, a right query, its result); p as for
    judges.teach."""
    tokenizer, policy = models.load(p, p.policy)
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers}
    policy = models.add_lora(policy, **how, seed=seed)
    rows = [example(pool.id, sql, result, pool.question, tokenizer) for pool, sql, result in golds]
    plan = tasks.plan(rows, p, tokenizer, seed=seed)
    where = {"method": "chase_sql", "arm": arm, "seed": seed}
    history = training.fit_arm(p, plan, pipeline.token_loss, {}, policy, learning_rate=rate, **where)
    return policy, tokenizer, history


def judge(policy, tokenizer, pools: Sequence[Pool]) -> Judge:
    """A judge whose log-odds are the difference of the two log-likelihoods; each text of a query is scored once."""

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        wanted = dict.fromkeys((c.pool, i) for c in pairs for i in (c.first, c.second))
        rows = [example(pools[k].id, pools[k].sqls[i], pools[k].results[i], pools[k].question, tokenizer)
                for k, i in wanted]  # fmt: skip
        scores = reference.score_all(policy, rows, pad_id=tokenizer.pad_token_id)[:, 0].astype(np.float64)
        of = dict(zip(wanted, scores, strict=True))
        gaps = np.array([of[c.pool, c.first] - of[c.pool, c.second] for c in pairs])
        return 1 / (1 + np.exp(-np.clip(gaps, -50, 50)))

    return verdicts
