"""A task: what the arms of a policy chapter learn from, and how what they learnt is scored.

`rated_task` is the default data: real human ratings, preferences by the proxy scorer, test prompts to continue.
`own_task` is a user's file or hub set: no scorer, so policies are judged by held-out preferences. All that differs
between the two is in the Task; a chapter is one program for both.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from prefcore.data import datasets, files, ratings, views
from prefcore.data.types import Pair, Parameters, Prompt, Unary
from prefcore.engine import collate, models
from prefcore.engine.collate import Encoded, Plan
from prefcore.lab.plots import RATING
from prefcore.scoring import evaluate

TAIL = 100  # characters of a prompt that a judge of other people's data sees before the answer


class Task(NamedTuple):
    """records: training data (Ranked rows, or the kind a user's file holds). validation, test: what arms are scored on.

    score(policy, tokenizer, rows, arm=, seed=) gives one score row for each of `validation` or `test`, and
    score_reference(split, seeds=) those of the reference. `measure` names the column that counts, gold (rating points)
    or accuracy, `chosen_by` the one by which settings are chosen on validation, and `unit` says the measure in words.
    show(prompt, answer) is the text that a judge reads. demonstrations(least) are answers worth imitating and
    bad_answers(share) their opposite, as thumbs; `least` is a human rating, `share` that of the samples with the lowest
    proxy scores (one's own data have neither: there, they are the thumbs-up and the thumbs-down). scorers is None where
    nobody has measured the texts.
    """

    records: list
    validation: list
    test: list
    measure: str
    chosen_by: str
    unit: str
    score: Callable[..., pd.DataFrame]
    score_reference: Callable[..., pd.DataFrame]
    show: Callable[[Prompt, str], str]
    demonstrations: Callable[[float], list[Unary]]
    bad_answers: Callable[[float], list[Unary]]
    scorers: evaluate.Scorers | None


def open_task(p: Parameters) -> Task:
    """The default task, or that of the file or hub set which `data` names."""
    return own_task(p) if p.data else rated_task(p)


def rated_task(p: Parameters) -> Task:
    """The default data from build/<profile>/; `prompts`, `validation_prompts` and `test_prompts` say how many."""
    device, build = str(models.choose_device(p.device, p.threads)), Path("build") / p.profile
    texts = ratings.read_texts(build / "texts.jsonl")
    sizes = {"validation": p.validation_prompts, "test": p.test_prompts}
    prompts = {split: ratings.choose_prompts(texts, size, p.seed, split=split) for split, size in sizes.items()}
    records = [r for r in files.read_ranked(build / "preferences.jsonl") if len(r.completions) > 1]
    if len(records) < p.prompts:
        raise ValueError(
            f"prompts is {p.prompts}, but {build} holds preferences for {len(records)}: raise preference_prompts"
        )
    scorers = evaluate.load_scorers(build, p.encoder, device=device)

    def score(policy, tokenizer, rows, *, arm, seed):
        how = {"max_prompt": p.max_prompt, "max_new_tokens": p.max_new_tokens, "seed": seed, "arm": arm}
        return evaluate.score_policy(policy, tokenizer, rows, scorers, **how)

    def score_reference(split="test", *, seeds):
        frame = pd.read_csv(build / f"reference_{split}.csv")  # the shared stage has drawn with the same numbers
        chosen = {text.id for text in prompts[split]}
        return frame[frame["id"].isin(chosen) & (frame["seed"] < seeds)].fillna({"text": ""})

    chosen = records[: p.prompts]

    def demonstrations(least):
        good = ratings.good_texts(texts, least, p.seed)
        return [Unary(text.id, text.prompt, text.completion, True) for text in good]

    def bad_answers(share):
        return views.lowest(views.scored(chosen), share)

    return Task(chosen, prompts["validation"], prompts["test"], "gold", "proxy", RATING, score, score_reference,
                evaluate.rated_text, demonstrations, bad_answers, scorers)  # fmt: skip


def own_task(p: Parameters) -> Task:
    """The data that `data` names, split by prompt 80/10/10; the sizes count records, and are upper bounds."""
    found = datasets.read_usable(p.data)[0] if p.drop_bad else datasets.read(p.data)
    train, validation, test = views.split(found, (0.8, 0.1, 0.1), p.seed)
    records, sizes = train[: p.prompts], {"validation": p.validation_prompts, "test": p.test_prompts}
    rows_of = {"validation": validation, "test": test}
    held_out = {split: as_preferences(rows_of[split][:size], records) for split, size in sizes.items()}

    def score(policy, tokenizer, rows, *, arm, seed):
        examples, validation = (encode(some, p, tokenizer).examples for some in (rows, held_out["validation"]))
        return evaluate.score_held_out(policy, tokenizer, examples, validation, p, arm=arm, seed=seed)

    def score_reference(split="test", *, seeds):
        tokenizer, model = load_reference(p)
        rows = held_out[split]
        return pd.concat(score(model, tokenizer, rows, arm="reference", seed=seed) for seed in range(seeds))

    return Task(
        records, held_out["validation"], held_out["test"], "accuracy", "accuracy", "share of held-out answers", score,
        score_reference, end_of_prompt, lambda least: [row for row in views.as_unary(records) if row.label],
        lambda share: [row for row in views.as_unary(records) if not row.label], None,
    )  # fmt: skip


def load_reference(p: Parameters) -> tuple:
    """(tokenizer, model): build/<profile>/reference for the default data, else the policy that `policy` names."""
    return models.load(p, p.policy if p.data else Path("build") / p.profile / "reference")


def encode(records: Sequence, p: Parameters, tokenizer) -> Encoded:
    """Token ids of pairs or of single answers, within the length limits."""
    limits = {"max_prompt": p.max_prompt, "max_completion": p.max_completion}
    encoder = collate.encode_pairs if isinstance(records[0], Pair) else collate.encode_unary
    return encoder(records, tokenizer, **limits)


def plan(examples: Sequence, p: Parameters, tokenizer, *, seed: int) -> Plan:
    """All batches of all epochs for one training seed."""
    return collate.make_plan(
        examples, batch_size=p.batch_size, epochs=p.epochs, seed=seed, pad_id=tokenizer.pad_token_id
    )


def as_preferences(rows: Sequence, records: Sequence) -> list:
    """Held-out rows as preferences: pairs and labels as they are, scores as thumbs at the training records' median."""
    if isinstance(records[0], Pair | Unary):
        return list(rows)
    return views.scored_to_unary(rows, views.median_threshold(records))


def end_of_prompt(prompt: Prompt, answer: str) -> str:
    """The end of the prompt (or of its last message) and the answer, short enough for a judge to see both."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"] + " "
    return (text[-TAIL:] + answer).strip()
