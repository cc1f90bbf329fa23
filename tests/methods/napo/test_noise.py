"""Wrong labels: exactly the share that was asked for, on the same rows; and pairs that say nothing."""

import pytest

from prefcore.data.types import Example
from prefcore.methods.napo import negatives, noise


def examples(n=60):
    """Language pairs in two of three rows, every other one of them right in other words; vision pairs everywhere."""
    return [
        Example(str(i), (1, 2), ((3,),) * 4, {
            "language": float(i % 3 > 0), "language_right": float(i % 3 == 1), "vision": 1.0, "vision_right": i % 2.0,
        })
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.2, 0.35, 0.5])
def test_the_share_of_noise_is_what_was_asked_for_and_nothing_else_changes(share):
    mixed = noise.mix(examples(), share, 20, seed=3)
    for kind in negatives.KINDS:
        kept = [e for e in mixed if e.columns[kind]]
        assert len(kept) == 20 and sum(e.columns[f"{kind}_right"] for e in kept) == round(20 * share)
    assert [e._replace(columns={}) for e in mixed] == [e._replace(columns={}) for e in examples()]
    assert mixed == noise.mix(examples(), share, 20, seed=3) != noise.mix(examples(), share, 20, seed=4)


def test_noise_takes_the_place_of_wrong_answers_one_by_one():
    """So a curve over the share compares nested sets, and its steps are not another draw of rows."""
    sets = [{e.id for e in noise.mix(examples(), share, 20, 0) if e.columns["vision"]} for share in (0.2, 0.4)]
    assert len(sets[0] & sets[1]) == 16


@pytest.mark.parametrize("share, size, what", [(0.5, 50, "are right in other words"), (0.0, 30, "are wrong")])
def test_pairs_that_are_not_there_are_asked_for_in_words(share, size, what):
    with pytest.raises(
        ValueError, match=f"{what}, but there are 20: lower automatic_pairs, or give more preference_rows"
    ):
        noise.mix(examples(), share, size, seed=0)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]; got 1.5"):
        noise.mix(examples(), 1.5, 2, seed=0)


def test_of_the_placebo_half_of_the_pairs_are_turned_round():
    turned = noise.turn(examples(), seed=0)
    for kind, there in (("language", 40), ("vision", 60)):
        sides = [e.columns[kind] for e in turned]
        assert sides.count(-1.0) == there // 2 and [abs(side) for side in sides] == [
            e.columns[kind] for e in examples()
        ]
