"""Prompts hold what a strong model needs, and its answer's SQL is found as one whole statement."""

import pytest

from prefcore.methods.chase_sql import prompts
from prefcore.methods.chase_sql.prompts import Problem, find_sql
from prefcore.methods.chase_sql.schema import Column
from prefcore.methods.chase_sql.values import Value

TABLES = {"pet": (Column("pet_id", "INTEGER", 1), Column("home town", "TEXT"),
                  Column("owner", "INTEGER", 0, ("owner", "owner_id")))}  # fmt: skip
PROBLEM = Problem("0", "pets", "How many pets live in Leeds?", "live means home town", TABLES,
                  (Value("pet", "home town", "LEEDS"),))  # fmt: skip


@pytest.mark.parametrize("strategy", prompts.STRATEGIES)
def test_every_generator_sees_keys_types_quoted_names_values_evidence_and_the_question(strategy):
    last = prompts.ask(PROBLEM, strategy)[-1][1]
    assert "pet_id INTEGER PRIMARY KEY" in last and "REFERENCES owner(owner_id)" in last
    assert "\"home town\" TEXT,  -- has 'LEEDS'" in last
    assert last.endswith("Evidence: live means home town\nQuestion: How many pets live in Leeds?")


def test_the_fixer_sees_the_query_and_its_error_and_the_evidence():
    text = prompts.ask_fix(PROBLEM, "SELECT x", "error: invalid SQL (no such column: x)")[-1][1]
    assert "SELECT x" in text and "no such column: x" in text and "Evidence: live means home town" in text


def test_only_a_hint_shows_gold():
    plain, told = (str(prompts.ask(PROBLEM, "plan", hint=hint)) for hint in ("", "SELECT 42"))
    assert "SELECT 42" in told and "SELECT 42" not in plain and "correct query" not in plain


def test_the_answered_examples_end_as_the_task_asks_and_hold_the_query_that_is_found():
    for answer in prompts.SHOWN.values():
        assert find_sql(answer) == prompts.QUERY


@pytest.mark.parametrize("answer, sql", [
    ("Final SQL:\nSELECT a,\n b\nFROM t", "SELECT a,\n b\nFROM t"),  # once cut to its first line
    ("**Final SQL:** SELECT 1", "SELECT 1"),  # once with the stars
    ("I count the pets with an owner.\nSELECT count(*) FROM pet", "SELECT count(*) FROM pet"),  # once from "with"
    ("We select the pets with care.", ""),
    ("```sql\nSELECT a FROM t WHERE x = 'a;b' ;\n```\nThis query counts.", "SELECT a FROM t WHERE x = 'a;b'"),
    ("SELECT a FROM t\n\nThis query counts rows.", "SELECT a FROM t"),
    ("SELECT a FROM t\nThis query counts, as you see, rows.", "SELECT a FROM t"),
    ("SELECT a\nFROM t\n\nWHERE b = 1\n\nIt filters.", "SELECT a\nFROM t\n\nWHERE b = 1"),
    ("The answer is `SELECT a FROM t WHERE b = 1` which counts.", "SELECT a FROM t WHERE b = 1"),
    ("WITH c AS (SELECT 1 AS x)\nSELECT x FROM c;", "WITH c AS (SELECT 1 AS x)\nSELECT x FROM c"),
    ("1. SELECT x FROM y\n2. more\nFinal SQL: SELECT z FROM y WHERE n = 'it''s'", "SELECT z FROM y WHERE n = 'it''s'"),
    ("1. First: SELECT x FROM y\n2. Then:\nSELECT z FROM y", "SELECT z FROM y"),
    ("<think>SELECT bad FROM x</think>SELECT good FROM t", "SELECT good FROM t"),
    ("```sql\nSELECT a FROM t\n```\nNo:\n```sql\nSELECT b FROM t\n```", "SELECT b FROM t"),
    ("Final SQL: SELECT a FROM t -- it's\nWHERE b = 2;", "SELECT a FROM t -- it's\nWHERE b = 2"),
    ("SELECT a FROM (SELECT b FROM t", ""),  # cut off: no half statement
    ("SELECT a FROM t WHERE b = 'x", ""),
    ("SELECT count(*) FROM pet; DROP TABLE pet", "SELECT count(*) FROM pet"),
    ("DROP TABLE pet", ""),
    ("", ""),
])  # fmt: skip
def test_the_query_of_an_answer_is_one_balanced_statement(answer, sql):
    assert find_sql(answer) == sql


def test_examples_and_keywords_are_read_from_an_answer_and_nothing_from_a_bad_one():
    answer = "Question: How many?\n```sql\nSELECT count(*) FROM t\n```\nQuestion: Which?\n```sql\nSELECT a\nFROM t;\n"
    assert prompts.read_examples(answer) == [("How many?", "SELECT count(*) FROM t"), ("Which?", "SELECT a\nFROM t")]
    assert prompts.read_examples("I cannot.") == prompts.read_keywords("none") == prompts.read_keywords("[a, b]") == []
    assert prompts.read_keywords('Sure: ["Leeds", 3, "New York"]') == ["Leeds", "New York"]
