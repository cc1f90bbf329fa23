"""Arms side by side: paired by prompt and seed, whatever the order of the rows."""

import pandas as pd
import pytest

from prefcore.data.types import freeze
from prefcore.lab import verdicts
from prefcore.methods.napo import comparison

P = freeze({"seed": 0})


def scores(**arms):
    """Gold scores of each arm, one per prompt, one seed."""
    rows = [
        {"arm": arm, "seed": 0, "id": f"{i}", "gold": gold, "text": "a b c"}
        for arm, values in arms.items()
        for i, gold in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_arms_with_different_seeds_are_compared_on_those_they_share():
    found = scores(a=[1.0, 3.0], b=[0.0, 0.0])
    more = found[found["arm"] == "a"].assign(seed=1, gold=100.0)
    a, b = comparison.paired(pd.concat([found, more]), "a", "b", "gold")
    assert a.to_numpy().tolist() == [[1.0, 3.0]] and a.index.equals(b.index)
    assert comparison.claim("a is better", pd.concat([found, more]), "a", "b", "gold", P)["estimate"] == 2.0
    with pytest.raises(ValueError, match="share none"):
        comparison.paired(pd.concat([more, found[found["arm"] == "b"]]), "a", "b", "gold")


def test_an_unknown_arm_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"no scores for the arm 'c': there are \['a', 'b'\]"):
        comparison.table(scores(a=[1.0], b=[2.0]), "c", "gold")


def test_differences_are_paired_by_prompt_whatever_the_order():
    """Gold of a is that of the same prompt of b plus one, in another order: the interval has no width."""
    found = scores(a=[5.0, 1.0, 3.0], b=[4.0, 0.0, 2.0])
    found = pd.concat([found[found["arm"] == "a"], found[found["arm"] == "b"].iloc[::-1]])
    row = comparison.claim("a is better", found, "a", "b", "gold", P)
    assert (row["estimate"], row["low"], row["high"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("effect", "word", "meaning"),
    [(1.0, "HELD", "claimed side"), (-1.0, "NOT HELD", "the claim fails here"), (0.0, "UNDECIDED", "contains 0")],
)
def test_a_claim_is_printed_with_its_verdict_first(effect, word, meaning, capsys):
    found = scores(a=[effect] * 8, b=[0.0] * 8)
    verdicts.print_sentences([comparison.claim("a is better", found, "a", "b", "gold", P)])
    said = capsys.readouterr().out
    assert said.startswith(f"{word}: a is better") and meaning in said
