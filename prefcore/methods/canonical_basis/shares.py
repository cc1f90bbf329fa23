"""Shares that are sums over people: covered over total, with intervals over the people."""

from typing import NamedTuple

import numpy as np

from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval


class Share(NamedTuple):
    """covered [P], total [P]: for each person, in the unit of what is shared out."""

    covered: np.ndarray
    total: np.ndarray

    @property
    def value(self) -> float:
        """The share over all people together; at most 1, below 0 where a prediction is worse than the mean."""
        return ratio(self.covered, self.total)


def ratio(covered: np.ndarray, total: np.ndarray) -> float:
    """Sum over sum; Undefined where there is nothing to share."""
    if np.sum(total) == 0:
        raise metrics.Undefined("nothing to cover: no mention, pair or variance")
    return float(np.sum(covered) / np.sum(total))


def average(shares: list[Share]) -> Share:
    """The mean over several shares of the same people, person by person."""
    return Share(*(np.mean([getattr(share, name) for share in shares], axis=0) for name in Share._fields))


def interval(share: Share, *, seed: int, resamples: int = 2000) -> Interval:
    """The share with its 95 % interval over people."""
    kept = share.total > 0
    return metrics.bootstrap_interval(
        share.covered[kept], share.total[kept], statistic=ratio, seed=seed, resamples=resamples
    )


def difference(share: Share, other: Share, *, seed: int, resamples: int = 2000) -> Interval:
    """Share minus the other, of the same people, with its 95 % interval over them."""
    arrays = (share.covered, share.total, other.covered, other.total)
    kept = (share.total > 0) | (other.total > 0)
    return metrics.bootstrap_interval(
        *(a[kept] for a in arrays), statistic=lambda a, b, c, d: ratio(a, b) - ratio(c, d), seed=seed,
        resamples=resamples,
    )  # fmt: skip


def above(found: Interval, border: float) -> Interval:
    """The interval as distance from a border, so that 0 is where a claim begins to hold."""
    return Interval(*(value - border for value in found))


def record(share: Share, *, seed: int, **names) -> dict:
    """A row of a table: the names, then estimate, low and high of the share."""
    return names | interval(share, seed=seed)._asdict()
