"""A small real generator that needs no language model: it enumerates queries and ranks them by sentence embedding.

What it is: the grammar's queries over the given schema, retrieved values and the question's numbers; ranked by cosine
between MiniLM embeddings of the question and of the query in words. What it is not: it can write nothing that the grammar
lacks. The three strategies look at a query in three ways and so err in different places:

divide      the family is decided first (by a classifier taught on questions of training databases), then the parts
plan        the whole question against the query's execution plan in words
synthetic   the whole question against the query's literal words, and which shapes its nearest synthetic examples have
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from prefcore import sql_forms, sql_layouts, sql_words
from prefcore.methods.chase_sql import database, values
from prefcore.methods.chase_sql.generators import Generator, Problem, synthesise
from prefcore.sql_forms import Column, Condition, Query, Slots

PER_SHAPE = 3  # queries of a shape that are compared as a whole, the best by their parts
COLUMNS = 2  # columns of a table that may fill a slot
OPERATORS = 2  # readings of a number
SHARPNESS = 3.0  # logits per standard deviation of the score, at temperature 1
EXAMPLES = 24  # synthetic examples made for a question
UNUSED = 0.25  # off the mean of the parts for each retrieved value or number that a query leaves out


class Ranked(NamedTuple):
    """A problem's queries with their scores in standard deviations, one row a query."""

    queries: list[Query]
    scores: np.ndarray


def enumerated(strategy: str, embed: Callable, connections: Mapping[str, object], families: Callable) -> Generator:
    """The strategy with this generator. connections: guarded ones by db_id. families: what learn_families gave."""
    kept: dict[tuple, Ranked] = {}
    score = {"divide": _divide, "plan": _plan, "synthetic": _synthetic}[strategy]

    def ranked(problem: Problem) -> Ranked:
        key = (problem.id, problem.values)
        if key not in kept:
            queries, parts = list_queries(problem, embed)
            if queries:
                whole = score(problem, queries, parts, embed, connections[problem.db_id], families)
                kept[key] = Ranked(queries, standardise(whole))
            else:
                kept[key] = Ranked([], np.zeros(0))
        return kept[key]

    def draw(problems, samples, temperature, seed):
        return [[_pick(ranked(problem), temperature, [seed, k, i]) for k in range(samples)]
                for i, problem in enumerate(problems)]  # fmt: skip

    def repair(problems, failed, outcomes, seed):
        return [_next_best(ranked(problem), query, seed) for problem, query in zip(problems, failed, strict=True)]

    def regenerate(problems, golds, seed):
        return [_nearest(ranked(problem), gold, embed) for problem, gold in zip(problems, golds, strict=True)]

    return Generator(strategy, draw, repair, regenerate)


def learn_families(questions: Sequence[str], labels: Sequence[str], groups: Sequence[str], embed: Callable) -> Callable:
    """(question, group) -> {family: log-probability}, taught on questions of training databases.

    A question of a database that was learnt from is judged by a classifier that did not see that database.
    """
    vectors, labels, groups = embed(questions), np.array(labels), np.array(groups)
    fitted = {}

    def judge(question: str, group: str) -> dict[str, float]:
        left_out = group if group in groups else ""
        if left_out not in fitted:
            rows = groups != left_out
            fitted[left_out] = LogisticRegression(C=20.0, max_iter=500).fit(vectors[rows], labels[rows])
        model = fitted[left_out]
        return dict(zip(model.classes_, model.predict_log_proba(embed([question]))[0], strict=True))

    return judge


# --- what there is to choose from ----------------------------------------------------------------------------------


