"""The task holds what a run has: criteria and planted groups of the default texts, or the people of one's own file."""

import json

import numpy as np
import pytest

from prefcore.data.rows import DataError
from prefcore.data.types import freeze
from prefcore.methods.micro import task as tasks
from prefcore.methods.micro.world import planted


@pytest.fixture
def default(pools, embed, monkeypatch):
    both = pools | {"validation": pools["test"]}
    monkeypatch.setattr(tasks.criteria, "open_pools", lambda p, embed: both)
    sizes = {"criteria_pairs": [60, 20, 20], "planted_pairs": [80, 30], "planted_beta": 2.0, "gap": 0.5}
    return tasks.open_task(freeze({"data": "", "seed": 0} | sizes), embed)


def test_the_default_task_has_worlds_of_criteria_and_a_planted_population_and_no_people(default):
    assert list(default.criteria) == ["opposite", "pooled"] and not default.annotators
    assert [int(default.criteria[w]["train"].pair.max()) + 1 for w in default.criteria] == [60, 60]
    assert default.tuning == [default.criteria["pooled"]]
    (population,) = default.planted.values()
    assert len(population.votes.pair) == 80 and population.truth.shares.shape == (30, len(planted.GROUPS))
    assert (population.floor.lowest >= population.floor.entropy).all()


def test_the_description_counts_rows_and_shows_one_pair_under_two_criteria(default):
    lines = default.description.splitlines()
    assert lines[0].startswith("opposite, train: 60 pairs; rows of each criterion: [")
    assert sum("is preferred to" in line for line in lines) == 4


@pytest.fixture
def own(tmp_path):
    """Three people's votes on 40 pairs under four prompts."""
    rng, path = np.random.default_rng(0), tmp_path / "votes.jsonl"
    rows = [{"a": f"a {i}", "b": f"b {i}", "prompt": f"topic {i % 4}",
             "votes": [{"voter": name, "vote": "ab"[rng.integers(2)]} for name in ("ann", "bob", "cat")]}
            for i in range(40)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return freeze({"data": str(path), "seed": 0, "least_votes": 20, "folds": 4})


def test_the_task_of_own_votes_has_people_and_nothing_else(own, embed):
    task = tasks.open_task(own, embed)
    assert not task.criteria and not task.planted and not task.tuning
    assert task.annotators["people"].names == ["ann", "bob", "cat"]
    assert task.description.startswith("120 votes by 3 people (and 0 ties, left out);\n3 of them have 20 votes or more")


def test_votes_of_people_who_vote_too_rarely_are_refused_by_field(own, embed):
    with pytest.raises(DataError, match='field "votes": 0 of 3 people have 50 votes'):
        tasks.open_task(own._replace(least_votes=50), embed)
