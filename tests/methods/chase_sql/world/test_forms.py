"""The grammar of questions to databases: SQL of every shape on a real database, and the words for it."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from prefcore.methods.chase_sql.world import forms, words
from prefcore.methods.chase_sql.world.forms import Column, Condition, Link, Query, Schema, Slots

TOWN, AGE = Column("owner", "town", False), Column("pet", "age", True)
NAME, KIND = Column("pet", "nm", False), Column("pet", "kind", False)
LINK = Link("pet", "owner_id", "owner", "owner_id")
SCHEMA = Schema({"owner": (TOWN,), "pet": (NAME, KIND, AGE)}, (LINK,))
OWNERS = [(1, "LEEDS"), (2, "York"), (3, "York")]
PETS = [(1, "Rex", "dog", 3, 1), (2, "Tom", "cat", 5, 2), (3, "Kit", "cat", 9, 2), (4, "Bo", "dog", None, 2)]
CONTENTS = {TOWN: ["LEEDS", "York"], NAME: ["Rex", "Tom"], KIND: ["dog", "cat"], AGE: [3, 5, 9]}
CAT, DOG, OLD = Condition(KIND, "=", "cat"), Condition(KIND, "=", "dog"), Condition(AGE, ">", 4)
YORK = Condition(TOWN, "=", "York")


@pytest.fixture
def pets():
    with closing(sqlite3.connect(":memory:")) as made:
        made.execute("CREATE TABLE owner (owner_id INTEGER PRIMARY KEY, town TEXT)")
        made.execute("CREATE TABLE pet (pet_id INTEGER PRIMARY KEY, nm TEXT, kind TEXT, age REAL, owner_id INTEGER)")
        made.executemany("INSERT INTO owner VALUES (?, ?)", OWNERS)
        made.executemany("INSERT INTO pet VALUES (?, ?, ?, ?, ?)", PETS)
        yield made


ANSWERS = [  # worked by hand on the rows above
    (Query("rows", "pet", NAME, where=(CAT, OLD)), [("Kit",), ("Tom",)]),
    (Query("count", "pet", where=(DOG,)), [(2,)]),
    (Query("aggregate", "pet", number=AGE, where=(CAT,), how="AVG"), [(7.0,)]),
    (Query("aggregate", "pet", number=AGE, how="MIN"), [(3.0,)]),
    (Query("group count", "pet", KIND), [("cat", 2), ("dog", 2)]),
    (Query("group having", "pet", KIND, n=1), [("cat",), ("dog",)]),
    (Query("group having", "pet", KIND, n=2), []),
    (Query("group mean", "pet", KIND, AGE), [("cat", 7.0), ("dog", 3.0)]),
    (Query("order", "pet", NAME, AGE, how="DESC", n=1), [("Kit",)]),
    (Query("order", "pet", NAME, AGE, (CAT,), how="ASC", n=1), [("Tom",)]),
    (Query("join down", "pet", NAME, where=(YORK,), link=LINK), [("Bo",), ("Kit",), ("Tom",)]),
    (Query("join up", "owner", TOWN, where=(DOG,), link=LINK), [("LEEDS",), ("York",)]),
    (Query("join count", "pet", where=(YORK,), link=LINK), [(3,)]),
    (Query("beyond mean", "pet", NAME, AGE, how=">"), [("Kit",)]),  # the mean of 3, 5, 9 is 5.67
    (Query("beyond part", "pet", NAME, AGE, (CAT,), how="<"), [("Rex",), ("Tom",)]),  # below 7
    (Query("busy", "owner", TOWN, n=2, link=LINK), [("York",)]),  # owner 2 has three
    (Query("without", "owner", TOWN, link=LINK), [("York",)]),  # owner 3, though owner 2 of York has pets
    (Query("both", "pet", KIND, where=(OLD,), other=(Condition(NAME, "=", "Tom"),)), [("cat",)]),
    (Query("either", "pet", NAME, where=(DOG,), other=(Condition(AGE, ">", 8),)), [("Bo",), ("Kit",), ("Rex",)]),
    (Query("distinct count", "pet", KIND), [(2,)]),
    (Query("distinct list", "pet", KIND, where=(OLD,)), [("cat",)]),
    (Query("difference", "pet", where=(DOG,), other=(CAT,)), [(0,)]),
    (Query("spread", "pet", number=AGE), [(6.0,)]),
]


@pytest.mark.parametrize(("query", "rows"), ANSWERS, ids=lambda x: x.shape if isinstance(x, Query) else "")
def test_a_shape_gives_the_rows_that_a_person_finds(pets, query, rows):
    assert sorted(pets.execute(forms.sql(query)).fetchall()) == rows


def test_every_shape_has_an_answer_above_words_and_a_family_of_the_nine():
    shapes = {query.shape for query, _ in ANSWERS}
    assert shapes == set(forms.SQL) == set(words.PHRASINGS) == set(forms.FAMILY)
    assert len(forms.FAMILIES) == 9
    assert all(len(ways) == len(set(ways)) == 4 for ways in words.PHRASINGS.values())


def slots():
    return {
        "owner": Slots((TOWN,), (), (TOWN,), (YORK,)),
        "pet": Slots((NAME,), (AGE,), (KIND,), (CAT, DOG, OLD)),
    }


def test_what_is_enumerated_is_of_every_shape_runs_and_comes_once(pets):
    queries = list(forms.enumerate_queries(SCHEMA, slots(), [1, 2]))
    assert {query.shape for query in queries} == set(forms.SQL)
    texts = [forms.sql(query) for query in queries]
    assert len(set(texts)) == len(texts)
    for text in texts:
        pets.execute(text).fetchall()


def test_what_a_condition_fixes_is_not_asked_for():
    queries = forms.enumerate_queries(SCHEMA, slots(), [1])
    assert not [q for q in queries if q.selected == KIND and {CAT, DOG} & set(q.where)]


def test_a_random_query_is_of_the_shape_that_was_asked_for_and_the_seed_decides():
    for shape in forms.SQL:
        drawn = [forms.draw_query(SCHEMA, CONTENTS, shape, np.random.default_rng(s)) for s in range(30)]
        assert any(drawn) and {query.shape for query in drawn if query} == {shape}
        assert drawn == [forms.draw_query(SCHEMA, CONTENTS, shape, np.random.default_rng(s)) for s in range(30)]


def test_odd_names_and_quotes_in_values_stay_names_and_values(pets):
    column = Column("order", 'a "b"', False)
    text = forms.sql(Query("rows", "order", column, where=(Condition(column, "=", "O'Hara; {DROP}"),)))
    assert text == """SELECT "a ""b\""" FROM "order" WHERE "a ""b\""" = 'O''Hara; {DROP}'"""
    pets.execute('CREATE TABLE "order" ("a ""b""" TEXT)')
    pets.execute('INSERT INTO "order" VALUES (?)', ("O'Hara; {DROP}",))
    assert pets.execute(text).fetchall() == [("O'Hara; {DROP}",)]
    optional = Query("distinct count", "order", column, where=(Condition(column, "=", "{x}"),))
    assert forms.sql(optional).endswith("= '{x}'")


# --- words -------------------------------------------------------------------------------------------------------


def test_people_use_their_own_words_for_names_and_stored_values():
    phrases = words.Phrases({"owner": "keeper"}, {("owner", "town"): "home"}, {(TOWN, "York"): "Old York"})
    query = Query("join count", "pet", where=(YORK,), link=LINK)
    found = {words.paraphrase(query, phrases, np.random.default_rng(seed)) for seed in range(40)}
    assert len(found) >= 8  # four forms, three ways to say a condition
    assert all("keeper" in text and "home" in text and "Old York" in text and "owner" not in text for text in found)
    assert not any("  " in text or " ?" in text or " ." in text for text in found)


@pytest.mark.parametrize(("one", "many"), [("dish", "dishes"), ("company", "companies"), ("play", "plays"),
                                           ("pass", "passes"), ("pet", "pets")])  # fmt: skip
def test_plurals(one, many):
    assert words.plural(one) == many


def test_identifiers_are_spelled_as_words():
    assert [words.spell(name) for name in ("birth_yr", "birthYear", "Name")] == ["birth yr", "birth year", "name"]
