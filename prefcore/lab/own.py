"""A user's own preference data before anything is trained: what is used, whether it suffices, how long it will take.

`run` writes the rows that are used to the run's folder, and the chapter reads those: what was trained on lies beside
what came out. Sizes and lengths that nobody has set follow the data: all rows, and room for nearly all of their tokens.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import views
from prefcore.data.datasets import Reading
from prefcore.data.rows import DataError
from prefcore.data.types import Pair, Unary

PARTS = (0.8, 0.1, 0.1)  # of the prompts: to train on, to choose settings by, to measure on
COVERED = 0.95  # of the prompts, and of the answers, are whole at the default lengths
BOTH = ("kto", "bco", "ulma")  # methods that need thumbs-up and thumbs-down
PAIRED = ("dpo", "odpo")  # methods that need pairs


class Lengths(NamedTuple):
    """Token ids of a record's prompt and answers."""

    prompt: list[int]
    answers: list[list[int]]


def folder_for(source: str, method: str, values: Mapping, content: str, name: str = "") -> tuple[str, Path]:
    """(profile, folder) of a run: own/<name>/..., the name that of the data unless one is given.

    A folder belongs to one set of values on one content of the data: the same command comes back to it, and may go on
    where it stopped. For any other run the next number is taken. ValueError where a name that was given is taken.
    """
    said = {"source": source, "values": dict(values), "content": hashlib.sha256(content.encode()).hexdigest()}
    said = json.loads(json.dumps(said, default=str))
    stem = name or stem_of(source)
    if not re.fullmatch(r"[\w-]+", stem):
        raise ValueError(f"--name {name}: give letters, digits, _ and -")
    number = 1
    while True:
        profile = f"own/{stem}" + (f"-{number}" if number > 1 else "")
        folder = Path("runs") / profile / method
        if not (folder / "run.json").exists():
            break
        if json.loads((folder / "run.json").read_text(encoding="utf-8")) == said:
            return profile, folder
        if name:
            raise ValueError(f"--name {name}: {folder} holds another run; choose another name, or delete it")
        number += 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return profile, folder


def stem_of(source: str) -> str:
    """What a folder for results on these data is called: the file's own name."""
    return re.sub(r"[^\w-]+", "-", Path(source).name.split(".")[0]).strip("-") or "data"


def fingerprint(source: str) -> str:
    """What tells the content of a file or folder from another: the bytes, or the names and sizes of all files."""
    path = Path(source)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return repr(sorted((str(file), file.stat().st_size) for file in path.rglob("*") if file.is_file()))


# --- rows -----------------------------------------------------------------------------------------------------------


def usable(found: Reading, method: str, source: str) -> Reading:
    """The reading with those rows among the problems that say too little for the method (ODPO: how much better)."""
    if method != "odpo" or not isinstance(found.records[0], Pair):
        return found
    bad = {pair.id: what for pair in found.records if (what := _ungraded(pair))}
    problems = [DataError(f"{source}: row {id}: {what}") for id, what in bad.items()]
    kept = [pair for pair in found.records if pair.id not in bad]
    if not kept:
        raise DataError(f"{problems[0]} (all {len(problems)} pairs; DPO needs none)")
    return found._replace(records=kept, problems=found.problems + problems)


def weigh(records: Sequence) -> tuple[list, dict, list[str]]:
    """(records with a weight above 0, or without any; counts; a sentence). ValueError where all have weight 0.

    A row of weight 0 is left out before the split: it counts in no batch, class mean or estimate.
    """
    weights = [record.weight for record in records if record.weight is not None]
    if not weights:
        return list(records), {}, []
    kept = [record for record in records if record.weight]
    if not kept:
        raise ValueError(f"all {len(records)} rows have weight 0, so none is trained on: give some a weight above 0")
    counts = {"weight_zero": len(records) - len(kept), "least_weight": min(r.weight for r in kept),
              "mean_weight": float(np.mean([r.weight for r in kept])), "largest_weight": max(weights)}  # fmt: skip
    says = ("each row's loss is multiplied by its weight, {least_weight:g} to {largest_weight:g}, {mean_weight:.3g} on "
            "average; {weight_zero} rows of weight 0 are left out; measures on held-out rows count all alike")
    return kept, counts, [says.format(**counts)]


def _ungraded(pair: Pair) -> str:
    scores = (pair.chosen_score, pair.rejected_score)
    if pair.margin is None and None in scores:
        return "does not say how much better chosen is; add the column margin, or chosen_score and rejected_score"
    margin = pair.margin if pair.margin is not None else scores[0] - scores[1]
    return f"chosen is worse than rejected by {-margin:g}; swap the two" if margin < 0 else ""


