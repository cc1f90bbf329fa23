"""A claim on a user's people is a sentence, a test, an effect with its interval, and the verdict that follows."""

import pytest

from prefcore.lab.verdicts import COLUMNS, VERDICTS
from prefcore.methods.canonical_basis.claims import claim, print_sentences
from prefcore.scoring.metrics import Interval


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "held"), (-0.3, -0.1, "not held"), (-0.1, 0.3, "undecided"), (0.0, 0.3, "undecided")],
)
def test_the_verdict_follows_from_the_interval_and_is_printed(low, high, verdict, capsys):
    row = claim("x", "mean", Interval((low + high) / 2, low, high))
    assert row["verdict"] == verdict and row["verdict"] in VERDICTS
    assert set(row) == set(COLUMNS) - {"kind", "delta"}  # which only claims named beforehand have
    print_sentences([row])
    assert capsys.readouterr().out.startswith(f"{verdict.upper()}: x\n  mean: ")


def test_what_could_have_been_seen_is_read_off_the_interval():
    """Half the width is 1.96 standard errors; 80 % power needs 1.96 + 0.84 of them: 0.2 x 2.8016 / 1.96 = 0.2859."""
    row = claim("x", "mean", Interval(0.0, -0.2, 0.2))
    assert row["detectable"] == pytest.approx(0.2 * (1.959964 + 0.841621) / 1.959964)
