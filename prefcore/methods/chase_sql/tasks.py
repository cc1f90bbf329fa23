"""The task of the chapter: what it learns from and is tested on, with all that differs between two kinds of data.

`embedded_task`: questions of the embedded world; generators propose candidates, an ablation leaves parts out.
`own_task`: questions with candidates of other systems, from a user's files; a selector is tested on other databases.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.methods.chase_sql import (
    baselines,
    claims,
    embedded,
    external,
    language_arms,
    language_judge,
    results,
    selector,
    strategies,
    system,
)
from prefcore.methods.chase_sql.execution import Executed, subset
from prefcore.methods.chase_sql.features import Block, Embed
from prefcore.methods.chase_sql.generators import Problem
from prefcore.methods.chase_sql.linear_judge import Linear
from prefcore.methods.chase_sql.system import Split, Training


class Evaluation(NamedTuple):
    """scores: the frame of answers (`results`) with a column system: "all", or what was left out, or whose part a
    language model took. tables: results.table of each system. compared: the arms that a reader compares. test: the
    executed candidates of the test side. alone: questions by the set of generators that solve them. history: training
    steps of a language model, a frame each. metrics: what else is kept.
    """

    scores: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    compared: Sequence[str]
    test: Executed
    alone: Mapping[str, int]
    claims: list[dict]
    history: list[pd.DataFrame]
    metrics: dict


class Task(NamedTuple):
    """questions: with gold, by side. problems: training questions as generators see them, with retrieved values; none
    where a file holds the candidates. recall: share of gold's values that are offered, with and without retrieval.

    propose() gives the training questions' candidates, executed; evaluate(training, content, judge) what all arms
    answer on other databases, for the judge that was fitted on the content block of the training side.
    """

    questions: Mapping[str, Sequence]
    problems: Sequence[Problem]
    recall: Mapping[str, float]
    propose: Callable[[], Training]
    evaluate: Callable[[Training, Block, Linear], Evaluation]


def open_task(p: Parameters, embed: Embed) -> Task:
    """The embedded world's task, or that of the file or folder which `data` names."""
    return own_task(p, embed) if p.data else embedded_task(p, embed)


def embedded_task(p: Parameters, embed: Embed) -> Task:
    """The questions of build/<profile>/sql_world: train_questions and test_questions of each database."""
    splits = _open_splits(p, {"train": p.train_questions, "test": p.test_questions}, embed)
    train, test = splits["train"], splits["test"]
    how = {"samples": p.queries, "temperature": p.temperature, "attempts": p.attempts, "seed": p.seed}

    def propose() -> Training:
        shapes, golds = [q.shape for q in train.questions], [q.gold for q in train.questions]
        connections = train.connections | test.connections
        generators = strategies.learn_generators(train.problems, shapes, golds, embed, connections)
        return system.propose_for_training(train, generators, **how)

    def evaluate(training: Training, content: Block, judge: Linear) -> Evaluation:
        executed = training.executed
        single = baselines.best_system(executed.pools, executed.correct)
        trained = embedded.Trained(training.generators, executed, content, judge, embed, single)
        return _evaluate_embedded(p, trained, test, training.repairs, **how)

    offered = {"retrieved": train.problems, "as the question spells it": system.without_values(train.problems)}
    recall = {name: system.value_recall(train.questions, problems) for name, problems in offered.items()}
    questions = {name: split.questions for name, split in splits.items()}
    return Task(questions, train.problems, recall, propose, evaluate)


def _open_splits(p: Parameters, sizes: Mapping[str, int], embed: Embed) -> dict[str, Split]:
    world = Path("build") / p.profile / "sql_world"
    return {split: system.open_split(world, split, size, embed) for split, size in sizes.items()}


