import numpy as np
import pytest

from prefcore import smoke
from prefcore.methods.canonical_basis.world import choices as planted_world
from prefcore.methods.canonical_basis.world import traits as planted_traits
from prefcore.methods.canonical_basis.world.traits import NAMES

SIZES = {"people": 30, "choices": 3000, "per_domain": 2}
HOW = SIZES | {"concentration": 0.5, "taste": 0.4, "sharpness": 1.0, "noise": 0.1}


@pytest.fixture(scope="module")
def texts():
    return [text for text in smoke.make_texts() if text.split == "train"]


@pytest.fixture(scope="module")
def world(texts):
    return planted_world.plant(texts, **HOW, seed=0)


def trait(text, name):
    return planted_traits.measure([text])[0, NAMES.index(name)]


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("brief", "one two three", -3),
        ("detail", "one two three", 3),
        ("plain", "ab abcd", -3),
        ("learned", "ab abcd", 3),
        ("enthusiasm", "Oh! Wow! yes", 20 / 3),
        ("questions", "Why? Who knows? I do not", 20 / 6),
        ("figures", "in 1999 some 12 came", 4),
        ("names", "Then Mary met John", 5),
        ("personal", "I like my own i-pod", 6),
        ("praise", "GOOD and enjoyable", 20 / 3),
        ("community", "We love our bus", 5),
        ("quotation", 'He said "no" twice', 5),
        ("clauses", "well, yes; or no", 5),
    ],
)
def test_a_trait_is_what_its_formula_says(name, text, value):
    assert trait(text, name) == pytest.approx(value)


def test_a_text_without_words_has_finite_traits():
    assert np.isfinite(planted_traits.measure(["", " ", "!?"])).all()


def test_standard_scores_are_those_of_the_worlds_texts_also_for_a_new_text():
    scale = planted_traits.scale_of(["a b", "a b c d"])
    assert scale.standard(["a b c d", "a b c"])[:, NAMES.index("detail")].tolist() == [1, 0]
    assert scale.standard(["a " * 99])[0, NAMES.index("detail")] == planted_traits.LIMIT


def test_there_are_24_categories_with_210_distinct_phrases_each():
    said, category = planted_traits.phrases()
    assert len(NAMES) == 24 and list(planted_traits.PHRASES) == list(NAMES)
    assert len(set(said)) == len(said) == 5040
    assert np.bincount(category).tolist() == [210] * 24


def test_zipf_weights_fall_as_one_over_the_rank():
    """1 + 1/2 + 1/3 = 11/6."""
    np.testing.assert_allclose(planted_traits.zipf(3), [6 / 11, 3 / 11, 2 / 11])


def test_both_texts_of_a_choice_are_real_texts_of_one_domain_and_differ(world, texts):
    domains = np.array([text.domain for text in texts])
    assert (domains[world.first] == domains[world.second]).all() and (world.first != world.second).all()
    assert (world.models[:, 0] != world.models[:, 1]).all()
    assert {pair.prompt for pair in planted_world.subset(world, np.arange(200))} == {f"{d}:" for d in domains}
    (pair,) = planted_world.subset(world, np.array([5]))
    winner, loser = (texts[i].text for i in (world.winner[5], world.loser[5]))
    assert (pair.chosen, pair.rejected) == (f" {winner}", f" {loser}")


def test_each_choice_names_one_to_three_different_categories(world):
    assert set(np.bincount(world.owner, minlength=len(world.person)).tolist()) <= {0, 1, 2, 3}
    quiet = planted_world.plant(world.texts, **HOW | {"noise": 0.0}, seed=0)
    for i in range(50):
        named = planted_world.planted_in(quiet, i)
        assert len(set(named)) == len(named)


def test_without_noise_every_phrase_speaks_for_the_winner_and_with_noise_some_do_not(world):
    def right(w):
        return (w.gap >= planted_world.LEAST)[w.owner, w.phrase_category[w.phrase]].mean()

    assert right(planted_world.plant(world.texts, **HOW | {"noise": 0.0}, seed=0)) == 1.0
    assert 0.85 < right(world) < 0.99


