"""The task of the chapter on the embedded world, and what the title cell says about language models."""

import json

import pytest
import yaml

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import models
from prefcore.methods.chase_sql import features, linear_judge, selector, tasks
from prefcore.scoring import llm

P = freeze({
    "profile": "toy", "seed": 0, "data": "", "train_questions": 3, "test_questions": 2, "queries": 2,
    "temperature": 1.8, "temperatures": [], "attempts": 1, "per_question": 4, "lm_test_questions": 0,
    "verdict_pairs": 0,
})  # fmt: skip


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A folder where build/toy/sql_world is the small world; the current one."""
    (tmp_path / "build" / "toy").mkdir(parents=True)
    (tmp_path / "build" / "toy" / "sql_world").symlink_to(world)
    monkeypatch.chdir(tmp_path)


def test_without_the_studys_arms_no_language_model_is_opened(here, embed_words, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a language model was opened")

    for module, name in ((llm, "open_model"), (models, "load"), (models, "load_policy")):
        monkeypatch.setattr(module, name, refuse)
    task = tasks.open_task(P, embed_words)
    proposed = task.propose()
    train = proposed.executed
    content = features.describe_content(train.pools, embed_words)
    pairs = selector.training_pairs(train.pools, train.correct, seed=0, per_question=4)
    judge = linear_judge.fit(*content, *pairs, [pool.db_id for pool in train.pools])
    evaluation = task.evaluate(proposed, content, judge)
    assert evaluation.history == [] and not {"written", "verdicts"} & set(evaluation.tables)
    assert list(evaluation.tables) == list(dict.fromkeys(evaluation.scores["system"])) and len(evaluation.claims) == 9
    assert list(evaluation.tables)[0] == "all" and set(evaluation.compared) <= set(evaluation.tables["all"]["arm"])
    assert {pool.db_id for pool in evaluation.test.pools}.isdisjoint(pool.db_id for pool in train.pools)
    assert sum(evaluation.alone.values()) == len(evaluation.test.pools) == len(task.questions["test"])


def test_the_title_cell_says_that_no_language_model_writes_the_quick_profiles_queries():
    params = yaml.safe_load((smoke.ROOT / "params.yaml").read_text())
    quick = params["quick"]["chase_sql"]
    assert quick["lm_test_questions"] == quick["verdict_pairs"] == params["quick"]["shared"]["sql_lm_lessons"] == 0
    title = "".join(json.loads((smoke.ROOT / "notebooks" / "chase_sql.ipynb").read_text())["cells"][0]["source"])
    assert "no language model writes the queries" in title
