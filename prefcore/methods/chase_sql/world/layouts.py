"""What a model reads and writes to answer a question with SQL: the compact prompt, and one layout of reasoning for each
of three strategies (CHASE-SQL, Pourreza et al. 2024, arXiv 2410.01943, section 3.3).

divide      the question is cut into parts, each with its piece of SQL, which are put together and simplified
plan        the steps of an execution plan, put into words, then the SQL
synthetic   examples on the same database, made for this question, then the SQL
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql.world import forms
from prefcore.methods.chase_sql.world.forms import Column, Condition, Query, Schema
from prefcore.methods.chase_sql.world.words import HOW, OPERATORS, phrase_literally, spell

STRATEGIES = ("divide", "plan", "synthetic")
FINAL = "Final SQL:"
TASKS = {
    "divide": "Divide the question into smaller questions, write a piece of SQL for each, put the pieces together, "
    "simplify, and end with one line that starts with 'Final SQL:'.",
    "plan": "Tell step by step how a database engine would find the answer: open the tables, match and filter rows, "
    "count or sort, deliver columns. End with one line that starts with 'Final SQL:'.",
    "synthetic": "Think step by step as the examples do, and end with one line that starts with 'Final SQL:'.",
    "fix": "The query below failed or gave nothing. Say what is wrong and end with one corrected query on a line that "
    "starts with 'Final SQL:'.",
}
DEMONSTRATIONS = {  # of the layouts, on a database that is none of ours; for a model that was not taught them
    "divide": (
        "Schema: pet(pet_id, nm, age, owner_id>owner); owner(owner_id, town)\nValues: owner.town = 'LEEDS'\n"
        "Question: How many pets have an owner from Leeds?",
        "1. count pets of those owners: SELECT COUNT(*) FROM pet WHERE owner_id IN (1.1)\n"
        "1.1 owners from Leeds: SELECT owner_id FROM owner WHERE town = 'LEEDS'\n"
        "Together: SELECT COUNT(*) FROM pet WHERE owner_id IN (SELECT owner_id FROM owner WHERE town = 'LEEDS')\n"
        "Simplified: a join does the same.\n"
        "Final SQL: SELECT COUNT(*) FROM pet JOIN owner ON pet.owner_id = owner.owner_id WHERE owner.town = 'LEEDS'",
    ),
    "plan": (
        "Schema: pet(pet_id, nm, age, owner_id>owner); owner(owner_id, town)\nValues: owner.town = 'LEEDS'\n"
        "Question: How many pets have an owner from Leeds?",
        "Open pet and owner. Read every row of pet. Look up its row of owner by the key. Keep rows where town is LEEDS."
        " Count the rows. Deliver one number.\n"
        "Final SQL: SELECT COUNT(*) FROM pet JOIN owner ON pet.owner_id = owner.owner_id WHERE owner.town = 'LEEDS'",
    ),
}


class Lesson(NamedTuple):
    """A prompt with the answer that a model is to learn."""

    id: str
    strategy: str
    prompt: str
    answer: str


# --- prompts -----------------------------------------------------------------------------------------------------


def schema_text(schema: Schema) -> str:
    """Tables, keys and columns on one line, in the order of `schema`."""
    parts = []
    for table, columns in schema.tables.items():
        own = {link.target: f"{link.target}" for link in schema.links if link.parent == table}
        refers = [f"{link.key}>{link.parent}" for link in schema.links if link.child == table]
        parts.append(f"{table}({', '.join([*own, *(c.name for c in columns), *refers])})")
    return "; ".join(parts)


def values_text(values: Sequence[Condition]) -> str:
    """Stored values that the question may mean."""
    return "; ".join(f"{c.column.table}.{c.column.name} = {forms.literal(c.value)}" for c in values) or "none"


def shuffle(schema: Schema, rng: np.random.Generator) -> Schema:
    """The same schema with its tables, and the columns of each, in another order."""
    names = list(schema.tables)
    mixed = {}
    for i in rng.permutation(len(names)):
        columns = schema.tables[names[i]]
        mixed[names[i]] = tuple(columns[j] for j in rng.permutation(len(columns)))
    return Schema(mixed, schema.links)


def prompt(strategy: str, schema: Schema, values: Sequence[Condition], question: str, examples: Sequence = ()) -> str:
    """What a model reads: [examples,] schema, values, question. examples: (question, SQL) pairs."""
    shown = "".join(f"Question: {words}\n{FINAL} {text}\n\n" for words, text in examples)
    head = f"{shown}Schema: {schema_text(schema)}\nValues: {values_text(values)}\nQuestion: {question}\n"
    return head + {"divide": "Parts:", "plan": "Plan:", "synthetic": "Answer:"}[strategy]


def messages(strategy: str, text: str, *, taught: bool) -> tuple[tuple[str, str], ...]:
    """The prompt as a conversation; a model that was not taught the layout gets a description and one demonstration."""
    if taught:
        return (("user", text),)
    shown = DEMONSTRATIONS.get(strategy)
    before = (("user", f"{TASKS[strategy]}\n\n{shown[0]}"), ("assistant", shown[1])) if shown else ()
    return (*before, ("user", f"{TASKS[strategy]}\n\n{text}"))


def fix_prompt(schema: Schema, values: Sequence[Condition], question: str, failed: str, outcome: str) -> str:
    """What a model reads to repair a query: all that the first prompt had, the query, and what came of it."""
    head = f"Schema: {schema_text(schema)}\nValues: {values_text(values)}\nQuestion: {question}\n"
    return f"{head}Query: {failed}\nResult: {outcome}\nAnswer:"


def final_sql(answer: str) -> str:
    """The query of an answer: behind the last 'Final SQL:', else in its last code block, else from its first SELECT on.

    Empty where there is none.
    """
    marked = answer.rpartition(FINAL)[2] if FINAL in answer else ""
    blocks = re.findall(r"```(?:sqlite|sql)?\s*(.*?)```", marked or answer, re.DOTALL | re.IGNORECASE)
    plain = re.search(r"\b(?:SELECT|WITH)\b.*", answer, re.DOTALL | re.IGNORECASE)
    text = blocks[-1] if blocks else marked.strip().split("\n")[0] if marked.strip() else plain[0] if plain else ""
    return text.strip().rstrip(";").strip()


# --- answers, from a query that is known: for teaching on training databases ------------------------------------------


def divide(query: Query) -> str:
    """The query as parts with their pieces of SQL, leaves last, and put together."""
    leaves = [*query.where, *query.other]
    bare = query._replace(where=(), other=())
    lines = [f"1. {phrase_literally(bare)}"]
    for i, leaf in enumerate(leaves, 1):
        column = f"{leaf.column.table}.{leaf.column.name}"
        piece = f"{column} {leaf.operator} {forms.literal(leaf.value)}"
        lines.append(f"1.{i} {spell(leaf.column.name)}: {piece}")
    return "\n".join([*lines, f"{FINAL} {forms.sql(query)}"])


def plan(query: Query, steps: Sequence[str]) -> str:
    """The execution plan in words, and the query. steps: the details of SQLite's EXPLAIN QUERY PLAN, in order."""
    return f"{verbalise(query, steps)}\n{FINAL} {forms.sql(query)}"


