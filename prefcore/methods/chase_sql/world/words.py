"""A query in words, as people might ask for it: from phrases and habits."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql.world.forms import Column, Condition, Query

# For each shape four ways in which people ask for it.
PHRASINGS = {
    "rows": (
        "What is the {selected} of every {table} {where}?",
        "List the {selected} for all {tables} {where}.",
        "Which {tables} are there {where}? Give their {selected}.",
        "I am looking for {tables} {where}; tell me the {selected}.",
    ),
    "count": (
        "How many {tables} are there {where}?",
        "What is the number of {tables} {where}?",
        "Tell me how many {tables} we have {where}.",
        "Count every {table} {where}.",
    ),
    "aggregate": (
        "What is the {how} {number} of {tables} {where}?",
        "Give me the {how} {number} over all {tables} {where}.",
        "Across {tables} {where}, what is the {how} {number}?",
        "Find the {how} {number} among the {tables} {where}.",
    ),
    "group count": (
        "How many {tables} are there for each {selected}?",
        "Break the {tables} down by {selected} and count them.",
        "For every {selected}, give the number of {tables}.",
        "Show each {selected} with its number of {tables}.",
    ),
    "group having": (
        "Which {selected} has more than {n} {tables}?",
        "List every {selected} shared by over {n} {tables}.",
        "For which {selected} do we have more than {n} {tables}?",
        "Name each {selected} that occurs with more than {n} {tables}.",
    ),
    "group mean": (
        "What is the average {number} of {tables} for each {selected}?",
        "Give the mean {number} of the {tables} by {selected}.",
        "For every {selected}, how high is the {number} of its {tables} on average?",
        "Show each {selected} together with the average {number} of its {tables}.",
    ),
    "order": (
        "What is the {selected} of the {n} {tables} with the {how} {number} {where}?",
        "List the {n} {tables} that have the {how} {number} {where}; give the {selected}.",
        "Looking at {tables} {where}, give the {selected} of the {n} with the {how} {number}.",
        "Rank the {tables} by {number} {where} and return the {selected} of the {n} {how}.",
    ),
    "join down": (
        "What is the {selected} of the {children} that belong to a {parent} {where}?",
        "For each {parent} {where}, list the {selected} of its {children}.",
        "Give the {selected} of every {child} linked to {parents} {where}.",
        "Which {children} have a {parent} {where}? I want their {selected}.",
    ),
    "join up": (
        "Give the {selected} of each {parent} that has a {child} {where}.",
        "Which {parents} have at least one {child} {where}? List their {selected}.",
        "What is the {selected} of {parents} connected with {children} {where}?",
        "Find every {parent} having some {child} {where} and show the {selected}.",
    ),
    "join count": (
        "How many {children} belong to a {parent} {where}?",
        "Count the {children} linked to {parents} {where}.",
        "What is the number of {children} that have a {parent} {where}?",
        "For {parents} {where}, how many {children} are there in total?",
    ),
    "beyond mean": (
        "Which {tables} have a {number} {how} the average? Give their {selected}.",
        "List the {selected} of every {table} whose {number} is {how} the overall mean.",
        "What is the {selected} of the {tables} with a {number} {how} average?",
        "Show the {selected} of {tables} that lie {how} the mean {number}.",
    ),
    "beyond part": (
        "Which {tables} have a {number} {how} the average of those {where}? Give the {selected}.",
        "Taking the mean {number} of {tables} {where}, list the {selected} of all {tables} {how} it.",
        "List the {selected} of any {table} whose {number} is {how} the mean of {tables} {where}.",
        "Compared with the average {tables} {where}, which ones have a {number} {how} that? Show the {selected}.",
    ),
    "busy": (
        "Which {parents} have more than {n} {children}? Give their {selected}.",
        "List the {selected} of each {parent} with over {n} {children}.",
        "What is the {selected} of the {parents} that count more than {n} {children}?",
        "Find {parents} with more than {n} {children} and show the {selected}.",
    ),
    "without": (
        "Which {parents} have no {child}? Give the {selected}.",
        "List the {selected} of every {parent} without any {children}.",
        "What is the {selected} of {parents} for which there are no {children}?",
        "Find the {selected} of each {parent} that never had a {child}.",
    ),
    "both": (
        "Which {selected} has both {tables} {where} and {tables} {other}?",
        "List every {selected} found among {tables} {where} and also among {tables} {other}.",
        "What {selected} is shared by {tables} {where} and {tables} {other}?",
        "Name the {selected} that {tables} {where} have in common with {tables} {other}.",
    ),
    "either": (
        "List the {selected} of {tables} {where}, together with those {other}.",
        "What is the {selected} of {tables} that are either {where} or {other}?",
        "Give me the {selected} of any {table} {where} or else {other}.",
        "Combine the {tables} {where} with the {tables} {other} and list the {selected}.",
    ),
    "distinct count": (
        "How many different kinds of {selected} do the {tables} have {where}?",
        "What is the number of distinct {selected} values among {tables} {where}?",
        "Count the {selected} values of {tables} {where}, each one once.",
        "How many unique {selected} entries appear for {tables} {where}?",
    ),
    "distinct list": (
        "What are the different {selected} values of {tables} {where}?",
        "List each distinct {selected} among {tables} {where}.",
        "Without repeating any, which {selected} do {tables} {where} have?",
        "Give all unique {selected} entries for {tables} {where}.",
    ),
    "difference": (
        "How many more {tables} are there {where} than {other}?",
        "What is the difference between the number of {tables} {where} and the number {other}?",
        "By how much do {tables} {where} outnumber {tables} {other}?",
        "Subtract the count of {tables} {other} from the count of {tables} {where}.",
    ),
    "spread": (
        "What is the gap between the highest and lowest {number} of {tables} {where}?",
        "How far apart are the largest and the smallest {number} among {tables} {where}?",
        "Give the range of the {number} over {tables} {where}.",
        "By how much does the top {number} exceed the bottom {number} for {tables} {where}?",
    ),
}  # fmt: skip
OPERATORS = {
    "=": ("is",),
    ">": ("above", "over", "of more than"),
    "<": ("below", "under", "of less than"),
    ">=": ("at least", "of no less than", "from"),
    "<=": ("at most", "of no more than", "up to"),
}
HOW = {
    "AVG": ("average", "mean", "typical"),
    "MAX": ("highest", "maximum", "largest"),
    "MIN": ("lowest", "minimum", "smallest"),
    "SUM": ("total", "summed", "combined"),
    "DESC": ("highest", "largest", "top"),
    "ASC": ("lowest", "smallest", "bottom"),
    ">": ("above", "over", "higher than"),
    "<": ("below", "under", "lower than"),
}


class Phrases(NamedTuple):
    """What people call things: tables by name, columns by (table, name), stored values by (column, value)."""

    tables: Mapping[str, str]
    columns: Mapping[tuple[str, str], str]
    values: Mapping[tuple[Column, str], str]


def paraphrase(query: Query, phrases: Phrases, rng: np.random.Generator) -> str:
    """The query as a person might ask it: one of four forms, with people's words for names, values and operators."""
    return _fill(query, int(rng.integers(1, 5)) - 1, phrases, [int(i) for i in rng.integers(0, 3, size=6)])


