"""The sketch of a query: operations, names, and the query in words."""

import pytest

from prefcore.methods.chase_sql.sketch import sketch, spell


def test_a_sketch_counts_operations_and_puts_the_query_into_words():
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
