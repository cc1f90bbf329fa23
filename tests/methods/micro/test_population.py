"""A population knows its votes exactly: what is drawn follows it, and what is listed adds up."""

import numpy as np
import pytest
import torch

from prefcore.methods.micro import accuracy, criteria, population
from prefcore.methods.micro.mixture import Mixture
from prefcore.methods.micro.world import planted


@pytest.fixture
def people(pools):
    return planted.make(pools["train"], criteria.draw_pairs(pools["train"], 4000, 0), 2.0)


@pytest.fixture
def contexts(embed):
    return criteria.embed_contexts(planted.GROUPS, embed)


def test_shares_are_distributions_with_a_least_share_that_differ_between_domains():
    shares = population.draw_shares(4, 6, 0)
    assert shares.shape == (4, 6) and np.allclose(shares.sum(1), 1)
    assert shares.min() >= population.LEAST_SHARE and abs(shares[0] - shares[1]).max() > 0.05
    with pytest.raises(ValueError, match="20 attributes cannot have a share of 0.05 or more each"):
        population.draw_shares(4, 20, 0)


def test_all_votes_on_a_pair_have_probability_one_together(people, contexts):
    rows = population.all_votes(people, contexts, 0)
    total = torch.zeros(4000).index_add_(0, rows.pair, rows.label * rows.share)
    torch.testing.assert_close(total, torch.ones(4000), atol=1e-5, rtol=0)
    assert (rows.difference[0] == -rows.difference[1]).all()  # the two votes of a group on one pair


def test_votes_follow_the_exact_probabilities(people, contexts):
    """4,000 votes: the share of each group, and of votes for the first text, agree with the exact means to 0.03."""
    rows = population.draw_votes(people, contexts, 1)
    assert (rows.label == 1).all() and (rows.share == 1).all() and rows.pair.tolist() == list(range(4000))
    counts = torch.bincount(rows.attribute, minlength=6).numpy() / 4000
    assert abs(counts - people.shares.mean(0)).max() < 0.03
    gaps = people.difference(np.arange(4000), None)
    first = (rows.difference.numpy() * gaps).sum(1) > 0
    assert abs(first.mean() - (people.shares * people.preferences).sum(1).mean()) < 0.03
    sure = people.preferences[np.arange(4000), rows.attribute] > 0.95
    assert first[sure].mean() > 0.93


def test_an_attribute_without_a_share_never_votes(people, contexts):
    some = people.shares * (np.arange(6) % 2 == 0)
    few = people._replace(shares=some / some.sum(1, keepdims=True))
    assert set(population.draw_votes(few, contexts, 0).attribute.tolist()) == {0, 2, 4}
    assert set(population.all_votes(few, contexts, 0).attribute.tolist()) == {0, 2, 4}


def test_the_true_probabilities_cost_the_entropy_and_the_groups_mean_costs_the_floor(people, contexts):
    rows, floor = population.all_votes(people, contexts, 0), population.find_floor(people)
    weights = (rows.label * rows.share).double()

    def cost(chance_of_label):
        return -torch.zeros(4000).double().index_add_(0, rows.pair, weights * chance_of_label.double().log())

    torch.testing.assert_close(cost(rows.label), floor.entropy, atol=1e-5, rtol=0)
    mean = torch.from_numpy((people.shares * people.preferences).sum(1))[rows.pair]
    gaps = torch.from_numpy(people.difference(rows.pair.numpy(), None))
    first = (rows.difference == gaps).all(1)
    torch.testing.assert_close(cost(torch.where(first, mean, 1 - mean)), floor.lowest, atol=1e-5, rtol=0)
    assert (floor.pinsker <= floor.information + 1e-9).all() and floor.information.mean() > 0.05


def test_no_reward_passes_the_floor_of_any_pair(people, contexts):
    """A theorem, so a check of the measure and no claim: any weights of the measures whatever."""
    known = accuracy.Held(population.all_votes(people, contexts, 0), population.find_floor(people))
    for seed in range(3):
        torch.manual_seed(seed)
        reward = Mixture(torch.nn.Linear(6, 1, bias=False), torch.nn.Linear(12, 1))
        assert accuracy.measure(reward, known)["nats"].max() < 1e-5


def test_the_same_seed_gives_the_same_votes_and_another_does_not(people, contexts):
    first, again, other = (population.draw_votes(people, contexts, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.attribute, other.attribute)
