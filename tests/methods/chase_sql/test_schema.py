"""The schema in a prompt: DDL that SQLite itself takes, with all that a query may need; the part two queries use."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from prefcore.methods.chase_sql import schema
from prefcore.methods.chase_sql.schema import Column
from prefcore.methods.chase_sql.values import Value

MADE = """
CREATE TABLE "Order Line" (id INTEGER PRIMARY KEY, "unit price" REAL, "group" TEXT, item INTEGER REFERENCES ITEM(id));
CREATE TABLE item (id INTEGER PRIMARY KEY, label TEXT, weight);
CREATE TABLE stock (item_id INTEGER, place TEXT, PRIMARY KEY (place, item_id));
CREATE VIEW dear AS SELECT label FROM item;
"""


@pytest.fixture
def shop(tmp_path):
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as made:
        made.executescript(MADE)
    notes = tmp_path / "database_description"
    notes.mkdir()
    (notes / "item.csv").write_text(
        "\ufefforiginal_column_name,column_name,column_description,value_description\n"
        'label,,"what it is\ncalled",free text\nweight,weight,weight,\n', encoding="utf-8")  # fmt: skip
    return tmp_path / "shop.sqlite"


def test_the_ddl_names_every_column_with_type_and_keys_and_sqlite_takes_it(shop):
    read = schema.read(shop)
    text = schema.ddl(read)
    assert "  id INTEGER PRIMARY KEY,\n" in text  # keys that nobody refers to are shown, too
    assert '  "unit price" REAL,\n  "group" TEXT,\n  item INTEGER REFERENCES item(id)\n' in text
    assert "  PRIMARY KEY (place, item_id)\n" in text and "label TEXT,  -- what it is called; free text\n" in text
    assert "weight\n" in text and "CREATE TABLE dear (\n  label TEXT\n);" in text
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(text)
        for table, columns in read.items():
            made.execute(f"SELECT {', '.join(schema.quote(c.name) for c in columns)} FROM {schema.quote(table)}")


def test_values_stand_behind_their_column_as_sql_writes_them(shop):
    text = schema.ddl(schema.read(shop), [Value("item", "label", "O'Hara"), Value("item", "label", "x")])
    assert "label TEXT,  -- what it is called; free text; has 'O''Hara', 'x'\n" in text


def test_a_part_of_the_schema_keeps_its_keys(shop):
    text = schema.ddl(schema.read(shop), used={"Order Line": ("group",)})
    assert "item" in text and '"unit price"' not in text and "stock" not in text and "id INTEGER PRIMARY KEY" in text


def test_a_shuffled_schema_has_the_same_tables_and_columns(shop):
    read = schema.read(shop)
    for seed in range(5):
        mixed = schema.shuffle(read, np.random.default_rng(seed))
        assert {table: set(columns) for table, columns in mixed.items()} == {t: set(c) for t, c in read.items()}
    orders = {tuple(schema.shuffle(read, np.random.default_rng(seed))) for seed in range(9)}
    assert len(orders) > 1


@pytest.mark.parametrize("name, quoted", [
    ("age", "age"), ("first name", '"first name"'), ("order", '"order"'), ("2nd", '"2nd"'), ('a"b', '"a""b"'),
    ("x); DROP TABLE y; --", '"x); DROP TABLE y; --"'), ("größe", '"größe"'),
])  # fmt: skip
def test_a_name_is_quoted_where_sqlite_would_not_take_it(name, quoted):
    assert schema.quote(name) == quoted


TABLES = {
    name: tuple(Column(column, "") for column in columns.split())
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
    assert schema.union(TABLES, *sqls) == expected


@pytest.mark.parametrize("sql", ["SELEC name FROM", "SELECT 1; SELECT 2", "(" * 3000])
def test_where_a_query_cannot_be_read_the_schema_is_whole(sql):
    assert schema.union(TABLES, "SELECT name FROM pet", sql) == ALL
