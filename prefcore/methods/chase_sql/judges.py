"""Judges that read both candidates: a language model taught to say A or B (the paper's selector), a server that is
asked for it, a model that was saved; and the votes as prior of any of them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate, models, ranks, reference
from prefcore.lab import runs, tasks, training
from prefcore.methods.chase_sql import database, features, linear_judge, schema
from prefcore.methods.chase_sql.execution import Pool, cluster_sizes
from prefcore.methods.chase_sql.selector import Comparison, Judge
from prefcore.scoring import judge, llm

HEAD = "One of two SQL queries answers the question. Compare them and choose."
SCHEMA_TOKENS, QUESTION_TOKENS, SQL_TOKENS, RESULT_TOKENS = 160, 120, 120, 48  # at most, of a part of the prompt
VERDICT_TOKENS = 8  # of a server's answer
LINEAR = "judge.safetensors"


def pieces(pool: Pool, first: int, second: int) -> list[tuple[str, int]]:
    """The prompt in parts, with the most tokens of each; both candidates are shown alike, results cut alike."""
    both = pool.sqls[first], pool.sqls[second]
    shown = "; ".join(f"{table}({', '.join(columns)})" for table, columns in schema.union(pool.tables, *both).items())
    question = " ".join(f"{pool.question} {pool.evidence}".split())
    out = [(f"{HEAD}\nTables: {shown}", SCHEMA_TOKENS), (f"\nQuestion: {question}", QUESTION_TOKENS)]
    for name, place in (("A", first), ("B", second)):
        out.append((f"\nQuery {name}: {' '.join(pool.sqls[place].split())}", SQL_TOKENS))
        out.append((f"\nResult {name}: {database.show(pool.results[place])}", RESULT_TOKENS))
    return [*out, ("\nThe right query is", 16)]


def examples(
    pools: Sequence[Pool], pairs: Sequence[Comparison], tokenizer, labels: np.ndarray | None = None
) -> list[Example]:
    """Each pair as a prompt with the two verdicts as completions; column share_0 = 1 where the first is right."""
    answers = tuple(tuple(collate.encode_text(verdict, tokenizer)) for verdict in judge.VERDICTS)
    if any(len(ids) != 1 for ids in answers):
        raise ValueError(f"this tokenizer has no single token for each of {judge.VERDICTS}: {answers}")
    kept: dict[str, list[int]] = {}
    out = []
    for i, pair in enumerate(pairs):
        ids: list[int] = []
        for text, most in pieces(pools[pair.pool], pair.first, pair.second):
            if text not in kept:
                kept[text] = collate.encode_text(text, tokenizer)
            ids += kept[text][:most]
        columns = {} if labels is None else {"share_0": float(labels[i])}
        out.append(Example(f"{pools[pair.pool].id}:{i}", tuple(ids), answers, columns))
    return out


def teach(
    pools: Sequence[Pool], pairs: Sequence[Comparison], labels: np.ndarray, p: Parameters, *, arm: str, seed: int,
    rate: float,
) -> tuple[object, object, pd.DataFrame]:  # fmt: skip
    """(policy with a trained adapter, its tokenizer, history) from pairs as `selector.training_pairs` gives them.

    Of p: policy, device, dtype, threads, profile, precision, lora_rank, lora_alpha, lora_layers, batch_size, epochs.
    """
    tokenizer, policy = models.load(p, p.policy)
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers}
    policy = models.add_lora(policy, **how, seed=seed)
    plan = tasks.plan(examples(pools, pairs, tokenizer, labels), p, tokenizer, seed=seed)
    where = {"method": "chase_sql", "arm": arm, "seed": seed}
    history = training.fit_arm(p, plan, judge.verdict_loss, {}, policy, learning_rate=rate, **where)
    return policy, tokenizer, history


def read_with(policy, tokenizer, pools: Sequence[Pool]) -> Judge:
    """A judge of these pools' candidates: P(" A") among the two verdicts of a local model."""

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        rows = examples(pools, pairs, tokenizer)
        logps = reference.score_all(policy, rows, pad_id=tokenizer.pad_token_id).astype(np.float64)
        return 1 / (1 + np.exp(logps[:, 1] - logps[:, 0]))

    return verdicts


def chat(pool: Pool, first: int, second: int) -> tuple[tuple[str, str], ...]:
    """The same question to a server: the queries' tables as DDL, both queries, both results."""
    both = pool.sqls[first], pool.sqls[second]
    parts = [f"Schema:\n{schema.ddl(pool.tables, used=schema.union(pool.tables, *both))}"]
    parts += [f"Evidence: {pool.evidence}"] * bool(pool.evidence)
    parts.append(f"Question: {pool.question}")
    for name, place in (("A", first), ("B", second)):
        result = database.show(pool.results[place], rows=10, width=80)
        parts.append(f"Query {name}:\n```sql\n{pool.sqls[place]}\n```\nResult {name}: {result}")
    return ("system", f"{HEAD} Answer with one letter, A or B."), ("user", "\n".join(parts))


def ask_with(model: llm.LanguageModel, pools: Sequence[Pool]) -> Judge:
    """A judge that asks a model of `llm.verdicts`, each pair by itself; the tournament asks in both orders."""

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        asked = [llm.Request(chat(pools[c.pool], c.first, c.second), 0.0, VERDICT_TOKENS, 0) for c in pairs]
        return np.array([float(text) for text in model(asked)])

    return verdicts


def weigh(given: Judge, pools: Sequence[Pool], prior: float) -> Judge:
    """The judge with the votes as prior: to its log-odds comes `prior` times the log ratio of the clusters' sizes."""
    sizes = [np.log(np.maximum(cluster_sizes(pool.clusters), 1)) for pool in pools]

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        own = np.clip(given(pairs), 1e-6, 1 - 1e-6)
        votes = np.array([sizes[c.pool][c.first] - sizes[c.pool][c.second] for c in pairs])
        return 1 / (1 + np.exp(-(np.log(own / (1 - own)) + prior * votes)))

    return verdicts


def save(kept: linear_judge.Linear | tuple, profile: str) -> Path:
    """A linear judge, or (policy with an adapter, its tokenizer), as runs/<profile>/chase_sql/model."""
    if isinstance(kept, linear_judge.Linear):
        folder = Path("runs") / profile / "chase_sql" / "model"
        if ranks.is_first():
            linear_judge.save(kept, folder / LINEAR)
        return folder
    return runs.save_model(*kept, profile, "chase_sql")


def open_judge(name: str, p: Parameters, embed: features.Embed) -> Callable[[Sequence[Pool]], Judge] | None:
    """A server (address#model), a folder that this chapter has saved, or a hub id or folder of any causal model; None
    for an empty name: then the votes choose."""
    if not name:
        return None
    if llm.is_server(name):
        model = llm.cached(llm.verdicts(*llm.address(name)), llm.ANSWERS, f"{name} verdict")
        return partial(ask_with, model)
    folder = Path(name) / "model" if (Path(name) / "model").is_dir() else Path(name)
    if (folder / LINEAR).exists():
        kept = linear_judge.load(folder / LINEAR, features.NAMES)
        return lambda pools: linear_judge.judge(kept, features.describe(pools, embed))
    tokenizer, policy = models.load(p, str(folder) if folder.is_dir() else name)
    return partial(read_with, policy, tokenizer)
