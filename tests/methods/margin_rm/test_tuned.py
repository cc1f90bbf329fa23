"""One fine-tuned run: what it says is remembered, and only for the same run."""

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
def train(toy_weights, tmp_path, monkeypatch):
    """Runs with settings that may be changed; `train.times` counts the trainings."""
    values = {"device": "cpu", "threads": 1, "encoder": str(toy_weights / "encoder"), "dtype": "float32", "layers": 1,
              "max_tokens": 16, "batch_size": 4, "epochs": 1}  # fmt: skip

    def train(rows=ROWS, rate=1e-3, seed=0, loss=objective, model_folder=None, **changes):
        how = {"rate": rate, "seed": seed, "label": "test", "kept": tmp_path / "kept", "model_folder": model_folder}
        return tuned.run(rows, ASKED, loss, freeze(values | changes), **how)

    fit = reward_model.fit

    def counted(*args, **how):
        train.times += 1
        return fit(*args, **how)

    train.times = 0
    monkeypatch.setattr(reward_model, "fit", counted)
    return train


def test_a_run_that_was_done_is_read_and_gives_the_same_to_the_last_digit(train):
    first, again = train(), train()
    assert train.times == 1
    np.testing.assert_array_equal(first.probability, again.probability)
    assert first.history.equals(again.history) and list(first.history["step"]) == [1, 2]


def test_whatever_changes_a_run_makes_it_another_one(train):
    train()
    others = [{"rate": 2e-3}, {"seed": 1}, {"layers": 2}, {"epochs": 2}, {"rows": ROWS[:4]},
              {"rows": [row._replace(margin=0.6) for row in ROWS]},
              {"loss": lambda r, c: losses.soft_loss(r, c["strength"])}]  # fmt: skip
    for count, other in enumerate(others, 2):
        train(**other)
        assert train.times == count, other


def test_a_model_that_is_wanted_is_saved_and_made_again_where_it_is_gone(train, tmp_path):
    train()
    found = train(model_folder=tmp_path / "model")
    assert train.times == 2
    train(model_folder=tmp_path / "model")
    assert train.times == 2
    tokenizer, model = reward_model.load(str(tmp_path / "model"), seed=7)
    np.testing.assert_allclose(
        reward_model.preference(ASKED, model, tokenizer, max_tokens=16), found.probability, atol=1e-6
    )