def plural(words: str) -> str:
    """The English plural of a noun phrase, by rule."""
    if re.search(r"[^aeiou]y$", words):
        return words[:-1] + "ies"
    return words + ("es" if re.search(r"(s|x|ch|sh)$", words) else "s")


def spell(name: str) -> str:
    """An identifier as words: order_line and orderLine are "order line"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).lower().strip()


def _fill(query: Query, form: int, phrases: Phrases, habits: list[int]) -> str:
    def table(name):
        return phrases.tables.get(name, spell(name))

    def column(c):
        return phrases.columns.get((c.table, c.name), spell(c.name)) if c else ""

    def conditions(part, habit):
        return " and ".join(_condition(c, column(c.column), phrases, habit + i) for i, c in enumerate(part))

    words = {"table": table(query.table), "tables": plural(table(query.table))}
    if query.link:
        child, parent = table(query.link.child), table(query.link.parent)
        words |= {"child": child, "children": plural(child), "parent": parent, "parents": plural(parent)}
    how = HOW[query.how][habits[0]] if query.how else ""
    text = PHRASINGS[query.shape][form].format(
        selected=column(query.selected), number=column(query.number), how=how, n=query.n, **words,
        where=conditions(query.where, habits[1]), other=conditions(query.other, habits[2]),
    )  # fmt: skip
    return re.sub(r" +([?.;,]|$)", r"\1", re.sub(r"  +", " ", text))  # where there is no condition, no gap


def _condition(condition: Condition, column: str, phrases: Phrases, habit: int) -> str:
    value, habit = condition.value, habit % 3
    called = phrases.values.get((condition.column, value), value) if isinstance(value, str) else f"{value:g}"
    if condition.operator == "=":
        return (f"whose {column} is {called}", f"with {column} {called}", f"where the {column} equals {called}")[habit]
    operator = OPERATORS[condition.operator][habit]
    return (f"whose {column} is {operator} {called}", f"with a {column} {operator} {called}",
            f"that have a {column} {operator} {called}")[habit]  # fmt: skip
