"""The study's arms in which a language model takes part: one writes the candidates, one is the judge."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.methods.chase_sql import (
    examples,
    execution,
    features,
    generators,
    language_judge,
    linear_judge,
    selector,
    system,
)
from prefcore.methods.chase_sql.embedded import Trained, judged, without_judge
from prefcore.methods.chase_sql.execution import Executed
from prefcore.methods.chase_sql.selector import Comparison
from prefcore.methods.chase_sql.system import Split
from prefcore.methods.chase_sql.world.layouts import STRATEGIES
from prefcore.scoring import llm


def written(splits: Mapping[str, Split], p: Parameters, embed: Callable, name: str) -> pd.DataFrame:
    """Candidates of a language model in the three layouts, on splits "train" and "test"; its judge is linear, too.

    name: as llm.open_model has it. Of p: lm_samples, lm_temperature, lm_tokens, attempts, per_question, generator (a
    model of somebody else gets the layouts described), seed, device, threads, dtype.
    """
    model = llm.open_model(name, p)
    prompts = {"taught": not p.generator, "max_tokens": p.lm_tokens}
    how = {"samples": p.lm_samples, "temperature": p.lm_temperature, "attempts": p.attempts, "seed": p.seed}
    writers = {split: {s: generators.prompted(s, model, _nearest(of, embed), **prompts) for s in STRATEGIES}
               for split, of in splits.items()}  # fmt: skip
    train = system.propose_for_training(splits["train"], writers["train"], **how).executed
    questions, _ = system.propose(splits["test"], writers["test"], **how)
    test = execution.run(questions, splits["test"].folder)
    frame = without_judge(test, STRATEGIES[-1])
    pairs = selector.training_pairs(train.pools, train.correct, seed=p.seed, per_question=p.per_question)
    if not len(pairs[0]):  # a model that is never right, or never wrong, teaches no judge
        return frame
    content, tables = (features.describe_content(part.pools, embed) for part in (train, test))
    fitted = linear_judge.fit(*content, *pairs, [pool.db_id for pool in train.pools])
    return pd.concat([frame, judged(test, {"selector": linear_judge.judge(fitted, tables[0])})], ignore_index=True)


def _nearest(split: Split, embed: Callable) -> Callable:
    """synthesise(problem, seed) for generators.prompted: the nearest examples on the problem's database."""

    def synthesise(problem, seed):
        connection = split.connections[problem.db_id]
        made = examples.synthesise(problem, connection, embed, size=examples.SIZE, seed=seed)
        return [(words, text) for words, text, _ in made[: examples.PROMPTED]]

    return synthesise


def taught_verdicts(
    trained: Trained, part: Executed, pairs: Sequence[Comparison], labels: np.ndarray, p: Parameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(frame, history): a language model with an adapter taught to choose, on the pools of `part`.

    Arms: before it is taught (untuned), after it (selector), and after it with the full schema in the prompt; beside
    them self-consistency and bounds on the same questions. One query stands for each cluster, as the model is slow.
    """

    def judge_with(tokenizer, policy, **how):
        return language_judge.judge_with(policy, tokenizer, part.pools, **how)

    frames = [without_judge(part, trained.single)]
    frames.append(judged(part, {"untuned": judge_with(*models.load(p, p.policy))}, selector.by_cluster))
    how = {"arm": "verdicts", "seed": p.seed}
    policy, tokenizer, history = language_judge.teach(trained.train.pools, pairs, labels, p, **how)
    judges = {
        "selector": judge_with(tokenizer, policy),
        "selector, full schema": judge_with(tokenizer, policy, whole_schema=True),
    }
    frames.append(judged(part, judges, selector.by_cluster))
    return pd.concat(frames, ignore_index=True), history[["step", "loss", "arm"]]
