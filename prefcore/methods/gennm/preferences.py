"""SymPO's preference pairs: a model's own samples, scored against the true names (arXiv 2306.02546, eqs. 7 and 8).

Preferred is the model's own best answer, not the truth: a reachable step from where the model is. `pairs_of_paper` and
`pairs_of_code` are the two recipes, as the paper and the released code differ; each has a filter of functions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prefcore.data.types import Pair
from prefcore.methods.gennm.callgraph import Names, informed, nameless_share
from prefcore.methods.gennm.corpus import Item
from prefcore.methods.gennm.prompt import write_answer
from prefcore.methods.gennm.score import score

LEAST_BEST = 0.2  # mean F1 below which the code drops a query
SURELY = 0.1  # by how much the preferred answer must be better, in mean F1 (the paper: "significantly")


class Query(NamedTuple):
    """A training question with its sampled answers: `samples` are parsed, placeholder -> name."""

    id: str
    prompt: str
    ids: tuple[str, ...]
    truth: Mapping[str, str]
    samples: tuple[Mapping[str, str], ...]


def f1(names: Mapping[str, str], query: Query, kinds: str = "av") -> float:
    """Mean token F1 of the names against the truth over the asked variables (kinds "av") or functions ("f")."""
    found = [score(names.get(id, ""), query.truth[id]).f1 for id in query.ids if id[0] in kinds]
    return float(np.mean(found)) if found else 0.0


def complete(query: Query) -> list[Mapping[str, str]]:
    """Samples that name every identifier, each once, in the order drawn."""
    whole = [sample for sample in query.samples if all(id in sample for id in query.ids)]
    return list({tuple(sample[id] for id in query.ids): sample for sample in whole}.values())


def compose(query: Query, samples: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """For each identifier the best name of all samples (of equally good ones the later)."""
    return {id: max(enumerate(sample[id] for sample in samples),
                    key=lambda numbered: (score(numbered[1], query.truth[id]).f1, numbered[0]))[1]
            for id in query.ids}  # fmt: skip


def pairs_of_paper(query: Query, *, seed: int) -> list[Pair]:
    """The sample most like the truth against a random other one, if it is better by more than SURELY (eqs. 7, 8)."""
    samples = complete(query)
    if len(samples) < 2:
        return []
    best = max(samples, key=lambda sample: f1(sample, query))
    others = [sample for sample in samples if sample is not best]
    worse = others[np.random.default_rng(seed).integers(len(others))]
    return [pair(query, best, worse, "paper")] if f1(best, query) - f1(worse, query) > SURELY else []


def pairs_of_code(query: Query) -> list[Pair]:
    """The composed best against the worst sample, and against the best other sample that is strictly worse."""
    samples = complete(query)
    if len(samples) < 2:
        return []
    best = compose(query, samples)
    top = f1(best, query)
    if top < LEAST_BEST:
        return []
    ranked = sorted(samples, key=lambda sample: (f1(sample, query), f1(sample, query, "f")))
    out = [pair(query, best, ranked[0], "worst")] if f1(ranked[0], query) < top else []
    hard = [sample for sample in ranked[1:] if f1(sample, query) < top]
    return out + ([pair(query, best, hard[-1], "hard")] if hard else [])


def pairs_with_truth(query: Query) -> list[Pair]:
    """The truth against the worst sample: the ablation whose preferred answer the model could not have written."""
    samples = complete(query)
    worst = min(samples, key=lambda sample: f1(sample, query), default=None)
    return [pair(query, query.truth, worst, "truth")] if worst is not None and f1(worst, query) < 1 else []


def pair(query: Query, chosen: Mapping[str, str], rejected: Mapping[str, str], kind: str) -> Pair:
    """Both answers name the same identifiers in the same order, so that only names differ."""
    chosen_text, rejected_text = write_answer(chosen, query.ids), write_answer(rejected, query.ids)
    return Pair(f"{query.id}:{kind}", query.prompt, chosen_text, rejected_text,
                f1(chosen, query), f1(rejected, query))  # fmt: skip


def passes_filter_of_paper(item: Item, names: Names) -> bool:
    """The paper's filter: at most two thirds of the callees are nameless; 5 statements or more, or a branch."""
    statements = len(re.findall(r";", item.code.partition("{")[2]))
    branches = re.search(r"\b(if|for|while|switch)\b|\?", item.code)
    return nameless_share(item, names) <= 2 / 3 and (statements >= 5 or branches is not None)


def passes_filter_of_code(item: Item, names: Names) -> bool:
    """The code's filter: the gate by which a function may give hints."""
    return informed(item, names)
