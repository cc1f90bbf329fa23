"""Traits are formulas of the text alone, and every category has its own phrases."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis.world import traits
from prefcore.methods.canonical_basis.world.traits import NAMES


def trait(text, name):
    return traits.measure([text])[0, NAMES.index(name)]


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
    assert np.isfinite(traits.measure(["", " ", "!?"])).all()


def test_standard_scores_are_those_of_the_worlds_texts_also_for_a_new_text():
    scale = traits.scale_of(["a b", "a b c d"])
    assert scale.standard(["a b c d", "a b c"])[:, NAMES.index("detail")].tolist() == [1, 0]
    assert scale.standard(["a " * 99])[0, NAMES.index("detail")] == traits.LIMIT


def test_there_are_24_categories_with_210_distinct_phrases_each():
    phrases, category = traits.phrases()
    assert len(NAMES) == 24 and list(traits.PHRASES) == list(NAMES)
    assert len(set(phrases)) == len(phrases) == 5040
    assert np.bincount(category).tolist() == [210] * 24


def test_zipf_weights_fall_as_one_over_the_rank():
    """1 + 1/2 + 1/3 = 11/6."""
    np.testing.assert_allclose(traits.zipf(3), [6 / 11, 3 / 11, 2 / 11])
