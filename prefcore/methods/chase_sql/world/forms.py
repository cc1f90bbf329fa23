"""The grammar: what a question to a database can ask for, and the SQL that answers it. Twenty shapes, nine families.

They make the embedded questions, from slots drawn at random (`world/databases.py`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, permutations, product
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql.schema import literal, quote

MOST_GROUPS = 20  # different values of a column that is worth grouping by


class Column(NamedTuple):
    """A column that is neither a primary nor a foreign key."""

    table: str
    name: str
    numeric: bool


class Link(NamedTuple):
    """A foreign key: child.key refers to parent.target."""

    child: str
    key: str
    parent: str
    target: str


class Schema(NamedTuple):
    """Columns of each table, keys left out, in the order shown; every foreign key."""

    tables: dict[str, tuple[Column, ...]]
    links: tuple[Link, ...]


class Condition(NamedTuple):
    """column operator value, the value as it is stored."""

    column: Column
    operator: str
    value: str | int | float


class Query(NamedTuple):
    """A filled shape. What a shape does not need stays empty.

    how: AVG, MAX, MIN or SUM; DESC or ASC; > or <. n: rows wanted, or the count to exceed. other: the second branch.
    """

    shape: str
    table: str
    selected: Column | None = None
    number: Column | None = None
    where: tuple[Condition, ...] = ()
    other: tuple[Condition, ...] = ()
    how: str = ""
    n: int = 0
    link: Link | None = None


class Slots(NamedTuple):
    """What may be filled in for one table: columns to return, to compute with and to group by, conditions."""

    selected: tuple[Column, ...]
    numbers: tuple[Column, ...]
    groups: tuple[Column, ...]
    conditions: tuple[Condition, ...]


FAMILIES = {
    "filter": ("rows",),
    "count": ("count",),
    "aggregate": ("aggregate",),
    "group-having": ("group count", "group having", "group mean"),
    "order-limit": ("order",),
    "join": ("join down", "join up", "join count"),
    "nested": ("beyond mean", "beyond part", "busy"),
    "set operation": ("without", "both", "either"),
    "distinct-compare": ("distinct count", "distinct list", "difference", "spread"),
}
FAMILY = {shape: family for family, shapes in FAMILIES.items() for shape in shapes}
SQL = {
    "rows": "SELECT {selected} FROM {table} WHERE {where}",
    "count": "SELECT COUNT(*) FROM {table} WHERE {where}",
    "aggregate": "SELECT {how}({number}) FROM {table}{where?}",
    "group count": "SELECT {selected}, COUNT(*) FROM {table} GROUP BY {selected}",
    "group having": "SELECT {selected} FROM {table} GROUP BY {selected} HAVING COUNT(*) > {n}",
    "group mean": "SELECT {selected}, AVG({number}) FROM {table} GROUP BY {selected}",
    "order": "SELECT {selected} FROM {table}{where?} ORDER BY {number} {how} LIMIT {n}",
    "join down": "SELECT {selected} FROM {child} JOIN {parent} ON {on} WHERE {where}",
    "join up": "SELECT DISTINCT {selected} FROM {parent} JOIN {child} ON {on} WHERE {where}",
    "join count": "SELECT COUNT(*) FROM {child} JOIN {parent} ON {on} WHERE {where}",
    "beyond mean": "SELECT {selected} FROM {table} WHERE {number} {how} (SELECT AVG({number}) FROM {table})",
    "beyond part": "SELECT {selected} FROM {table} WHERE {number} {how} "
    "(SELECT AVG({number}) FROM {table} WHERE {where})",
    "busy": "SELECT {selected} FROM {parent} WHERE {target} IN "
    "(SELECT {key} FROM {child} GROUP BY {key} HAVING COUNT(*) > {n})",
    "without": "SELECT {selected} FROM {parent} WHERE {target} IN "
    "(SELECT {target} FROM {parent} EXCEPT SELECT {key} FROM {child})",
    "both": "SELECT {selected} FROM {table} WHERE {where} INTERSECT SELECT {selected} FROM {table} WHERE {other}",
    "either": "SELECT {selected} FROM {table} WHERE {where} UNION SELECT {selected} FROM {table} WHERE {other}",
    "distinct count": "SELECT COUNT(DISTINCT {selected}) FROM {table}{where?}",
    "distinct list": "SELECT DISTINCT {selected} FROM {table} WHERE {where}",
    "difference": "SELECT (SELECT COUNT(*) FROM {table} WHERE {where}) - (SELECT COUNT(*) FROM {table} WHERE {other})",
    "spread": "SELECT MAX({number}) - MIN({number}) FROM {table}{where?}",
}
LINKED = ("join down", "join up", "join count", "busy", "without")


def sql(query: Query) -> str:
    """The query as SQLite reads it. Columns carry their table's name where two tables meet."""
    whole = query.link is not None
    where, other = (" AND ".join(_condition(c, whole) for c in part) for part in (query.where, query.other))
    names = {"selected": query.selected, "number": query.number}
    filled = {slot: column and _column(column, whole) for slot, column in names.items()}
    if query.link:
        child, key, parent, target = map(quote, query.link)
        filled |= {"child": child, "parent": parent, "on": f"{child}.{key} = {parent}.{target}"}
        filled |= {"key": f"{child}.{key}", "target": f"{parent}.{target}"}
    optional = f" WHERE {where}" if where else ""
    text = SQL[query.shape].replace("{where?}", optional.replace("{", "{{").replace("}", "}}"))
    return text.format(table=quote(query.table), where=where, other=other, how=query.how, n=query.n, **filled)