def test_the_winner_has_more_of_what_people_want_and_a_sharper_world_more_so(world):
    wanted = {}
    for sharpness in (0.0, 1.0, 50.0):
        w = planted_world.plant(world.texts, **HOW | {"sharpness": sharpness}, seed=0)
        speaks = np.sign(w.gap) * (np.abs(w.gap) >= planted_world.LEAST)
        wanted[sharpness] = float((w.weights[w.person] * speaks).sum(1).mean())
    assert abs(wanted[0.0]) < 0.01 < 0.02 < wanted[1.0] < wanted[50.0]


def test_the_blind_annotator_names_a_trait_that_separates_and_does_not_know_the_winner(world):
    gap = np.take_along_axis(world.gap, world.blind[:, None], 1)[:, 0]
    assert (np.abs(gap) >= planted_world.LEAST).all()
    deaf = planted_world.plant(world.texts, **HOW | {"sharpness": 0.0}, seed=0)
    gap = np.take_along_axis(deaf.gap, deaf.blind[:, None], 1)[:, 0]
    assert abs((gap > 0).mean() - 0.5) < 0.04


def test_models_have_different_texts_and_taste_is_what_makes_them_so(world):
    even = planted_world.plant(world.texts, **HOW | {"taste": 0.0}, seed=0)
    assert world.author.std(0).mean() > 3 * even.author.std(0).mean()


def test_a_category_explains_a_choice_that_mentions_it_if_the_winner_has_more_of_what_it_means(world):
    own = world.phrase_category[world.phrase]
    right = planted_world.explains(world, own, np.arange(24))
    mentioned = np.zeros_like(right)
    mentioned[world.owner, own] = True
    assert right.any() and (mentioned >= right).all()
    assert (world.gap[right.nonzero()] >= planted_world.LEAST).all()
    assert not planted_world.explains(world, np.full(len(own), -1), np.arange(24)).any()
    turned = planted_world.explains(world, own, np.roll(np.arange(24), 1))
    assert turned.sum() < 0.7 * right.sum()


def test_the_winner_of_a_duel_is_the_model_of_the_winning_text(world):
    rows = np.arange(100)
    winner, loser = planted_world.duels(world, rows)
    assert (winner == np.where(world.first_wins[rows], world.models[rows, 0], world.models[rows, 1])).all()
    assert (winner != loser).all()


def test_who_has_more_by_the_blind_annotator_is_the_winner_or_the_loser_whatever_the_outcome(world):
    winner, loser = planted_world.duels(world, np.arange(len(world.person)))
    ahead, behind = planted_world.told_blind(world)
    assert ((ahead == winner) != (ahead == loser)).all() and ((behind == winner) != (ahead == winner)).all()
    shown = np.where((ahead == world.models[:, 0])[:, None], [[0, 1]], [[1, 0]])
    both = np.stack([world.first, world.second], 1)
    more, less = (np.take_along_axis(both, shown[:, [k]], 1)[:, 0] for k in range(2))
    rows = np.arange(len(both))
    assert (world.traits[more, world.blind] > world.traits[less, world.blind])[rows].all()


def test_a_subset_is_of_choices_that_mention_its_category_and_the_random_one_of_any(world):
    mentioned = np.arange(3000)[:, None] % 3 == [[0, 1]]
    found = planted_world.draw_subsets(mentioned, {"a": 0, "b": 1}, size=50, seed=0)
    assert {name: len(rows) for name, rows in found.items()} == {"a": 50, "b": 50, "random": 50, "all": 100}
    assert set(found["a"] % 3) == {0} and set(found["b"] % 3) == {1} and set(found["random"] % 3) == {0, 1, 2}


def test_the_first_phrase_of_a_choice_is_one_that_it_mentions(world):
    rows = np.arange(0, 400, 7)
    kept, phrase = planted_world.first_named(world, rows)
    assert len(kept) == len(phrase) > 50
    assert all(phrase[n] == world.phrase[world.owner == rows[k]][0] for n, k in enumerate(kept))


def test_the_same_seed_gives_the_same_world_and_another_seed_another(texts, world):
    again, other = (planted_world.plant(texts, **HOW, seed=s) for s in (0, 1))
    for a, b in zip(world[1:], again[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(world.weights, other.weights)


def test_one_person_and_too_few_texts_are_refused(texts):
    with pytest.raises(ValueError, match="people is 1; variation across individuals needs at least two"):
        planted_world.plant(texts, **HOW | {"people": 1}, seed=0)
    with pytest.raises(ValueError, match="too few for 40 topics: raise world_texts"):
        planted_world.plant(texts, **HOW | {"per_domain": 40}, seed=0)
