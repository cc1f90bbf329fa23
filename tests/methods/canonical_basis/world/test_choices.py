"""Planted choices: who wins, what is mentioned, what a blind annotator names, and that a seed repeats them."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis import transfer
from prefcore.methods.canonical_basis.world import choices


def test_both_texts_of_a_choice_are_real_texts_of_one_domain_and_differ(world, texts):
    domains = np.array([text.domain for text in texts])
    assert (domains[world.first] == domains[world.second]).all() and (world.first != world.second).all()
    assert (world.models[:, 0] != world.models[:, 1]).all()
    assert {pair.prompt for pair in transfer.make_pairs(world, np.arange(200))} == {f"{d}:" for d in domains}
    (pair,) = transfer.make_pairs(world, np.array([5]))
    winner, loser = (texts[i].text for i in (world.winner[5], world.loser[5]))
    assert (pair.chosen, pair.rejected) == (f" {winner}", f" {loser}")


def test_each_choice_names_one_to_three_different_categories(world, plant):
    assert set(np.bincount(world.owner, minlength=len(world.person)).tolist()) <= {0, 1, 2, 3}
    quiet = plant(noise=0.0)
    for i in range(50):
        named = choices.planted_in(quiet, i)
        assert len(set(named)) == len(named)


def test_without_noise_every_phrase_speaks_for_the_winner_and_with_noise_some_do_not(world, plant):
    def right(w):
        return (w.gap >= choices.LEAST)[w.owner, w.phrase_category[w.phrase]].mean()

    assert right(plant(noise=0.0)) == 1.0
    assert 0.85 < right(world) < 0.99


def test_the_winner_has_more_of_what_people_want_and_a_sharper_world_more_so(plant):
    wanted = {}
    for sharpness in (0.0, 1.0, 50.0):
        w = plant(sharpness=sharpness)
        speaks = np.sign(w.gap) * (np.abs(w.gap) >= choices.LEAST)
        wanted[sharpness] = float((w.weights[w.person] * speaks).sum(1).mean())
    assert abs(wanted[0.0]) < 0.01 < 0.02 < wanted[1.0] < wanted[50.0]


def test_the_blind_annotator_names_a_trait_that_separates_and_does_not_know_the_winner(world, plant):
    gap = np.take_along_axis(world.gap, world.blind[:, None], 1)[:, 0]
    assert (np.abs(gap) >= choices.LEAST).all()
    deaf = plant(sharpness=0.0)
    gap = np.take_along_axis(deaf.gap, deaf.blind[:, None], 1)[:, 0]
    assert abs((gap > 0).mean() - 0.5) < 0.04


def test_models_have_different_texts_and_taste_is_what_makes_them_so(world, plant):
    even = plant(taste=0.0)
    assert world.author.std(0).mean() > 3 * even.author.std(0).mean()


def test_a_category_explains_a_choice_that_mentions_it_if_the_winner_has_more_of_what_it_means(world):
    own = world.phrase_category[world.phrase]
    right = choices.explains(world, own, np.arange(24))
    mentioned = np.zeros_like(right)
    mentioned[world.owner, own] = True
    assert right.any() and (mentioned >= right).all()
    assert (world.gap[right.nonzero()] >= choices.LEAST).all()
    assert not choices.explains(world, np.full(len(own), -1), np.arange(24)).any()
    turned = choices.explains(world, own, np.roll(np.arange(24), 1))
    assert turned.sum() < 0.7 * right.sum()


def test_the_winner_of_a_duel_is_the_model_of_the_winning_text(world):
    rows = np.arange(100)
    winner, loser = choices.duels(world, rows)
    assert (winner == np.where(world.first_wins[rows], world.models[rows, 0], world.models[rows, 1])).all()
    assert (winner != loser).all()


def test_who_has_more_by_the_blind_annotator_is_the_winner_or_the_loser_whatever_the_outcome(world):
    winner, loser = choices.duels(world, np.arange(len(world.person)))
    ahead, behind = choices.blind_duels(world)
    assert ((ahead == winner) != (ahead == loser)).all() and ((behind == winner) != (ahead == winner)).all()
    shown = np.where((ahead == world.models[:, 0])[:, None], [[0, 1]], [[1, 0]])
    both = np.stack([world.first, world.second], 1)
    more, less = (np.take_along_axis(both, shown[:, [k]], 1)[:, 0] for k in range(2))
    rows = np.arange(len(both))
    assert (world.traits[more, world.blind] > world.traits[less, world.blind])[rows].all()


def test_the_first_phrase_of_a_choice_is_one_that_it_mentions(world):
    rows = np.arange(0, 400, 7)
    kept, phrase = choices.first_named(world, rows)
    assert len(kept) == len(phrase) > 50
    assert all(phrase[n] == world.phrase[world.owner == rows[k]][0] for n, k in enumerate(kept))


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world, plant):
    again, other = (plant(seed) for seed in (0, 1))
    for a, b in zip(world[1:], again[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(world.weights, other.weights)


def test_one_person_and_too_few_texts_are_refused(plant):
    with pytest.raises(ValueError, match="people is 1; variation across individuals needs at least two"):
        plant(people=1)
    with pytest.raises(ValueError, match="too few for 40 topics: raise world_texts"):
        plant(per_domain=40)
