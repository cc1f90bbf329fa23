"""The experiment on the embedded world: the arms that choose among the same candidates, ablations, and claims.

Every frame has a row for each arm and question, with the columns of external.evaluate: arm, id, db_id, mixed, right,
pairwise, agreed, asked; external.table tells of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.lab import verdicts
from prefcore.methods.chase_sql import (
    database,
    external,
    features,
    generators,
    language,
    linear,
    ranking,
    selector,
    system,
    votes,
)  # fmt: skip
from prefcore.methods.chase_sql.generators import Generator
from prefcore.methods.chase_sql.system import World
from prefcore.methods.chase_sql.votes import Poll
from prefcore.methods.chase_sql.world.layouts import STRATEGIES
from prefcore.scoring import llm

BOUNDS = (("oracle", "lower"), ("lower bound", "higher"))  # where draws are cooler
RIDGE = 0.01  # of the ranker, as of the generators
EXAMPLES = 16  # synthetic examples made for a question of which a language model sees the nearest


class Bench(NamedTuple):
    """What all arms share: the test world, the generators, what was learnt from (poll and its content), the judge, the
    encoder, and the generator whose first candidate is the single answer."""

    world: World
    made: Mapping[str, Generator]
    learnt: Poll
    content: tuple
    model: linear.Linear
    embed: Callable
    single: str


def run(bench: Bench, *, samples: int, temperature: float, attempts: int, seed: int, problems=None):
    """(questions with candidates, their poll) of the test world; `problems` replaces what the generators see."""
    problems = bench.world.problems if problems is None else problems
    drafts = system.draft(problems, bench.made, samples=samples, temperature=temperature, seed=seed)
    drafts, _ = system.repair(problems, bench.made, drafts, bench.world.connections, attempts=attempts)
    asked = system.with_candidates(bench.world.questions, drafts)
    return asked, votes.poll(asked, bench.world.folder)


def main(bench: Bench, poll: Poll) -> pd.DataFrame:
    """All ways of choosing among the candidates of a poll."""
    tables, names = features.describe(poll.ballots, bench.embed)
    near = np.zeros(len(names))
    near[names.index("near query")] = 1.0
    untuned = linear.Linear(near, np.ones(len(names)), tuple(names), 1.0)
    weights = ranking.fit(bench.content[0], bench.learnt.correct, ridge=RIDGE)
    judges = {"untuned": linear.judge(untuned, tables), "selector": linear.judge(bench.model, tables)}
    scores = [ranking.logits(table, weights) for table in tables]
    return pd.concat([without_judge(poll, bench.single), ranked(poll, scores), judged(poll, judges)], ignore_index=True)


def without_judge(poll: Poll, single: str) -> pd.DataFrame:
    """One answer (the first of the generator `single`, of any where it has none), votes, and the bounds."""
    both = list(zip(poll.ballots, poll.correct, strict=True))
    rights = {
        "single": [truth[votes.of_system(ballot, single) or 0] for ballot, truth in both],
        "self-consistency": [truth[votes.majority(ballot)] for ballot, truth in both],
        "random": [truth.mean() for truth in poll.correct],
        "oracle": [truth.any() for truth in poll.correct],
        "lower bound": [truth.all() for truth in poll.correct],
    }
    return pd.concat([_frame(arm, poll, right) for arm, right in rights.items()], ignore_index=True)


def ranked(poll: Poll, scores: Sequence[np.ndarray], arm: str = "ranker") -> pd.DataFrame:
    """Looks at all candidates at once and takes the best score [n] of each ballot; a failed one only if all failed."""
    low = [np.where(ballot.clusters == votes.FAILED, -1e9, s) for ballot, s in zip(poll.ballots, scores, strict=True)]
    return _frame(arm, poll, [truth[int(np.argmax(s))] for truth, s in zip(poll.correct, low, strict=True)])


def judged(poll: Poll, judges: Mapping[str, selector.Judge], speakers: Callable = selector.by_text) -> pd.DataFrame:
    """The tournament with each of the judges; `speakers` as in selector.select."""
    frames = []
    for arm, one in judges.items():
        chosen = selector.select(poll.ballots, one, speakers)
        right = [truth[choice.index] for truth, choice in zip(poll.correct, chosen, strict=True)]
        frames.append(_frame(arm, poll, right).assign(
            pairwise=selector.pairwise(poll.ballots, poll.correct, one, speakers),
            agreed=[choice.agreed for choice in chosen], asked=[choice.asked for choice in chosen],
        ))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _frame(arm: str, poll: Poll, right: Sequence) -> pd.DataFrame:
    both = zip(poll.ballots, poll.correct, strict=True)
    rows = [(arm, ballot.id, ballot.db_id, votes.mixed(truth)) for ballot, truth in both]
    frame = pd.DataFrame(rows, columns=["arm", "id", "db_id", "mixed"])
    return frame.assign(right=np.asarray(right, dtype=float), pairwise=np.nan, agreed=0, asked=0)


def ablate(bench: Bench, asked: Sequence, **how) -> dict[str, Poll]:
    """The test questions' polls with one part of the system left out; `how` as for `run`.

    Beside them the same candidates when results are equal only with every row as often ("rows counted").
    """
    blind = system.without_values(bench.world.problems)
    found = {
        "without values": run(bench, problems=blind, **how)[1],
        "without fixer": run(bench, **how | {"attempts": 0})[1],
    }
    for name in bench.made:
        left = system.only(asked, lambda candidate, name=name: candidate.system != name)
        found[f"without {name}"] = votes.poll(left, bench.world.folder)
    return found | {"rows counted": votes.poll(asked, bench.world.folder, database.as_multiset)}


# --- language models -------------------------------------------------------------------------------------------------


def written(worlds: Mapping[str, World], p: Parameters, embed: Callable, name: str) -> pd.DataFrame:
    """Candidates of a language model in the three layouts, on worlds "train" and "test"; its judge is linear, too.

    name: as llm.open_model has it. Of p: lm_samples, lm_temperature, lm_tokens, attempts, per_question, generator (a
    model of somebody else has to be told the layouts), seed, device, threads, dtype.
    """
    model = llm.open_model(name, p)
    how = {"taught": not p.generator, "max_tokens": p.lm_tokens}
    polls, asked = {}, {}
    for split, world in worlds.items():
        made = {s: generators.prompted(s, model, _examples(world, embed), **how) for s in STRATEGIES}
        drawn = {"samples": p.lm_samples, "temperature": p.lm_temperature, "seed": p.seed}
        drafts = system.draft(world.problems, made, **drawn)
        drafts, _ = system.repair(world.problems, made, drafts, world.connections, attempts=p.attempts)
        asked[split] = system.with_candidates(world.questions, drafts)
        polls[split] = votes.poll(asked[split], world.folder)
        if split == "train":
            hinted, _ = system.hint(world, asked[split], polls[split], made, seed=p.seed)
            polls[split] = votes.poll(hinted, world.folder)
    frame = without_judge(polls["test"], STRATEGIES[-1])
    pairs = selector.training_pairs(
        polls["train"].ballots, polls["train"].correct, seed=p.seed, per_question=p.per_question
    )
    if not len(pairs[0]):  # a model that is never right, or never wrong, teaches no judge
        return frame
    told, shown = (features.describe(poll.ballots, embed) for poll in (polls["train"], polls["test"]))
    fitted = linear.fit(*told, *pairs, [ballot.db_id for ballot in polls["train"].ballots])
    return pd.concat([frame, judged(polls["test"], {"selector": linear.judge(fitted, shown[0])})], ignore_index=True)


def _examples(world: World, embed: Callable) -> Callable:
    def nearest(problem, seed):
        made = generators.synthesise(problem, world.connections[problem.db_id], embed, size=EXAMPLES, seed=seed)
        return [(words, text) for words, text, _ in made[: generators.EXAMPLES]]

    return nearest


def taught_verdicts(bench: Bench, poll: Poll, some: Sequence[int], asks: Sequence, labels: np.ndarray, p: Parameters):
    """(frame, history): a language model with an adapter taught to choose, on the ballots `some` of a poll.

    Arms: before it is taught (untuned), after it (selector), and after it with the full schema in the prompt; beside
    them votes and bounds on the same questions. One query speaks for each cluster, as the model is slow.
    """
    part = Poll([poll.ballots[i] for i in some], [poll.correct[i] for i in some], [])

    def ask(policy, tokenizer, **how):
        return language.verdict_judge(policy, tokenizer, part.ballots, **how)

    how = {"arm": "verdicts", "seed": p.seed}
    frames = [without_judge(part, bench.single)]
    frames.append(judged(part, {"untuned": ask(*reversed(models.load(p, p.policy)))}, selector.by_cluster))
    policy, tokenizer, history = language.teach(bench.learnt.ballots, asks, labels, p, **how)
    judges = {
        "selector": ask(policy, tokenizer),
        "selector, full schema": ask(policy, tokenizer, whole_schema=True),
    }
    frames.append(judged(part, judges, selector.by_cluster))
    return pd.concat(frames, ignore_index=True), history[["step", "loss", "arm"]]


# --- what the rows say -----------------------------------------------------------------------------------------------


def log_loss(probability: np.ndarray, label: np.ndarray) -> float:
    """Mean -log of the probability [n] given to what happened [n], in nats."""
    said = np.clip(np.where(label > 0.5, probability, 1 - probability), 1e-12, 1)
    return float(-np.log(said).mean())


def difference(text: str, first: pd.Series, second: pd.Series, test: str, *, direction: str, seed: int) -> dict:
    """A row of the claims table: `first` - `second`, numbers by question, on the questions that both have."""
    both = first.index.intersection(second.index)
    a, b = (values.loc[both].to_numpy(float) for values in (first, second))
    return verdicts.paired(text, f"{test}, {len(both)} questions", a, b, seed=seed, direction=direction)


def claims(scores: pd.DataFrame, ablated: Mapping[str, pd.DataFrame], *, seed: int) -> list[dict]:
    """The claims on ways of choosing, on ablations and on temperatures."""

    def right(frame, arm):
        return external.values(frame, arm, only_mixed=False)

    pairs = (
        ("the selector is right more often than self-consistency", "selector", "self-consistency"),
        ("self-consistency is right more often than one answer", "self-consistency", "single"),
        ("comparing pairs is better than ranking all candidates at once", "selector", "ranker"),
        ("a trained judge chooses better than an untrained one", "selector", "untuned"),
    )
    rows = [difference(text, right(scores, a), right(scores, b), f"execution accuracy of {a} minus {b}",
                       direction="higher", seed=seed) for text, a, b in pairs]  # fmt: skip
    for name, frame in ablated.items():
        if name.startswith("without"):
            rows.append(difference(f"{name} the system is worse", right(frame, "selector"), right(scores, "selector"),
                                   f"execution accuracy of the selector {name} minus whole system",
                                   direction="lower", seed=seed))  # fmt: skip
        for arm, direction in BOUNDS if name.startswith("temperature") else ():
            text = f"at a lower temperature the {'upper' if arm == 'oracle' else 'lower'} bound is {direction}"
            rows.append(difference(text, right(frame, arm), right(scores, arm),
                                   f"{arm} at {name} minus at the main one", direction=direction, seed=seed))
    return rows


def verdict_claims(frame: pd.DataFrame, *, seed: int) -> list[dict]:
    """The claims on the language model that chooses."""
    pairwise = {arm: part.set_index("id")["pairwise"].dropna() for arm, part in frame.groupby("arm")}
    of = "pairwise accuracy of the language model's verdicts,"
    rows = (
        ("a language model that was taught to choose compares better than before", "untuned", "after minus before"),
        ("the union of both queries' tables serves it at least as well as the full schema", "selector, full schema",
         "union minus full schema"),
    )  # fmt: skip
    return [difference(text, pairwise["selector"], pairwise[other], f"{of} {what}", direction="higher", seed=seed)
            for text, other, what in rows]  # fmt: skip


def as_metrics(table: pd.DataFrame) -> dict:
    """external.table as nested plain numbers, arm by arm, without what has no value."""
    return {
        row.pop("arm"): {name: value for name, value in row.items() if not pd.isna(value)}
        for row in table.to_dict("records")
    }
