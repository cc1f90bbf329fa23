"""Candidates from a language model in three ways: divide and conquer, query plan, online synthetic examples.

CHASE-SQL (Pourreza et al. 2024, arXiv 2410.01943, section 3.3). The model is anything that answers prompts
(prefcore.llm). A generator sees a Problem, and there is no gold SQL in it; `regenerate`, which shows gold as a hint, is
for training questions only (section 3.5).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.world import forms as sql_forms
from prefcore.methods.chase_sql.world import layouts as sql_layouts
from prefcore.methods.chase_sql.world import words as sql_words
from prefcore.methods.chase_sql.world.forms import Column, Condition, Link, Schema
from prefcore.scoring.llm import LanguageModel, Request

SAMPLE = 500  # distinct cells read of a column
EXAMPLES = 3  # synthetic examples in a prompt: the nearest of those made
NUMERIC = ("INT", "REAL", "NUM", "DEC", "FLOA", "DOUB")


class Problem(NamedTuple):
    """All that a generator is given: a question, the schema, some cells of each column, the values it may mean."""

    id: str
    db_id: str
    question: str
    schema: Schema
    contents: Mapping[Column, tuple]
    values: tuple[Condition, ...]


class Generator(NamedTuple):
    """Three ways of asking for SQL, each for many problems at once.

    draw(problems, samples, temperature, seed) -> [[SQL] of each problem]
    repair(problems, failed SQL, outcomes in words, seed) -> [SQL]
    regenerate(problems, gold SQL, seed) -> [SQL], for training questions only
    """

    name: str
    draw: Callable
    repair: Callable
    regenerate: Callable


def read_schema(path: Path) -> Schema:
    """The schema of a database file as generators see it."""
    links = tuple(Link(*key) for key in database.foreign_keys(path))
    keys = {(link.child, link.key) for link in links}
    tables = {
        table: tuple(Column(table, c.name, c.type.upper().startswith(NUMERIC)) for c in columns
                     if not c.key and (table, c.name) not in keys)
        for table, columns in database.tables(path).items()
    }  # fmt: skip
    return Schema(tables, links)


def read_contents(schema: Schema, connection) -> dict[Column, tuple]:
    """Distinct cells of each column, at most SAMPLE, missing ones left out; () where a column cannot be read."""
    contents = {}
    for column in (c for columns in schema.tables.values() for c in columns):
        name, table = sql_forms.quote(column.name), sql_forms.quote(column.table)
        query = f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL LIMIT {SAMPLE}"
        contents[column] = tuple(cell for (cell,) in database.execute(connection, query).rows)
    return contents


def prompted(strategy: str, model: LanguageModel, synthesise: Callable, *, taught: bool, max_tokens: int) -> Generator:
    """The strategy with a language model. Each sample has its own order of tables and columns, and its own seed.

    synthesise(problem, seed) -> (question, SQL) examples, used by the strategy "synthetic" alone. taught: whether the
    model has learnt the layouts, or has to be told of them.
    """

    def request(problem: Problem, text: str, temperature: float, seed: int) -> Request:
        return Request(sql_layouts.messages(strategy, text, taught=taught), temperature, max_tokens, seed)

    def first_prompt(problem: Problem, seed: int) -> str:
        mixed = sql_layouts.shuffle(problem.schema, np.random.default_rng(seed))
        examples = synthesise(problem, seed) if strategy == "synthetic" else ()
        return sql_layouts.prompt(strategy, mixed, problem.values, problem.question, examples)

    def draw(problems, samples, temperature, seed):
        asked = [request(problem, first_prompt(problem, seed + k), temperature, seed + k)
                 for k in range(samples) for problem in problems]  # fmt: skip
        found = [sql_layouts.final_sql(answer) for answer in model(asked)]
        return [found[i :: len(problems)] for i in range(len(problems))]

    def repair(problems, failed, outcomes, seed):
        asked = []
        for problem, query, outcome in zip(problems, failed, outcomes, strict=True):
            text = sql_layouts.fix_prompt(problem.schema, problem.values, problem.question, query, outcome)
            told = (("user", text if taught else f"{sql_layouts.TASKS['fix']}\n\n{text}"),)
            asked.append(Request(told, 1.0, max_tokens, seed))
        return [sql_layouts.final_sql(answer) for answer in model(asked)]

    def regenerate(problems, golds, seed):
        texts = [f"Hint: a correct query is {gold}\n{first_prompt(problem, seed)}"
                 for problem, gold in zip(problems, golds, strict=True)]  # fmt: skip
        asked = [request(problem, text, 0.0, seed) for problem, text in zip(problems, texts, strict=True)]
        return [sql_layouts.final_sql(answer) for answer in model(asked)]

    return Generator(strategy, draw, repair, regenerate)


def synthesise(problem: Problem, connection, embed: Callable, *, size: int, seed: int) -> list[tuple]:
    """(words, SQL, shape) of `size` examples on this database, nearest to the question first (Algorithm 2).

    Half of them show the features of SQL over the whole database (R_f), half keep to the columns nearest to the
    question (R_t). Departs from the paper: the grammar draws them, no model does. Each runs and gives rows.
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
    vectors = embed([problem.question, *(f"{sql_words.spell(c.name)} of {sql_words.spell(c.table)}" for c in columns)])
    hit = {condition.column for condition in problem.values}
    cosine = vectors[1:] @ vectors[0]
    order = sorted(range(len(columns)), key=lambda i: (columns[i] not in hit, -cosine[i]))[:most]
    return {columns[i]: problem.contents[columns[i]] for i in order}


def _draw(schema: Schema, contents: Mapping[Column, tuple], connection, size: int, rng) -> list[tuple]:
    """Queries of random shapes that run and give rows; fewer where the columns do not allow them."""
    shapes, found = list(sql_forms.FAMILY), []
    for _ in range(4 * size):
        if len(found) == size:
            break
        shape = shapes[int(rng.integers(len(shapes)))]
        query = sql_forms.draw_query(schema, contents, shape, rng)
        if query and database.execute(connection, sql_forms.sql(query)).rows:
            found.append((sql_words.describe(query), sql_forms.sql(query), shape))
    return found
