"""Choosing without a judge: self-consistency and the best single system."""

import numpy as np

from prefcore.methods.chase_sql import baselines
from prefcore.methods.chase_sql.execution import FAILED


def test_the_majority_is_the_first_listed_of_the_largest_clusters(pool):
    assert baselines.majority(pool([1, 0, 0, 1])) == 0
    assert baselines.majority(pool([FAILED, FAILED, FAILED, 2])) == 3
    assert baselines.majority(pool([0, 1, 1], ["a", "SELECT bb", "SELECT b"])) == 1
    assert baselines.shortest_of_majority(pool([0, 1, 1], ["a", "SELECT bb", "SELECT b"])) == 2


def test_the_best_system_is_right_most_often_and_a_name_decides_between_equals(executed):
    assert baselines.best_system(executed.pools, executed.correct) == "sound"
    assert baselines.best_system(executed.pools, [np.zeros(4, dtype=bool)] * 20) == "broken"
