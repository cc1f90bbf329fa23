"""What a generator is given and gives, and the generators that are language models: divide and conquer, query plan,
online synthetic examples.

CHASE-SQL (Pourreza et al. 2024, arXiv 2410.01943, section 3.3). The model is anything that answers prompts
(prefcore.scoring.llm). A generator sees a Problem, and there is no gold SQL in it; `regenerate`, which shows gold as a
hint, is for training questions only (section 3.5). The quick profile has none of these: its generators are those of
`strategies`, without a language model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.world import layouts
from prefcore.methods.chase_sql.world.forms import Column, Condition, Link, Schema, quote
from prefcore.scoring.llm import LanguageModel, Request

SAMPLE = 500  # distinct cells read of a column
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
        name, table = quote(column.name), quote(column.table)
        query = f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL LIMIT {SAMPLE}"
        contents[column] = tuple(cell for (cell,) in database.execute(connection, query).rows)
    return contents


def prompted(strategy: str, model: LanguageModel, synthesise: Callable, *, taught: bool, max_tokens: int) -> Generator:
    """The strategy with a language model. Each sample has its own order of tables and columns, and its own seed.

    synthesise(problem, seed) -> (question, SQL) examples, used by the strategy "synthetic" alone. taught: whether the
    model has learnt the layouts; else the prompt describes them.
    """

    def request(problem: Problem, text: str, temperature: float, seed: int) -> Request:
        return Request(layouts.messages(strategy, text, taught=taught), temperature, max_tokens, seed)

    def first_prompt(problem: Problem, seed: int) -> str:
        mixed = layouts.shuffle(problem.schema, np.random.default_rng(seed))
        examples = synthesise(problem, seed) if strategy == "synthetic" else ()
        return layouts.prompt(strategy, mixed, problem.values, problem.question, examples)

    def draw(problems, samples, temperature, seed):
        requests = [request(problem, first_prompt(problem, seed + k), temperature, seed + k)
                    for k in range(samples) for problem in problems]  # fmt: skip
        found = [layouts.final_sql(answer) for answer in model(requests)]
        return [found[i :: len(problems)] for i in range(len(problems))]

    def repair(problems, failed, outcomes, seed):
        requests = []
        for problem, query, outcome in zip(problems, failed, outcomes, strict=True):
            text = layouts.fix_prompt(problem.schema, problem.values, problem.question, query, outcome)
            messages = (("user", text if taught else f"{layouts.TASKS['fix']}\n\n{text}"),)
            requests.append(Request(messages, 1.0, max_tokens, seed))
        return [layouts.final_sql(answer) for answer in model(requests)]

    def regenerate(problems, golds, seed):
        texts = [f"Hint: a correct query is {gold}\n{first_prompt(problem, seed)}"
                 for problem, gold in zip(problems, golds, strict=True)]  # fmt: skip
        requests = [request(problem, text, 0.0, seed) for problem, text in zip(problems, texts, strict=True)]
        return [layouts.final_sql(answer) for answer in model(requests)]

    return Generator(strategy, draw, repair, regenerate)