def _evaluate_embedded(
    p: Parameters, trained: embedded.Trained, test: Split, repairs: Mapping[str, int], **how
) -> Evaluation:
    """All arms with the whole system, with one part of it left out, and with a language model where sizes ask."""
    questions, tested = embedded.run(trained, test, **how)
    frames = {"all": embedded.compare_arms(trained, tested)}
    parts = embedded.ablate(trained, test, questions, temperatures=p.temperatures, **how)
    ablated = {name: embedded.compare_arms(trained, part) for name, part in parts.items()}
    language, history = _language_frames(p, trained, tested)
    rows = claims.on_embedded(frames["all"], ablated, seed=p.seed)
    if "verdicts" in language:
        rows += claims.on_language_judge(language["verdicts"], seed=p.seed)
    frames |= ablated | language
    tables = {name: results.table(frame, seed=p.seed) for name, frame in frames.items()}
    alone = results.solved_alone(tested, list(trained.generators))
    kept = {
        "by_database": results.by_database(frames["all"], ["selector"]).to_dict("index"),
        "problems": results.unusable_as_metrics({"data": trained.train}),
        "solved_alone": alone,
        "repairs": repairs,
        "single": trained.single,
        "ablations": {name: results.as_metrics(tables[name]) for name in ablated},
        **{name: results.as_metrics(tables[name]) for name in language},
    }
    scores = pd.concat([frame.assign(system=name) for name, frame in frames.items()])
    compared = ["single", "self-consistency", "selector"]
    return Evaluation(scores, tables, compared, tested, alone, rows, history, kept)


def _language_frames(
    p: Parameters, trained: embedded.Trained, tested: Executed
) -> tuple[dict[str, pd.DataFrame], list[pd.DataFrame]]:
    """(frames "written" and "verdicts", history) of the arms in which a language model takes part, where sizes ask."""
    frames, history = {}, []
    if p.lm_test_questions:
        splits = _open_splits(p, {"train": p.lm_train_questions, "test": p.lm_test_questions}, trained.embed)
        writer = p.generator or f"build/{p.profile}/sql_lm"
        frames["written"] = language_arms.written(splits, p, trained.embed, writer)
    if p.verdict_pairs:
        inside = np.array([int(pool.id.split(":")[1]) < p.verdict_questions for pool in tested.pools])
        train = trained.train
        pairs = selector.training_pairs(train.pools, train.correct, seed=p.seed, per_question=p.per_question)
        pairs = selector.draw_pairs(*pairs, p.verdict_pairs, seed=p.seed)
        frames["verdicts"], steps = language_arms.taught_verdicts(trained, subset(tested, inside), *pairs, p)
        history.append(steps)
    return frames, history


def own_task(p: Parameters, embed: Embed) -> Task:
    """The rows that `data` names, held out by database; or, with `eval_data`, those as test side."""
    sources = {"data": external.open_source(p.data, p.databases)}
    if p.eval_data:
        sources["eval_data"] = external.open_source(p.eval_data, p.eval_databases)
    how = {"per_question": p.per_question, "seed": p.seed}
    if p.verdict_pairs:
        how["others"] = {"language selector": lambda train, pools: language_judge.taught_judge(train, pools, p)}

    def propose() -> Training:
        return Training(external.run(sources["data"]), repairs={}, hinted=0, generators={})

    def evaluate(training: Training, content: Block, judge: Linear) -> Evaluation:
        sides = {"data": training.executed}
        if p.eval_data:
            sides["eval_data"] = external.apart(external.run(sources["eval_data"]), training.executed)
            scores = external.transfer(training.executed, sides["eval_data"], embed, **how)
        else:
            scores = external.cross_validate(training.executed, embed, parts=p.folds, **how)
        compared = external.compared(scores)
        kept = {
            "by_database": results.by_database(scores, compared).to_dict("index"),
            "problems": results.unusable_as_metrics(sides),
        }
        tables = {"all": results.table(scores, seed=p.seed)}
        rows = claims.on_external(scores, seed=p.seed)
        test = list(sides.values())[-1]
        return Evaluation(scores.assign(system="all"), tables, compared, test, {}, rows, [], kept)

    questions = {name: source.questions for name, source in sources.items()}
    return Task(questions, [], {}, propose, evaluate)