def enumerate_queries(schema: Schema, slots: Mapping[str, Slots], counts: Iterable[int]) -> Iterator[Query]:
    """Every query of every shape that the slots of the tables allow. counts: numbers for LIMIT and HAVING.

    What a condition fixes is not asked for as well.
    """
    counts = tuple(counts)
    tables = [_of_one_table(table, slot, counts) for table, slot in slots.items()]
    both = [link for link in schema.links if {link.parent, link.child} <= set(slots) and link.parent != link.child]
    joined = [_of_two_tables(link, slots[link.parent], slots[link.child], counts) for link in both]
    for query in chain(*tables, *joined):
        if query.selected not in [c.column for c in query.where if c.operator == "="]:
            yield query


def draw_query(
    schema: Schema, contents: Mapping[Column, Sequence], shape: str, rng: np.random.Generator
) -> Query | None:
    """A query of one shape with slots and values drawn at random; None where this draw gave none of it.

    contents: some values of each column. Columns without any are not used.
    """
    slots = {}
    for table, columns in schema.tables.items():
        known = [c for c in columns if len(contents.get(c, ()))]
        numbers = [c for c in known if c.numeric]
        groups = [c for c in known if not c.numeric and len(set(contents[c])) <= MOST_GROUPS]
        conditions = [_draw_condition(c, contents[c], rng) for c in _some(known, 2, rng)]
        conditions += [_draw_condition(c.column, contents[c.column], rng, c.operator) for c in conditions[:1]]
        few = tuple(dict.fromkeys(conditions))
        slots[table] = Slots(_some(known, 1, rng), _some(numbers, 1, rng), _some(groups, 1, rng), few)
    fitting = [q for q in enumerate_queries(schema, slots, [int(rng.integers(1, 7))]) if q.shape == shape]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _some(items: Sequence, size: int, rng: np.random.Generator) -> tuple:
    return tuple(items[i] for i in rng.permutation(len(items))[:size])


def _draw_condition(column: Column, values: Sequence, rng: np.random.Generator, operator: str = "") -> Condition:
    value = values[int(rng.integers(len(values)))]
    drawn = str(rng.choice([">", "<", ">=", "<="])) if column.numeric else "="
    return Condition(column, operator or drawn, value)


def _of_one_table(table: str, slot: Slots, counts: tuple[int, ...]) -> Iterator[Query]:
    single = [(c,) for c in slot.conditions]
    maybe, pairs = [(), *single], _pairs(slot.conditions)
    for selected, where in product(slot.selected, [*single, *pairs]):
        yield Query("rows", table, selected, where=where)
    for where in [*single, *pairs]:
        yield Query("count", table, where=where)
    for number, where in product(slot.numbers, maybe):
        for how in ("AVG", "MAX", "MIN", "SUM"):
            yield Query("aggregate", table, number=number, where=where, how=how)
        yield Query("spread", table, number=number, where=where)
    for group in slot.groups:
        yield Query("group count", table, group)
        for n in counts:
            yield Query("group having", table, group, n=n)
        for number in slot.numbers:
            yield Query("group mean", table, group, number)
        for where in maybe:
            yield Query("distinct count", table, group, where=where)
        for where in single:
            yield Query("distinct list", table, group, where=where)
        for first, second in _branches(slot.conditions):
            yield Query("both", table, group, where=(first,), other=(second,))
    for selected, number in product(slot.selected, slot.numbers):
        for where, how, n in product(maybe, ("DESC", "ASC"), counts):
            yield Query("order", table, selected, number, where, how=how, n=n)
        for how in (">", "<"):
            yield Query("beyond mean", table, selected, number, how=how)
            for where in single:
                yield Query("beyond part", table, selected, number, where, how=how)
    for first, second in _branches(slot.conditions):
        for selected in slot.selected:
            yield Query("either", table, selected, where=(first,), other=(second,))
    for first, second in permutations(slot.conditions, 2):
        if first.column == second.column and first.operator == second.operator:
            yield Query("difference", table, where=(first,), other=(second,))


def _of_two_tables(link: Link, parent: Slots, child: Slots, counts: tuple[int, ...]) -> Iterator[Query]:
    for where in [(c,) for c in parent.conditions]:
        yield Query("join count", link.child, where=where, link=link)
        for selected in child.selected:
            yield Query("join down", link.child, selected, where=where, link=link)
    for selected in parent.selected:
        yield Query("without", link.parent, selected, link=link)
        for n in counts:
            yield Query("busy", link.parent, selected, n=n, link=link)
        for condition in child.conditions:
            yield Query("join up", link.parent, selected, where=(condition,), link=link)


def _pairs(conditions: Iterable[Condition]) -> list[tuple[Condition, Condition]]:
    """Two conditions that can hold together: on different columns."""
    return [(a, b) for a, b in permutations(conditions, 2) if a.column < b.column]


def _branches(conditions: Iterable[Condition]) -> list[tuple[Condition, Condition]]:
    """Two conditions for the two halves of a set operation, each pair once."""
    return [(a, b) for a, b in permutations(conditions, 2) if (a.column, a.operator, str(a.value)) < (
        b.column, b.operator, str(b.value))]  # fmt: skip


def _condition(condition: Condition, whole: bool) -> str:
    return f"{_column(condition.column, whole)} {condition.operator} {_literal(condition.value)}"


def _column(column: Column, whole: bool) -> str:
    return f"{quote(column.table)}.{quote(column.name)}" if whole else quote(column.name)


def _literal(value: str | int | float) -> str:
    return literal(value) if isinstance(value, str) else f"{value:g}"
