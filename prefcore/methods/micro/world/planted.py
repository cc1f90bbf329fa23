"""Planted people with real texts: six groups that each want two qualities, whose choice probabilities are known.

Everything here is made up but the texts and their measures: what the groups want, how often each occurs in a domain,
and every vote.
"""

import numpy as np

from prefcore.methods.micro.criteria import DOMAINS, Pool, level
from prefcore.methods.micro.population import Population, draw_shares

GROUPS = (  # what a planted group wants: 0.8 of the first quality, 0.6 of the second (a vector of length 1)
    ("positive", "long"), ("negative", "plain"), ("short", "agreed"), ("punctuated", "personal"), ("bare", "learned"),
    ("impersonal", "disputed"),
)  # fmt: skip


def rewards(levels: np.ndarray, beta: float) -> np.ndarray:
    """The planted groups' rewards [N,G] of texts with these levels [N,M]: beta x (0.8 first + 0.6 second quality)."""
    return beta * np.stack([0.8 * level(levels, a) + 0.6 * level(levels, b) for a, b in GROUPS], 1)


def make(pool: Pool, pairs: np.ndarray, beta: float) -> Population:
    """The planted people's choices between these pairs [n,2] of texts of one domain.

    difference is that of the measured levels [m,M], in which the planted rewards are linear: what a model then misses
    is due to the groups, not to the encoder.
    """
    reward, domain = rewards(pool.levels, beta), pool.domain[pairs[:, 0]]
    gaps = (pool.levels[pairs[:, 0]] - pool.levels[pairs[:, 1]]).astype(np.float32)
    preferences = 1 / (1 + np.exp(reward[pairs[:, 1]] - reward[pairs[:, 0]]))
    shares = draw_shares(len(DOMAINS), len(GROUPS), 0)[domain]
    return Population(lambda pair, group: gaps[pair], domain, shares, preferences)
