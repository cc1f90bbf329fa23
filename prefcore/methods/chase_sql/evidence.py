"""The experiment: ways of choosing among the same candidates, each judge taught on some databases and tested on others.

Every database is tested once; a row of the table is an arm, a training seed and a database, whose measures are means
over its questions. Candidates and databases come from files: those that a language model wrote for the embedded world
(candidates/), or a user's own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.methods.chase_sql import candidates, channel, cross, execution, features, judges, linear_judge, selector
from prefcore.methods.chase_sql.candidates import Question, Unusable
from prefcore.methods.chase_sql.execution import FAILED, Executed, mixed, restrict, subset
from prefcore.methods.chase_sql.selector import Judge
from prefcore.methods.chase_sql.writing import HINTED

CANDIDATES = "candidates/world.jsonl.gz"
GREEDY, BLIND = "greedy", "greedy without values"  # systems with one answer a question, which no selector sees
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the pairs, from which a linear judge is learnt for its curve
TRAINED = ("language", "cross", "channel")  # arms with weights that are taught, each with a learning rate of its own


class Data(NamedTuple):
    """What wrote the candidates; the questions; all candidates, executed; the same as they were before the fixer."""

    about: Mapping
    questions: list[Question]
    executed: Executed
    drafts: Executed


def read(p: Parameters) -> Data:
    """The questions of the file that `data` names, or the first `questions` of each database of the world's, all run.

    ValueError where no question is left, and where the world's file holds fewer.
    """
    source = p.data or CANDIDATES
    databases = candidates.find_databases(source, p.databases or ("" if p.data else _world(p)))
    about = candidates.read_about(source)
    rows, unusable = candidates.read(source)
    kept = rows if p.data else candidates.first_of_each(rows, p.questions)
    there = Counter(row.db_id for row in rows)
    if not p.data and (few := [name for name, count in there.items() if count < p.questions]):
        raise ValueError(
            f"{source} holds {there[few[0]]} questions of {few[0]}, and questions is {p.questions}: ask for fewer, or "
            "let a language model write more (sql_written and sql_writer in params.yaml, world/written.py)"
        )
    executed = execution.run(kept, databases)
    executed = executed._replace(unusable=[*unusable, *executed.unusable])
    if not executed.pools:
        first: Unusable = executed.unusable[0]
        raise ValueError(f"{source}: no question is left of {len(kept)}; the first: {first.what} ({first.detail})")
    drafts = [row._replace(candidates=tuple(c._replace(sql=c.sql if c.draft is None else c.draft)
                                            for c in row.candidates)) for row in kept]  # fmt: skip
    same = all(c.draft is None for row in kept for c in row.candidates)
    return Data(about, kept, executed, executed if same else execution.run(drafts, databases))


def _world(p: Parameters) -> str:
    return str(Path("build") / p.profile / "sql_world" / "database")


def choosable(system: str) -> bool:
    """Whether a candidate of this system is one that a selector chooses among."""
    return system not in (GREEDY, BLIND, HINTED)


def folds(db_ids: Sequence[str], parts: int) -> np.ndarray:
    """[n] the part in which each question is held out; databases stay whole, and the parts are about equally large."""
    names, counts = np.unique(np.asarray(db_ids), return_counts=True)
    if len(names) < 2:
        raise ValueError(f"all questions are on {names[0]}: at least two databases are needed to test on another one")
    filled, place = np.zeros(min(parts, len(names)), dtype=int), {}
    for k in np.lexsort((names, -counts)):
        place[str(names[k])] = int(filled.argmin())
        filled[filled.argmin()] += counts[k]
    return np.array([place[db_id] for db_id in db_ids])


def split(executed: Executed, parts: int) -> list[tuple[Executed, Executed]]:
    """(training side, test side) of each fold."""
    where = folds([pool.db_id for pool in executed.pools], parts)
    return [(subset(executed, where != fold), subset(executed, where == fold)) for fold in range(where.max() + 1)]


# --- arms without a judge --------------------------------------------------------------------------------------------


def without_judge(data: Data) -> pd.DataFrame:
    """Votes, bounds and the single answers, and what the votes lose with one part of the system left out."""
    whole = restrict(data.executed, choosable)
    frames = [
        frame_of("votes", whole, [truth[execution.majority(pool)] for pool, truth in _both(whole)]),
        frame_of("chance", whole, [truth.mean() for truth in whole.correct]),
        frame_of("oracle", whole, [truth.any() for truth in whole.correct]),
        frame_of("lower bound", whole, [truth.all() for truth in whole.correct]),
    ]
    systems = list(dict.fromkeys(system for pool in data.executed.pools for system in pool.systems))
    for name in systems:
        if not choosable(name) and name != HINTED:
            part = restrict(data.executed, lambda system, name=name: system == name)
            frames.append(frame_of(name, part, [truth[0] for truth in part.correct]))
        elif name != HINTED:
            part = restrict(whole, lambda system, name=name: system != name)
            frames.append(frame_of(f"votes without {name}", part, _voted(part)))
    if data.drafts is not data.executed:
        part = restrict(data.drafts, choosable)
        frames.append(frame_of("votes without fixer", part, _voted(part)))
    return pd.concat(frames, ignore_index=True)


def best_single(data: Data, parts: int) -> pd.DataFrame:
    """One answer a question: the first of the system that is right most often on the training side of each fold."""
    frames = []
    for train, test in split(restrict(data.executed, choosable), parts):
        right: dict[str, int] = {}
        for pool, truth in _both(train):
            for system in dict.fromkeys(pool.systems):
                right[system] = right.get(system, 0) + int(truth[pool.systems.index(system)])
        best = min(right, key=lambda system: (-right[system], system))
        chosen = [best in pool.systems and truth[pool.systems.index(best)] for pool, truth in _both(test)]
        frames.append(frame_of("best single", test, chosen))
    return pd.concat(frames, ignore_index=True)


def _voted(executed: Executed) -> list[bool]:
    return [truth[execution.majority(pool)] for pool, truth in _both(executed)]


def _both(executed: Executed):
    return zip(executed.pools, executed.correct, strict=True)


def frame_of(arm: str, executed: Executed, right: Sequence, pairwise: Sequence[float] | None = None) -> pd.DataFrame:
    """A row for each question: arm, id of its database, whether it is mixed, right (0 or 1, or a share)."""
    rows = [(arm, pool.db_id, pool.id, mixed(truth)) for pool, truth in _both(executed)]
    frame = pd.DataFrame(rows, columns=["arm", "id", "question", "mixed"])
    return frame.assign(right=np.asarray(right, float), pairwise=np.nan if pairwise is None else pairwise)


# --- arms with a judge -----------------------------------------------------------------------------------------------


def judge_of(
    arm: str, train: Executed, pools: Sequence, p: Parameters, embed: features.Embed, *, seed: int, name: str,
    rate: float,
) -> tuple[Judge, pd.DataFrame, object]:  # fmt: skip
    """(a judge of the pools, history, what to save of it): taught on the training side, from pairs drawn by the seed.

    linear      logistic in `features`; the control. permuted: the same from labels dealt out at random (placebo)
    untuned     the policy as it is, asked for A or B; language: with an adapter taught on the pairs
    cross       a cross-encoder on the sentence encoder, taught on the pairs
    channel     log P(question | query) of the policy, taught on the training side's right queries
    """
    none = pd.DataFrame(columns=["arm", "seed", "step", "loss"])
    pairs, labels = selector.training_pairs(train.pools, train.correct, seed=seed, per_question=p.per_question)
    pairs, labels = selector.draw_pairs(pairs, labels, p.pairs, seed=seed)
    if arm in ("linear", "permuted"):
        if arm == "permuted":
            labels = np.random.default_rng([seed, 1]).permutation(labels)
        groups, tables = [pool.db_id for pool in train.pools], features.describe(train.pools, embed)
        sizes = dict.fromkeys(max(2, round(len(pairs) * share)) for share in SHARES)
        fitted = [linear_judge.fit(tables, features.NAMES, pairs[:n], labels[:n], groups) for n in sizes]
        losses = [selector.log_loss(linear_judge.judge(model, tables)(pairs), labels) for model in fitted]
        curve = pd.DataFrame({"arm": name, "seed": seed, "step": list(sizes), "loss": losses})
        return linear_judge.judge(fitted[-1], features.describe(pools, embed)), curve, fitted[-1]
    if arm == "untuned":
        tokenizer, policy = models.load(p, p.policy)
        return judges.read_with(policy, tokenizer, pools), none, None
    where = {"arm": name, "seed": seed, "rate": rate}
    if arm == "language":
        both = [*pairs, *(pair._replace(first=pair.second, second=pair.first) for pair in pairs)]
        labels = np.concatenate([labels, 1 - labels])
        policy, tokenizer, history = judges.teach(train.pools, both, labels, p, **where)
        return judges.read_with(policy, tokenizer, pools), history, (policy, tokenizer)
    if arm == "cross":
        scorer, history = cross.teach(train.pools, pairs, labels, p, **where)
        return cross.judge(scorer, pools), history, None
    if arm == "channel":
        right = [(pool, int(np.argmax(truth))) for pool, truth in _both(train) if truth.any()]
        golds = [(pool, pool.sqls[i], pool.results[i]) for pool, i in right]
        policy, tokenizer, history = channel.teach(golds, p, **where)
        return channel.judge(policy, tokenizer, pools), history, (policy, tokenizer)
    raise ValueError(f"there is no selector {arm!r}: say linear, permuted, untuned, language, cross or channel")


def tune(arm: str, train: Executed, p: Parameters, embed: features.Embed, fold: int) -> float:
    """The rate of `rates` with the best pairwise accuracy on a quarter of the training databases; the given one where
    there is nothing to choose."""
    if arm not in TRAINED or not p.rates:
        return p.learning_rates.get(arm, p.learning_rate)
    learnt, held = split(train, 4)[0]
    held = restrict(held, choosable)
    found = {}
    for rate in p.rates:
        name = f"{arm}-{fold}-{rate:g}"
        judge, _, _ = judge_of(arm, learnt, held.pools, p, embed, seed=0, name=name, rate=rate)
        found[rate] = np.nanmean(selector.pairwise_accuracy(held.pools, held.correct, judge, selector.by_cluster))
    return max(found, key=found.get)


def with_judge(arm: str, judge: Judge, test: Executed, prior: float) -> pd.DataFrame:
    """The tournament by a judge, alone and with the votes as prior: questions where the choice matters are asked once,
    on the others every choice is equally right."""
    inside = np.array([mixed(truth) for truth in test.correct])
    at = np.flatnonzero(inside)
    part = subset(test, inside)
    pairs = selector.comparisons(part.pools, selector.by_cluster)
    asked = judge([pair._replace(pool=int(at[pair.pool])) for pair in pairs]) if pairs else ()
    known = dict(zip(pairs, asked, strict=True))

    def again(wanted):
        return np.array([known[pair] for pair in wanted])

    frames = []
    for name, own in ((arm, again), (f"{arm} with votes", judges.weigh(again, part.pools, prior))):
        chosen = selector.select(part.pools, own, selector.by_cluster)
        right = np.array([truth.mean() for truth in test.correct])
        right[at] = [truth[choice.index] for truth, choice in zip(part.correct, chosen, strict=True)]
        pairwise = np.full(len(right), np.nan)
        pairwise[at] = selector.pairwise_accuracy(part.pools, part.correct, own, selector.by_cluster)
        frames.append(frame_of(name, test, right, pairwise))
    return pd.concat(frames, ignore_index=True)


# --- the table -------------------------------------------------------------------------------------------------------


def by_database(frame: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """The long table: a row for each arm, seed and database; an arm without a seed has the same row for each."""
    if "seed" not in frame:
        frame = pd.concat([frame.assign(seed=seed) for seed in seeds])
    keys = ["arm", "seed", "id"]
    table = frame.groupby(keys, sort=False).agg(right=("right", "mean"), pairwise=("pairwise", "mean"))
    table["right_mixed"] = frame[frame["mixed"]].groupby(keys)["right"].mean()
    return table.round(6).reset_index()


def solved_alone(executed: Executed) -> dict[str, int]:
    """How many questions each set of generators solves (some candidate is right) and no other; "none" for the rest."""
    counts: dict[str, int] = {}
    for pool, truth in _both(executed):
        who = dict.fromkeys(system for system, good in zip(pool.systems, truth, strict=True) if good)
        key = " + ".join(who) or "none"
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items()))


def describe(executed: Executed) -> dict[str, float]:
    """Of all candidates: how many, the share that runs, the share that is right; the share of mixed questions."""
    clusters = np.concatenate([pool.clusters for pool in executed.pools])
    return {
        "candidates": len(clusters), "share that runs": float((clusters != FAILED).mean()),
        "share that is right": float(np.concatenate(executed.correct).mean()),
        "share of questions with right and wrong ones": float(np.mean([mixed(truth) for truth in executed.correct])),
    }  # fmt: skip


def count_unusable(executed: Executed) -> pd.DataFrame:
    """What could not be used, how often, and the first of each kind."""
    frame = pd.DataFrame(executed.unusable, columns=["id", "db_id", "system", "what", "detail"])
    return frame.groupby("what", sort=True).agg(count=("what", "size"), first=("detail", "first")).reset_index()
