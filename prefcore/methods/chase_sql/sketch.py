"""What a query does, read from its syntax: operations, names, literals, and the query in words."""

import re
from functools import lru_cache
from typing import NamedTuple

from sqlglot import exp

from prefcore.methods.chase_sql.schema_union import parse

NODES = {  # operation -> the kinds of node that show it
    "count": exp.Count, "sum": exp.Sum, "average": exp.Avg, "minimum": exp.Min, "maximum": exp.Max,
    "distinct": exp.Distinct, "group": exp.Group, "having": exp.Having, "limit": exp.Limit, "join": exp.Join,
    "except": exp.Except, "intersect": exp.Intersect, "union": exp.Union, "not": exp.Not, "unequal": exp.NEQ,
    "or": exp.Or, "like": exp.Like, "between": exp.Between, "in": exp.In, "above": (exp.GT, exp.GTE),
    "below": (exp.LT, exp.LTE),
    "case": (exp.Case, exp.If), "null": exp.Null, "divide": exp.Div, "subtract": exp.Sub, "cast": exp.Cast,
    "equal": exp.EQ, "and": exp.And,
}  # fmt: skip
FUNCTIONS = {"count": "number of", "avg": "average", "sum": "total", "min": "smallest", "max": "largest"}
CLAUSES = {exp.Where: "where", exp.Group: "for each", exp.Having: "having", exp.Order: "ordered by"}
SETS = {exp.Except: "but not", exp.Intersect: "and also", exp.Union: "or also"}


class Sketch(NamedTuple):
    """operations: how often each occurs. selected: what the outermost query returns, in words. tables, columns: names
    as they are written, in lower case. literals: its texts and numbers, without that of LIMIT. compared: (column, text)
    of its comparisons with a text. idle: tables that are joined and otherwise not named. words: all of it in words."""

    operations: dict[str, int]
    selected: tuple[str, ...]
    tables: tuple[str, ...]
    columns: tuple[str, ...]
    literals: tuple[str, ...]
    compared: tuple[tuple[str, str], ...]
    idle: int
    words: str
    readable: bool


@lru_cache(maxsize=20_000)
def sketch(sql: str) -> Sketch:
    """The sketch of a query. One that cannot be read has its words alone."""
    tree = parse(sql)
    if tree is None:
        return Sketch({}, (), (), (), (), (), 0, spell(sql), False)
    nodes = list(tree.walk())
    found = {name: sum(isinstance(node, kinds) for node in nodes) for name, kinds in NODES.items()}
    found["nested"] = sum(isinstance(node, exp.Select) for node in nodes) - 1
    orders = [node for node in nodes if isinstance(node, exp.Ordered)]
    found["descending"] = sum(bool(node.args.get("desc")) for node in orders)
    found["ascending"] = len(orders) - found["descending"]
    found["inequality"] = found["above"] + found["below"] + found["between"]
    outer = tree.find(exp.Select)
    given = [node.name for node in nodes if isinstance(node, exp.Literal) and not isinstance(node.parent, exp.Limit)]
    selected = tuple(spell(e.sql(dialect="sqlite")) for e in outer.expressions) if outer else ()
    return Sketch(
        {name: n for name, n in found.items() if n > 0},
        selected,
        tuple(dict.fromkeys(node.name.lower() for node in nodes if isinstance(node, exp.Table))),
        tuple(dict.fromkeys(node.name.lower() for node in nodes if isinstance(node, exp.Column) and node.name)),
        tuple(dict.fromkeys(given)),
        tuple(dict.fromkeys(_compared(tree))),
        _idle(tree),
        _in_words(tree, selected),
        True,
    )


def _compared(tree: exp.Expression) -> list[tuple[str, str]]:
    found = []
    for node in tree.find_all(exp.EQ, exp.NEQ, exp.In):
        sides = [node.this, *(node.expressions if isinstance(node, exp.In) else [node.expression])]
        names = [side.name.lower() for side in sides if isinstance(side, exp.Column) and not _quoted(side)]
        texts = [side.name for side in sides if isinstance(side, exp.Literal) and side.is_string or _quoted(side)]
        found += [(name, text) for name in names for text in texts]
    return found


def _quoted(side: exp.Expression) -> bool:
    """Whether it is a name in double quotes alone, which SQLite takes for a text where there is no such column."""
    return isinstance(side, exp.Column) and not side.table and bool(side.this.args.get("quoted"))


def _idle(tree: exp.Expression) -> int:
    """Tables of a join to which no column outside the join's condition belongs, where every column says its table."""
    tables = {node.alias_or_name.lower() for node in tree.find_all(exp.Table)}
    inside = {id(column) for join in tree.find_all(exp.Join) if (on := join.args.get("on")) is not None
              for column in on.find_all(exp.Column)}  # fmt: skip
    named = [column for column in tree.find_all(exp.Column) if id(column) not in inside and not _quoted(column)]
    if len(tables) < 2 or not all(column.table for column in named):
        return 0
    return len(tables - {column.table.lower() for column in named})


def spell(name: str) -> str:
    """A name or a piece of SQL as lower-case words: aggregates by their meaning, T1. and quotes gone, words split."""
    text = re.sub(r"\b(?:[tT]\d+|[a-z])\.", "", name)
    for function, word in FUNCTIONS.items():
        text = re.sub(rf"\b{function}\s*\(", f"{word} (", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return " ".join(re.findall(r"[^\W_]+|[<>=!*]+", text)).lower()


def _in_words(tree: exp.Expression, selected: tuple[str, ...]) -> str:
    """The query in plain words: what is returned, from where, on what condition, in what order."""
    parts = [" and ".join(selected)]
    tables = dict.fromkeys(spell(node.name) for node in tree.find_all(exp.Table))
    parts += [f"of {' and '.join(tables)}"] if tables else []
    for kind, word in CLAUSES.items():
        for node in tree.find_all(kind):
            pieces = [node.this] if node.this is not None else node.expressions
            parts.append(f"{word} {' and '.join(spell(piece.sql(dialect='sqlite')) for piece in pieces)}")
    for node in tree.find_all(exp.Limit):
        parts.append(f"first {spell(node.expression.sql(dialect='sqlite'))}" if node.expression else "")
    for kind, word in SETS.items():
        parts += [word] * len(list(tree.find_all(kind)))
    return " ".join(part for part in parts if part)
