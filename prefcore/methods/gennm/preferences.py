"""SymPO's preference pairs: a model's own samples, scored against the true names (arXiv 2306.02546, eqs. 7 and 8).

Preferred is the model's own best name, not the truth: a reachable step from where the model is. `pairs_of_paper` and
`pairs_of_code` are the two recipes, as the paper and the released code differ; each has a filter of functions.

Departs from both in what an answer is. There it names all identifiers of a function, and the code composes the best
answer from the best name of each; here each identifier is an answer of its own, so its best sample is just that.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Example
from prefcore.methods.gennm.callgraph import Names, informed, nameless_share
from prefcore.methods.gennm.corpus import Item
from prefcore.methods.gennm.namer import branch
from prefcore.methods.gennm.score import score

LEAST_BEST = 0.2  # F1 below which the code drops a query
SURELY = 0.1  # by how much the preferred name must be better, in F1 (the paper: "significantly")


class Query(NamedTuple):
    """An identifier of a training function: prompt and beginning of its branch in tokens, true name, sampled names."""

    id: str
    prompt: tuple[int, ...]
    given: tuple[int, ...]
    truth: str
    samples: tuple[str, ...]


def queries_of(table: pd.DataFrame) -> list[Query]:
    """The queries of a table with a row for each, as `kept` gives it back."""
    return [Query(row.id, tuple(map(int, row.prompt)), tuple(map(int, row.given)), row.truth, tuple(row.samples))
            for row in table.itertuples()]  # fmt: skip


class Preference(NamedTuple):
    """Two names for one identifier, the first preferred."""

    query: Query
    chosen: str
    rejected: str


def f1(name: str, query: Query) -> float:
    """F1 of a name's words against those of the truth."""
    return score(name, query.truth).f1


def distinct(query: Query) -> list[str]:
    """The different samples, in the order drawn."""
    return list(dict.fromkeys(query.samples))


def pairs_of_paper(query: Query, *, seed: int) -> list[Preference]:
    """The sample most like the truth against a random other one, if it is better by more than SURELY (eqs. 7, 8)."""
    samples = distinct(query)
    if len(samples) < 2:
        return []
    best = max(samples, key=lambda name: f1(name, query))
    others = [name for name in samples if name != best]
    worse = others[np.random.default_rng(seed).integers(len(others))]
    return [Preference(query, best, worse)] if f1(best, query) - f1(worse, query) > SURELY else []


def pairs_of_code(query: Query) -> list[Preference]:
    """The best sample (of equals the last) against the worst, and against the best one that is strictly worse."""
    ranked = sorted(distinct(query), key=lambda name: f1(name, query))
    if len(ranked) < 2 or f1(ranked[-1], query) < LEAST_BEST:
        return []
    worse = [name for name in ranked if f1(name, query) < f1(ranked[-1], query)]
    return [Preference(query, ranked[-1], name) for name in dict.fromkeys((*worse[:1], *worse[-1:]))]


def pairs_with_truth(query: Query) -> list[Preference]:
    """The truth against the worst sample: the ablation whose preferred name the model may not be able to write."""
    worst = min(distinct(query), key=lambda name: f1(name, query), default=None)
    return [Preference(query, query.truth, worst)] if worst is not None and f1(worst, query) < 1 else []


def turned(pairs: Sequence[Preference], *, seed: int) -> list[Preference]:
    """The pairs, each turned round by a coin: the same names, without what tells the better one (placebo)."""
    coins = np.random.default_rng(seed).random(len(pairs)) < 0.5
    return [pair._replace(chosen=pair.rejected, rejected=pair.chosen) if coin else pair
            for pair, coin in zip(pairs, coins, strict=True)]  # fmt: skip


def encode(pairs: Sequence[Preference], tokenizer, most: int) -> list[Example]:
    """The pairs as examples with the branches (preferred, other), names of at most `most` tokens."""
    return [
        Example(f"{query.id}:{i}", query.prompt,
                tuple(branch(query.given, name, tokenizer, most) for name in (chosen, rejected)))
        for i, (query, chosen, rejected) in enumerate(pairs)
    ]  # fmt: skip


def passes_filter_of_paper(item: Item, names: Names) -> bool:
    """The paper's filter: at most two thirds of the callees are nameless; 5 statements or more, or a branch."""
    statements = len(re.findall(r";", item.code.partition("{")[2]))
    branches = re.search(r"\b(if|for|while|switch)\b|\?", item.code)
    return nameless_share(item, names) <= 2 / 3 and (statements >= 5 or branches is not None)


def passes_filter_of_code(item: Item, names: Names) -> bool:
    """The code's filter: the gate by which a function may give hints."""
    return informed(item, names)
