"""A task: what the arms of a policy chapter learn from, and what they are measured on.

`rated_task` is the default data: real human ratings, preferences by the proxy scorer, a bank of rated answers to test
on. `own_task` is a user's file or hub set: there, held-out preferences are the bank. All that differs between the two
is in the Task; a chapter is one program for both.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data import datasets, files, ratings, views
from prefcore.data.types import Example, Pair, Parameters, Prompt, Ranked, Unary
from prefcore.engine import collate, models
from prefcore.engine.collate import Encoded, Plan
from prefcore.lab import own, pipeline
from prefcore.scoring import bank, evaluate
from prefcore.scoring.bank import Bank

TAIL = 100  # characters of a prompt that a judge of other people's data sees before the answer


class Task(NamedTuple):
    """records: training data (Ranked rows, or the kind a user's file holds).

    pairs(size, seed) and thumbs(size, seed) draw so many pairs of them, or both answers of so many pairs as thumbs,
    anew for each seed; of one's own data at most so many. pairs raises ValueError where `has_pairs` is False.
    bank(split, tokenizer) is what an arm is measured on, "validation" or "test"; `rater` names the ratings of the test
    bank that count, `chosen_by` those of the validation bank. write(policy, tokenizer, arm=, seed=) are samples for
    prompts that nothing else has used, rated where there is a scorer. show(prompt, answer) is the text that a judge
    reads. human_and_sampled(policy, tokenizer, least=, size=) are for at most `size` prompts a demonstration, a human
    text rated `least` or better, and the policy's `samples_per_prompt` answers, highest proxy score first. (One's own
    data have neither: there, they are a chosen answer and [the rejected one], or where there are no pairs thumbs-up and
    thumbs-down of different prompts.) held_out_good(tokenizer, least=, size=) are at most `size` good answers that
    nothing is trained on: validation texts rated `least` or better, or the thumbs-up of one's own validation rows.
    scorers is None where nobody has measured the texts.
    """

    records: list
    has_pairs: bool
    pairs: Callable[[int, int], list[Pair]]
    thumbs: Callable[[int, int], list[Unary]]
    bank: Callable[..., Bank]
    rater: str
    chosen_by: str
    write: Callable[..., pd.DataFrame]
    show: Callable[[Prompt, str], str]
    human_and_sampled: Callable[..., list[tuple[Unary, list[Unary]]]]
    held_out_good: Callable[..., list[Example]]
    scorers: evaluate.Scorers | None


def open_task(p: Parameters) -> Task:
    """The default task, or that of the file or hub set which `data` names."""
    return own_task(p) if p.data else rated_task(p)


def rated_task(p: Parameters) -> Task:
    """The default data of the profile; of its bank the first `validation_prompts` and `test_prompts`."""
    device, build = str(models.choose_device(p.device, p.threads)), Path("build") / p.profile
    path = Path("banks") / f"{p.profile}.jsonl"
    texts = ratings.read_texts(build / "texts.jsonl")
    records = [r for r in files.read_ranked(build / "preferences.jsonl") if len(r.completions) > 1]
    scorers = evaluate.load_scorers(build, p.encoder, device=device)

    def pairs(size, seed):
        return views.draw_pairs(records, size, seed)

    def thumbs(size, seed):
        return views.pairs_to_unary(pairs(size, seed))

    def open_bank(split, tokenizer):
        wanted = {"validation": p.validation_prompts, "test": p.test_prompts}[split]
        rows = bank.read(path, split)
        if len(rows) < wanted:
            raise ValueError(f"{split}_prompts is {wanted}, but {path} holds {len(rows)}: raise bank_prompts")
        return bank.encode(rows[:wanted], tokenizer, max_prompt=p.max_prompt)

    def write(policy, tokenizer, *, arm, seed):
        how = {"max_prompt": p.max_prompt, "max_new_tokens": p.max_new_tokens, "seed": seed, "arm": arm}
        fresh = bank.read(path, "fresh")[: p.confirm_prompts]
        return evaluate.score_policy(policy, tokenizer, fresh, scorers, **how)

    def human_and_sampled(policy, tokenizer, *, least, size):
        by_prompt = {text.prompt: text for text in reversed(ratings.good_texts(texts, least, p.seed))}
        chosen = list(by_prompt.values())[::-1][:size]
        drawn = pipeline.sample_ranked(policy, tokenizer, chosen, scorers, p, seed=p.seed + 3)
        return [demonstrated(text, row) for text, row in zip(chosen, drawn, strict=True) if row.completions]

    def held_out_good(tokenizer, *, least, size):
        good = [text for text in texts if text.split == "validation" and text.mean >= least and text.completion]
        order = np.random.default_rng(p.seed).permutation(len(good))[:size]
        rows = [Unary(good[i].id, good[i].prompt, good[i].completion, True) for i in order]
        return encode(rows, p, tokenizer).examples

    return Task(records, True, pairs, thumbs, open_bank, "gold", "proxy", write, evaluate.rated_text,
                human_and_sampled, held_out_good, scorers)  # fmt: skip


def own_task(p: Parameters) -> Task:
    """The data that `data` names, split by prompt 80/10/10; the sizes count records, and are upper bounds."""
    found = datasets.read_usable(p.data)[0] if p.drop_bad else datasets.read(p.data)
    order = np.random.default_rng([p.seed, 1]).permutation(len(found))  # the first n are then n of the whole file
    records, validation, test = views.split([found[i] for i in order], own.PARTS, p.seed)
    held_out = {"validation": validation[: p.validation_prompts], "test": test[: p.test_prompts]}
    held_out = {split: as_preferences(rows, records) for split, rows in held_out.items()}
    possible = views.pairs_if_any(records)

    def pairs(size, seed):
        made = views.as_pairs(records)
        return views.draw_pairs(made, min(size, len(made)), seed)

    def thumbs(size, seed):
        if possible:
            return views.pairs_to_unary(pairs(size, seed))
        rows = views.as_unary(records)
        return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[: 2 * size]]

    def open_bank(split, tokenizer):
        examples = encode(held_out[split], p, tokenizer).examples
        preferred = [[1.0, 0.0] if len(e.completions) == 2 else [e.columns["label"]] for e in examples]
        return Bank([e._replace(columns={}) for e in examples], {"preference": np.array(preferred)})

    def write(policy, tokenizer, *, arm, seed):
        how = {"max_prompt": p.max_prompt, "max_new_tokens": p.max_new_tokens, "seed": seed, "arm": arm}
        return evaluate.write(policy, tokenizer, held_out["test"][: p.confirm_prompts], **how)

    def human_and_sampled(policy, tokenizer, *, least, size):
        rows = views.pairs_to_unary(possible) if possible else views.as_unary(records)
        up, down = ([row for row in rows if row.label == label] for label in (True, False))
        return [(one, [other]) for one, other in zip(up, down, strict=False)][:size]

    def held_out_good(tokenizer, *, least, size):
        found = open_bank("validation", tokenizer)
        rows = zip(found.examples, found.ratings["preference"], strict=True)
        return [e._replace(completions=e.completions[:1]) for e, preferred in rows if preferred[0] == 1][:size]

    return Task(records, bool(possible), pairs, thumbs, open_bank, "preference", "preference", write, end_of_prompt,
                human_and_sampled, held_out_good, None)  # fmt: skip


def demonstrated(text: ratings.Text, row: Ranked) -> tuple[Unary, list[Unary]]:
    """A human text and the ranked samples for its prompt."""
    human = Unary(f"{text.id}/human", text.prompt, text.completion, True)
    parts = enumerate(zip(row.completions, row.finished, row.tokens, strict=True))
    return human, [Unary(f"{row.id}/sampled-{k}", row.prompt, answer, False, *rest) for k, (answer, *rest) in parts]


def load_reference(p: Parameters) -> tuple:
    """(tokenizer, model): build/<profile>/reference for the default data, else the policy that `policy` names."""
    return models.load(p, p.policy if p.data else Path("build") / p.profile / "reference")


def encode(records: Sequence, p: Parameters, tokenizer) -> Encoded:
    """Token ids of pairs or of single answers, within the length limits; pairs that are equal there are dropped."""
    limits = {"max_prompt": p.max_prompt, "max_completion": p.max_completion}
    encoder = collate.encode_pairs if isinstance(records[0], Pair) else collate.encode_unary
    found = encoder(records, tokenizer, **limits)
    kept = [example for example in found.examples if len({*example.completions}) == len(example.completions)]
    return Encoded(kept, found.dropped + len(found.examples) - len(kept))


def plan(examples: Sequence, p: Parameters, tokenizer, *, seed: int, epochs: int | None = None) -> Plan:
    """All batches of all epochs for one training seed."""
    how = {"batch_size": p.batch_size, "epochs": epochs or p.epochs}
    return collate.make_plan(examples, **how, seed=seed, pad_id=tokenizer.pad_token_id)


def as_preferences(rows: Sequence, records: Sequence) -> list:
    """Held-out rows as preferences: pairs and labels as they are, scores as thumbs at the training records' median."""
    if isinstance(records[0], Pair | Unary):
        return list(rows)
    return views.scored_to_unary(rows, views.median_threshold(records))


def end_of_prompt(prompt: Prompt, answer: str) -> str:
    """The end of the prompt (or of its last message) and the answer, short enough for a judge to see both."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"] + " "
    return (text[-TAIL:] + answer).strip()
