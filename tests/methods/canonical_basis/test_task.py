"""The task: planted worlds; each text is embedded once; own data are sent where they belong."""

import numpy as np
import pytest

from prefcore.data.types import freeze
from prefcore.methods.canonical_basis import task


def test_no_text_is_embedded_twice():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts])

    once = task.once(embed)
    assert once(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1] and once(["bb", "ccc"])[:, 0].tolist() == [2, 3]
    assert asked == ["a", "bb", "ccc"]


def test_own_votes_are_sent_to_the_command_that_reads_them():
    with pytest.raises(ValueError, match="run canonical_basis --data votes.csv"):
        task.open_task(freeze({"data": "votes.csv"}))


def test_a_choice_is_the_difference_of_its_texts_in_whitened_dimensions(rng):
    texts = [f"{word} {rng.integers(99)} !" for word in ["tea", "milk", "dog", "cat"] * 10]
    p = freeze({"word_dims": 3, "signature_dims": 4, "seed": 0})
    winner, loser = np.array([0, 1, 2]), np.array([1, 0, 2])
    found = task.differences(texts, winner, loser, lambda read: rng.normal(size=(len(read), 5)), p)
    assert found.shape == (3, 4) and not found[2].any()
    np.testing.assert_allclose(found[0], -found[1])
