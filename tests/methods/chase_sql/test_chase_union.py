"""The part of a schema that two queries name, and the sketch of a query."""

import pytest

from prefcore.methods.chase_sql.database import Column
from prefcore.methods.chase_sql.sketch import sketch, spell
from prefcore.methods.chase_sql.union import render, union_schema

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


def test_a_sketch_counts_operations_and_says_the_query_in_words():
    where = "WHERE T1.age >= 2 GROUP BY T1.petName ORDER BY count(*) DESC LIMIT 3"
    one = sketch(f"SELECT T1.petName, count(*) FROM pet AS T1 {where}")
    assert one.operations == {"count": 2, "group": 1, "limit": 1, "above": 1, "descending": 1, "inequality": 1}
    assert one.selected == ("pet name", "number of *") and one.tables == ("pet",) and one.literals == ("2",)
    assert one.words == (
        "pet name and number of * of pet where age >= 2 for each pet name ordered by number of * desc first 3"
    )


def test_negation_nesting_and_sets_are_seen():
    inner = "SELECT name FROM pet WHERE id NOT IN (SELECT pet FROM visit)"
    found = sketch(f"{inner} EXCEPT SELECT name FROM vet").operations
    assert (found["not"], found["in"], found["nested"], found["except"]) == (1, 1, 2, 1)
    assert "unequal" not in found and sketch("SELECT 1 FROM pet WHERE id <> 2").operations == {"unequal": 1}


@pytest.mark.parametrize("sql, idle", [
    ("SELECT T1.name FROM pet AS T1 JOIN visit AS T2 ON T1.id = T2.pet", 1),
    ("SELECT T1.name FROM pet AS T1 JOIN visit AS T2 ON T1.id = T2.pet WHERE T2.fee > 1", 0),
    ("SELECT name FROM pet JOIN visit ON pet.id = visit.pet", 0),  # whose name?
    ("SELECT pet.name FROM pet", 0),
])  # fmt: skip
def test_a_table_that_is_joined_for_nothing_is_idle(sql, idle):
    assert sketch(sql).idle == idle


def test_a_query_that_cannot_be_read_still_has_words():
    one = sketch("SELEC petName FROM")
    assert not one.readable and one.words == "selec pet name from" and one.operations == {}


def test_names_are_split_into_words():
    assert spell("T1.Song_Name") == "song name" and spell("COUNT(DISTINCT songName)") == "number of distinct song name"
