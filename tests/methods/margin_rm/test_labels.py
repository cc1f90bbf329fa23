"""Labels drawn from votes, shares of votes, and the pairs of an arm."""

import pytest
import torch

from prefcore.data.types import freeze
from prefcore.methods.margin_rm import labels
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


HOW = {"size": 20, "few": 0.25, "scale": 2.0, "seed": 3}


def pool_of(size, *votes):
    return [pair(i, votes or (1.0, 0.0, 1.0), a=f"a{i}", b=f"b{i}") for i in range(size)]


def test_chosen_is_the_labels_choice_and_the_share_turns_with_it():
    """Four of five votes for a: margin 2 x (2 x 0.8 - 1) = 1.2 where the label is a, -1.2 where it is the fifth."""
    pool = pool_of(200, 1.0, 1.0, 1.0, 1.0, 0.0)
    rows = labels.rows_of_arm("signed", pool, labels.shares_by_source(pool, {}), **HOW | {"size": 200})
    found = {(row.chosen[0], round(row.strength, 6), round(row.margin, 6)) for row in rows}
    assert found == {("a", 0.8, 1.2), ("b", 0.2, -1.2)}


def test_a_seed_draws_its_own_pairs_and_labels_the_same_for_all_arms():
    pool = pool_of(60)
    shares = labels.shares_by_source(pool, {"judge": [(0.0, 0.0)] * 60})
    arms = ("bt", "abs", "signed", "scaled", "soft", "ordinal", "judge-abs", "judge-soft", "abs-shuffled")
    found = {arm: [row[:4] for row in labels.rows_of_arm(arm, pool, shares, **HOW)] for arm in arms}
    assert all(rows == found["bt"] for rows in found.values()) and len(found["bt"]) == 20
    other = labels.rows_of_arm("bt", pool, shares, **HOW | {"seed": 4})
    assert {row.id for row in other} != {row[0] for row in found["bt"]}
    few = labels.rows_of_arm("bt-few", pool, shares, **HOW)
    assert [row[:4] for row in few] == found["bt"][:5]


def test_arms_differ_in_margin_and_strength_alone():
    pool = pool_of(20)
    shares = labels.shares_by_source(pool, {"judge": [(0.25, 0.25)] * 20})
    found = {arm: labels.rows_of_arm(arm, pool, shares, **HOW) for arm in ("bt", "abs", "scaled", "judge-signed")}
    assert {row.margin for row in found["bt"]} == {0.0}
    assert [row.margin for row in found["abs"]] == pytest.approx([2 / 3] * 20)
    assert [row.margin for row in found["scaled"]] == pytest.approx([1 / 3] * 20)  # a weight has no unit
    assert [row.margin for row in found["judge-signed"]] == [-1.0 if row.chosen[0] == "a" else 1.0
                                                            for row in found["judge-signed"]]  # fmt: skip


def test_shuffled_margins_are_the_same_margins_at_other_pairs():
    pool = [pair(i, (1.0,) * (i % 5 + 1) + (0.0,) * 5, a=f"a{i}", b=f"b{i}") for i in range(40)]
    shares = labels.shares_by_source(pool, {})
    own, dealt = (labels.rows_of_arm(arm, pool, shares, **HOW | {"size": 40}) for arm in ("abs", "abs-shuffled"))
    assert sorted(row.margin for row in own) == sorted(row.margin for row in dealt)
    assert [row.margin for row in own] != [row.margin for row in dealt]
    assert [row.strength for row in own] == [row.strength for row in dealt]


def test_pairs_of_nothing_but_ties_are_in_no_arm():
    pool = [*pool_of(3), pair(3, (0.5, 0.5))]
    rows = labels.rows_of_arm("soft", pool, labels.shares_by_source(pool, {}), **HOW)
    assert sorted(row.id for row in rows) == ["p0", "p1", "p2"]


def test_a_voter_that_was_not_asked_about_all_pairs_has_no_arm():
    pool = pool_of(4)
    shares = labels.shares_by_source(pool, {"judge": [(0.9, 0.7)] * 3})
    assert shares["judge"] == pytest.approx([0.8] * 3) and len(shares["real"]) == 4
    with pytest.raises(ValueError, match="arm 'judge-abs' needs all of them: 3 of 4 pairs have votes of 'judge'"):
        labels.rows_of_arm("judge-abs", pool, shares, **HOW)


@pytest.mark.parametrize("arm", ["judge-abs", "real-abs", "log", "abs-twice", "x-judge-abs", ""])
def test_an_arm_without_votes_or_without_a_rule_is_refused(arm):
    with pytest.raises(ValueError, match=f"the arm '{arm}' needs votes of .*one of the rules .'abs', 'bt', 'ordinal'"):
        labels.rows_of_arm(arm, [pair()], {"real": [1.0]}, **HOW)


def test_pairs_are_chosen_at_random_from_each_split_and_an_empty_part_is_said():
    p = freeze({"seed": 0, "pool_pairs": 3, "validation_pairs": 2, "test_pairs": 2})
    voted = [pair(i, a=f"a{i}", b=f"b{i}", split=split)
             for i, split in enumerate(["train"] * 9 + ["test"] * 2 + ["validation"])]  # fmt: skip
    found = labels.choose(voted, p)
    assert {split: len(inside) for split, inside in found.items()} == {"train": 3, "validation": 1, "test": 2}
    assert found == labels.choose(voted, p) and found["train"] != labels.choose(voted, p._replace(seed=1))["train"]
    with pytest.raises(ValueError, match="no pair of 11 falls into the validation part"):
        labels.choose(voted[:11], p)


def test_pairs_to_measure_on_share_no_text_and_what_is_left_out_is_counted(capsys):
    """Own data: all pairs of six texts. Pairs are units, so three of the fifteen are left; training keeps them all."""
    p = freeze({"seed": 0, "pool_pairs": 99, "validation_pairs": 99, "test_pairs": 99})
    voted = [pair(f"{split}{i}{j}", a=f"{split} {i}", b=f"{split} {j}", split=split)
             for split in ("train", "validation", "test") for i in range(6) for j in range(i)]  # fmt: skip
    found = labels.choose(voted, p)
    assert len(found["train"]) == 15 and len(found["validation"]) <= 3
    shown = [text for pair in found["test"] for text in (pair.a, pair.b)]
    assert len(shown) == len(set(shown)) >= 4
    assert f"test: {len(found['test'])} of 15 pairs share no text with another" in capsys.readouterr().out


def test_domains_are_dealt_out_to_quarters_in_alphabetical_order():
    pairs = [pair(i, domain=domain) for i, domain in enumerate("caebdf")]
    assert labels.quarters(pairs) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 0, "f": 1}
