"""Training on one preference's choices: which choices they are, the pairs, and what a policy wrote before and after."""

import numpy as np
import pandas as pd
import pytest

from prefcore.methods.canonical_basis import transfer
from prefcore.methods.canonical_basis.world import traits
from prefcore.methods.canonical_basis.world.traits import NAMES


def test_a_trait_is_held_by_the_first_category_whose_name_means_it():
    assert transfer.holders(np.array([3, 0, 3, 5]), count=2) == {NAMES[3]: 0, NAMES[0]: 1}
    assert transfer.holders(np.array([3, 0, 3, 5]), count=9) == {NAMES[3]: 0, NAMES[0]: 1, NAMES[5]: 3}


def test_a_subset_is_of_choices_that_mention_its_category_and_the_random_one_of_any():
    mentioned = np.arange(3000)[:, None] % 3 == [[0, 1]]
    found = transfer.draw_subsets(mentioned, {"a": 0, "b": 1}, size=50, seed=0, controls=["random", "all"])
    assert {name: len(rows) for name, rows in found.items()} == {"a": 50, "b": 50, "random": 50, "all": 100}
    assert set(found["a"] % 3) == {0} and set(found["b"] % 3) == {1} and set(found["random"] % 3) == {0, 1, 2}


def test_the_controls_are_those_that_are_asked_for_and_change_no_other_subset():
    mentioned = np.arange(300)[:, None] % 2 == [[0]]
    both, none = (transfer.draw_subsets(mentioned, {"a": 0}, size=9, seed=4, controls=c) for c in (["all"], []))
    assert list(both) == ["a", "all"] and list(none) == ["a"]
    np.testing.assert_array_equal(both["a"], none["a"])


def test_a_pair_to_train_on_is_winner_against_loser_after_the_domains_name(world, texts):
    (pair,) = transfer.make_pairs(world, np.array([5]))
    winner, loser = (texts[i] for i in (world.winner[5], world.loser[5]))
    assert pair.prompt == f"{winner.domain}:" and (pair.chosen, pair.rejected) == (f" {winner.text}", f" {loser.text}")


def test_what_a_policy_writes_is_measured_and_repeats_with_the_seed(tiny_llama, tokenizer):
    scale = traits.scale_of(["w1 w2 w3", "w1", "I said no! 12"])
    first, again = (transfer.write(tokenizer, tiny_llama, ["w1 w2", "w3"], scale, arm="a", tokens=5, seed=1)
                    for _ in range(2))  # fmt: skip
    pd.testing.assert_frame_equal(first, again)
    assert list(first) == ["arm", "seed", "id", "prompt", "text", *NAMES] and len(first) == 2
    np.testing.assert_array_equal(first[list(NAMES)], scale.standard(first["text"].tolist()))


@pytest.fixture
def written():
    """Ten texts of each arm; brief's arm gains 1 in brief, and the random one 0.25 in both traits."""
    base = np.linspace(-1, 1, 10)
    rise = {"reference": (0.0, 0.0), "brief": (1.0, 0.0), "praise": (0.0, 0.5), "random": (0.25, 0.25)}
    return pd.concat([pd.DataFrame({"id": range(10), "arm": arm, "brief": base + brief, "praise": base + praise})
                      for arm, (brief, praise) in rise.items()])  # fmt: skip


def test_worked_gains(written):
    """brief: 1 against the reference. Own traits beyond random choices: (1 - 0.25 + 0.5 - 0.25) / 2 = 0.5."""
    assert transfer.gain(written, "brief", "brief", seed=0).estimate == pytest.approx(1.0)
    assert transfer.gain(written, "praise", "brief", seed=0).estimate == pytest.approx(0.0)
    assert transfer.own_gain(written, ["brief", "praise"], seed=0).estimate == pytest.approx(0.5)
