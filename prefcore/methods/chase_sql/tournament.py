"""Algorithm 3 of CHASE-SQL (arXiv:2410.01943): every candidate against every other, in both orders. Pure."""

from collections.abc import Sequence

import numpy as np

from prefcore.methods.chase_sql.execution import FAILED


def points(clusters: np.ndarray, first_wins: np.ndarray) -> np.ndarray:
    """Points [n] of each candidate over all ordered pairs.

    clusters [n] as execution.cluster has them; first_wins [n, n]: P(i is the right one | i is shown first, j second),
    of which only pairs of two different clusters are read. A pair of equal results gives its point to the first, so
    each of the two has one: neutral. Else the winner has it; an even verdict gives half to each.

    A candidate's expectation is n - 1 + the sum over other clusters of size x (2 P(win) - 1): beating a large wrong
    cluster counts for more, and a coin gives everyone n - 1.

    Departs from the paper: it says nothing of candidates that fail. Here they are one cluster that loses to all others
    without a comparison.
    """
    n = len(clusters)
    if first_wins.shape != (n, n):
        raise ValueError(f"first_wins has the shape {first_wins.shape}; {n} candidates need {(n, n)}")
    won = np.where(first_wins > 0.5, 1.0, np.where(first_wins < 0.5, 0.0, 0.5))
    failed = clusters == FAILED
    won[failed[:, None] & ~failed[None, :]] = 0.0
    won[~failed[:, None] & failed[None, :]] = 1.0
    won[clusters[:, None] == clusters[None, :]] = 1.0
    others = ~np.eye(n, dtype=bool)
    return (won * others).sum(1) + ((1 - won) * others).sum(0)


def winner(scores: np.ndarray, sqls: Sequence[str]) -> int:
    """The candidate with most points; of equal ones the shortest query, so that the order of the list says nothing."""
    return min(range(len(scores)), key=lambda i: (-scores[i], len(sqls[i]), sqls[i]))
