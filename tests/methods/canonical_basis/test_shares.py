"""Shares over people: ratios of sums, with paired intervals over the people."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis import shares
from prefcore.methods.canonical_basis.shares import Share
from prefcore.scoring import metrics


def test_a_share_is_a_ratio_of_sums_not_a_mean_of_ratios():
    """(1 + 9) / (2 + 18) = 0.5, as is each; (2 + 9) / (2 + 18) = 0.55, while the mean of 1 and 0.5 is 0.75."""
    assert Share(np.array([1.0, 9.0]), np.array([2.0, 18.0])).value == 0.5
    assert Share(np.array([2.0, 9.0]), np.array([2.0, 18.0])).value == 0.55
    with pytest.raises(metrics.Undefined, match="nothing to cover"):
        _ = Share(np.zeros(2), np.zeros(2)).value


def test_intervals_are_over_people_and_paired():
    rng = np.random.default_rng(0)
    total = rng.integers(1, 9, 300).astype(float)
    covered = rng.binomial(total.astype(int), 0.7).astype(float)
    share, worse = Share(covered, total), Share(covered * 0.9, total)
    found = shares.interval(share, seed=1)
    assert found.low < 0.7 < found.high and found.estimate == share.value
    gap = shares.difference(share, worse, seed=1)
    assert gap.high - gap.low < (found.high - found.low) / 5 and gap.low < 0.1 * share.value < gap.high
    assert shares.average([share, worse]).value == pytest.approx(0.95 * share.value)


def test_people_with_nothing_to_cover_do_not_count():
    some = Share(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 4.0]))
    more = Share(np.append(some.covered, [0.0] * 50), np.append(some.total, [0.0] * 50))
    assert shares.interval(some, seed=0) == shares.interval(more, seed=0)


def test_an_interval_above_a_border_is_the_distance_from_it():
    assert shares.above(metrics.Interval(0.9, 0.875, 1.0), 0.75) == metrics.Interval(0.9 - 0.75, 0.125, 0.25)