def list_queries(problem: Problem, embed: Callable) -> tuple[list[Query], np.ndarray]:
    """(queries, score of their parts [n]): the PER_SHAPE best of each shape, by how well their parts fit the question."""
    columns = [c for part in problem.schema.tables.values() for c in part]
    spans = [*values.keywords(problem.question), problem.question]
    names = [sql_words.spell(c.name) for c in columns] + [sql_words.spell(t) for t in problem.schema.tables]
    vectors = embed([*spans, *names])
    nearest = (vectors[len(spans) :] @ vectors[: len(spans)].T).max(axis=1)
    fit = dict(zip([*columns, *problem.schema.tables], map(float, nearest), strict=True))
    numbers = [float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", problem.question)]
    readings = read_numbers(problem.question, numbers, embed)
    slots = {table: _slots(problem, table, fit, readings) for table in problem.schema.tables}
    counts = [int(n) for n in numbers if n == int(n) and 0 < n <= 100] or [1]
    found = list(sql_forms.enumerate_queries(problem.schema, slots, counts))
    sure = {c.value for c in problem.values[:1]} | set(numbers)
    parts = np.array([_parts(query, fit, readings, sure) for query in found])
    kept: dict[str, list[int]] = {}
    for i in np.argsort(-parts, kind="stable"):
        if len(kept.setdefault(found[i].shape, [])) < PER_SHAPE:
            kept[found[i].shape].append(i)
    chosen = [i for members in kept.values() for i in members]
    return [found[i] for i in chosen], parts[chosen]


def read_numbers(question: str, numbers: Sequence[float], embed: Callable) -> dict[float, list[tuple[str, float]]]:
    """For each number its OPERATORS likeliest comparisons with their cosine, by the words before it."""
    found = {}
    for number in dict.fromkeys(numbers):
        before = re.search(rf"((?:\S+\s+){{0,4}})\$?{re.escape(f'{number:g}')}\b", question)
        window = f"{before[1] if before else ''}{number:g}"
        said = [(name, f"{words} {number:g}") for name, ways in sql_words.OPERATORS.items() for words in ways]
        vectors = embed([window, *(text for _, text in said)])
        best: dict[str, float] = {}
        for (name, _), cosine in zip(said, vectors[1:] @ vectors[0], strict=True):
            best[name] = max(best.get(name, -1.0), float(cosine))
        found[number] = sorted(best.items(), key=lambda item: -item[1])[:OPERATORS]
    return found


def _slots(problem: Problem, table: str, fit: Mapping, readings: Mapping) -> Slots:
    best = sorted(problem.schema.tables[table], key=lambda c: -fit[c])
    numbers = [c for c in best if c.numeric][:COLUMNS]
    groups = [c for c in best if not c.numeric and len(problem.contents.get(c, ())) <= sql_forms.MOST_GROUPS][:COLUMNS]
    conditions = [c for c in problem.values if c.column.table == table][:3]
    conditions += [Condition(c, name, n) for n, ways in readings.items() for name, _ in ways for c in numbers]
    return Slots(tuple(best[: COLUMNS + 1]), tuple(numbers), tuple(groups), tuple(conditions))


def _parts(query: Query, fit: Mapping, readings: Mapping, sure: set) -> float:
    """Mean fit of a query's parts, less UNUSED for each value or number of the question that it leaves out."""
    conditions = (*query.where, *query.other)
    scores = [fit[query.table], *(fit[c] for c in (query.shown, query.number) if c)]
    scores += [fit[query.link.child], fit[query.link.parent]] if query.link else []
    for condition in conditions:
        ways = dict(readings.get(condition.value, ())) if condition.column.numeric else {}
        scores.append((fit[condition.column] + ways.get(condition.operator, 0.0)) / 2 if ways else 0.8)
    left = sure - {c.value for c in conditions} - ({float(query.n)} if query.n else set())
    return float(np.mean(scores)) - UNUSED * len(left)


# --- three ways to look at a query ---------------------------------------------------------------------------------


def _divide(problem, queries, parts, embed, connection, families) -> np.ndarray:
    likely = families(problem.question, problem.db_id)
    floor = min(likely.values())
    family = np.array([likely.get(sql_forms.FAMILY[q.shape], floor) for q in queries])
    return standardise(family) + standardise(parts)


def _plan(problem, queries, parts, embed, connection, families) -> np.ndarray:
    steps = [[row[3] for row in database.explain(connection, sql_forms.sql(query)).rows] for query in queries]
    said = [sql_layouts.verbalise(query, plan) for query, plan in zip(queries, steps, strict=True)]
    vectors = embed([problem.question, *said])
    return standardise(vectors[1:] @ vectors[0]) + standardise(parts)


def _synthetic(problem, queries, parts, embed, connection, families) -> np.ndarray:
    vectors = embed([problem.question, *(sql_words.describe(query) for query in queries)])
    made = synthesise(problem, connection, embed, size=EXAMPLES, seed=len(problem.question))[:5]
    near = np.array([sum(shape == query.shape for _, _, shape in made) for query in queries], float)
    return standardise(vectors[1:] @ vectors[0]) + 0.5 * standardise(near) + 0.5 * standardise(parts)


def standardise(scores: np.ndarray) -> np.ndarray:
    """Scores [n] in standard deviations from their mean; zeros where they are all alike."""
    spread = scores.std()
    return (scores - scores.mean()) / spread if spread > 1e-9 else np.zeros_like(scores)


# --- draws ---------------------------------------------------------------------------------------------------------


def _pick(ranked: Ranked, temperature: float, seed) -> str:
    """One query with probability softmax(SHARPNESS x score / temperature); the best at temperature 0."""
    if not ranked.queries:
        return ""
    noise = np.random.default_rng(seed).gumbel(size=len(ranked.scores))
    return sql_forms.sql(ranked.queries[int(np.argmax(SHARPNESS * ranked.scores + temperature * noise))])


def _next_best(ranked: Ranked, failed: str, seed: int) -> str:
    """Another query than the one that failed: the `seed`-th best of the others, from 0."""
    texts = [sql_forms.sql(ranked.queries[i]) for i in np.argsort(-ranked.scores, kind="stable")]
    others = [text for text in texts if text != failed]
    return others[seed] if seed < len(others) else failed


def _nearest(ranked: Ranked, gold: str, embed: Callable) -> str:
    """With gold shown as a hint: the query whose text is nearest to it."""
    texts = [sql_forms.sql(query) for query in ranked.queries]
    if not texts:
        return ""
    vectors = embed([gold, *texts])
    return texts[int(np.argmax(vectors[1:] @ vectors[0]))]
