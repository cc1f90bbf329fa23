"""Ratings of models for one preference: Bradley-Terry on the pairs of a category, in Elo points.

    P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400))        R = theta 400 / ln 10, mean over models = base

Reconstruction of "pElo" (arXiv 2503.24150, formula unknown to us). Fitted as the maximum of the likelihood with a small
ridge, so that an unbeaten model has a finite rating.
The control: pairs of a category that were assigned by somebody who *knows the winner* favour winners in every category;
the same ratings from a winner-blind assignment, and from random subsets of the same size, show by how much.

Departs from the paper: we know neither its update nor its assignment; the blind control is ours.
"""

from math import log
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

SCALE = 400 / log(10)  # Elo points of one nat
LEAST = 30  # choices behind a rating


def win_counts(winner: np.ndarray, loser: np.ndarray, *, models: int) -> np.ndarray:
    """wins [models, models]: how often the row's model beat the column's; winner [N], loser [N] models."""
    if winner.shape != loser.shape or (winner == loser).any():
        raise ValueError("winner and loser must be paired, and no model can beat itself")
    wins = np.zeros((models, models))
    np.add.at(wins, (winner, loser), 1)
    return wins


def bradley_terry(wins: np.ndarray, *, ridge: float, base: float) -> np.ndarray:
    """Ratings [..., models] in Elo points, mean `base`, from wins [..., models, models] (a tie: half a win to each).

    Maximises sum wins_ij log sigmoid(theta_i - theta_j) - ridge/2 |theta|^2 by Newton's method; ridge > 0 in 1/nats^2.
    """
    if wins.ndim < 2 or wins.shape[-2] != wins.shape[-1] or (wins < 0).any():
        raise ValueError(f"wins must be square matrices of counts; got shape {wins.shape}")
    if ridge <= 0:
        raise ValueError(f"ridge is {ridge}; it must be above 0, or an unbeaten model has no finite rating")
    theta, games, one = np.zeros(wins.shape[:-1]), wins + wins.swapaxes(-1, -2), np.eye(wins.shape[-1])
    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(theta[..., None, :] - theta[..., None], -500, 500)))
        slope = (wins - games * p).sum(-1) - ridge * theta
        curve = games * p * (1 - p)
        step = np.linalg.solve(curve.sum(-1)[..., None] * one - curve + ridge * one, slope[..., None])[..., 0]
        longest = np.abs(step).max(-1, keepdims=True)
        theta += step * np.minimum(1.0, 2 / np.maximum(longest, 1e-300))  # no leap of more than 2 nats
        if longest.max() < 1e-10:
            break
    return base + SCALE * (theta - theta.mean(-1, keepdims=True))


def random_subsets(winner: np.ndarray, loser: np.ndarray, *, size: int, draws: int, models: int, ridge: float,
                   base: float, seed: int) -> np.ndarray:  # fmt: skip
    """Ratings [draws, models] from random subsets of `size` of all pairs: what differs from overall by chance alone."""
    if size > len(winner):
        raise ValueError(f"a subset of {size} pairs is asked for, but there are {len(winner)}")
    rng = np.random.default_rng(seed)
    picks = [rng.permutation(len(winner))[:size] for _ in range(draws)]
    counts = [win_counts(winner[pick], loser[pick], models=models) for pick in picks]
    return bradley_terry(np.stack(counts), ridge=ridge, base=base)


class Duels(NamedTuple):
    """What each of N choices says. winner, loser [N] are models.

    knows [N, C]: assigned to the category by somebody who saw the winner. blind [N]: the trait by which somebody who
    did not see the winner tells the two apart; ahead, behind [N]: the models with more and with less of that trait.
    """

    winner: np.ndarray
    loser: np.ndarray
    knows: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray
    blind: np.ndarray


def compare(duels: Duels, category: int, trait: int, *, models: int, draws: int, ridge: float, base: float,
            seed: int) -> dict[str, np.ndarray]:  # fmt: skip
    """Ratings [n, models] for one category, by way: per preference (by an annotator who sees the winner), blind,
    overall (n = 1 each), random subset (n = draws).

    Empty where an assignment has fewer than LEAST choices.
    """
    sees, blinded = duels.knows[:, category], duels.blind == trait
    if min(sees.sum(), blinded.sum()) < LEAST:
        return {}
    how = {"ridge": ridge, "base": base}
    wins = {
        "per preference": win_counts(duels.winner[sees], duels.loser[sees], models=models),
        "blind": win_counts(duels.ahead[blinded], duels.behind[blinded], models=models),
        "overall": win_counts(duels.winner, duels.loser, models=models),
    }
    out = {way: bradley_terry(counts, **how)[None] for way, counts in wins.items()}
    size = {"size": int(sees.sum()), "draws": draws, "models": models}
    return out | {"random subset": random_subsets(duels.winner, duels.loser, **size, **how, seed=seed)}


def rank_correlation(ratings: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[draws] Spearman correlation of each row of ratings [draws, models] with target [models]."""
    ranks = rankdata(np.vstack([ratings, target]), axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    return ranks[:-1] @ ranks[-1] / np.maximum(np.linalg.norm(ranks[:-1], axis=1) * np.linalg.norm(ranks[-1]), 1e-12)
