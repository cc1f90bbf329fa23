"""The blind check: a judge who does not know the winner, a control phrase, and answers that are one letter."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis import blind_check
from prefcore.methods.canonical_basis.extraction import Comparison

CHOICES = [Comparison(str(i), f"first {i}", f"second {i}", i % 3 == 0) for i in range(12)]


def seer(requests):
    """A judge that finds the text which the phrase quotes."""
    answers = []
    for request in requests:
        body = request.messages[-1][1]
        first, second = (body.split(mark)[1].split("\n")[0] for mark in ("Text A: ", "Text B: "))
        phrase = body.split("shows more of this: ")[1].split("?")[0]
        answers.append("A" if phrase == first else "B." if phrase == second else "both")
    return answers


def test_the_blind_judge_is_never_told_the_winner():
    asked = [blind_check.request(c, "brevity", seed=0) for c in (CHOICES[0], CHOICES[0]._replace(first_wins=False))]
    assert asked[0] == asked[1] and "brevity" in asked[0].messages[-1][1]


def test_a_phrase_that_points_at_the_winner_scores_1_at_the_loser_0_and_at_neither_a_half():
    winners = [c.first if c.first_wins else c.second for c in CHOICES]
    losers = [c.second if c.first_wins else c.first for c in CHOICES]
    for phrases, score in ((winners, 1.0), (losers, 0.0), (["else"] * 12, 0.5), ([None] * 12, 0.5)):
        assert blind_check.check(CHOICES, phrases, seer, seed=0).tolist() == [score] * 12
    with pytest.raises(ValueError, match="12 choices and 3 phrases"):
        blind_check.check(CHOICES, winners[:3], seer, seed=0)


def test_a_judge_that_always_says_a_scores_a_half_for_every_choice():
    found = blind_check.check(CHOICES, ["brevity"] * 12, lambda requests: ["A"] * len(requests), seed=0)
    assert found.tolist() == [0.5] * 12


@pytest.mark.parametrize(
    "answer, letter",
    [
        ("A", "A"), (" b.\n", "B"), ("Text A", "A"), ("text b)", "B"),
        ("A or B", None), ("", None), ("AB", None), ("Both", None),
    ],
)
def test_a_verdict_is_one_letter_and_nothing_else(answer, letter):
    assert blind_check.verdict(answer) == letter


def test_the_control_phrase_is_always_of_another_category():
    category = np.array([0, 0, 1, 2])
    for seed in range(20):
        drawn = blind_check.other_phrases(["a0", "b0", "c1", "d2"], category, seed=seed)
        assert all(phrase[1] != str(c) for phrase, c in zip(drawn, category, strict=True))
    with pytest.raises(ValueError, match="all phrases are of one category"):
        blind_check.other_phrases(["a", "b"], np.array([3, 3]), seed=0)
