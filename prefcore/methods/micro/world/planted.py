"""Planted people with real texts: six groups that each want two qualities, whose choice probabilities are known.

Everything here is made up but the texts and their measures: what the groups want, how often each occurs in a domain,
and every vote.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.methods.micro.criteria import DOMAINS, Contexts, Pool, level, rows_of
from prefcore.methods.micro.mixture import Rows, pick

GROUPS = (  # what a planted group wants: 0.8 of the first quality, 0.6 of the second (a vector of length 1)
    ("positive", "long"), ("negative", "plain"), ("short", "agreed"), ("punctuated", "personal"), ("bare", "learned"),
    ("impersonal", "disputed"),
)  # fmt: skip
LEAST_SHARE = 0.05  # of every planted group in every domain


class Exact(NamedTuple):
    """A *planted* test set with its exact probabilities, every pair once for each of G groups.

    rows: n x G rows, pair by pair; the first text counts as preferred. shares [n,G] = P(group | domain),
    preferences [n,G] = P(first is preferred | pair, group).
    """

    rows: Rows
    shares: Tensor
    preferences: Tensor


def shares(seed: int) -> np.ndarray:
    """P(planted group | domain) [domains, groups]: 0.05 each, and the rest as a Dirichlet(1) draw of the domain."""
    drawn = np.random.default_rng([seed, 1]).dirichlet(np.ones(len(GROUPS)), size=len(DOMAINS))
    return LEAST_SHARE + (1 - LEAST_SHARE * len(GROUPS)) * drawn


def rewards(levels: np.ndarray, beta: float) -> np.ndarray:
    """The planted groups' rewards [N,G] of texts with these levels [N,M]: beta x (0.8 first + 0.6 second quality)."""
    return beta * np.stack([0.8 * level(levels, a) + 0.6 * level(levels, b) for a, b in GROUPS], 1)


def draw_votes(pool: Pool, contexts: Contexts, pairs: int, beta: float, seed: int) -> Rows:
    """Training rows of the planted population: for each pair one person's group and vote are drawn.

    difference is that of the measured levels [n,M], in which the planted rewards are linear: what a model then misses
    is due to the groups, not to the encoder.
    """
    truth = make_exact(pool, contexts, pairs, beta, seed)
    rng = np.random.default_rng([seed, pairs, 2])
    groups = truth.shares.shape[1]
    group = np.array([rng.choice(groups, p=row) for row in truth.shares.numpy()])
    first = rng.random(pairs) < truth.preferences.numpy()[np.arange(pairs), group]
    rows = pick(truth.rows, torch.from_numpy(np.arange(pairs) * groups + group))
    sign = torch.from_numpy(np.where(first, 1, -1).astype(np.float32))
    return rows._replace(difference=rows.difference * sign[:, None])


def make_exact(pool: Pool, contexts: Contexts, pairs: int, beta: float, seed: int) -> Exact:
    """Random pairs of one domain with the exact probabilities of the planted population."""
    rng = np.random.default_rng([seed, pairs, 3])
    members = [np.flatnonzero(pool.domain == d) for d in range(len(DOMAINS))]
    a = rng.integers(len(pool.texts), size=pairs)
    b = np.array([rng.choice(members[pool.domain[i]][members[pool.domain[i]] != i]) for i in a])
    reward, share = rewards(pool.levels, beta), shares(0)[pool.domain[a]]
    groups = share.shape[1]
    difference = torch.from_numpy((pool.levels[a] - pool.levels[b]).astype(np.float32)).repeat_interleave(groups, 0)
    rows = rows_of(difference, np.repeat(pool.domain[a], groups), np.tile(np.arange(groups), pairs),
                   np.repeat(np.arange(pairs), groups), contexts, seed)  # fmt: skip
    return Exact(rows, torch.from_numpy(share), torch.from_numpy(reward[a] - reward[b]).sigmoid())


def cross_entropy(log_first: Tensor, log_second: Tensor, truth: Exact) -> Tensor:
    """Exact cross-entropy [n] (nats) of a prediction for each pair, the mean over its groups and votes.

    log_first, log_second [n x G]: the log-probabilities that the first and the second text is preferred.
    """
    first, second = (x.double().reshape(truth.shares.shape) for x in (log_first, log_second))
    expected = truth.preferences * first + (1 - truth.preferences) * second
    return -(truth.shares * expected).sum(1)
