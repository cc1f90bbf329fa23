"""Criteria are measured, pairs occur under opposite ones, and a router reads what its row asks for."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from prefcore.methods.micro import criteria


@pytest.fixture
def contexts(embed):
    return criteria.embed_contexts([(name,) for name in criteria.CRITERIA], embed)


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


def test_levels_are_those_of_the_training_texts_and_hold_no_text_of_another_split(texts, pools, embed):
    raw, domain = criteria.measure(texts["train"]), pools["train"].domain
    inside = raw[domain == 1]
    expected = np.clip((inside - inside.mean(0)) / inside.std(0), -3, 3)
    assert np.allclose(pools["train"].levels[domain == 1], expected)
    again = criteria.make_pools(texts | {"test": texts["test"][:9]}, embed)
    assert np.array_equal(again["test"].levels, pools["test"].levels[:9])
    assert abs(pools["train"].levels).max() <= 3


def test_vectors_have_entries_of_unit_size(pools):
    assert np.allclose((pools["train"].vectors ** 2).mean(1), 1, atol=1e-5)


def grouped(choices):
    """pair -> its choices."""
    out = defaultdict(list)
    for choice in choices:
        out[choice.pair].append(choice)
    return out


def test_each_pair_occurs_twice_with_opposite_labels_under_criteria_that_say_so(pools):
    pool = pools["train"]
    choices = criteria.opposite_choices(pool, 90, 0.5, seed=0)
    by_pair = grouped(choices)
    assert len(by_pair) == 90 and all(len(rows) == 2 for rows in by_pair.values())
    for first, second in by_pair.values():
        assert (first.preferred, first.other) == (second.other, second.preferred)
        assert first.attribute != second.attribute
        assert pool.domain[first.preferred] == pool.domain[first.other]
        for row in (first, second):
            measure, sign, _ = criteria.QUALITIES[criteria.CRITERIA[row.attribute]]
            column = list(criteria.MEASURES).index(measure)
            assert sign * (pool.levels[row.preferred, column] - pool.levels[row.other, column]) >= 0.5


def test_without_the_criterion_a_pair_is_a_coin_toss(pools, contexts):
    """Any function of pair and prompt alone is right on half of the rows: the sum over both labels of each pair."""
    rows = criteria.make_rows(pools["train"], criteria.opposite_choices(pools["train"], 90, 0.5, seed=0), contexts, 0)
    head = torch.randn(12, generator=torch.Generator().manual_seed(0))
    right = (rows.difference @ head > 0).double()
    for pair in range(90):
        assert right[rows.pair == pair].mean() == 0.5
        assert (rows.prompt[rows.pair == pair].diff(dim=0) == 0).all()


def test_criteria_are_about_equally_frequent_and_no_text_is_in_more_than_eight_pairs(pools):
    choices = criteria.opposite_choices(pools["train"], 150, 0.5, seed=0)
    counts = Counter(choice.attribute for choice in choices)
    assert set(counts) == set(range(7)) and max(counts.values()) < 2 * min(counts.values())
    used = Counter(position for choice in choices for position in (choice.preferred, choice.other))
    assert max(used.values()) <= 2 * 8
    assert len({frozenset((c.preferred, c.other)) for c in choices}) == 150


def test_pooled_pairs_occur_under_every_criterion_that_has_an_opinion_and_contradict_somewhere(pools):
    pool = pools["train"]
    choices = criteria.pooled_choices(pool, 60, 0.5, seed=0)
    by_pair = grouped(choices)
    for rows in by_pair.values():
        assert len({row.preferred for row in rows}) == 2
        a, b = rows[0].preferred, rows[0].other
        gaps = abs(np.stack([criteria.level(pool.levels, name) for name in criteria.CRITERIA], 1)[[a, b]].T @ [1, -1])
        assert sorted(row.attribute for row in rows) == np.flatnonzero(gaps >= 0.5).tolist()


def test_the_same_seed_gives_the_same_pairs_and_too_many_pairs_raise(pools):
    first, again, other = (criteria.opposite_choices(pools["test"], 30, 0.5, seed) for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(ValueError, match=r"160 texts gave \d+ pairs, not 700: take more texts or fewer pairs"):
        criteria.opposite_choices(pools["test"], 700, 0.5, seed=0)


def test_a_domain_without_training_texts_is_named(texts, embed):
    with pytest.raises(ValueError, match="0 training texts of Tweet are too few"):
        criteria.make_pools(texts | {"train": [t for t in texts["train"] if t.domain != "Tweet"]}, embed)


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


def test_the_router_reads_the_domain_and_in_stage_two_a_wording_of_the_rows_own_criterion(pools, contexts, embed):
    pool, choices = pools["train"], criteria.opposite_choices(pools["train"], 40, 0.5, seed=0)
    rows = criteria.make_rows(pool, choices, contexts, seed=3)
    for i, choice in enumerate(choices):
        domain, name = criteria.DOMAINS[pool.domain[choice.preferred]], criteria.CRITERIA[choice.attribute]
        assert np.allclose(rows.prompt[i], criteria.scaled(embed([domain]))[0])
        for column, flag in ((rows.seen, True), (rows.unseen, False)):
            table = criteria.scaled(embed([f"{w} {domain}" for w in criteria.wordings((name,), seen=flag)]))
            assert (abs(table - column[i].numpy()).max(1) < 1e-5).sum() == 1
    assert torch.equal(rows.difference[0], torch.from_numpy(
        pool.vectors[choices[0].preferred] - pool.vectors[choices[0].other]))  # fmt: skip


def test_nothing_planted_stands_beside_what_is_measured():
    assert not [name for name in vars(criteria) if "plant" in name.lower()]
