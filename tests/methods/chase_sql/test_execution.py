"""Candidates that were run: clusters by result, which are right, and what cannot be used."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from prefcore.methods.chase_sql import database, execution
from prefcore.methods.chase_sql.candidates import Candidate, Question
from prefcore.methods.chase_sql.database import Result, as_multiset
from prefcore.methods.chase_sql.execution import FAILED


def question(db_id, gold, *sqls, id="0"):
    return Question(id, db_id, "?", gold, tuple(Candidate(f"s{i}", sql) for i, sql in enumerate(sqls)))


def test_candidates_with_equal_results_are_one_cluster_and_all_failures_another():
    one, two = Result(("a",), ((1,),)), Result(("b",), ((1,), (1,)))
    failed = Result((), (), "invalid SQL", "x")
    assert execution.cluster([one, failed, two, Result((), (), "too slow", "")]).tolist() == [0, FAILED, 0, FAILED]
    assert execution.cluster([one, two], as_multiset).tolist() == [0, 1]


def test_sizes_count_the_cluster_and_not_the_failures():
    assert execution.cluster_sizes(np.array([0, 1, 0, FAILED, FAILED, FAILED])).tolist() == [2, 1, 2, 0, 0, 0]


def test_labels_clusters_and_scores_use_one_equality(databases):
    """DISTINCT is equal as a set and not as a multiset; both for clusters and for what is right."""
    twice = "SELECT 1 UNION ALL SELECT 1"
    for view, right, clusters in ((None, [True, True], [0, 0]), (as_multiset, [True, False], [0, 1])):
        questions = [question("d0", "SELECT 1", "SELECT 1", twice)]
        found = execution.run(questions, databases, view) if view else execution.run(questions, databases)
        assert found.correct[0].tolist() == right and found.pools[0].clusters.tolist() == clusters


def test_a_pool_holds_no_gold_query(executed, questions):
    assert len(executed.pools) == len(questions) == 20
    for one, asked in zip(executed.pools, questions, strict=True):
        assert "gold" not in one._fields and (one.id, one.question) == (asked.id, asked.question)
        assert one.clusters[3] == FAILED and one.clusters[0] == one.clusters[1] != one.clusters[2]
    assert all(truth.tolist() == [False, False, True, False] for truth in executed.correct)


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(databases, tmp_path):
    for name in ("good", "text", "bad"):
        (tmp_path / f"{name}.sqlite").write_bytes((databases / "d0.sqlite").read_bytes())
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    found = execution.run([
        question("none", "SELECT 1", "SELECT 1", id="a"),
        question("text", "SELECT 1", "SELECT 1", id="b"),
        question("../good", "SELECT 1", "SELECT 1", id="c"),
        question("good", "SELECT 1", id="d"),
        question("good", "SELECT nothing", "SELECT 1", id="e"),
        question("good", "SELECT name FROM pet LIMIT 1", "SELECT TOP 1 name FROM pet", "", "DROP TABLE pet",
            "SELECT name FROM pet LIMIT 1", id="f"),
    ], tmp_path)  # fmt: skip
    assert [one.id for one in found.pools] == ["f"] and found.correct[0].tolist() == [False, False, False, True]
    why = {(one.id, one.system): one.what for one in found.unusable}
    assert why == {
        ("a", ""): "missing database", ("b", ""): "unreadable database", ("c", ""): "unreadable database",
        ("d", ""): "no candidates", ("e", ""): "gold query: invalid SQL", ("f", "s0"): "candidate: invalid SQL",
        ("f", "s1"): "candidate: no query", ("f", "s2"): "candidate: forbidden",
    }  # fmt: skip
    assert next(one for one in found.unusable if one.system == "s0").detail.endswith("(reads as tsql)")
    with closing(sqlite3.connect(tmp_path / "good.sqlite")) as still:
        assert still.execute("SELECT count(*) FROM pet").fetchone() == (6,)


@pytest.mark.parametrize("sql, missing", [
    ("SELECT age FROM pet WHERE name = 'pet 1 of 0'", 0),
    ("SELECT age FROM pet WHERE name = 'Pet 1 of 0'", 1),  # another case is another text
    ("SELECT age FROM pet WHERE 'nobody' <> pet.name AND age = 3", 1),
    ('SELECT age FROM pet WHERE name IN ("pet 1 of 0", "it\'s nobody", \'x"y\')', 2),
    ("SELECT T2.day FROM pet AS T1 JOIN visit AS T2 ON T1.id = T2.pet WHERE T2.day = '2020-01-01'", 0),
    ("SELECT name FROM pet WHERE name LIKE '%nobody%' OR age > 'a'", 0),  # no comparison for equality
    ("SELECT name FROM pet WHERE strange = 'nobody'", 0),  # no such column: another error
    ("SELEC name = 'nobody'", 0),
])  # fmt: skip
def test_texts_that_are_in_no_cell_are_counted(databases, sql, missing):
    with closing(database.open_database(databases / "d0.sqlite")) as connection:
        assert execution.absent_texts(sql, connection, database.tables(databases / "d0.sqlite")) == missing


def test_the_order_of_pools_is_that_of_the_questions(questions, databases):
    mixed_up = [questions[i] for i in (7, 0, 12, 3)]
    assert [one.id for one in execution.run(mixed_up, databases).pools] == [q.id for q in mixed_up]


def test_a_choice_matters_only_where_some_are_right_and_some_are_not():
    assert execution.mixed(np.array([True, False]))
    assert not execution.mixed(np.array([True, True])) and not execution.mixed(np.array([False, False]))
