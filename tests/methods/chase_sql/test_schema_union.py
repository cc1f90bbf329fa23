"""The part of a schema that two queries name."""

import pytest

from prefcore.methods.chase_sql.database import Column
from prefcore.methods.chase_sql.schema_union import render, union_schema

TABLES = {
    name: tuple(Column(column, "", 0) for column in columns.split())
    for name, columns in {"Pet": "id name age", "visit": "pet day fee", "vet": "id name city"}.items()
}
ALL = {name: tuple(column.name for column in columns) for name, columns in TABLES.items()}


@pytest.mark.parametrize("sqls, expected", [
    (("SELECT name FROM pet",), {"Pet": ("name",)}),
    (("SELECT NAME FROM PET", "SELECT age FROM pet WHERE id = 1"), {"Pet": ("id", "name", "age")}),
    (("SELECT T1.name FROM pet AS T1 JOIN visit AS T2 ON T1.id = T2.pet",), {"Pet": ("id", "name"), "visit": ("pet",)}),
    (("SELECT * FROM visit",), {"visit": ALL["visit"]}),
    (("SELECT T2.* FROM pet AS T1 JOIN visit AS T2 ON T1.id = T2.pet",), {"Pet": ("id",), "visit": ALL["visit"]}),
    (("SELECT count(*) FROM visit",), {"visit": ()}),
    (("SELECT name FROM pet, vet",), {"Pet": ("name",), "vet": ("name",)}),  # whose name? both
    (("WITH old AS (SELECT name, age FROM pet) SELECT age FROM old",), {"Pet": ("name", "age")}),
    (("SELECT name FROM pet WHERE id IN (SELECT pet FROM visit WHERE fee > 3)",),
     {"Pet": ("id", "name"), "visit": ("pet", "fee")}),
    (("SELECT a.name FROM pet AS a UNION SELECT a.name FROM vet AS a",), {"Pet": ("name",), "vet": ("name",)}),
    (("SELECT name FROM nothing",), {}),
])  # fmt: skip
def test_the_union_holds_what_the_queries_name(sqls, expected):
    assert union_schema(TABLES, *sqls) == expected


@pytest.mark.parametrize("sql", ["SELEC name FROM", "SELECT 1; SELECT 2", "(" * 3000])
def test_where_a_query_cannot_be_read_the_schema_is_whole(sql):
    assert union_schema(TABLES, "SELECT name FROM pet", sql) == ALL


def test_both_orders_have_the_same_union():
    a, b = "SELECT name FROM pet", "SELECT day FROM visit"
    assert union_schema(TABLES, a, b) == union_schema(TABLES, b, a)
    assert render(union_schema(TABLES, a, b)) == "Pet(name); visit(day)"
