"""The system up to the selector: gold stays away from what generators are given, and hints are for training alone."""

import inspect
from collections import Counter

import pytest

from prefcore.methods.chase_sql import examples, execution, system
from prefcore.methods.chase_sql.candidates import Candidate, Question
from prefcore.methods.chase_sql.generators import Problem
from prefcore.methods.chase_sql.world import databases


def test_what_a_generator_is_given_has_no_place_for_gold():
    assert Problem._fields == ("id", "db_id", "question", "schema", "contents", "values")
    for function in (system.draw_candidates, system.repair_candidates, system.without_values, examples.synthesise):
        assert not {"gold", "golds", "questions"} & set(inspect.signature(function).parameters)


def test_other_gold_for_the_test_questions_changes_no_candidate(
    splits, generators, world, embed_words, monkeypatch, tmp_path
):
    """The whole way from the file of questions to candidates, with every test gold replaced."""
    drawn = {"samples": 2, "temperature": 1.8, "seed": 4}
    real = databases.read_questions

    def garbled(path):
        return [q._replace(gold="SELECT 'nothing'", shape="rows", family="filter") for q in real(path)]

    monkeypatch.chdir(tmp_path)
    before = system.draw_candidates(splits["test"].problems, generators, **drawn)
    monkeypatch.setattr(databases, "read_questions", garbled)
    other = system.open_split(world, "test", 5, embed_words)
    assert [q.gold for q in other.questions] != [q.gold for q in splits["test"].questions]
    assert system.draw_candidates(other.problems, generators, **drawn) == before


def test_gold_is_shown_as_a_hint_for_training_questions_only(splits, generators):
    test = splits["test"]
    asked = [Question(q.id, q.db_id, q.question, q.gold, (Candidate("x", "SELECT 1"),)) for q in test.questions]
    with pytest.raises(ValueError, match="training questions only, not for test"):
        system.add_hinted(test, asked, execution.run(asked, test.folder), generators, seed=0)


def test_a_training_question_without_a_right_candidate_gets_hinted_ones_and_another_none(splits, generators):
    train = splits["train"]
    asked = [Question(q.id, q.db_id, q.question, q.gold, (Candidate("x", q.gold if i else "SELECT 'wrong'"),))
             for i, q in enumerate(train.questions[:3])]  # fmt: skip
    part = train._replace(questions=train.questions[:3], problems=train.problems[:3])
    hinted, needy = system.add_hinted(part, asked, execution.run(asked, train.folder), generators, seed=0)
    assert needy == 1 and hinted[1:] == asked[1:]
    assert Counter(c.system for c in hinted[0].candidates) == {"x": 1, system.HINTED: 3}


def test_training_candidates_are_executed_with_their_hinted_ones_and_repairs_are_counted(splits, generators):
    train = splits["train"]
    found = system.propose_for_training(train, generators, samples=2, temperature=1.8, attempts=1, seed=0)
    pools = found.executed.pools
    hinted = [pool for pool in pools if system.HINTED in pool.systems]
    assert len(pools) == len(train.questions) and len(hinted) == found.hinted
    assert all(len(pool.sqls) == 6 + 3 * (system.HINTED in pool.systems) for pool in pools)
    assert found.repairs["queries"] == 6 * len(pools) >= found.repairs["needed repair"] >= found.repairs["repaired"]


def test_a_text_is_embedded_once(embed_words):
    calls = []
    embed = system.cached(lambda texts: calls.append(list(texts)) or embed_words(texts))
    first, second = embed(["a", "b", "a"]), embed(["b", "c"])
    assert calls == [["a", "b"], ["c"]] and (first[1] == second[0]).all() and (first[0] == first[2]).all()
