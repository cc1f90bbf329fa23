"""The experiment: folds by database, baselines that are what the candidates say, one row an arm, seed and database."""

import numpy as np
import pandas as pd
import pytest

from prefcore.data.types import freeze
from prefcore.methods.chase_sql import candidates, evidence, execution
from prefcore.methods.chase_sql.candidates import Candidate

P = freeze({"data": "", "databases": "", "profile": "toy", "questions": 3, "per_question": 4, "pairs": 100, "seed": 0,
            "rates": [], "learning_rates": {}, "learning_rate": 1e-3})  # fmt: skip


def written(questions):
    """Each question with a greedy answer, a hinted one, and a draft that the fixer repaired."""
    more = (Candidate(evidence.GREEDY, "SELECT 1"), Candidate("hinted", "SELECT count(*) FROM pet"))
    return [q._replace(candidates=(*q.candidates[:2], q.candidates[2]._replace(draft="SELEC"), *more))
            for q in questions]  # fmt: skip


@pytest.fixture
def data(questions, databases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build/toy/sql_world").mkdir(parents=True)
    (tmp_path / "build/toy/sql_world/database").symlink_to(databases)
    candidates.write(tmp_path / evidence.CANDIDATES, written(questions), {"model": "a stub"})
    return evidence.read(P)


def test_the_candidates_that_a_model_wrote_are_read_with_what_wrote_them(data):
    assert data.about == {"model": "a stub"} and len(data.questions) == 12  # the first three of each database
    assert {pool.db_id for pool in data.executed.pools} == {"d0", "d1", "d2", "d3"}


def test_more_questions_than_a_model_has_written_for_are_refused_and_not_cut_short(data):
    with pytest.raises(ValueError, match="holds 5 questions of d0, and questions is 6"):
        evidence.read(P._replace(questions=6))


def test_a_database_is_in_one_part_and_the_parts_are_about_equal():
    names = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"] * 2
    where = evidence.folds(names, 2)
    assert all(len(set(where[[n == name for n in names]])) == 1 for name in "abcd")
    assert np.bincount(where).tolist() == [7, 7]
    with pytest.raises(ValueError, match="at least two databases"):
        evidence.folds(["a", "a"], 2)


def test_baselines_are_what_the_candidates_say(data):
    """Of three candidates two are equally wrong and one is right; before the fixer the right one failed."""
    means = evidence.without_judge(data).groupby("arm")["right"].mean()
    assert means["votes"] == 0 and means["oracle"] == 1 and means["lower bound"] == 0
    assert means["chance"] == pytest.approx(1 / 3) and means[evidence.GREEDY] == 0
    assert means["votes without copies"] == 1 and means["votes without fixer"] == 0
    assert "hinted" not in means and "votes without hinted" not in means


def test_the_best_single_system_is_chosen_on_the_training_side(data):
    frame = evidence.best_single(data, 2)
    assert len(frame) == 12 and frame["right"].eq(1).all()  # `sound` is right everywhere


def test_every_database_is_tested_once_by_a_judge_that_was_taught_on_others(data, embed):
    frames = []
    for train, test in evidence.split(data.executed, 2):
        assert not {pool.db_id for pool in train.pools} & {pool.db_id for pool in test.pools}
        test = execution.restrict(test, evidence.choosable)
        judge, curve, _ = evidence.judge_of("linear", train, test.pools, P, embed, seed=0, name="x", rate=0.0)
        assert curve["loss"].iloc[-1] < np.log(2) and list(curve) == ["arm", "seed", "step", "loss"]
        frames += [evidence.with_judge("linear", judge, test, 1.0).assign(seed=0)]
    table = evidence.by_database(pd.concat(frames), range(1))
    own = table[table["arm"] == "linear"]
    assert sorted(own["id"]) == ["d0", "d1", "d2", "d3"] and own["right"].mean() > 0.4  # the votes have 0
    assert set(table["arm"]) == {"linear", "linear with votes"}


def test_an_arm_without_a_seed_has_its_rows_for_every_seed(data):
    table = evidence.by_database(evidence.without_judge(data), range(3))
    assert table.groupby("arm").size().eq(12).all() and not table.duplicated(["arm", "seed", "id"]).any()


def test_an_unknown_selector_is_named(data, embed):
    with pytest.raises(ValueError, match="no selector 'oracel'"):
        evidence.judge_of("oracel", data.executed, [], P, embed, seed=0, name="x", rate=0.0)


def test_gold_is_shown_in_hinted_candidates_alone_and_these_are_never_chosen(data):
    whole = execution.restrict(data.executed, evidence.choosable)
    assert not any("hinted" in pool.systems or evidence.GREEDY in pool.systems for pool in whole.pools)
