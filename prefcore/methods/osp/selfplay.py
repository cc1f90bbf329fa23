"""A policy that judges its own answers: several drawn for a prompt, each judged against one baseline answer of it.

Here is what meets the models. How verdicts become pairs, strengths and a loss is the method's matter.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from prefcore.data import views
from prefcore.data.types import Pair, Parameters, Ranked
from prefcore.engine import collate, models
from prefcore.engine.sample import sample
from prefcore.scoring import judge, metrics


def load_judge(p: Parameters):
    """(tokenizer, judge): what `judge` names, else the shared stage's; for own data the policy itself, untaught."""
    return models.load(p, p.judge or (p.policy if p.data else Path("build") / p.profile / "judge"))


def read_report(p: Parameters) -> dict:
    """What the shared stage measured of its judge on held-out human ratings; empty for any other judge."""
    ours = not (p.judge or p.data)
    return json.loads((Path("metrics") / p.profile / "judge.json").read_text(encoding="utf-8")) if ours else {}


def prompts_of(records: Sequence, size: int) -> list[Ranked]:
    """The first `size` distinct prompts of records of any kind, as rows that have no answers yet."""
    first = {views.prompt_key(record.prompt): record for record in reversed(records)}
    chosen = [record for record in records if first[views.prompt_key(record.prompt)] is record][:size]
    return [Ranked(r.id, r.prompt, (), (), (), getattr(r, "domain", "")) for r in chosen]


def draw(policy, tokenizer, rows: Sequence[Ranked], p: Parameters, *, answers: int, seed: int) -> list[Ranked]:
    """The rows with `answers` sampled answers each, which nobody has judged yet (scores of 0)."""
    prompts = [collate.cut_prompt(row.prompt, tokenizer, max_prompt=p.max_prompt) for row in rows]
    ids = [prompt for prompt in prompts for _ in range(answers)]
    drawn = sample(policy, tokenizer, ids, max_new_tokens=p.max_new_tokens, seed=seed)
    groups = [drawn[i : i + answers] for i in range(0, len(drawn), answers)]
    return [
        row._replace(
            completions=tuple(s.text for s in group), scores=(0.0,) * answers,
            finished=tuple(s.finished for s in group), tokens=tuple(s.ids for s in group),
        )  # fmt: skip
        for row, group in zip(rows, groups, strict=True)
    ]


def judge_answers(
    rows: Sequence[Ranked], baselines: Sequence[Ranked], model, tokenizer, *, show: Callable, question: str
) -> tuple[np.ndarray, np.ndarray]:
    """(p_ab, p_ba) [n, K] each: the verdict for the first shown, an answer before its prompt's baseline and after it.

    baselines: one answer for each row. show(prompt, answer) gives the text that the judge reads.
    """
    pairs = [
        (show(row.prompt, answer), show(base.prompt, base.completions[0]))
        for row, base in zip(rows, baselines, strict=True)
        for answer in row.completions
    ]
    p_ab, p_ba = judge.both_orders(pairs, model, tokenizer, question)
    return p_ab.reshape(len(rows), -1), p_ba.reshape(len(rows), -1)


def as_pair(row: Ranked, better: int, worse: int, strength: float) -> Pair:
    """Two answers of a judged row with P(better beats worse)."""
    return views.pair_of(row, better, worse)._replace(strength=strength)


def preferred_length(pairs: Sequence[Pair], *, seed: int) -> metrics.Interval:
    """By how many words the preferred answers are longer: mean over prompts of the mean over their pairs.

    Raises ValueError where fewer than two prompts have pairs.
    """
    by_prompt: dict[str, list[int]] = {}
    for pair in pairs:
        gap = len(pair.chosen.split()) - len(pair.rejected.split())
        by_prompt.setdefault(pair.id.rpartition("/")[0], []).append(gap)
    return metrics.bootstrap_interval([float(np.mean(gaps)) for gaps in by_prompt.values()], seed=seed)


def agreement(pairs: Sequence[Pair], model, tokenizer, *, show: Callable, question: str, seed: int) -> metrics.Interval:
    """Share of pairs where the judge, asked in both orders, prefers the chosen answer; a tie half."""
    shown = [(show(pair.prompt, pair.chosen), show(pair.prompt, pair.rejected)) for pair in pairs]
    p_ab, p_ba = judge.both_orders(shown, model, tokenizer, question)
    return metrics.bootstrap_interval(0.5 + 0.5 * np.sign(p_ab - p_ba), seed=seed)
