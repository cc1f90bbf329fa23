"""A finding: one number about the data with its interval, whether it is a reason to act, and how."""

import math
from typing import NamedTuple

import numpy as np

from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval


class Finding(NamedTuple):
    """name: what was looked for. value with its 95 % interval (NaN where it is a plain count). says: a sentence with
    the number in it. warns: the defect is there, beyond what chance would give. do: a command or a step, may be empty.
    """

    name: str
    value: float
    low: float
    high: float
    says: str
    warns: bool = False
    do: str = ""


def count(name: str, value: int, says: str, *, warns: bool = False, do: str = "") -> Finding:
    """A finding that is a count and has no interval."""
    return Finding(name, float(value), math.nan, math.nan, says, warns, do)


def by_prompt(values: np.ndarray, prompts: list[str]) -> Interval:
    """The mean of the values, each prompt one unit: rows of a prompt are alike, and no independent draws."""
    _, place = np.unique(prompts, return_inverse=True)
    sums, sizes = np.bincount(place, values), np.bincount(place)
    if len(sizes) < 2:
        return Interval(float(np.mean(values)), -math.inf, math.inf)
    weights = metrics.resample_weights(np.random.default_rng(0), len(sizes), 2000)
    draws = (weights @ sums) / (weights @ sizes)
    return Interval(float(np.mean(values)), *(float(q) for q in np.quantile(draws, [0.025, 0.975])))


def in_words(interval: Interval) -> str:
    """0.52 [0.48, 0.56]"""
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
