"""Folds by database, arms on real systems' candidates, and the same numbers every time."""

import json

import numpy as np
import pandas as pd
import pytest

from prefcore.data import files
from prefcore.lab import verdicts
from prefcore.methods.chase_sql import claims, execution, external, features, linear_judge, results, selector
from prefcore.methods.chase_sql.execution import Executed, subset
from prefcore.methods.chase_sql.external import MAIN, MAJORITY, SINGLE


@pytest.fixture(scope="module")
def scores(executed, embed):
    return external.cross_validate(executed, embed, parts=2, per_question=4, seed=0)


def right(scores, arm):
    return scores[scores["arm"] == arm]["right"].mean()


def test_a_database_is_in_one_part_and_the_parts_are_about_equal():
    ids = ["a"] * 10 + ["b"] * 9 + ["c"] * 5 + ["d"] * 4 + ["e"]
    where = external.folds(ids, 2)
    assert all(len(set(where[np.array(ids) == name])) == 1 for name in "abcde")
    assert sorted(np.bincount(where)) == [14, 15]
    assert external.folds(ids[::-1], 2)[::-1].tolist() == where.tolist()


def test_one_database_cannot_be_split():
    with pytest.raises(ValueError, match="all questions are on a"):
        external.folds(["a", "a"], 5)


def test_every_question_is_tested_once_by_every_arm(executed, scores):
    for _, part in scores.groupby("arm"):
        assert sorted(part["id"]) == sorted(f"{b.db_id}/{b.id}" for b in executed.pools)
    assert set(external.BLOCKS) | {MAJORITY, SINGLE, "oracle", "lower bound", "chance"} <= set(scores["arm"])


def test_the_baselines_are_what_the_candidates_say(scores):
    """Of four candidates two are equally wrong, one is right, one fails."""
    found = {arm: right(scores, arm) for arm in (MAJORITY, "oracle", "lower bound", "chance", SINGLE)}
    assert found == {MAJORITY: 0, "oracle": 1, "lower bound": 0, "chance": 0.25, SINGLE: 1}


def test_the_selector_beats_a_wrong_majority_on_new_databases(scores):
    assert right(scores, MAIN) >= 0.8
    row = claims.compare(scores, "better", MAIN, MAJORITY, only_mixed=True, seed=0)
    assert row["verdict"] == "held" and row["low"] > 0


def test_the_test_databases_teach_nothing(executed, embed):
    """Labels of the test side can be anything: no arm's choice changes, only whether it was right."""
    content = features.describe_content(executed.pools, embed)
    inside = np.array([pool.db_id in ("d0", "d1") for pool in executed.pools])
    train, test = ((subset(executed, side), features.subset(content, side)) for side in (inside, ~inside))
    turned = (test[0]._replace(correct=[~truth for truth in test[0].correct]), test[1])
    one, two = (external.evaluate(train, side, per_question=4, seed=0) for side in (test, turned))
    for arm in (MAIN, MAJORITY, SINGLE):
        a, b = (frame[frame["arm"] == arm]["right"].to_numpy() for frame in (one, two))
        np.testing.assert_array_equal(a, 1 - b)


def test_the_same_run_gives_the_same_rows(executed, embed, scores):
    again = external.cross_validate(executed, embed, parts=2, per_question=4, seed=0)
    pd.testing.assert_frame_equal(scores, again)


def test_another_judge_takes_part_under_its_name(executed, embed):
    seen = []

    def teach(train, pools):
        seen.append(({b.db_id for b in train.pools}, {b.db_id for b in pools}))
        return lambda pairs: np.full(len(pairs), 0.5)

    found = external.cross_validate(executed, embed, parts=2, per_question=2, seed=0, others={"coin": teach})
    assert len(found[found["arm"] == "coin"]) == len(executed.pools)
    assert all(not train & test and len(train | test) == 4 for train, test in seen)


def test_a_trained_selector_is_tried_on_other_databases_and_systems(executed, embed):
    """The toy databases have one schema; other names of tables make them other databases."""
    inside = np.array([pool.db_id in ("d0", "d1") for pool in executed.pools])
    train, test = (subset(executed, side) for side in (inside, ~inside))
    pools = [b._replace(systems=tuple(f"new {s}" for s in b.systems), tables=b.tables | {"more": ()})
             for b in test.pools]  # fmt: skip
    there = external.apart(test._replace(pools=pools), train)
    assert len(there.pools) == 10 and there.unusable == []
    found = external.transfer(train, there, embed, per_question=4, seed=0)
    assert right(found, MAIN) >= 0.8 and len(found[found["arm"] == MAIN]) == 10
    assert SINGLE not in set(found["arm"]) and "selector that sees votes by system" not in set(found["arm"])


