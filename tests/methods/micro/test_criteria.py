"""Criteria are measured, enter by a gate on what vectors hold, and have wordings of their own."""

from collections import Counter

import numpy as np
import pytest
import torch

from prefcore.methods.micro import criteria


def test_worked_measures(make_text):
    """'I love my dog, you!': 5 words; letters 1+4+2+3+3 = 13, 13/5; 2 of 15 signs; I, my, you of 5 words.

    Ratings 1, 3: mean 2, standard deviation 1.
    """
    (found,) = criteria.measure([make_text(0, "Tweet", "I love my dog, you!", [1, 3])])
    assert found.tolist() == [2.0, -1.0, 5.0, -13 / 5, 2 / 15, 3 / 5]
    assert len(found) == len(criteria.MEASURES)


def test_no_more_criteria_than_the_issue_allows_and_each_is_a_formula():
    used = {criteria.QUALITIES[name][0] for name in criteria.CRITERIA}
    assert used == set(criteria.MEASURES)
    assert len(used - {"rating", "agreement", "length"}) <= 3
    assert {"positive", "negative"} < set(criteria.CRITERIA)


def test_levels_are_those_of_the_training_texts_and_hold_no_text_of_another_split(texts, pools):
    raw, domain = criteria.measure(texts["train"]), pools["train"].domain
    inside = raw[domain == 1]
    expected = np.clip((inside - inside.mean(0)) / inside.std(0), -3, 3)
    assert np.allclose(pools["train"].levels[domain == 1], expected)
    again = criteria.make_pools(texts | {"test": texts["test"][:9]}, {split: np.zeros((1, 1)) for split in texts})
    assert np.array_equal(again["test"].levels, pools["test"].levels[:9])
    assert abs(pools["train"].levels).max() <= 3


def test_vectors_of_length_one_get_entries_of_unit_size(embed):
    assert np.allclose((criteria.scaled(embed(["a", "b"])) ** 2).mean(1), 1, atol=1e-5)


def test_drawn_pairs_are_two_texts_of_one_domain_and_reach_all_of_them(pools):
    pool = pools["train"]
    pairs = criteria.draw_pairs(pool, 30000, 0)
    assert pairs.shape == (30000, 2) and (pairs[:, 0] != pairs[:, 1]).all()
    assert (pool.domain[pairs[:, 0]] == pool.domain[pairs[:, 1]]).all()
    inside = Counter(pairs[pairs[:, 0] == 7, 1].tolist())  # 125 pairs of text 7 with the 59 others of its domain
    assert len(inside) > 45 and 7 not in inside
    assert (criteria.draw_pairs(pool, 50, 1) != pairs[:50]).any()


def test_no_text_is_in_two_of_the_split_pairs_so_that_pairs_are_units(pools):
    pool = pools["test"]
    pairs = criteria.split_pairs(pool, 0)
    assert sorted(pairs.ravel().tolist()) == list(range(160))
    assert (pool.domain[pairs[:, 0]] == pool.domain[pairs[:, 1]]).all()


def test_an_opinion_needs_a_gap_of_the_criterions_own_measure(pools):
    pool = pools["test"]
    levels = np.zeros_like(pool.levels)
    levels[0, 2], levels[1, 2] = 0.7, 0.1  # lengths: 0.6 standard deviations apart
    found = criteria.find_opinions(pool._replace(levels=levels), np.array([[0, 1], [1, 0]]), ("long", "short"), 0.5)
    assert found.tolist() == [[1, -1], [-1, 1]]
    strict = criteria.find_opinions(pool._replace(levels=levels), np.array([[0, 1]]), ("long", "short"), 0.7)
    assert strict.tolist() == [[0, 0]]


def test_the_gate_lets_through_what_the_vectors_hold_and_nothing_else(pools):
    """Vectors of all measures but the last: personal texts cannot be told apart, the others can."""
    blind = {split: pool._replace(vectors=np.delete(pool.vectors, 5, 1)) for split, pool in pools.items()}
    found = criteria.find_decodability(blind, 1500, 0.5, 0)
    assert list(found) == list(criteria.MEASURES)
    assert found.pop("person") < 0.75 and min(found.values()) > 0.9
    passed = criteria.choose_criteria(found | {"person": 0.6, "rating": 0.89}, 0.9)
    assert passed == ("agreed", "long", "short", "plain", "punctuated", "bare")


def test_what_the_texts_do_not_differ_in_cannot_be_read(pools):
    alike = {split: pool._replace(levels=pool.levels * (np.arange(6) != 2)) for split, pool in pools.items()}
    assert criteria.find_decodability(alike, 200, 0.5, 0)["length"] == 0.5


def test_the_gate_never_looks_at_a_test_text(pools):
    found = criteria.find_decodability({split: pools[split] for split in ("train", "validation")}, 400, 0.5, 0)
    assert found == criteria.find_decodability(pools, 400, 0.5, 0)


def test_a_domain_without_training_texts_is_named(texts):
    with pytest.raises(ValueError, match="0 training texts of Tweet are too few"):
        criteria.make_pools(texts | {"train": [t for t in texts["train"] if t.domain != "Tweet"]}, {})


def test_more_texts_than_there_are_is_refused(pools):
    assert len(criteria.first_texts(pools["test"], 5).texts) == 5
    with pytest.raises(ValueError, match="161 texts are asked for and the pool has 160"):
        criteria.first_texts(pools["test"], 161)


def test_held_out_wordings_are_other_words():
    for name, (_, _, phrases) in criteria.QUALITIES.items():
        assert len(set(phrases)) == len(phrases) == 6, name
        seen, unseen = (set(criteria.wordings((name,), seen=flag)) for flag in (True, False))
        assert (len(seen), len(unseen)) == (16, 8) and not seen & unseen
        assert not any(phrase in line for phrase in phrases[4:] for line in seen)


def test_no_two_criteria_share_a_wording():
    lines = [line for name in criteria.QUALITIES for flag in (True, False)
             for line in criteria.wordings((name,), seen=flag)]  # fmt: skip
    assert len(set(lines)) == len(lines) == 12 * 24
    assert criteria.wordings(("long", "bare"), seen=True)[0] == "Which text is longer and emptier of punctuation?"


def test_contexts_are_the_domain_and_each_wording_with_the_domain_after_it(contexts, embed):
    assert contexts.prompt.shape == (9, 4, 12) and contexts.seen.shape == (9, 16, 4, 12)
    domain, at = criteria.DOMAINS[2], criteria.CRITERIA.index("long")
    assert np.allclose(contexts.prompt[at, 2], criteria.scaled(embed([domain]))[0])
    for found, flag in ((contexts.seen, True), (contexts.unseen, False)):
        lines = [f"{words} {domain}" for words in criteria.wordings(("long",), seen=flag)]
        assert torch.allclose(found[at, :, 2], torch.from_numpy(criteria.scaled(embed(lines))))


def test_nothing_planted_stands_beside_what_is_measured():
    assert not [name for name in vars(criteria) if "plant" in name.lower()]