def check(records: Sequence, method: str, seed: int) -> list[list]:
    """The three parts of the rows. ValueError, before any training, for what the method would stumble over later."""
    prompts = len({views.prompt_key(record.prompt) for record in records})
    if prompts < (least := fewest(PARTS)):
        raise ValueError(f"{prompts} different prompts are too few to hold some out: give {least} or more")
    parts = views.split(records, PARTS, seed)
    if method in PAIRED:
        views.as_pairs(parts[0])
    if method == "osp":
        for group in views.by_prompt(parts[0]):  # of which it reads the prompt alone
            views.common_weight(group)
    if method == "odpo" and not views.graded_pairs(parts[0])[0]:
        raise ValueError("all pairs are ties: give a margin above 0, or scores that differ")
    if not isinstance(records[0], Pair):
        _check_thumbs(parts, ["train"] * (method in BOTH) + ["test"])
    return parts


def _check_thumbs(parts: Sequence[Sequence], names: Sequence[str]) -> None:
    for name in names:
        part = parts[0] if name == "train" else parts[2]
        rows = part if isinstance(part[0], Unary) else views.scored_to_unary(part, views.median_threshold(parts[0]))
        if len({row.label for row in rows}) < 2:
            only = "up" if rows[0].label else "down"
            raise ValueError(f"all {len(rows)} answers to {name} on are thumbs-{only}, and both kinds are needed: give "
                             "more rows of the other kind")  # fmt: skip


def fewest(parts: Sequence[float]) -> int:
    """The smallest number of prompts of which views.split can make parts of these shares."""
    ends = np.cumsum(parts)
    return next(n for n in range(1, 1000) if all(np.diff([0, *(round(n * end) for end in ends)]) > 0))


# --- tokens ---------------------------------------------------------------------------------------------------------


def measure(records: Sequence, tokenizer) -> list[Lengths]:
    """Tokens of every record, none cut. ValueError where messages meet a tokenizer without a chat template."""
    from prefcore.engine import collate

    end = [tokenizer.eos_token_id]
    return [Lengths(collate.encode_prompt(record.prompt, tokenizer),
                    [collate.encode_text(text, tokenizer) + end for text in _answers(record)])
            for record in records]  # fmt: skip


def _answers(record) -> tuple[str, ...]:
    return (record.chosen, record.rejected) if isinstance(record, Pair) else (record.completion,)