def test_databases_of_the_training_side_are_left_out_of_an_evaluation_and_counted(executed):
    some = Executed(executed.pools[:5], executed.correct[:5], [])  # those of d0
    pools = [pool._replace(tables=pool.tables | {pool.db_id: ()}) for pool in executed.pools]
    renamed = executed._replace(pools=pools, unusable=[])
    left = external.apart(renamed, some)
    assert len(left.pools) == 15 and len(left.correct) == 15
    assert {(p.db_id, p.what) for p in left.unusable} == {("d0", "a database of the training side")}
    with pytest.raises(ValueError, match="all questions of the evaluation are on databases"):
        external.apart(executed, some)  # other names, but the same schema


def test_the_tables_hold_every_arm_and_database(scores):
    table = results.table(scores, seed=0).set_index("arm")
    assert table.loc[MAIN, "same in both orders"] == 1 and table.loc[MAJORITY, "mixed questions"] == 20
    assert table.loc[MAIN, "all low"] <= table.loc[MAIN, "all"] <= table.loc[MAIN, "all high"]
    by = results.by_database(scores, [MAJORITY, MAIN])
    assert list(by.index) == ["d0", "d1", "d2", "d3"] and by["questions"].tolist() == [5] * 4


def test_a_question_on_which_all_are_right_or_all_wrong_is_not_asked_about(questions, databases, embed):
    """The judge is asked about four candidates of the fifth kind of question only, and the others count as they are."""
    sure = [q._replace(candidates=(q.candidates[2],) * 2 if q.id[1] == "0" else q.candidates[:2]) for q in questions]
    some = [q if q.id[1] == "4" else other for q, other in zip(questions, sure, strict=True)]
    part = execution.run(some, databases)
    asked = []

    def teach(train, pools):
        def judge(pairs):
            asked.extend(pools[pair.pool].id for pair in pairs)
            return np.full(len(pairs), 0.5)

        return judge

    found = external.cross_validate(part, embed, parts=2, per_question=2, seed=0, others={"coin": teach})
    assert {id[1] for id in asked} == {"4"}
    rows = found[(found["arm"] == "coin") & ~found["mixed"]]
    expected = {f"d{d}/{d}{k}": float(k == 0) for d in range(4) for k in range(4)}
    assert rows.set_index("id")["right"].to_dict() == expected


def test_the_metrics_file_gets_plain_finite_numbers(scores, executed, tmp_path):
    by = results.by_database(scores, external.compared(scores)).to_dict("index")
    unusable = results.unusable_as_metrics({"data": executed})
    rows = claims.on_external(scores, seed=0)
    files.write_metrics({"by_database": by, "problems": unusable, "claims": rows}, "own", "chase_sql", tmp_path)
    assert by["d1"][MAIN] >= 0.8 and unusable == {"data": {"candidate: invalid SQL": 20}}
    assert len(rows) == 8 and {row["verdict"] for row in rows} <= set(verdicts.VERDICTS)
    assert external.compared(scores) == [MAJORITY, SINGLE, *external.BLOCKS]


def test_a_source_without_a_usable_question_is_refused_with_the_first_reason(tmp_path):
    row = {"db_id": "none", "question": "?", "gold": "SELECT 1", "candidates": [{"system": "a", "sql": "SELECT 1"}]}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "database").mkdir()
    with pytest.raises(ValueError, match="no question is left of 1; the first: missing database"):
        external.run(external.open_source(str(tmp_path / "c.jsonl")))


def test_what_is_unusable_is_counted_by_kind(executed):
    table = results.count_unusable(executed)
    assert table["what"].tolist() == ["candidate: invalid SQL"] and table["count"].tolist() == [20]
    assert results.count_unusable(executed._replace(unusable=[])).empty


def test_the_kept_selector_is_the_one_that_was_fitted_on_everything(executed, embed, tmp_path):
    content = features.describe_content(executed.pools, embed)
    pairs = selector.training_pairs(executed.pools, executed.correct, seed=0, per_question=4)
    model = linear_judge.fit(*content, *pairs, [pool.db_id for pool in executed.pools])
    linear_judge.save(model, tmp_path / "selector.safetensors")
    back = linear_judge.load(tmp_path / "selector.safetensors", content.names)
    np.testing.assert_array_equal(back.weights, model.weights)
