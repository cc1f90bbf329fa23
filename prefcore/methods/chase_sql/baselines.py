"""Choosing without a judge: self-consistency (the largest cluster of equal results), and the best single system."""

from collections.abc import Sequence

import numpy as np

from prefcore.methods.chase_sql.execution import Pool, cluster_sizes


def majority(pool: Pool) -> int:
    """Self-consistency: the first listed candidate of the largest cluster, which is the first listed of such."""
    return int(np.argmax(cluster_sizes(pool.clusters)))


def shortest_of_majority(pool: Pool) -> int:
    """The same cluster's shortest query, as CHESS takes it."""
    inside = np.flatnonzero(pool.clusters == pool.clusters[majority(pool)])
    return int(min(inside, key=lambda i: (len(pool.sqls[i]), pool.sqls[i])))


def of_system(pool: Pool, system: str) -> int | None:
    """The candidate of one system, the first of them; None where it proposed nothing."""
    return pool.systems.index(system) if system in pool.systems else None


def best_system(pools: Sequence[Pool], correct: Sequence[np.ndarray]) -> str:
    """The system that is right most often on these pools; of equal ones the first in alphabetical order."""
    right: dict[str, int] = {}
    for pool, truth in zip(pools, correct, strict=True):
        for system in dict.fromkeys(pool.systems):
            right[system] = right.get(system, 0) + int(truth[of_system(pool, system)])
    return min(right, key=lambda system: (-right[system], system))
