"""Three generators without a language model: the same enumerated queries, ranked in three ways that err differently.

They stand in for the paper's three prompts in the quick profile. The queries are enumerated from the grammar that wrote
the questions and their gold, so how often one of them is right says nothing about a language model.

divide      by parts: the shape by a classifier of the question's words, then how well each part fits
plan        the whole question against SQLite's execution plan of a query, in words
synthetic   the whole question against the query in literal words, and against synthetic examples of its shape

Each way is a softmax over queries whose weights are taught on questions of training databases. A training question is
read by classifiers and weights from the other databases' questions, so that candidates for training are about as good
as those for testing. (Not wholly apart: the classifiers behind the other databases' features have seen its database.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import database, enumeration, examples, ranking
from prefcore.methods.chase_sql.generators import Generator, Problem
from prefcore.methods.chase_sql.world import forms, layouts
from prefcore.methods.chase_sql.world.forms import Query
from prefcore.methods.chase_sql.world.words import phrase_literally

KEPT = 20  # queries that are looked at as a whole, the best by their parts
NEAREST = 5  # synthetic examples whose shapes count
SHARPNESS = 3.0  # logits are multiplied by it at temperature 1
RIDGE = 0.01


class Ranked(NamedTuple):
    """A problem's queries with their logits [n]."""

    queries: list[Query]
    logits: np.ndarray


def divide_view(problem, queries, parts, embed, connection) -> np.ndarray:
    """[n, F] the parts, the shape's log-probability among them, and nothing of the whole."""
    return parts


def plan_view(problem, queries, parts, embed, connection) -> np.ndarray:
    """[n, F] the parts without the shape; the question's cosine with SQLite's plan of each query, in words."""
    steps = [[row[3] for row in database.explain(connection, forms.sql(query)).rows] for query in queries]
    plans = [layouts.verbalise(query, plan) for query, plan in zip(queries, steps, strict=True)]
    vectors = embed([problem.question, *plans])
    return np.c_[parts[:, :-1], vectors[1:] @ vectors[0]]


def synthetic_view(problem, queries, parts, embed, connection) -> np.ndarray:
    """[n, F + 1] the parts without the shape; the cosine with literal words; how many near examples share the shape."""
    vectors = embed([problem.question, *(phrase_literally(query) for query in queries)])
    made = examples.synthesise(problem, connection, embed, size=examples.SIZE, seed=len(problem.question))[:NEAREST]
    near = [sum(shape == query.shape for _, _, shape in made) for query in queries]
    return np.c_[parts[:, :-1], vectors[1:] @ vectors[0], near]


VIEWS = {"divide": divide_view, "plan": plan_view, "synthetic": synthetic_view}


def learn_generators(
    problems: Sequence[Problem], shapes: Sequence[str], golds: Sequence[str], embed: Callable, connections: Mapping
) -> dict[str, Generator]:
    """The three generators, taught on training questions with their gold. connections: guarded ones, by db_id."""
    groups = [problem.db_id for problem in problems]
    classifiers = {}
    for group in ("", *dict.fromkeys(groups)):
        rows = [i for i, g in enumerate(groups) if g != group]
        classifiers[group] = enumeration.fit_classifiers(*([column[i] for i in rows] for column in (
            [problem.question for problem in problems], shapes, golds)))  # fmt: skip

    listed: dict[tuple, enumeration.Options] = {}

    def options(problem: Problem) -> enumeration.Options:
        key = (problem.id, problem.values)
        if key not in listed:
            listed[key] = enumeration.list_options(problem, classifiers.get(problem.db_id, classifiers[""]), embed)
        return listed[key]

    right = [_right(options(problem).queries, gold, connections[problem.db_id])
             for problem, gold in zip(problems, golds, strict=True)]  # fmt: skip
    first = _fit_apart([options(problem).parts for problem in problems], right, groups)

    def best(problem: Problem) -> np.ndarray:
        scores = ranking.logits(options(problem).parts, first.get(problem.db_id, first[""]))
        return np.argsort(-scores, kind="stable")[:KEPT]

    def see(problem: Problem, view: Callable) -> np.ndarray:
        queries, parts = options(problem)
        order = best(problem)
        return view(problem, [queries[i] for i in order], parts[order], embed, connections[problem.db_id])

    def make(name: str, view: Callable) -> Generator:
        seen = [see(problem, view) for problem in problems]
        weights = _fit_apart(seen, [y[best(problem)] for y, problem in zip(right, problems, strict=True)], groups)
        kept: dict[tuple, Ranked] = {}

        def ranked(problem: Problem) -> Ranked:
            key = (problem.id, problem.values)
            if key not in kept:
                queries = [options(problem).queries[i] for i in best(problem)]
                scores = ranking.logits(see(problem, view), weights.get(problem.db_id, weights[""]))
                kept[key] = Ranked(queries, scores)
            return kept[key]

        return drawing(name, ranked, embed)

    return {name: make(name, view) for name, view in VIEWS.items()}


def _right(queries: Sequence[Query], gold: str, connection) -> np.ndarray:
    wanted = database.execute(connection, gold)
    found = [database.same(database.execute(connection, forms.sql(query)), wanted) for query in queries]
    return np.array(found, bool)


def _fit_apart(options: Sequence[np.ndarray], right: Sequence[np.ndarray], groups: Sequence[str]) -> dict:
    """Weights from all questions (""), and for each group from those of the others."""
    apart = {}
    for group in ("", *dict.fromkeys(groups)):
        rows = [i for i, g in enumerate(groups) if g != group and len(right[i])]
        apart[group] = ranking.fit([options[i] for i in rows], [right[i] for i in rows], ridge=RIDGE)
    return apart


def drawing(name: str, ranked: Callable[[Problem], Ranked], embed: Callable) -> Generator:
    """A generator that draws from ranked queries; a repair is the next best, a hint gives the query nearest to gold.

    The order of the schema does not matter to it, as it reads no schema in order.
    """

    def draw(problems, samples, temperature, seed):
        return [[_pick(ranked(problem), temperature, [seed, k, *problem.id.encode()]) for k in range(samples)]
                for problem in problems]  # fmt: skip

    def repair(problems, failed, outcomes, seed):
        return [_next_best(ranked(problem), query, seed) for problem, query in zip(problems, failed, strict=True)]

    def regenerate(problems, golds, seed):
        return [_nearest(ranked(problem), gold, embed) for problem, gold in zip(problems, golds, strict=True)]

    return Generator(name, draw, repair, regenerate)


def _pick(ranked: Ranked, temperature: float, seed) -> str:
    """One query with probability softmax(SHARPNESS x logit / temperature); the best at temperature 0. "" of none."""
    if not ranked.queries:
        return ""
    noise = np.random.default_rng(seed).gumbel(size=len(ranked.logits))
    return forms.sql(ranked.queries[int(np.argmax(SHARPNESS * ranked.logits + temperature * noise))])


def _next_best(ranked: Ranked, failed: str, place: int) -> str:
    """The best query (place 0), the second best (1), ... of those other than the one that failed."""
    texts = [forms.sql(ranked.queries[i]) for i in np.argsort(-ranked.logits, kind="stable")]
    others = [text for text in texts if text != failed]
    return others[place] if place < len(others) else failed


def _nearest(ranked: Ranked, gold: str, embed: Callable) -> str:
    """The query whose text is nearest to the gold one in the hint."""
    if not ranked.queries:
        return ""
    texts = [forms.sql(query) for query in ranked.queries]
    vectors = embed([gold, *texts])
    return texts[int(np.argmax(vectors[1:] @ vectors[0]))]
