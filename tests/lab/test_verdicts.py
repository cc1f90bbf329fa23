"""A claim is a sentence, a test, an effect with its interval, and a verdict that follows from them."""

import numpy as np
import pytest

from prefcore.lab import verdicts
from prefcore.scoring.metrics import Interval


@pytest.mark.parametrize(
    ("low", "high", "direction", "verdict"),
    [(0.1, 0.3, "higher", "held"), (-0.3, -0.1, "higher", "not held"), (-0.1, 0.3, "higher", "undecided"),
     (0.1, 0.3, "lower", "not held"), (-0.3, -0.1, "lower", "held"), (0.0, 0.3, "higher", "undecided")],
)  # fmt: skip
def test_the_verdict_follows_from_interval_and_direction(low, high, direction, verdict):
    row = verdicts.claim("x", "mean", Interval((low + high) / 2, low, high), direction=direction)
    assert row["verdict"] == verdict and row["verdict"] in verdicts.VERDICTS
    assert set(row) == set(verdicts.COLUMNS) - {"kind", "delta"}  # which only claims named beforehand have


def test_what_could_have_been_seen_is_read_off_the_interval_unless_it_is_given():
    """Half the width is 1.96 standard errors; 80 % power needs 1.96 + 0.84 of them: 0.2 x 2.8016 / 1.96 = 0.2859."""
    row = verdicts.claim("x", "mean", Interval(0.0, -0.2, 0.2))
    assert row["detectable"] == pytest.approx(0.2 * (1.959964 + 0.841621) / 1.959964)
    assert verdicts.claim("x", "mean", Interval(0.0, -0.2, 0.2), detectable=7.0)["detectable"] == 7.0


def test_a_paired_claim_is_on_the_mean_of_differences():
    a, b = np.array([3.0, 1.0, 2.0, 4.0]), np.array([2.0, 0.0, 1.0, 3.0])
    row = verdicts.paired("a is better", "mean", a, b, seed=0)
    assert (row["estimate"], row["low"], row["high"], row["detectable"]) == (1.0, 1.0, 1.0, 0.0)
    assert verdicts.paired("b is better", "mean", b, a, seed=0)["verdict"] == "not held"


def test_seeds_are_rows_of_what_is_paired():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 40))
    row = verdicts.paired("a is better", "mean", a + 1, a, seed=0)
    assert row["estimate"] == pytest.approx(1.0) and row["verdict"] == "held"


def test_the_table_has_a_row_for_each_claim_of_each_method():
    row = verdicts.claim("x", "mean", Interval(0.2, 0.1, 0.3))
    table = verdicts.table({"dpo": {"claims": [row, row]}, "judge": {}, "kto": {"claims": [row]}})
    assert table["method"].tolist() == ["dpo", "dpo", "kto"] and list(table) == ["method", *verdicts.COLUMNS]
    assert list(verdicts.table({})) == ["method", *verdicts.COLUMNS]
