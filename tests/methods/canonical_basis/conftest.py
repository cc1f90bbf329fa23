"""What the tests of the canonical basis share: a generator that starts anew in each, and a small planted world."""

import numpy as np
import pytest

from prefcore import smoke
from prefcore.methods.canonical_basis.world import choices

SIZES = {"people": 30, "choices": 3000, "per_domain": 2}
SETTINGS = SIZES | {
    "factors": 3, "spread": 1.0, "factor_share": 0.8, "taste": 0.4, "sharpness": 1.0, "noise": 0.1,
}  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def texts():
    return [text for text in smoke.make_texts() if text.split == "train"]


@pytest.fixture(scope="module")
def plant(texts):
    """A function that plants a world on the texts, with other settings where they are given."""
    return lambda seed=0, **changes: choices.plant(texts, **SETTINGS | changes, seed=seed)


@pytest.fixture(scope="module")
def world(plant):
    return plant()