def verbalise(query: Query, steps: Sequence[str]) -> str:
    """SQLite's plan as sentences in three stages: open tables; match, filter, count or sort; deliver columns."""
    used = list(dict.fromkeys(name for step in steps for name in re.findall(r"^(?:SCAN|SEARCH) (\w+)", step)))
    sentences = [f"Open {' and '.join(used)}."] if used else []
    sentences += list(dict.fromkeys(filter(None, (_step(step) for step in steps))))
    sentences += [f"Keep rows where {_keep(c)}." for c in (*query.where, *query.other)]
    sentences += _computed(query)
    delivered = spell(query.selected.name) if query.selected else "one number"
    return " ".join([*sentences, f"Deliver {delivered}."])


def _step(step: str) -> str:
    """One line of EXPLAIN QUERY PLAN in words; what says nothing about rows is left out."""
    patterns = (
        (r"SCAN CONSTANT ROW", "Make a single row."),
        (r"SCAN (\w+)", r"Read every row of \1."),
        (r"SEARCH (\w+) USING INTEGER PRIMARY KEY.*", r"Look up its row of \1 by the key."),
        (r"SEARCH (\w+) USING AUTOMATIC.*\((\w+)=\?\)", r"Index \1 by \2 and look it up."),
        (r"SEARCH (\w+) USING .*", r"Look up rows of \1 in an index."),
        (r"USE TEMP B-TREE FOR (.*)", lambda m: f"Sort for {m[1].lower()}."),
        (r"(?:MERGE \()?(EXCEPT|INTERSECT|UNION ALL|UNION)\b.*", lambda m: f"Combine both lists by {m[1].lower()}."),
        (r"(CORRELATED )?(SCALAR|LIST) SUBQUERY.*", "Work out the inner query first."),
    )
    for pattern, words in patterns:
        if match := re.fullmatch(pattern, step):
            return words(match) if callable(words) else match.expand(words)
    return ""


