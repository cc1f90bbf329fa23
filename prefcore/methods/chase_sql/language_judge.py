"""The paper's selector: a language model with an adapter reads both candidates; its verdict is " A" or " B".

Trained and asked through the shared engine: the two verdicts are the completions of one prompt, and the loss is their
cross-entropy (`judge.verdict_loss`), which is that of the next token among the two.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate, models, reference
from prefcore.lab import tasks, training
from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.execution import Executed, Pool
from prefcore.methods.chase_sql.schema_union import render, union_schema
from prefcore.methods.chase_sql.selector import Comparison, Judge, draw_pairs, training_pairs
from prefcore.scoring import judge

HEAD = "One of two SQL queries answers the question. Compare them and choose."
SQL_TOKENS = 120  # of one query; a longer one loses its end
SCHEMA_TOKENS = 160  # of the tables
QUESTION_TOKENS = 120
RESULT_TOKENS = 48  # of one result


def parts(pool: Pool, first: int, second: int, *, whole_schema: bool = False) -> list[tuple[str, int]]:
    """The prompt in pieces, with the most tokens of each; both candidates are shown alike, results cut alike."""
    both = pool.sqls[first], pool.sqls[second]
    full = {table: tuple(column.name for column in columns) for table, columns in pool.tables.items()}
    schema = full if whole_schema else union_schema(pool.tables, *both)
    question = " ".join(f"{pool.question} {pool.evidence}".split())
    pieces = [(f"{HEAD}\nTables: {render(schema)}", SCHEMA_TOKENS), (f"\nQuestion: {question}", QUESTION_TOKENS)]
    for name, place in (("A", first), ("B", second)):
        pieces.append((f"\nQuery {name}: {' '.join(pool.sqls[place].split())}", SQL_TOKENS))
        pieces.append((f"\nResult {name}: {database.show(pool.results[place])}", RESULT_TOKENS))
    return [*pieces, ("\nThe right query is", 16)]


def examples(
    pools: Sequence[Pool],
    pairs: Sequence[Comparison],
    tokenizer,
    labels: np.ndarray | None = None,
    *,
    whole_schema: bool = False,
) -> list[Example]:
    """Each pair as a prompt with the two verdicts as completions; column share_0 = 1 where the first is right."""
    verdicts = tuple(tuple(collate.encode_text(verdict, tokenizer)) for verdict in judge.VERDICTS)
    if any(len(ids) != 1 for ids in verdicts):
        raise ValueError(f"this tokenizer has no single token for each of {judge.VERDICTS}: {verdicts}")
    kept: dict[str, list[int]] = {}
    out = []
    for i, pair in enumerate(pairs):
        ids: list[int] = []
        for text, most in parts(pools[pair.pool], pair.first, pair.second, whole_schema=whole_schema):
            if text not in kept:
                kept[text] = collate.encode_text(text, tokenizer)
            ids += kept[text][:most]
        columns = {} if labels is None else {"share_0": float(labels[i])}
        out.append(Example(f"{pools[pair.pool].id}:{i}", tuple(ids), verdicts, columns))
    return out


def teach(
    pools: Sequence[Pool], pairs: Sequence[Comparison], labels: np.ndarray, p: Parameters, *, arm: str, seed: int
) -> tuple[object, object, pd.DataFrame]:
    """(policy with a trained adapter, its tokenizer, history) from pairs as `selector.training_pairs` gives them.

    Of p: policy, device, dtype, threads, profile, lora_rank, lora_alpha, lora_layers, batch_size, epochs,
    learning_rate.
    """
    tokenizer, policy = models.load(p, p.policy)
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers}
    policy = models.add_lora(policy, **how, seed=seed)
    plan = tasks.plan(examples(pools, pairs, tokenizer, labels), p, tokenizer, seed=seed)
    history = training.fit_arm(p, plan, judge.verdict_loss, {}, policy, method="chase_sql", arm=arm, seed=seed)
    return policy, tokenizer, history


def taught_judge(train: Executed, pools: Sequence[Pool], p: Parameters) -> Judge:
    """A judge of `pools` that was taught on verdict_pairs pairs of `train`; of p: as above, per_question, seed."""
    pairs = training_pairs(train.pools, train.correct, seed=p.seed, per_question=p.per_question)
    pairs = draw_pairs(*pairs, p.verdict_pairs, seed=p.seed)
    databases = "-".join(sorted({pool.db_id for pool in train.pools}))
    arm = f"language-{hashlib.sha256(databases.encode()).hexdigest()[:8]}"  # a fold has its own checkpoints
    policy, tokenizer, _ = teach(train.pools, *pairs, p, arm=arm, seed=p.seed)
    return judge_with(policy, tokenizer, pools)


def judge_with(policy, tokenizer, pools: Sequence[Pool], *, whole_schema: bool = False) -> Judge:
    """A judge of these pools' candidates: P(" A") among the two verdicts."""

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        rows = examples(pools, pairs, tokenizer, whole_schema=whole_schema)
        logps = reference.score_all(policy, rows, pad_id=tokenizer.pad_token_id).astype(np.float64)
        return 1 / (1 + np.exp(logps[:, 1] - logps[:, 0]))

    return verdicts
