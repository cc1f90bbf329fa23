"""Who judges a pair, and how: every attribute (a criterion, or a group of people) with its share and its preference.

A population knows P(attribute | pair) and P(first text is preferred | pair, attribute) exactly. So votes can be drawn
from it, as many and as often as one likes, and a model can be tested on all votes that could have been cast, weighted
by their probability: what a test then measures varies over pairs and training alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from prefcore.methods.micro import losses
from prefcore.methods.micro.criteria import Contexts
from prefcore.methods.micro.losses import Floor
from prefcore.methods.micro.mixture import Rows

LEAST_SHARE = 0.05  # of every attribute in every domain


class Population(NamedTuple):
    """n pairs under A attributes. difference(pairs [m], attributes [m]) -> [m,D], first text less second.

    domain [n]: number; shares [n,A]: P(attribute | pair), rows sum to 1; preferences [n,A]: P(first is preferred).
    """

    difference: Callable[[np.ndarray, np.ndarray], np.ndarray]
    domain: np.ndarray
    shares: np.ndarray
    preferences: np.ndarray


def draw_shares(domains: int, attributes: int, seed: int) -> np.ndarray:
    """P(attribute | domain) [domains, attributes]: 0.05 each, and the rest as a Dirichlet(1) draw of the domain."""
    if LEAST_SHARE * attributes >= 1:
        raise ValueError(f"{attributes} attributes cannot have a share of {LEAST_SHARE} or more each; take fewer")
    drawn = np.random.default_rng([seed, 1]).dirichlet(np.ones(attributes), size=domains)
    return LEAST_SHARE + (1 - LEAST_SHARE * attributes) * drawn


def draw_votes(people: Population, contexts: Contexts, seed: int) -> Rows:
    """One vote on each pair, by one attribute: what a model learns from."""
    rng = np.random.default_rng([seed, 2])
    pairs = np.arange(len(people.domain))
    edges = people.shares.cumsum(1)
    attribute = ((rng.random(len(pairs)) * edges[:, -1])[:, None] >= edges).sum(1)
    first = rng.random(len(pairs)) < people.preferences[pairs, attribute]
    certain = np.ones(len(pairs))
    return _rows(people, contexts, pairs, attribute, first, certain, certain, seed)


def all_votes(people: Population, contexts: Contexts, seed: int) -> Rows:
    """Every vote that can be cast on the pairs, with its probability: what a model is tested on."""
    chances = np.stack([people.preferences, 1 - people.preferences], 2) * (people.shares > 0)[..., None]
    pair, attribute, second = np.nonzero(chances)
    label, share = chances[pair, attribute, second], people.shares[pair, attribute]
    return _rows(people, contexts, pair, attribute, second == 0, label, share, seed)


def _rows(people, contexts, pair, attribute, first, label, share, seed) -> Rows:
    """Votes as rows: the preferred text stands first; each row gets one wording of either set, drawn with `seed`."""
    sign = np.where(first, 1, -1).astype(np.float32)[:, None]
    difference = torch.from_numpy(people.difference(pair, attribute) * sign)
    domain, rng = people.domain[pair], np.random.default_rng([seed, len(pair)])
    seen, unseen = (words[attribute, rng.integers(words.shape[1], size=len(pair)), domain]
                    for words in (contexts.seen, contexts.unseen))  # fmt: skip
    numbers = (torch.from_numpy(np.asarray(x)) for x in (attribute, pair))
    chances = (torch.from_numpy(np.asarray(x, np.float32)) for x in (label, share))
    return Rows(difference, contexts.prompt[attribute, domain], seen, unseen, *numbers, *chances)


def find_floor(people: Population) -> Floor:
    """What no model passes on these pairs without knowing the attribute, pair by pair (losses.irreducible)."""
    return losses.irreducible(torch.from_numpy(people.shares), torch.from_numpy(people.preferences))
