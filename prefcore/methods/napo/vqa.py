"""The task, visual question answering: on the planted pictures, or on a user's own. All that differs is in the Task.

Rows to learn from, rows on which the learning rate is chosen, rows to test on, and the measures that they allow.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import files, views
from prefcore.data.types import Pair, Parameters
from prefcore.engine import models
from prefcore.methods.napo import own, probes, vision
from prefcore.methods.napo.world import archive, pictures
from prefcore.methods.napo.world.pictures import Row


class Task(NamedTuple):
    """train, validation, test: rows, and in `album` their pictures [H, W, 3] uint8 by name.

    source, about: a word and a sentence on where they come from. measure(answers to one question) -> its measures by
    name; `tested` are those about which there are claims, `parts` those on which parts of the method are compared, the
    first of them also under noise. text_pairs, text_held_out: pairs of texts for the text-only runs; text_runs: what is
    run on them, as (arm, share of flipped labels, training seed). One's own pictures come without texts.
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    album: Mapping[str, np.ndarray]
    source: str
    about: str
    measure: Callable[..., dict[str, float]]
    tested: tuple[str, ...]
    parts: tuple[str, ...]
    text_pairs: list[Pair]
    text_held_out: list[Pair]
    text_runs: list[tuple[str, float, int]]


def open_task(p: Parameters) -> Task:
    """The default task, or that of the file which `data` names."""
    return own_task(p) if p.data else planted_task(p)


def planted_task(p: Parameters) -> Task:
    """The questions of build/<profile>/pictures.jsonl; validation questions are drawn as the test questions are.

    ValueError where the parameters ask for more than the stages have made.
    """
    build = Path("build") / p.profile
    rows = pictures.read_rows(build / "pictures.jsonl")
    prefer = [row for row in rows if row.split == "prefer"]
    tests = [row for row in rows if row.split not in ("teach", "prefer")]
    questions = list(dict.fromkeys(row.id.partition("/")[0] for row in tests))
    first, second = p.validation_questions, p.test_questions
    if first + second > len(questions):
        asks = f"asks for {first} + {second} test questions, but"
        raise ValueError(f"napo {asks} {build} holds {len(questions)}: raise tested_questions")
    if p.pairs > len(prefer):
        raise ValueError(f"pairs is {p.pairs}, but {build} holds {len(prefer)}: raise preference_rows")
    names = set(questions[:first]), set(questions[first : first + second])
    validation, test = ([row for row in tests if row.id.partition("/")[0] in part] for part in names)
    train = prefer[: p.pairs]
    named = [row for row in train if row.suggested]
    share = sum(row.colour == row.suggested for row in named) / max(len(named), 1)
    prior = f"the prior holds in {share:.0%} of {len(named)} such questions"
    about = f"planted: {pictures.suggestions(p.seed)}; {prior}"
    return Task(
        train, validation, test, _album(train, validation, test), "planted", about, probes.measure_planted,
        ("conflict", "language_bias", "lp", "cb", "hallucinated"), ("conflict", "lp"), *_texts(p, build),
    )  # fmt: skip


def own_task(p: Parameters) -> Task:
    """The rows of the file that `data` names, split 80/10/10 by picture. ValueError where there are too few."""
    rows = own.read(p.data)
    names = sorted({row.picture for row in rows})
    order = np.random.default_rng(p.seed).permutation(names).tolist()
    place = {name: i / len(names) for i, name in enumerate(order)}
    shares = ((0, 0.8), (0.8, 0.9), (0.9, 1))
    parts = [[row for row in rows if low <= place[row.picture] < high] for low, high in shares]
    if not all(parts):
        raise ValueError(f"{p.data} has {len(names)} pictures; at least 10 are needed to hold some out")
    about = f"{len(rows)} rows about {len(names)} pictures of {p.data}"
    return Task(*parts, _album(*parts), "own rows", about, probes.measure_own, ("right",), ("right",), [], [], [])


def load_model(p: Parameters) -> tuple:
    """(processor, vision-language model): the one that `vision_policy` names, else build/<profile>/biased.

    ValueError where own data come without a model: the small one made here knows one shape of one colour only.
    """
    if p.data and not p.vision_policy:
        raise ValueError(
            "own pictures need a model that can see them: --set vision_policy=<hub id or folder> (the small one made "
            "here is build/quick/biased)"
        )
    name = p.vision_policy or str(Path("build") / p.profile / "biased")
    return vision.load(name, device=models.choose_device(p.device, p.threads), dtype=p.dtype)


def _album(*parts: list[Row]) -> dict[str, np.ndarray]:
    return archive.load_pictures(row.picture for rows in parts for row in rows)


def _texts(p: Parameters, build: Path) -> tuple[list[Pair], list[Pair], list[tuple[str, float, int]]]:
    """(pairs to learn from, held-out pairs) of the foundation's preferences, and the runs on them."""
    if not p.text_pairs:
        return [], [], []
    found = views.as_pairs([row for row in files.read_ranked(build / "preferences.jsonl") if len(row.completions) > 1])
    if len(found) < p.text_pairs + p.text_held_out:
        asks = f"{p.text_pairs} + {p.text_held_out} pairs of texts (text_pairs, text_held_out)"
        raise ValueError(f"napo asks for {asks}, but {build} holds {len(found)}: raise preference_prompts")
    runs = [(arm, share, s) for share in p.text_noises for s in range(p.text_seeds) for arm in p.text_arms]
    return found[: p.text_pairs], found[p.text_pairs :][: p.text_held_out], runs
