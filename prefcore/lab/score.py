"""How often a model prefers what people preferred: its accuracy on pairs, as a whole and by subset.

A reward model prefers the answer with the higher reward. A policy prefers by its implicit reward, log policy - log
reference (arXiv 2305.18290, eq. 5; beta decides no order); the reference is the base of its adapter, or a model that is
named. A model without a reference prefers what is likelier, which favours short answers. A tie is half right.

Rows are pairs of any form that data/datasets.py reads, RewardBench's (prompt, chosen, rejected, subset) among them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data import datasets, files, views
from prefcore.data.types import Pair
from prefcore.engine import collate, models, reference
from prefcore.lab import own
from prefcore.scoring import metrics, reward_model


class Scores(NamedTuple):
    """table: a row for each pair with id, subset, chosen and rejected (the model's scores) and right (1, 0.5 or 0).

    by: what the model prefers by, in words. notes: what was left out or cut.
    """

    table: pd.DataFrame
    by: str
    notes: list[str]


def score(name: str, source: str, *, base: str = "", columns: Mapping[str, str] | None = None) -> Scores:
    """A model, by hub id or folder, on the pairs of a file or hub set. base: the reference of a policy.

    ValueError for data without pairs, and for a reference where none is needed.
    """
    found = datasets.scan(source, columns=columns, beside="subset")
    pairs = views.as_pairs(found.records)
    judge = _rewards if reward_model.is_one(name) else _gains
    scores, by, notes = judge(name, pairs, base)
    table = pd.DataFrame({"id": [pair.id for pair in pairs]}).assign(chosen=scores[:, 0], rejected=scores[:, 1])
    table.insert(1, "subset", [found.beside.get(pair.id, "") for pair in pairs])
    table["right"] = (np.sign(table["chosen"] - table["rejected"]) + 1) / 2
    bad = [f"rows left out: {len(found.problems)}; the first: {first}" for first in found.problems[:1]]
    unread = int(table["right"].isna().sum())
    bad += [f"pairs left out, as an answer has no token: {unread}"] * bool(unread)
    bad += ["weights are not read: every pair counts once"] * any(pair.weight is not None for pair in pairs)
    return Scores(table.dropna(subset="right"), by, found.notes + bad + notes)


def _rewards(name: str, pairs: list[Pair], base: str) -> tuple[np.ndarray, str, list[str]]:
    if base:
        raise ValueError(f"{name} is a reward model, which needs no reference: leave out --reference")
    device = str(models.choose_device("auto", os.cpu_count() or 1))
    tokenizer, model = reward_model.load(name, seed=0, device=device)
    most = models.context_of(model)
    items = [(pair.prompt, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    long = sum(len(reward_model.token_ids(*item, tokenizer, most + 1)) > most for item in items)
    found = reward_model.score(items, model, tokenizer, max_tokens=most)
    return found.reshape(-1, 2), "reward", [f"{long} texts are cut at {most} tokens"] * bool(long)


def _gains(name: str, pairs: list[Pair], base: str) -> tuple[np.ndarray, str, list[str]]:
    device = models.choose_device("auto", os.cpu_count() or 1)
    tokenizer, policy = models.load_policy(name, device=device)
    lengths, most = own.measure(pairs, tokenizer), models.context_of(policy)
    answer = max(len(ids) for one in lengths for ids in one.answers)
    prompt = max(1, *(len(one.prompt) for one in lengths))
    if prompt + answer > most:
        answer = min(answer, most // 2)
        prompt = most - answer
    long = sum(len(one.prompt) > prompt or any(len(ids) > answer for ids in one.answers) for one in lengths)
    notes = [f"of {long} pairs a prompt or an answer is cut, at {prompt} and {answer} tokens"] * bool(long)
    examples = collate.encode_pairs(pairs, tokenizer, max_prompt=prompt, max_completion=answer).examples
    found = reference.score_all(policy, examples, pad_id=tokenizer.pad_token_id).astype(float)
    by = "log-likelihood, which favours short answers; name the model that training began from with --reference"
    if base or hasattr(policy, "disable_adapter"):
        found -= _reference(policy, base, device, examples, tokenizer)
        by = f"implicit reward, log policy − log reference ({base or 'the base of its adapter'})"
    return pd.DataFrame(found, [e.id for e in examples]).reindex([pair.id for pair in pairs]).to_numpy(), by, notes


def _reference(policy, base: str, device, examples, tokenizer) -> np.ndarray:
    if not base:
        with policy.disable_adapter():
            return reference.score_all(policy, examples, pad_id=tokenizer.pad_token_id)
    other, model = models.load_policy(base, device=device)
    if other.get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"--reference {base} has another tokenizer: name the model that training began from")
    return reference.score_all(model, examples, pad_id=tokenizer.pad_token_id)


def summarise(found: Scores) -> pd.DataFrame:
    """A row for all pairs and one for each subset: pairs, ties, accuracy with its 95 % interval over pairs."""
    parts = [("all pairs", found.table)]
    if found.table["subset"].any():
        parts += [(name or "(no subset)", part) for name, part in found.table.groupby("subset", sort=True)]
    lines = []
    for name, part in parts:
        interval = metrics.bootstrap_interval(part["right"].to_numpy(), seed=0)
        lines.append({"subset": name, "pairs": len(part), "ties": int((part["right"] == 0.5).sum())}
                     | {"accuracy": interval.estimate, "low": interval.low, "high": interval.high})  # fmt: skip
    return pd.DataFrame(lines)


def write(found: Scores, folder: Path) -> Path:
    """score.json and pairs.csv in a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_table(found.table.round(6), folder / "pairs.csv")
    told = {"by": found.by, "notes": found.notes, "accuracy": summarise(found).round(6).to_dict("records")}
    (folder / "score.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder
