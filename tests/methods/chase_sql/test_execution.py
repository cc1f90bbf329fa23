"""Candidates that were run: clusters by result, which are right, and what cannot be used."""

import sqlite3
from contextlib import closing

import numpy as np

from prefcore.methods.chase_sql import execution
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


def test_the_votes_choose_the_shortest_query_of_the_largest_cluster(pool):
    assert execution.majority(pool([1, 0, 0, FAILED], ["SELECT 1", "SELECT 10", "SELECT 0", "x"])) == 2
    assert execution.majority(pool([0, 1], ["SELECT 1", "SELECT"])) == 0  # of equal clusters the first listed
    assert execution.majority(pool([FAILED, FAILED, 0])) == 2  # failures have no vote


def test_candidates_of_other_systems_can_be_left_out_with_their_labels(executed):
    part = execution.restrict(executed, lambda system: system != "copies")
    assert all(one.systems == ("sound", "broken") and len(one.clusters) == 2 for one in part.pools)
    assert all(truth.tolist() == [True, False] for truth in part.correct)
    assert execution.restrict(executed, lambda system: False).pools == []


def test_the_order_of_pools_is_that_of_the_questions(questions, databases):
    mixed_up = [questions[i] for i in (7, 0, 12, 3)]
    assert [one.id for one in execution.run(mixed_up, databases).pools] == [q.id for q in mixed_up]


def test_a_choice_matters_only_where_some_are_right_and_some_are_not():
    assert execution.mixed(np.array([True, False]))
    assert not execution.mixed(np.array([True, True])) and not execution.mixed(np.array([False, False]))
