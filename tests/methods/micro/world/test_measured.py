"""Worlds of measured criteria: the prompt predicts the criterion in one, and heads read it in the other."""

import numpy as np
import torch

from prefcore.methods.micro import criteria, population
from prefcore.methods.micro.world import measured

NAMES = ("long", "short", "plain", "personal")


def test_in_prompted_pairs_only_criteria_with_an_opinion_have_a_share_and_they_prefer_the_larger_measure(pools):
    pool = pools["train"]
    people = measured.prompted(pool, criteria.draw_pairs(pool, 500, 0), NAMES, 1.0)
    assert np.allclose(people.shares.sum(1), 1) and len(people.domain) <= 500
    gaps = people.difference(np.arange(len(people.domain)), None)  # the fixture's vectors begin with the measures
    for name, share, prefers in zip(NAMES, people.shares.T, people.preferences.T, strict=True):
        own = criteria.level(gaps[:, :6], name)
        assert ((share > 0) == (abs(own) >= 1.0)).all()
        assert (prefers[share > 0] == (own[share > 0] > 0)).all()


def test_the_domain_predicts_the_criterion(pools):
    """The most frequent criterion of a domain, given all have an opinion, is the one with the largest drawn share."""
    pool = pools["train"]
    people = measured.prompted(pool, criteria.draw_pairs(pool, 4000, 0), NAMES, 0.0)
    drawn = population.draw_shares(4, 4, 0)
    for domain in range(4):
        of = people.shares[(people.domain == domain) & (people.shares > 0).all(1)]
        assert np.allclose(of, drawn[domain])


def test_a_released_pair_is_a_coin_toss_between_two_criteria_that_disagree(pools):
    pool = pools["train"]
    asked = np.zeros((len(pool.texts), len(NAMES), 3), np.float32)
    people = measured.released(pool, asked, criteria.draw_pairs(pool, 400, 0), NAMES, 0.5, 0)
    assert ((people.shares == 0.5).sum(1) == 2).all() and ((people.shares > 0).sum(1) == 2).all()
    assert np.allclose((people.shares * people.preferences).sum(1), 0.5)
    floor = population.find_floor(people)
    assert torch.allclose(floor.lowest, torch.full_like(floor.lowest, np.log(2)))


def test_heads_read_the_texts_under_the_rows_own_criterion_and_the_router_its_sentence(pools, embed):
    pool = pools["train"]
    asked = np.random.default_rng(0).normal(size=(len(pool.texts), len(NAMES), 3)).astype(np.float32)
    pairs = criteria.draw_pairs(pool, 100, 0)
    pairs = pairs[pool.levels[pairs[:, 0], 2] != pool.levels[pairs[:, 1], 2]]  # long and short disagree on every pair
    people = measured.released(pool, asked, pairs, NAMES, 1e-9, 0)
    assert len(people.domain) == len(pairs)
    contexts = measured.ask_in_prompt(criteria.embed_contexts([(name,) for name in NAMES], embed))
    rows = population.draw_votes(people, contexts, 0)
    ask = criteria.wordings((NAMES[int(rows.attribute[5])],), seen=True)[0]
    line = f"{ask} {criteria.DOMAINS[people.domain[5]]}"
    assert np.allclose(rows.prompt[5], criteria.scaled(embed([line]))[0], atol=1e-5)
    gap = asked[pairs[5, 0], rows.attribute[5]] - asked[pairs[5, 1], rows.attribute[5]]
    assert np.allclose(abs(rows.difference[5]), abs(gap))
