"""Demonstrations among the human texts."""

from prefcore.data import ratings


def test_demonstrations_are_well_rated_and_never_from_the_gold_half():
    def text(id, mean, split, half, completion=" b"):
        return ratings.Text(id, "Tweet", "a b", (0,), mean, split, half, "Tweet: a", completion)

    rows = [text("1", 2.0, "train", "proxy"), text("2", 1.9, "train", "proxy"), text("3", 4.0, "train", "gold"),
            text("4", 4.0, "test", ""), text("5", 3.0, "train", "proxy", ""), text("6", 3.0, "train", "proxy")]
    found = ratings.good_texts(rows, 2.0, 0)
    assert {t.id for t in found} == {"1", "6"}
