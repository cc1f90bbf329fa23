"""What a small generator without a language model chooses from: the grammar's queries over a schema, its retrieved
values and the question's numbers, each with the fit of its parts. `strategies` ranks them.

Nothing that the grammar lacks can be written. Fits are cosines of MiniLM embeddings; what number words mean, and which
shape a question has, is taught on questions of training databases.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from prefcore.methods.chase_sql import values
from prefcore.methods.chase_sql.generators import Problem
from prefcore.methods.chase_sql.world import forms
from prefcore.methods.chase_sql.world.forms import Condition, Query, Slots
from prefcore.methods.chase_sql.world.words import HOW, spell

PER_SHAPE = 3  # queries of a shape (and of its AVG, MAX ...) that are looked at as a whole, the best by their parts
COLUMNS = 3  # columns of a table that may fill a slot, of each kind
OPERATORS = 2  # readings of a number


class Options(NamedTuple):
    """What there is to choose from for a problem: queries, and the fit of their parts [n, F]."""

    queries: list[Query]
    parts: np.ndarray


class Classifiers(NamedTuple):
    """Fitted on questions of training databases: shapes(question) and operators(words) -> {name: probability}."""

    shapes: Callable
    operators: Callable


def fit_classifiers(questions: Sequence[str], shapes: Sequence[str], golds: Sequence[str]) -> Classifiers:
    """Two classifiers of words and pairs of words: the shape of a question; what a number is compared by."""
    windows, operators = [], []
    for question, gold in zip(questions, golds, strict=True):
        compared = {float(n): name for name, n in re.findall(r"([<>]=?) (-?\d+(?:\.\d+)?)(?!\d)", _outer(gold))}
        for number, before in _numbers(question):
            windows.append(before)
            operators.append(compared.get(number, ""))
    return Classifiers(_classify(questions, shapes), _classify(windows, operators))


def _outer(gold: str) -> str:
    """A gold query without its HAVING and LIMIT, whose numbers are counts."""
    return re.sub(r"HAVING COUNT\(\*\) > \d+|LIMIT \d+", "", gold)


def _classify(texts: Sequence[str], labels: Sequence[str]) -> Callable:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[a-z]+")
    model = LogisticRegression(C=20.0, max_iter=500).fit(words.fit_transform(texts), labels)
    return lambda text: dict(zip(model.classes_, model.predict_proba(words.transform([text]))[0], strict=True))


# --- what there is to choose from ----------------------------------------------------------------------------------


def list_options(problem: Problem, classifiers: Classifiers, embed: Callable) -> Options:
    """The PER_SHAPE best queries of each shape, by the mean fit of their parts less what they leave unused."""
    columns = [c for part in problem.schema.tables.values() for c in part]
    spans = [*values.keywords(problem.question), problem.question]
    names = [spell(c.name) for c in columns] + [spell(t) for t in problem.schema.tables]
    vectors = embed([*spans, *names])
    nearest = (vectors[len(spans) :] @ vectors[: len(spans)].T).max(axis=1)
    fit = dict(zip([*columns, *problem.schema.tables], map(float, nearest), strict=True))
    readings, hows = read_numbers(problem.question, classifiers), read_hows(problem.question, embed)
    slots = {table: _slots(problem, table, fit, readings) for table in problem.schema.tables}
    counts = [int(n) for n, ways in readings.items() if "" in ways and n == int(n) and 0 < n <= 100] or [1]
    found = list(forms.enumerate_queries(problem.schema, slots, counts))
    chances = classifiers.shapes(problem.question)
    likely = {shape: float(np.log(chances.get(shape, 0.0) + 1e-3)) for shape in forms.FAMILY}
    parts = [[*_parts(query, fit, readings, hows, problem.values[:1]), likely[query.shape]] for query in found]
    parts = np.array(parts).reshape(len(found), len(PARTS))
    rough = parts @ ROUGH
    kept: dict[tuple, list[int]] = {}
    for i in np.argsort(-rough, kind="stable"):
        members = kept.setdefault((found[i].shape, found[i].how), [])
        if len(members) < PER_SHAPE:
            members.append(i)
    chosen = [i for members in kept.values() for i in members]
    return Options([found[i] for i in chosen], parts[chosen])


def read_numbers(question: str, classifiers: Classifiers) -> dict[float, dict[str, float]]:
    """Numbers of the question, each with its OPERATORS likeliest comparisons and their probability; "" is a count."""
    found = {}
    for number, before in _numbers(question):
        chances = classifiers.operators(before)
        found[number] = dict(sorted(chances.items(), key=lambda item: -item[1])[:OPERATORS])
    return found


def _numbers(question: str) -> list[tuple[float, str]]:
    """(number, the up to four words before it) for each number in a question."""
    matches = re.finditer(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])", question)
    return [(float(m[0]), " ".join(question[: m.start()].split()[-4:]) or "start") for m in matches]


def read_hows(question: str, embed: Callable) -> dict[str, float]:
    """How near the nearest single word of the question is to each of AVG, MAX, MIN, SUM, DESC, ASC, > and <."""
    words = list(dict.fromkeys(re.findall(r"[a-z]+", question.lower())))
    meant = [(how, word) for how, ways in HOW.items() for word in ways]
    vectors = embed([*words, *(word for _, word in meant)])
    cosine = (vectors[len(words) :] @ vectors[: len(words)].T).max(axis=1)
    best: dict[str, float] = {}
    for (how, _), found in zip(meant, cosine, strict=True):
        best[how] = max(best.get(how, -1.0), float(found))
    return best


def _slots(problem: Problem, table: str, fit: Mapping, readings: Mapping) -> Slots:
    best = sorted(problem.schema.tables[table], key=lambda c: -fit[c])
    numbers = [c for c in best if c.numeric][:COLUMNS]
    few = [c for c in best if len(problem.contents.get(c, ())) <= forms.MOST_GROUPS]
    groups = [c for c in few if not c.numeric][:COLUMNS]
    conditions = [c for c in problem.values if c.column.table == table][:3]
    conditions += [Condition(c, name, n) for n, ways in readings.items() for name in ways if name for c in numbers]
    return Slots(tuple(best[:COLUMNS]), tuple(numbers), tuple(groups), tuple(conditions))


PARTS = ("table", "selected", "number", "how", "column", "operator", "conditions", "left", "unmeant", "linked", "shape")
ROUGH = np.array([1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.0, -0.7, -0.7, 0.0, 0.0])  # before anything is learnt


def _parts(query: Query, fit: Mapping, readings: Mapping, hows: Mapping, sure: Sequence) -> list[float]:
    """PARTS of a query but the last: mean fit of what it names, how many conditions, how much is left unused.

    left: numbers of the question that it does not use; unmeant: whether it lacks the likeliest retrieved value.
    """
    conditions = (*query.where, *query.other)
    tables = [query.link.child, query.link.parent] if query.link else [query.table]
    read = [readings.get(c.value, {}).get(c.operator, 0.0) for c in conditions if c.column.numeric]
    read += [readings.get(float(query.n), {}).get("", 0.0)] if query.n else []
    left = set(readings) - {c.value for c in conditions} - ({float(query.n)} if query.n else set())
    return [
        _mean([fit[table] for table in tables]), fit.get(query.selected, 0.5), fit.get(query.number, 0.5),
        hows[query.how] if query.how else 0.5, _mean([fit[c.column] for c in conditions]), _mean(read),
        float(len(conditions)), float(len(left)), float(bool(sure) and sure[0] not in conditions),
        float(query.link is not None),
    ]  # fmt: skip


def _mean(scores: Sequence[float]) -> float:
    return float(np.mean(scores)) if scores else 0.5
