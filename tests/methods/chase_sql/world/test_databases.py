"""The embedded world: 24 databases and their questions, made twice, read by another program."""

import hashlib
import re
import sqlite3
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from prefcore.data.types import freeze
from prefcore.methods.chase_sql.world import databases, forms, schemas

SIZES = freeze({
    "profile": "toy", "seed": 3, "sql_rows": 10, "sql_questions": 9,
})  # fmt: skip


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    databases.build(SIZES, folder)
    return folder / "sql_world"


@pytest.fixture(scope="module")
def questions(world):
    return databases.read_questions(world / "questions.jsonl")


def test_a_second_build_gives_the_same_bytes(world, tmp_path):
    databases.build(SIZES, tmp_path)
    assert digests(tmp_path / "sql_world") == digests(world)


def test_there_are_24_databases_of_three_tables_with_equally_many_questions(world, questions):
    assert len(list((world / "database").glob("*/*.sqlite"))) == len(schemas.read_plans()) == 24
    assert set(Counter(q.db_id for q in questions).values()) == {9}
    assert all(len(plans) >= 3 for plans in schemas.read_plans().values())


def test_every_gold_query_gives_some_rows_on_its_database(world, questions):
    for question in questions:
        with closing(sqlite3.connect(world / "database" / question.db_id / f"{question.db_id}.sqlite")) as database:
            assert databases.is_informative(database.execute(question.gold).fetchall()), question


def test_questions_are_of_all_families_and_none_stands_twice(questions):
    assert set(Counter(q.family for q in questions)) == set(forms.FAMILIES)
    assert len({q.id for q in questions}) == len(questions) == 24 * 9
    assert len({(q.db_id, q.gold) for q in questions}) == len(questions)
    assert all(forms.FAMILY[q.shape] == q.family for q in questions)


def test_few_questions_are_the_first_of_many(world, tmp_path):
    databases.build(freeze({"profile": "toy", "seed": 3, "sql_rows": 10, "sql_questions": 2}), tmp_path)
    few = {q.id: q for q in databases.read_questions(tmp_path / "sql_world" / "questions.jsonl")}
    many = {q.id: q for q in databases.read_questions(world / "questions.jsonl")}
    assert len(few) == 48 and all(many[id] == q for id, q in few.items())


def test_an_exhausted_family_does_not_stall_the_others(tmp_path):
    """The old loop drew up to 4,000 times a question for a family that had no more; here it is left out."""
    rng = np.random.default_rng([0, 0])
    made = databases.make_database("clinic", schemas.read_plans()["clinic"], 10, rng)
    databases.write(made, tmp_path / "made.sqlite")
    with closing(sqlite3.connect(tmp_path / "made.sqlite")) as connection:
        found = databases.draw_questions(made, connection, 200, rng)
    assert len({forms.sql(query) for query, _ in found}) == 200


def test_cells_are_messy_and_a_question_does_not_spell_them_as_they_are_stored(questions):
    meant = [(value, q.question) for q in questions for value in re.findall(r"= '((?:[^']|'')*)'", q.gold)]
    assert len(meant) > 20
    exact = np.mean([value in question for value, question in meant])
    assert 0.1 < exact < 0.7  # two in ten are kept as they are, and few changes can be undone by reading


def test_one_value_has_one_spelling_in_a_column():
    rng = np.random.default_rng(0)
    plans = schemas.read_plans()["zoo"]
    made = databases.make_database("zoo", plans, 20, rng)
    for (column, _), clean in made.phrases.values.items():
        same = [s for (c, s), other in made.phrases.values.items() if c == column and other == clean]
        assert len(same) == 1


def test_foreign_keys_point_to_rows_that_are_there(world):
    with closing(sqlite3.connect(world / "database" / "zoo" / "zoo.sqlite")) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA foreign_key_list(animal)").fetchall()


def test_too_many_questions_are_refused_with_the_number_found(tmp_path, monkeypatch):
    monkeypatch.setattr(databases, "TRIES", 2)
    with pytest.raises(ValueError, match="questions found: ask for fewer"):
        databases.build(freeze({"profile": "toy", "seed": 3, "sql_rows": 3, "sql_questions": 500}), tmp_path)


def test_a_plan_says_name_phrase_kinds_and_parents():
    (plans,) = schemas.read_plans('@ x\nbook "volume": title; pages "length" 1..9;\n    kind big one|small\n'
                                      "loan: days 0.0..2.5; > book").values()  # fmt: skip
    assert plans[0] == schemas.Plan("book", "volume", (
        schemas.Field("title", "title", "title"), schemas.Field("pages", "length", "1..9"),
        schemas.Field("kind", "kind", "big one|small")), ())  # fmt: skip
    assert plans[1].parents == ("book",)
