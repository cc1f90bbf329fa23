"""Text vectors: shapes are heard where an uncased encoder hears none."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis import features


def test_shapes_are_standard_scores_and_tell_texts_apart_that_differ_in_marks_alone():
    texts = ["it was good", "IT WAS GOOD", "it was good!!!", "it was 1999", "it was a very good and long story"]
    found = features.measure_shapes(texts)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    best = dict(zip(features.SHAPES, found.argmax(0), strict=True))
    assert (best["log words"], best["capitals"], best["digits"], best["marks"]) == (4, 1, 3, 2)


def test_a_description_has_the_encoders_dimensions_those_of_words_and_six_shapes(rng):
    texts = [" ".join(rng.choice(["tea", "milk", "dog", "cat", "!", "Sun"], 5)) for _ in range(30)]
    found = features.describe(texts, rng.normal(size=(30, 4)), words=3, seed=0)
    assert found.shape == (30, 4 + 3 + 6) and np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, -6:].argmax(0), features.measure_shapes(texts).argmax(0))
    with pytest.raises(ValueError, match="30 texts and 2 vectors"):
        features.describe(texts, np.ones((2, 4)), words=3, seed=0)


def test_texts_of_one_form_have_no_infinite_shape():
    assert np.isfinite(features.measure_shapes(["same", "same", ""])).all()
