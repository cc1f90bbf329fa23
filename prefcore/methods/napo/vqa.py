"""The task, visual question answering: on the planted pictures, or on a user's own. All that differs is in the Task.

Rows to learn from, rows on which learning rates are chosen, rows to test on, and the measures that they allow.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import views
from prefcore.data.types import Pair, Parameters, Ranked
from prefcore.engine import models
from prefcore.methods.napo import own, probes, vision
from prefcore.methods.napo.world import archive, pictures
from prefcore.methods.napo.world.pictures import Row


class Arm(NamedTuple):
    """An objective on the automatic pairs with this share of noise (None: as they come, or none at all), for so many
    starting models.
    """

    name: str
    objective: str
    share: float | None
    starts: int


class Task(NamedTuple):
    """train(start): the rows that a starting model learns from; validation, test: rows; `album`: their pictures
    [H, W, 3] uint8 by name.

    about: a sentence on where they come from. of_question(the answers to one question) -> its measures by name;
    `chosen_by` is the one that learning rates are chosen by. arms: what is run. texts: whether the text-only runs are.
    """

    train: Callable[[int], list[Row]]
    validation: list[Row]
    test: list[Row]
    album: Mapping[str, np.ndarray]
    about: str
    of_question: Callable[..., dict[str, float]]
    chosen_by: str
    arms: list[Arm]
    texts: bool


def open_task(p: Parameters) -> Task:
    """The default task, or that of the file which `data` names."""
    return own_task(p) if p.data else planted_task(p)


def planted_task(p: Parameters) -> Task:
    """The questions of build/<profile>/pictures.jsonl; validation questions are drawn as the test questions are.

    ValueError where the parameters ask for more than the stages have made.
    """
    build = Path("build") / p.profile
    rows = pictures.read_rows(build / "pictures.jsonl")
    tests = [row for row in rows if row.id.startswith("q")]
    questions = list(dict.fromkeys(row.id.partition("/")[0] for row in tests))
    first, second = p.validation_questions, p.test_questions
    if first + second > len(questions):
        asks = f"asks for {first} + {second} test questions, but"
        raise ValueError(f"napo {asks} {build} holds {len(questions)}: raise tested_questions")
    prefer = {start: [row for row in rows if row.split == f"prefer:{start}"] for start in range(p.seeds)}
    for start, found in prefer.items():
        if p.pairs > len(found):
            asks = f"pairs is {p.pairs}, but {build} holds {len(found)} for starting model {start}"
            raise ValueError(f"{asks}: raise preference_rows or starting_models")
    names = set(questions[:first]), set(questions[first : first + second])
    validation, test = ([row for row in tests if row.id.partition("/")[0] in part] for part in names)
    used = [row for found in prefer.values() for row in found[: p.pairs]]
    about = f"planted: {pictures.suggestions(p.seed)}; {p.seeds} starting model(s), {p.pairs} rows each"
    return Task(
        lambda start: prefer[start][: p.pairs], validation, test, _album(used, validation, test), about,
        probes.measure_planted, "odds", arms_of(p), bool(p.text_pairs),
    )  # fmt: skip


def own_task(p: Parameters) -> Task:
    """The rows of the file that `data` names, split 80/10/10 by picture. ValueError where there are too few."""
    rows = own.read(p.data)
    names = sorted({row.picture for row in rows})
    order = np.random.default_rng(p.seed).permutation(names).tolist()
    place = {name: i / len(names) for i, name in enumerate(order)}
    shares = ((0, 0.8), (0.8, 0.9), (0.9, 1))
    train, validation, test = ([row for row in rows if low <= place[row.picture] < high] for low, high in shares)
    if not (train and validation and test):
        raise ValueError(f"{p.data} has {len(names)} pictures; at least 10 are needed to hold some out")
    about = f"{len(rows)} rows about {len(names)} pictures of {p.data}"
    found = _album(train, validation, test)
    how = probes.measure_own, "accuracy", as_they_come(arms_of(p)), False
    return Task(lambda start: train, validation, test, found, about, *how)


def arms_of(p: Parameters) -> list[Arm]:
    """What is run, from the names of `arms` (for all `seeds`) and `ablations` (for the first `ablation_seeds`).

    "napo-35" is the objective napo on automatic pairs of which 35 % are noise; "clean" has no number, as it has none.
    """
    found = []
    for names, starts in ((p.arms, p.seeds), (p.ablations, p.ablation_seeds)):
        for name in names:
            objective, _, share = name.rpartition("-")
            known = share.isdigit()
            found.append(Arm(name, objective if known else name, int(share) / 100 if known else None, starts))
    return found


def as_they_come(arms: Sequence[Arm]) -> list[Arm]:
    """The same objectives on automatic pairs of which nobody knows how many are noise: each once, named <it>-own."""
    found = {}
    for arm in arms:
        name = arm.name if arm.share is None else f"{arm.objective}-own"
        found.setdefault(name, arm._replace(name=name, share=None))
    return list(found.values())


def load_model(p: Parameters, start: int) -> tuple:
    """(processor, vision-language model): the one that `vision_policy` names, else build/<profile>/biased/<start>.

    ValueError where own data come without a model: the small one made here knows one shape of one colour only.
    """
    if p.data and not p.vision_policy:
        raise ValueError(
            "own pictures need a model that can see them: --set vision_policy=<hub id or folder> (the small one made "
            "here is build/quick/biased/0)"
        )
    name = p.vision_policy or str(Path("build") / p.profile / "biased" / str(start))
    return vision.load(name, device=models.choose_device(p.device, p.threads), dtype=p.dtype)


def text_pairs(records: Sequence[Ranked], size: int, seed: int) -> list[Pair]:
    """`size` pairs of ranked answers, two of each prompt's four and then the other two, drawn anew for each seed."""
    rng, halves = np.random.default_rng([seed, 2]), []
    for row in records:
        order = rng.permutation(len(row.completions))
        for half in (sorted(order[0::2]), sorted(order[1::2])):
            names = ("completions", "scores", "finished") + ("tokens",) * bool(row.tokens)
            columns = {name: tuple(getattr(row, name)[i] for i in half) for name in names}
            halves.append(row._replace(id=f"{row.id}/{half[0]}", **columns))
    return views.draw_pairs(halves, size, seed)


def _album(*parts: list[Row]) -> dict[str, np.ndarray]:
    return archive.load_pictures(row.picture for rows in parts for row in rows)