def fit_lengths(lengths: Sequence[Lengths], context: int) -> dict[str, int]:
    """max_prompt, max_completion and max_new_tokens for these data: room for COVERED of them, within the context."""
    prompt, completion = (_room(sizes, COVERED) for sizes in (
        [len(one.prompt) for one in lengths], [len(answer) for one in lengths for answer in one.answers]))  # fmt: skip
    completion = min(completion, context - min(prompt, context // 2))
    new = _room([len(answer) for one in lengths for answer in one.answers], 0.5)
    return {"max_prompt": min(prompt, context - completion), "max_completion": completion,
            "max_new_tokens": min(new, completion)}  # fmt: skip


def _room(sizes: Sequence[int], share: float) -> int:
    """A length that holds this share of the sizes, in steps of 8 tokens."""
    return max(8, 8 * math.ceil(float(np.quantile(sizes, share)) / 8))


def cut(records: Sequence, lengths: Sequence[Lengths], max_prompt: int, max_completion: int) -> tuple[list, dict]:
    """(records that still say something within the lengths, counts). ValueError where none is left.

    Counts: rows with a cut prompt, with a cut answer, and left out since both answers are equal after the cut.
    """
    short = [[tuple(answer[:max_completion]) for answer in one.answers] for one in lengths]
    equal = [len(set(answers)) < len(answers) for answers in short]
    counts = {
        "cut_prompts": sum(len(one.prompt) > max_prompt for one in lengths),
        "cut_answers": sum(any(len(answer) > max_completion for answer in one.answers) for one in lengths),
        "equal_after_cut": sum(equal),
    }
    kept = [record for record, same in zip(records, equal, strict=True) if not same]
    if not kept:
        longest = max(len(answer) for one in lengths for answer in one.answers)
        raise ValueError(f"the answers of all {len(records)} pairs are equal in their first {max_completion} tokens, "
                         f"and more are not read: set max_completion higher (the longest has {longest})")  # fmt: skip
    return kept, counts


# --- sizes and time -------------------------------------------------------------------------------------------------


def sizes(parts: Sequence[Sequence], values: Mapping) -> dict:
    """The numbers of rows that a chapter asks for, so that it uses all; only those that it has."""
    train, validation, test = parts
    pairs = len(views.pairs_if_any(train)) or math.ceil(len(train) / 2)
    prompts = len({views.prompt_key(record.prompt) for record in train})
    wanted = {"validation_prompts": len(validation), "test_prompts": len(test), "likelihood_texts": len(validation),
              "prompts": prompts}  # fmt: skip
    if isinstance(values.get("sizes"), Mapping):
        most = max(values["sizes"].values())
        wanted["sizes"] = {name: max(1, pairs * size // most) for name, size in values["sizes"].items()}
    return {name: value for name, value in wanted.items() if name in values}


def rates(values: Mapping, larger: Mapping, ratio: float) -> dict:
    """The learning rates for a run over `ratio` times the rows that `values` are meant for: those of the larger profile
    where there are four times as many, as a rate for a few steps is too large for many.
    """
    if ratio < 4 or "learning_rates" not in values:
        return {}
    known = larger.get("learning_rates", {})
    return {"learning_rates": {arm: known.get(arm, rate) for arm, rate in values["learning_rates"].items()}}


def sizes_of_votes(found: Sequence, values: Mapping) -> dict:
    """The same for voted pairs, whose reader has split them; nothing for rows without a split."""
    inside = Counter(getattr(row, "split", "") for row in found)
    wanted = {"pairs": inside["train"], "validation_pairs": inside["validation"], "test_pairs": inside["test"]}
    return {name: size for name, size in wanted.items() if name in values and size}


def used(parts: Sequence[Sequence], values: Mapping) -> int:
    """How many training rows a chapter draws at most, by the sizes that it is given."""
    pairs = len(views.pairs_if_any(parts[0]))
    if isinstance(values.get("sizes"), Mapping):
        asked = max(values["sizes"].values())
        return min(asked, pairs) if pairs else min(2 * asked, len(parts[0]))
    return min(values.get("prompts", len(parts[0])), len(parts[0]))


def tokens_of(lengths: Sequence[Lengths], values: Mapping) -> float:
    """Mean tokens of a record within the limits: a prompt once, and each answer."""
    return float(np.mean([min(len(one.prompt), values["max_prompt"])
                          + sum(min(len(answer), values["max_completion"]) for answer in one.answers)
                          for one in lengths]))  # fmt: skip


class Ready(NamedTuple):
    """The rows that are trained and measured on, the values of the run, counts for its metrics, and sentences."""

    records: list
    values: dict
    counts: dict
    notes: list[str]


def prepare(found: Reading, method: str, values: Mapping, by_hand: Mapping, larger: Mapping) -> Ready:
    """Everything that can be known before training, with the model that is trained; what is set by hand stays.

    larger: values of a larger profile, as far as there are any. Raises ValueError for rows that do not suffice, and for
    a model that cannot be loaded.
    """
    from prefcore.data.types import freeze
    from prefcore.engine import models
    from prefcore.lab import duration, planner

    p = freeze(values)
    try:
        planner.demand(method, values | dict.fromkeys(("batch_size", "max_prompt", "max_completion"), 1))
        tokenizer, policy = models.load(p, p.policy)
    except OSError as error:
        raise ValueError(f"policy {p.policy}: cannot be loaded ({' '.join(str(error).split())[:200]})") from error
    weighed, weights, said = weigh(found.records)
    lengths = measure(weighed, tokenizer)
    context = models.context_of(policy)
    free = {name for name in values if name not in by_hand}
    fitted = fit_lengths(lengths, context)
    values = {**values, **{name: value for name, value in fitted.items() if name in free}}
    records, counts = cut(weighed, lengths, values["max_prompt"], values["max_completion"])
    parts = check(records, method, values["seed"])
    few = used(parts, values)
    values |= {name: value for name, value in sizes(parts, values).items() if name in free}
    fitted = rates(values, larger, used(parts, values) / few)
    values |= {name: value for name, value in fitted.items() if name in free}
    planner.demand(method, values)
    counts = {"read": found.rows, "bad": len(found.problems), "ties": found.ties, "usable": len(found.records)} | counts
    counts |= weights
    counts |= dict(zip(("train", "validation", "test"), map(len, parts), strict=True)) | {"used": used(parts, values)}
    tokens = tokens_of(lengths, values)
    adapted = models.add_lora(policy, rank=p.lora_rank, alpha=p.lora_alpha, top_layers=p.lora_layers, seed=0)
    speed = duration.training_speed(adapted, lengths, values)
    runs, seconds = duration.estimate(values, counts["used"], counts["validation"] + counts["test"], tokens, speed)
    notes = found.notes + said + [
        f"{counts['read']} rows read, {counts['usable']} usable ({counts['bad']} bad, {counts['ties']} ties); "
        f"{counts['train']} to train on, of which {counts['used']} are used, {counts['validation']} to choose by, "
        f"{counts['test']} to test on",
        f"at most {values['max_prompt']} tokens of a prompt and {values['max_completion']} of an answer: "
        f"{counts['cut_prompts']} rows with a cut prompt, {counts['cut_answers']} with a cut answer, "
        f"{counts['equal_after_cut']} left out whose answers are equal after the cut",
        f"{runs} runs will take about {duration.in_words(seconds)} on this machine, and samples come on top; "
        "--set sizes, prompts, arms, seeds or epochs for less",
    ]
    return Ready(records, values, counts, notes)
