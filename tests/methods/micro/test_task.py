"""The task holds what a run has: worlds of the default texts, or the people of one's own file."""

import json

import numpy as np
import pytest
import torch

from prefcore.data.rows import DataError
from prefcore.data.types import freeze
from prefcore.methods.micro import task as tasks

SIZES = {"pool_texts": [0, 0, 0], "asked_texts": [120, 60, 80], "drawn_pairs": 300, "readers": {"encoder": 6},
         "planted_beta": 2.0, "gap": 0.5, "gate_pairs": 1500, "data": "", "seed": 0, "profile": "toy"}  # fmt: skip


@pytest.fixture
def default(pools, embed, monkeypatch):
    """A function of the gate that opens the default task on the fixture's pools."""

    def open_at(gate):
        monkeypatch.setattr(tasks.ratings, "read_texts", lambda path: [])
        monkeypatch.setattr(tasks, "choose_texts", lambda texts, sizes, seed: {})
        monkeypatch.setattr(tasks, "read_pools", lambda texts, p: pools)
        return tasks.open_task(freeze(SIZES | {"gate": gate}), embed)

    return open_at


def test_the_default_task_has_three_worlds_of_what_passes_the_gate_and_no_people(default):
    task = default(0.9)
    assert list(task.worlds) == ["planted", "prompted", "released"] and not task.annotators
    assert min(task.decodability.values()) > 0.9
    assert task.worlds["released"].attributes == task.worlds["prompted"].attributes
    assert task.description.splitlines()[0] == "240 texts to train"


def test_with_too_few_criteria_past_the_gate_the_planted_world_is_alone(default):
    assert list(default(1.01).worlds) == ["planted"]


def test_each_seed_draws_its_own_votes_and_test_votes_stay(default):
    world = default(0.9).worlds["planted"]
    first, again, other = (world.sample(seed) for seed in (1, 1, 2))
    assert torch.equal(first.difference, again.difference) and not torch.equal(first.difference, other.difference)
    assert len(first.pair) == 300 and len(world.test.floor.lowest) == 80
    assert int(world.test.rows.pair.max()) == 79


def test_in_the_released_world_heads_read_the_criterion_beside_the_text(default):
    """The two rows of a test pair are the same texts, and differ in what was read after the criterion alone."""
    rows = default(0.9).worlds["released"].test.rows
    first, second = rows.difference[rows.pair == 0]
    assert torch.allclose(first[:8], -second[:8]) and not torch.allclose(first[8:], -second[8:])
    assert not torch.equal(*rows.prompt[rows.pair == 0])


def test_no_two_chosen_texts_of_a_domain_are_alike(make_text):
    texts = [make_text(i, "Tweet", words, [1, 2], "train") for i, words in enumerate(("a b", "A b", "c d"))]
    found = tasks.choose_texts(texts, [2, 0, 0], 0)
    assert sorted(text.text.lower() for text in found["train"]) == ["a b", "c d"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Three people's votes on 40 pairs under four prompts."""
    rng, path = np.random.default_rng(0), tmp_path / "votes.jsonl"
    rows = [{"a": f"a {i}", "b": f"b {i}", "prompt": f"topic {i % 4}",
             "votes": [{"voter": name, "vote": "ab"[rng.integers(2)]} for name in ("ann", "bob", "cat")]}
            for i in range(40)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    states = np.random.default_rng(1).normal(size=(80, 5))
    monkeypatch.setattr(tasks.reader, "read_states", lambda texts, p: {"encoder": states[: len(texts)]})
    return freeze({"data": str(path), "seed": 0, "least_votes": 20, "folds": 4, "readers": {"encoder": 3}})


def test_the_task_of_own_votes_has_people_and_nothing_else(own, embed):
    task = tasks.open_task(own, embed)
    assert not task.worlds and not task.decodability
    assert task.annotators["people"].names == ["ann", "bob", "cat"]
    assert task.annotators["people"].rows.difference.shape[1] == 3
    assert task.description.startswith("120 votes by 3 people (and 0 ties, left out);\n3 of them have 20 votes or more")


def test_votes_of_people_who_vote_too_rarely_are_refused_by_field(own, embed):
    with pytest.raises(DataError, match='field "votes": 0 of 3 people have 50 votes'):
        tasks.open_task(own._replace(least_votes=50), embed)
