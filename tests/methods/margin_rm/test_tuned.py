"""One fine-tuned run: the same run gives the same answers, and its model can be saved."""

import numpy as np
import pytest

from prefcore.data.types import Pair, freeze
from prefcore.methods.margin_rm import losses, tuned
from prefcore.scoring import reward_model
from prefcore.scoring.votes import VotedPair

ASKED = [VotedPair("v", "", "The great joy", "The awful pain", (1.0,), (), 1.0, "", "all", "test")]
ROWS = [Pair(f"p{i}", "", f"The good joy {i}", f"The sad pain {i}", margin=0.5, strength=0.8) for i in range(8)]


def objective(rewards, columns):
    return losses.loss(rewards, columns["margin"])


@pytest.fixture
def train(toy_weights):
    """Runs with settings that may be changed."""
    values = {"device": "cpu", "threads": 1, "encoder": str(toy_weights / "encoder"), "dtype": "float32",
              "precision": "float32", "layers": 1, "max_tokens": 16, "batch_size": 4, "epochs": 1}  # fmt: skip

    def train(rows=ROWS, rate=1e-3, seed=0, loss=objective, model_folder=None, **changes):
        how = {"rate": rate, "seed": seed, "label": "test", "model_folder": model_folder}
        return tuned.run(rows, ASKED, loss, freeze(values | changes), **how)

    return train


def test_a_run_that_is_made_again_gives_the_same_to_the_last_digit(train):
    first, again = train(), train()
    assert first.answers.equals(again.answers)
    assert first.history.equals(again.history) and list(first.history["step"]) == [1, 2]


def test_seed_rate_rows_layers_and_objective_decide_what_it_says(train):
    said = [train(**how).answers["probability"].item() for how in (
        {}, {"rate": 2e-3}, {"seed": 1}, {"layers": 2}, {"epochs": 2}, {"rows": ROWS[:4]},
        {"rows": [row._replace(margin=2.0) for row in ROWS]}, {"loss": lambda r, c: losses.soft_loss(r, c["strength"])},
    )]  # fmt: skip
    assert len(set(said)) == len(said)


def test_a_model_that_is_wanted_is_saved_and_says_the_same(train, tmp_path):
    found = train(model_folder=tmp_path / "model")
    tokenizer, model = reward_model.load(str(tmp_path / "model"), seed=7)
    np.testing.assert_allclose(
        reward_model.preference(ASKED, model, tokenizer, max_tokens=16), found.answers["probability"], atol=1e-6
    )
