"""Online synthetic examples (Algorithm 2 of CHASE-SQL, arXiv 2410.01943): questions with SQL made for one question.

Departs from the paper: the grammar draws them, no language model does, so their words are the grammar's literal ones.
"""

from collections.abc import Callable, Mapping

import numpy as np

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.generators import Problem
from prefcore.methods.chase_sql.world import forms
from prefcore.methods.chase_sql.world.forms import Column, Schema
from prefcore.methods.chase_sql.world.words import phrase_literally, spell

SIZE = 16  # synthetic examples made for a question
PROMPTED = 3  # of them, the nearest, in a language model's prompt


def synthesise(problem: Problem, connection, embed: Callable, *, size: int, seed: int) -> list[tuple]:
    """(words, SQL, shape) of `size` examples on this database, nearest to the question first (Algorithm 2).

    Half of them show the features of SQL over the whole database (R_f), half keep to the columns nearest to the
    question (R_t). Each runs and gives rows.
    """
    rng = np.random.default_rng(seed)
    made = _draw(problem.schema, problem.contents, connection, size - size // 2, rng)
    made += _draw(problem.schema, near_columns(problem, embed), connection, size // 2, rng)
    if not made:
        return []
    vectors = embed([problem.question, *(words for words, _, _ in made)])
    return [made[i] for i in np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")]


def near_columns(problem: Problem, embed: Callable, *, most: int = 6) -> dict[Column, tuple]:
    """The columns nearest to the question, those with retrieved values first, with their contents."""
    columns = [column for column, cells in problem.contents.items() if cells]
    if not columns:
        return {}
    vectors = embed([problem.question, *(f"{spell(c.name)} of {spell(c.table)}" for c in columns)])
    hit = {condition.column for condition in problem.values}
    cosine = vectors[1:] @ vectors[0]
    order = sorted(range(len(columns)), key=lambda i: (columns[i] not in hit, -cosine[i]))[:most]
    return {columns[i]: problem.contents[columns[i]] for i in order}


def _draw(schema: Schema, contents: Mapping[Column, tuple], connection, size: int, rng) -> list[tuple]:
    """Queries of random shapes that run and give rows; fewer where the columns do not allow them."""
    shapes, found = list(forms.FAMILY), []
    for _ in range(4 * size):
        if len(found) == size:
            break
        shape = shapes[int(rng.integers(len(shapes)))]
        query = forms.draw_query(schema, contents, shape, rng)
        if query and database.execute(connection, forms.sql(query)).rows:
            found.append((phrase_literally(query), forms.sql(query), shape))
    return found
