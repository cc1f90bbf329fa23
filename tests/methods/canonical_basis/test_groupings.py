"""The groupings that are compared: what each is worth on a small planted world, and that the controls are controls."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis import groupings

HOW = {"noises": [0.1, 1.0], "parts": 3, "seed": 0}


@pytest.fixture(scope="module")
def change(world):
    """The choices in the traits themselves: what a perfect text vector would hold."""
    return world.traits[world.winner] - world.traits[world.loser]


@pytest.fixture(scope="module")
def planted(world):
    return world.phrase_category[world.phrase]


def test_the_merge_is_dealt_out_among_neighbours_in_frequency(rng):
    weight, merge = np.sort(rng.integers(1, 999, 40))[::-1], rng.integers(5, size=40)
    found = groupings.deal(merge, weight, seed=0, window=8)
    assert not np.array_equal(found, merge)
    for start in range(0, 40, 8):
        assert sorted(found[start : start + 8]) == sorted(merge[start : start + 8])
    assert np.array_equal(groupings.deal(merge, weight, seed=0, window=1), merge)


def test_what_chooses_the_number_of_categories_is_never_held_out(world):
    learns, judges = groupings.halves(world.held_out, seed=0)
    assert not (learns & judges).any() and not (world.held_out & (learns | judges)).any()
    assert (learns | judges | world.held_out).all()


def test_planted_categories_explain_more_than_one_for_everything_and_both_have_all_the_mass(world, change, planted):
    arms = (planted, np.zeros_like(planted))
    exact, one = (groupings.judge(world, change, category, size=24, **HOW) for category in arms)
    assert exact["explained"].mean() > one["explained"].mean() + 0.1
    assert exact["recovered"].mean() > 0.97 > 0.5 > one["recovered"].mean()
    assert exact["mass"].mean() == one["mass"].mean() == 1.0
    assert exact["id"].is_unique and len(exact) == len(world.weights)


def test_a_basis_of_few_explains_less_and_a_choice_between_known_texts_has_no_value(world, change, planted):
    found = [groupings.explain(world, change, planted, size=size) for size in (1, 6, 24)]
    means = [np.nanmean(values) for values in found]
    assert 0 < means[0] < means[1] < means[2]
    assert np.isnan(found[0][~world.held_out]).all() and set(found[2][world.held_out]) <= {-1.0, 0.0, 1.0}


def test_signatures_of_choices_that_a_coin_decided_explain_nothing(world, change, planted):
    drawn = groupings.coin(world, change, planted, size=24, draws=12, seed=0)
    right = groupings.judge(world, change, planted, size=24, **HOW)["explained"]
    assert abs(drawn.mean()) < 0.1 < right.mean() and len(drawn) == len(right)


def test_a_persons_past_foretells_what_comes_and_another_persons_does_not(plant):
    world = plant(people=120, choices=30000)
    planted = world.phrase_category[world.phrase]
    change = world.traits[world.winner] - world.traits[world.loser]
    own = groupings.judge(world, change, planted, size=24, **HOW)["variance"].mean()
    assert own > 0.3 and groupings.strangers(world, planted, size=24, **HOW).mean() < 0.05


def test_groups_are_numbered_by_how_often_they_are_mentioned(planted):
    words = np.arange(len(planted)) % 10
    found = groupings.group(words, np.arange(10) // 2, planted, seed=0)
    assert list(found) == ["chosen", "words", "matched", "exact", "one"]
    for arm in ("chosen", "words", "matched"):
        often = np.bincount(found[arm])
        assert (np.diff(often) <= 0).all(), arm
    assert len(set(found["chosen"])) == 5 and set(found["one"]) == {0}


def test_topics_are_averaged_over_their_held_out_choices(world):
    values = np.where(world.held_out, np.where(world.topic == 1, 1.0, 0.0), np.nan)
    found = groupings.by_topic(world, {"a": values}).set_index("topic")
    assert found["a"].tolist() == [float(topic == 1) for topic in found.index]
    assert found["choices"].sum() == world.held_out.sum()


def test_most_mentions_of_a_category_say_what_it_means_and_none_counts_nowhere():
    assert groupings.majority(np.array([0, 0, 0, 1]), np.array([2, 2, 1, 1])).tolist() == [2, 1]
    assert groupings.count(np.array([0, 0, 1]), np.array([2, -1, 0]), 2, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
