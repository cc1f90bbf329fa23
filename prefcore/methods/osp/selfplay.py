"""A policy that judges its own answers: several drawn for a prompt, each judged against one baseline answer of it.

Here is what meets the models. How verdicts become pairs, strengths and a loss is the method's matter.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from prefcore.data import views
from prefcore.data.types import Example, Pair, Parameters, Ranked
from prefcore.engine import collate, models
from prefcore.engine.sample import sample_several
from prefcore.methods.osp import loss
from prefcore.scoring import bank, judge, metrics


def load_judge(p: Parameters):
    """(tokenizer, judge): what `judge` names, else the shared stage's; for own data the policy itself, untaught."""
    return models.load(p, p.judge or (p.policy if p.data else Path("build") / p.profile / "judge"))


def read_report(p: Parameters) -> dict:
    """What the shared stage measured of its judge on held-out human ratings; empty for any other judge."""
    ours = not (p.judge or p.data)
    return json.loads((Path("metrics") / p.profile / "judge.json").read_text(encoding="utf-8")) if ours else {}


def prompts_of(records: Sequence, size: int) -> list[Ranked]:
    """The first `size` distinct prompts of records of any kind, as rows that have no answers yet.

    A prompt has the weight of its records, and ValueError where they have different ones.
    """
    groups = views.by_prompt(records)[:size]
    rows = [Ranked(r.id, r.prompt, (), (), (), getattr(r, "domain", "")) for r, *_ in groups]
    return [row._replace(weight=views.common_weight(group)) for row, group in zip(rows, groups, strict=True)]


def draw(policy, tokenizer, rows: Sequence[Ranked], p: Parameters, *, answers: int, seed: int) -> list[Ranked]:
    """The rows with `answers` sampled answers each, which nobody has judged yet (scores of 0)."""
    prompts = [collate.cut_prompt(row.prompt, tokenizer, max_prompt=p.max_prompt) for row in rows]
    groups = sample_several(policy, tokenizer, prompts, answers, max_new_tokens=p.max_new_tokens, seed=seed)
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


def agreement(pairs: Sequence[Pair], model, tokenizer, *, show: Callable, question: str, seed: int) -> metrics.Interval:
    """Share of pairs where the judge, asked in both orders, prefers the chosen answer; a tie half."""
    shown = [(show(pair.prompt, pair.chosen), show(pair.prompt, pair.rejected)) for pair in pairs]
    p_ab, p_ba = judge.both_orders(shown, model, tokenizer, question)
    return metrics.bootstrap_interval(0.5 + 0.5 * np.sign(p_ab - p_ba), seed=seed)


def answers_for(records: Sequence, reference, tokenizer, p: Parameters, *, seed: int) -> tuple[list[Ranked], list]:
    """(rows, baselines): up to `prompts` prompts, drawn for a training seed, with answers that nobody has judged yet.

    A row has `samples_per_prompt` answers, its baseline one more. Rows that hold the reference's samples give theirs in
    random order, as they come best first, and there must be enough of them (ValueError); of all other records only the
    prompts are used, and the reference answers them.
    """
    wanted, rng = p.samples_per_prompt + 1, np.random.default_rng([seed, len(records)])
    sampled = isinstance(records[0], Ranked)
    rows = [r for r in records if len(r.completions) >= wanted] if sampled else prompts_of(records, len(records))
    if sampled and len(rows) < p.prompts:
        raise ValueError(f"asked for {p.prompts} prompts, and {len(rows)} have {wanted} answers: ask for fewer")
    rows = [rows[i] for i in rng.permutation(len(rows))[: p.prompts]]
    if not sampled:
        rows = draw(reference, tokenizer, rows, p, answers=wanted, seed=seed)
    orders = [rng.permutation(len(row.completions))[:wanted].tolist() for row in rows]
    ranked = [_take(row, order[1:]) for row, order in zip(rows, orders, strict=True)]
    return ranked, [_take(row, order[:1]) for row, order in zip(rows, orders, strict=True)]


def _take(row: Ranked, places: Sequence[int]) -> Ranked:
    """The answers at these places, without their scores."""
    names = [name for name in ("completions", "finished", "tokens") if getattr(row, name) is not None]
    chosen = {name: tuple(getattr(row, name)[i] for i in places) for name in names}
    return row._replace(scores=(0.0,) * len(places), **chosen)


def held_out_pairs(
    examples: Sequence[Example], policy: tuple, judging: tuple, p: Parameters, *, show: Callable
) -> list[Example]:
    """Of each prompt of a bank its best and its worst answer by a judge, with P(best beats worst) as column `strength`.

    policy, judging: (tokenizer, model) each. A bank of single answers (thumbs) has no pairs: there, the policy answers.
    Every answer is judged against the prompt's first one.
    """
    (tokenizer, model), (judge_tokenizer, judge_model) = policy, judging
    if len(examples[0].completions) < 2:
        examples = _answered(examples, model, tokenizer, p)
    rows = [_spell(example, tokenizer) for example in examples]
    p_ab, p_ba = judge_answers(rows, rows, judge_model, judge_tokenizer, show=show, question=p.question)
    out = []
    for example, ab, ba in zip(examples, p_ab, p_ba, strict=True):
        wins = loss.debias(torch.from_numpy(ab), torch.from_numpy(ba)).tolist()
        best, worst, strength = max(loss.ranked_pairs(wins, clip=p.clip), key=lambda pair: pair[2])
        answers = (example.completions[best], example.completions[worst])
        out.append(example._replace(completions=answers, columns={"strength": strength}))
    return out


def _answered(examples: Sequence[Example], policy, tokenizer, p: Parameters) -> list[Example]:
    """The prompts with `samples_per_prompt` answers each, sampled by the policy."""
    prompts, how = [example.prompt for example in examples], {"max_new_tokens": p.max_new_tokens, "seed": p.seed}
    groups = sample_several(policy, tokenizer, prompts, p.samples_per_prompt, **how)
    branches = [tuple(collate.as_branch(s.ids, s.finished, tokenizer) for s in group) for group in groups]
    return [example._replace(completions=group) for example, group in zip(examples, branches, strict=True)]


def _spell(example: Example, tokenizer) -> Ranked:
    """An example as the texts that a judge reads."""
    tokens = (example.prompt, *example.completions)
    prompt, *answers = (tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens)
    return Ranked(example.id, prompt, tuple(answers), (0.0,) * len(answers), (True,) * len(answers))


def held_out_scores(policy, held: Sequence[Example], *, beta: float, pad_id: int, cache: Path | None) -> pd.DataFrame:
    """Columns id and held_out: minus the soft cross-entropy of each held-out pair (nats), its strength as the target.

    The margin is beta x the difference of the policy's log-ratios. The reference has -log 2, and no policy more than
    minus the entropy of the strength.
    """
    plan = bank.attach(bank.Bank(list(held), {}), policy, pad_id=pad_id, cache=cache)
    ratios = torch.from_numpy(bank.log_ratios(policy, plan, cache=cache))
    losses = loss.loss(ratios, torch.zeros_like(ratios), collate.column(held, "strength"), beta=beta).losses
    return pd.DataFrame({"id": [example.id for example in held], "held_out": (-losses).double().numpy().round(5)})