def _keep(condition: Condition) -> str:
    operator = OPERATORS[condition.operator][0]
    return f"{spell(condition.column.name)} {operator} {condition.value}"


def _computed(query: Query) -> list[str]:
    number = spell(query.number.name) if query.number else ""
    how = HOW[query.how][0] if query.how else ""
    if query.shape in ("count", "join count"):
        return ["Count the rows."]
    if query.shape in ("group count", "group having", "group mean"):
        group = f"Group by {spell(query.selected.name)}."
        more = f"Keep groups of more than {query.n} rows." if query.shape == "group having" else "Count each group."
        return [group, f"Average {number} in each group." if query.shape == "group mean" else more]
    sentences = {
        "aggregate": f"Compute the {how} {number}.",
        "order": f"Take the {query.n} with the {how} {number}.",
        "beyond mean": f"Keep rows with {number} {how} the average.",
        "beyond part": f"Keep rows with {number} {how} the average of those.",
        "busy": f"Keep those with more than {query.n} rows.",
        "distinct count": "Count different values.",
        "distinct list": "Drop repeated values.",
        "difference": "Subtract the second count from the first.",
        "spread": f"Subtract the lowest {number} from the highest.",
    }
    return [sentences[query.shape]] if query.shape in sentences else []


def explain(connection, text: str) -> list[str]:
    """The details of EXPLAIN QUERY PLAN of a query that is ours (a stranger's goes through the guarded database)."""
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]


def write_lessons(
    query: Query, words: str, schema: Schema, contents: Mapping[Column, Sequence], connection, rng: np.random.Generator
) -> list[Lesson]:
    """One lesson of each strategy. The values shown are those meant and two others, as retrieval would give them."""
    texts = [c for c in contents if not c.numeric and len(contents[c])]
    others = [Condition(texts[i], "=", contents[texts[i]][int(rng.integers(len(contents[texts[i]])))])
              for i in rng.permutation(len(texts))[:2]]  # fmt: skip
    meant = [c for c in (*query.where, *query.other) if not c.column.numeric]
    values = list(dict.fromkeys([*meant, *others]))
    examples = draw_examples(schema, contents, 2, rng)
    answers = {
        "divide": divide(query),
        "plan": plan(query, explain(connection, forms.sql(query))),
        "synthetic": f"{FINAL} {forms.sql(query)}",
    }
    lessons = []
    for strategy, answer in answers.items():
        mixed = [values[i] for i in rng.permutation(len(values))]
        shown = examples if strategy == "synthetic" else ()
        text = prompt(strategy, shuffle(schema, rng), mixed, words, shown)
        lessons.append(Lesson(forms.sql(query), strategy, text, answer))
    return lessons


def draw_examples(
    schema: Schema, contents: Mapping[Column, Sequence], size: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """(question in literal words, SQL) of queries drawn at random on this database."""
    shapes, found = list(forms.FAMILY), []
    while len(found) < size:
        query = forms.draw_query(schema, contents, shapes[int(rng.integers(len(shapes)))], rng)
        found += [(phrase_literally(query), forms.sql(query))] if query else []
    return found
