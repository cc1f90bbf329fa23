"""A starting model with all that its arms share: its automatic answers, the attached plan, what it is measured on."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate
from prefcore.engine.collate import Plan
from prefcore.lab import kept
from prefcore.methods.napo import negatives, probes, trainer, vision, vqa
from prefcore.methods.napo.probes import Held
from prefcore.methods.napo.vqa import Arm, Task
from prefcore.methods.napo.world.pictures import Row


class Start(NamedTuple):
    """number: which starting model, and the seed of all its arms. answers: its own (language-biased, vision-biased)
    answers to the rows; plan: all pairs of them with its log-probabilities.
    """

    number: int
    processor: object
    model: object
    rows: list[Row]
    answers: tuple[list[str], list[str]]
    plan: Plan
    validation: Held
    test: Held


class Trained(NamedTuple):
    """What is left of an arm when its policy is gone: a row a question, a row an answer, a row a step."""

    table: pd.DataFrame
    answers: pd.DataFrame
    history: pd.DataFrame


def open_start(p: Parameters, task: Task, number: int) -> Start:
    """The model, its own biased answers to its rows, and its log-probabilities of all that is scored later."""
    processor, model = vqa.load_model(p, number)
    rows, seed, tokenizer = task.train(number), p.seed + number, processor.tokenizer
    prompts = negatives.make_prompts(rows, task.album, processor)
    how = {"max_new_tokens": p.max_new_tokens, "temperature": p.temperature, "seed": seed}
    answers = negatives.biased_answers(rows, task.album, model, processor, **how)
    examples = negatives.encode(rows, answers, prompts, tokenizer, max_completion=p.max_completion)
    sizes = {"batch_size": p.batch_size, "epochs": p.epochs}
    plan = collate.make_plan(examples, **sizes, seed=seed, pad_id=tokenizer.pad_token_id)
    with trainer.borrow(model, p, seed) as policy:
        plan = vision.attach(plan, policy, [prompt.image for prompt in prompts], p.precision)
    held = (probes.hold(some, task.album, model, processor, p) for some in (task.validation, task.test))
    return Start(number, processor, model, rows, answers, plan, *held)


def run_all(p: Parameters, task: Task, first: Start, train: Callable[[Arm, Start], Trained]) -> Trained:
    """Every starting model as it is, then train(arm, start) for each arm that has so many of them; all tables joined.

    What each run has said is kept until the chapter has finished, and shared with other processes (lab/kept.py).
    """

    @lru_cache(maxsize=1)
    def opened(number: int) -> Start:
        return first if number == 0 else open_start(p, task, number)

    def measure(number: int) -> kept.Tables:
        print(f"starting model {number}: {negatives.count(opened(number).plan.examples)}")
        return measure_base(p, task, opened(number))._asdict()

    def train_and_measure(number: int, arm: Arm) -> kept.Tables:
        return train(arm, opened(number))._asdict()

    runs = {}
    for number in range(p.seeds):
        runs[f"base-{number}"] = partial(measure, number)
        some = [arm for arm in task.arms if number < arm.starts]
        runs |= {f"{arm.name}-{number}": partial(train_and_measure, number, arm) for arm in some}
    found = kept.tables_of(p, runs).values()
    return Trained(*(pd.concat([tables[name] for tables in found]) for name in Trained._fields))


def measure_base(p: Parameters, task: Task, start: Start, split: str = "test") -> Trained:
    """The starting model itself as the arm "base"."""
    held, spoken = _split(p, start, split)
    how = {"arm": "base", "seed": start.number, "spoken": spoken}
    table, answers = probes.measure(held, start.model, start.processor, p, task.of_question, **how)
    return Trained(probes.inside_band(table, p.band), answers, pd.DataFrame())


def run(
    p: Parameters,
    task: Task,
    start: Start,
    arm: Arm,
    examples: Sequence[Example],
    loss: Callable,
    settings: Mapping,
    *,
    learning_rate: float,
    state: Sequence[str] = (),
    split: str = "test",
) -> Trained:
    """Train the starting model on its rows with these pairs, measure it, and give it back as it was."""
    held, spoken = _split(p, start, split)
    seed = p.seed + start.number
    plan = trainer.replan(start.plan, examples, p, seed)
    where = {"arm": arm.name, "seed": start.number}
    with trainer.borrow(start.model, p, seed) as policy:
        how = {"learning_rate": learning_rate, "state": state}
        history = trainer.fit_arm(p, policy, plan, loss, settings, **where, **how)
        table, answers = probes.measure(held, policy, start.processor, p, task.of_question, **where, spoken=spoken)
    return Trained(table, answers, history)


def _split(p: Parameters, start: Start, split: str) -> tuple[Held, int]:
    """What is measured there, and how many questions are answered in words: none where rates are chosen."""
    return (start.test, p.spoken_questions) if split == "test" else (start.validation, 0)


def choose_rate(tried: Mapping[float, pd.DataFrame], base: pd.DataFrame, by: str) -> float:
    """The learning rate whose policy has the best mean of the measure `by` among those that still see and speak.

    tried: rate -> its table on validation, held against the base's: it may lose half of what the chapter's guards allow
    on the test questions (probes.guard), as one starting model stands for all. If no rate passes, the lowest is taken.
    """
    means = {rate: table[by].mean() for rate, table in tried.items()}
    whole = [rate for rate, table in tried.items() if _passes(table, base)]
    return max(whole, key=means.__getitem__) if whole else min(tried)


def _passes(table: pd.DataFrame, base: pd.DataFrame) -> bool:
    rows = probes.guard(pd.concat([base, table]), [table["arm"].iloc[0]], share=0.5)
    return all(row["passed"] for row in rows)
