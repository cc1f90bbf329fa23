"""Pairs that say by how much the chosen answer is better."""

import pytest

from prefcore.data import views
from prefcore.data.types import Pair, Ranked, Scored, Unary


def test_a_given_margin_beats_the_difference_of_scores():
    scored = Pair("1", "x", "a", "b", 3.0, 1.0)
    pairs, ties = views.graded_pairs([scored, scored._replace(margin=0.5), Pair("3", "x", "a", "b", margin=4.0)])
    assert [pair.margin for pair in pairs] == [2.0, 0.5, 4.0]
    assert ties == 0


def test_ties_are_dropped_and_counted_whatever_the_data():
    both = {"x": (1.0, 1.0), "y": (2.0, 1.0)}
    ranked = [Ranked(prompt, prompt, ("a", "b"), pair, (True, True)) for prompt, pair in both.items()]
    scored = [Scored(f"{prompt}{s}", prompt, "a", s) for prompt, pair in both.items() for s in pair]
    pairs = [Pair(prompt, prompt, "a", "b", *pair) for prompt, pair in both.items()]
    for records in (ranked, scored, pairs):
        kept, ties = views.graded_pairs(records)
        assert ([pair.margin for pair in kept], ties) == ([1.0], 1)


def test_a_pair_of_unknown_or_wrong_difference_is_refused_by_name():
    with pytest.raises(ValueError, match="pair 7 .*add the column margin"):
        views.graded_pairs([Pair("7", "x", "a", "b")])
    with pytest.raises(ValueError, match="pair 7: chosen is worse than rejected by 2: swap"):
        views.graded_pairs([Pair("7", "x", "a", "b", 1.0, 3.0)])


def test_pairs_are_graded_where_each_says_by_how_much_it_is_better():
    graded = [Pair("1", "x", "a", "b", margin=1.0), Pair("2", "x", "a", "b", 3.0, 1.0)]
    assert views.are_graded(graded) and not views.are_graded([*graded, Pair("3", "x", "a", "b", 3.0)])
    assert not views.are_graded([Unary("4", "x", "a", True)])
