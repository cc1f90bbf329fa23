"""Planted choices: who wins, what is mentioned, what a blind annotator names, and that a seed repeats them."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis.world import choices


def test_both_texts_of_a_choice_are_real_texts_of_one_domain_and_differ(world, texts):
    domains = np.array([text.domain for text in texts])
    assert (domains[world.first] == domains[world.second]).all() and (world.first != world.second).all()
    assert (world.models[:, 0] != world.models[:, 1]).all()


def test_each_choice_names_one_to_three_different_categories(world, plant):
    assert set(np.bincount(world.owner, minlength=len(world.person)).tolist()) <= {0, 1, 2, 3}
    quiet = plant(noise=0.0)
    named = quiet.phrase_category[quiet.phrase]
    assert len(set(zip(quiet.owner.tolist(), named.tolist(), strict=True))) == len(named)


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


def test_the_winner_of_a_duel_is_the_model_of_the_winning_text(world):
    winner, loser = choices.duels(world)
    assert (winner == np.where(world.first_wins, world.models[:, 0], world.models[:, 1])).all()
    assert (winner != loser).all()


def test_who_has_more_by_the_blind_annotator_is_the_winner_or_the_loser_whatever_the_outcome(world):
    winner, loser = choices.duels(world)
    ahead, behind = choices.blind_duels(world)
    assert ((ahead == winner) != (ahead == loser)).all() and ((behind == winner) != (ahead == winner)).all()
    shown = np.where((ahead == world.models[:, 0])[:, None], [[0, 1]], [[1, 0]])
    both = np.stack([world.first, world.second], 1)
    more, less = (np.take_along_axis(both, shown[:, [k]], 1)[:, 0] for k in range(2))
    rows = np.arange(len(both))
    assert (world.traits[more, world.blind] > world.traits[less, world.blind])[rows].all()


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world, plant):
    again, other = (plant(seed) for seed in (0, 1))
    for a, b in zip(world[1:], again[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(world.weights, other.weights)


def test_no_held_out_choice_shows_a_text_that_another_choice_shows(world):
    """Held-out choices that share texts with others would be explained by having been seen."""
    late, early = (set(world.first[there]) | set(world.second[there]) for there in (world.held_out, ~world.held_out))
    assert late and early and not late & early and 0.4 < world.held_out.mean() < 0.6


def test_people_with_few_latent_tastes_are_known_from_them_and_people_without_are_not(rng):
    """Independent weights, as the planted people had, make every claim about their common variation false in advance:
    three components would carry 3/24 and noise. With three tastes they carry most of it."""
    often = np.full(24, 1 / 24)
    for factor_share, low, high in ((0.9, 0.8, 1.0), (0.0, 0.0, 0.3)):
        weights = choices.weigh(often, 400, factors=3, spread=1.0, factor_share=factor_share, rng=rng)
        np.testing.assert_allclose(weights.sum(1), 1)
        logs = np.log(weights)
        size = np.linalg.svd(logs - logs.mean(1, keepdims=True) - (logs - logs.mean(1, keepdims=True)).mean(0),
                             compute_uv=False) ** 2  # fmt: skip
        assert low <= size[:3].sum() / size.sum() < high


def test_one_person_and_too_few_texts_are_refused(plant):
    with pytest.raises(ValueError, match="people is 1; variation across individuals needs at least two"):
        plant(people=1)
    with pytest.raises(ValueError, match="too few for 40 topics: raise world_texts"):
        plant(per_domain=40)
