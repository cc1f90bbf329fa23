"""What an arm learns from: pairs of texts, each with the mean of many votes or with a single one.

A label is for the *second* text shown, as everything that an autorater says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prefcore.data.types import Parameters
from prefcore.scoring import voters, votes
from prefcore.scoring.votes import VotedPair


class LabelledPair(NamedTuple):
    """A pair as it is shown, and the number to learn from: a vote, or a mean of votes, for the second text."""

    pair: VotedPair
    label: float


def open_pairs(p: Parameters) -> dict[str, list[VotedPair]]:
    """Pairs by split (train, validation, test): the first of each, at most `validation_pairs` and `test_pairs`."""
    found = voters.open_pairs(p)
    sizes = {"train": len(found), "validation": p.validation_pairs, "test": p.test_pairs}
    pairs = {split: [pair for pair in found if pair.split == split][:size] for split, size in sizes.items()}
    for split, inside in pairs.items():
        if not inside:
            raise ValueError(f"no pair of {len(found)} falls into the {split} part: give more pairs")
    return pairs


def label_with_means(pairs: Sequence[VotedPair], size: int, count: int, seed: int) -> list[LabelledPair]:
    """The first `size` pairs that have `count` votes, each with the mean of so many, drawn without repetition."""
    enough = [pair for pair in pairs if len(pair.votes) >= count][:size]
    if len(enough) < size:
        most = max(len(pair.votes) for pair in pairs)
        raise ValueError(f"{len(enough)} of {len(pairs)} pairs have {count} votes (the most is {most}), {size} are "
                         "wanted: lower dense_votes or sft_pairs")  # fmt: skip
    rng = np.random.default_rng([seed, 1])
    return [LabelledPair(pair, 1 - float(np.mean(rng.permutation(pair.votes)[:count]))) for pair in enough]


def label_with_single_votes(pairs: Sequence[VotedPair], size: int, seed: int) -> list[LabelledPair]:
    """The first `size` pairs, each with one of its votes, 0 or 1; a tie becomes either by a fair coin."""
    if len(pairs) < size:
        raise ValueError(f"{size} pairs are wanted (sft_pairs x dense_votes), there are {len(pairs)}: lower sft_pairs")
    rng = np.random.default_rng([seed, 2])
    drawn = [(pair, rng.choice(pair.votes), rng.random()) for pair in pairs[:size]]
    return [LabelledPair(pair, float(vote < 0.5 if vote != 0.5 else coin < 0.5)) for pair, vote, coin in drawn]


def add_swapped(rows: Sequence[LabelledPair]) -> list[LabelledPair]:
    """Swap augmentation: every pair as it is, then every pair with its texts exchanged and its label turned round."""
    return [*rows, *(LabelledPair(votes.swap(pair), 1 - label) for pair, label in rows)]
