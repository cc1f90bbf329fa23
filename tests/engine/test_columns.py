"""Numbers that travel with an example, and those that a loss carries from step to step."""

import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import collate, train


def test_a_missing_column_is_named():
    rows = collate.with_column([Example("1", (5,), ((6,), (7,)), {"margin": 2.0})], "offset", [0.5])
    assert collate.column(rows, "offset").tolist() == [0.5]
    assert rows[0].columns == {"margin": 2.0, "offset": 0.5}
    with pytest.raises(ValueError, match="have no chosen_score"):
        collate.column(rows, "chosen_score")


def test_an_updated_state_stays_in_the_same_tensor():
    state = {"up": torch.tensor(0.0), "down": torch.tensor(1.0)}
    kept = state["up"]
    train.update_state(state, up=torch.tensor(2.0))
    assert kept.item() == 2.0 and state["up"] is kept and state["down"].item() == 1.0
