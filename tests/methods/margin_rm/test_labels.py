"""Labels drawn from votes, shares of votes, and the pairs of an arm."""

import pytest
import torch

from prefcore.data.types import freeze
from prefcore.methods.margin_rm import labels, losses
from prefcore.scoring.votes import VotedPair


def pair(i=0, votes=(1.0,), a="a sunny day", b="a rainy day", prompt="", **more):
    row = VotedPair(f"p{i}", prompt, a, b, tuple(votes), (), 0.5, "", "all", "train")
    return row._replace(**more)


def test_a_label_is_one_raters_choice_drawn_from_all():
    """Of 4,000 pairs with 7 of 10 votes for a, about 2,800 get the label a (standard deviation 29)."""
    drawn, again, other = (labels.draw_labels([(1.0,) * 7 + (0.0,) * 3] * 4000, seed=s) for s in (0, 0, 1))
    assert 2680 < sum(drawn) < 2920
    assert drawn == again != other


def test_a_tie_is_drawn_again_and_nothing_but_ties_is_no_label():
    assert labels.draw_labels([(0.5, 0.5, 1.0), (0.5, 0.0), (0.5, 0.5)], seed=3) == [True, False, None]


def test_failed_votes_are_left_out_of_n_and_no_valid_vote_means_no_margin(close):
    assert labels.vote_share((1.0, None, 0.0, 1.0, None, 0.5)) == 2.5 / 4
    unknown = torch.tensor([labels.vote_share((None, None))])
    for rule in labels.RULES.values():
        close(rule(unknown, scale=1.0), [0.0])


def test_chosen_is_the_labels_choice_and_the_share_turns_with_it():
    pairs = [pair(0), pair(1), pair(2)]
    rows = labels.label_pairs(pairs, [True, False, None], [0.8, 0.8, 0.8], losses.margin_signed, scale=2.0)
    assert [(r.id, r.chosen, r.rejected) for r in rows] == [
        ("p0", "a sunny day", "a rainy day"), ("p1", "a rainy day", "a sunny day")]
    assert [r.strength for r in rows] == pytest.approx([0.8, 0.2])
    assert [r.margin for r in rows] == pytest.approx([1.2, -1.2])


def test_real_votes_are_those_of_the_training_half():
    voted = pair(0, votes=(1.0, 0.0, 0.5))._replace(truth=(0.0, 0.0))
    assert labels.real_votes([voted]) == [(1.0, 0.0, 0.5)]


def test_a_voter_knows_nothing_of_the_pairs_that_it_was_not_asked_about():
    pairs = [pair(0, (1.0, 0.0)), pair(1, (1.0,)), pair(2, (0.0,))]
    shares = labels.shares_by_source(pairs, {"taught": [(1.0, 1.0, 0.0, 1.0)]})
    assert shares == {"real": [0.5, 1.0, 0.0], "taught": [0.75, 0.5, 0.5]}


def test_the_arms_share_their_labels_and_differ_in_margin_and_strength():
    pairs = [pair(i, (1.0, 0.0, 1.0)) for i in range(20)]
    shares = labels.shares_by_source(pairs, {"taught": [(0.0, 0.0)] * 20})
    found = {arm: labels.rows_of_arm(arm, pairs, shares, scale=1.0, seed=3)
             for arm in ("bt", "soft", "real-abs", "taught-signed")}  # fmt: skip
    chosen = [row.chosen for row in found["bt"]]
    assert set(chosen) == {"a sunny day", "a rainy day"}
    assert all([row.chosen for row in rows] == chosen for rows in found.values())
    assert {row.margin for row in found["bt"] + found["soft"]} == {0.0}
    assert [row.margin for row in found["real-abs"]] == pytest.approx([1 / 3] * 20)
    assert [row.margin for row in found["taught-signed"]] == [-1.0 if c == "a sunny day" else 1.0 for c in chosen]


@pytest.mark.parametrize("arm", ["taught-abs", "real-log"])
def test_an_arm_without_votes_or_without_a_rule_is_refused(arm):
    with pytest.raises(ValueError, match=f"arm '{arm}' needs votes.*rules .'abs', 'relu', 'signed'."):
        labels.rows_of_arm(arm, [pair()], {"real": [1.0]}, scale=1.0, seed=0)


def test_pairs_are_chosen_at_random_from_each_split_and_an_empty_part_is_said():
    p = freeze({"seed": 0, "pairs": 3, "validation_pairs": 2, "test_pairs": 2, "rates": []})
    voted = [pair(i, split=split) for i, split in enumerate(["train"] * 9 + ["test"] * 2)]
    found = labels.choose(voted, p)
    assert {split: len(inside) for split, inside in found.items()} == {"train": 3, "validation": 0, "test": 2}
    assert found == labels.choose(voted, p) and found["train"] != labels.choose(voted, p._replace(seed=1))["train"]
    with pytest.raises(ValueError, match="no pair of 11 falls into the validation part"):
        labels.choose(voted, p._replace(rates=[0.1]))


def test_domains_are_dealt_out_to_quarters_in_alphabetical_order():
    pairs = [pair(i, domain=domain) for i, domain in enumerate("caebdf")]
    assert labels.quarters(pairs) == {"p0": 2, "p1": 0, "p2": 0, "p3": 1, "p4": 3, "p5": 1}
