"""What an arm learns from: pairs of texts, each with the mean of many votes or with a single one.

A label is for the pair's *second* text, as everything that an autorater says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prefcore.data.types import Parameters
from prefcore.scoring import voters
from prefcore.scoring.votes import VotedPair


class Labels(NamedTuple):
    """at [m]: positions in a list of pairs; share [m]: the number to learn from each, a vote or a mean of votes."""

    at: np.ndarray
    share: np.ndarray


def open_pairs(p: Parameters) -> dict[str, list[VotedPair]]:
    """Pairs by split (train, validation, test): the first of each, as many as the parameters say at most."""
    found = voters.open_pairs(p)
    sizes = {"train": p.train_pairs, "validation": p.validation_pairs, "test": p.test_pairs}
    pairs = {split: [pair for pair in found if pair.split == split][:size] for split, size in sizes.items()}
    for split, inside in pairs.items():
        if not inside:
            raise ValueError(f"no pair of {len(found)} falls into the {split} part: give more pairs")
    return pairs


def draw_means(pairs: Sequence[VotedPair], size: int, count: int, seed: int) -> Labels:
    """`size` random pairs that have `count` votes, each with the mean of so many, drawn without repetition."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pairs))
    enough = [i for i in order if len(pairs[i].votes) >= count][:size]
    if len(enough) < size:
        most = max(len(pair.votes) for pair in pairs)
        raise ValueError(f"{len(enough)} of {len(pairs)} pairs have {count} votes (the most is {most}), {size} are "
                         "wanted: lower dense_votes or sft_pairs")  # fmt: skip
    return Labels(np.array(enough), np.array([1 - np.mean(rng.permutation(pairs[i].votes)[:count]) for i in enough]))


def draw_votes(pairs: Sequence[VotedPair], size: int, seed: int) -> Labels:
    """`size` random pairs, each with one of its votes: 0, 1, or one half where that person saw a tie."""
    if len(pairs) < size:
        raise ValueError(f"{size} pairs are wanted (sft_pairs x dense_votes), there are {len(pairs)}: lower sft_pairs")
    rng = np.random.default_rng(seed)
    at = rng.permutation(len(pairs))[:size]
    return Labels(at, np.array([1 - rng.choice(pairs[i].votes) for i in at]))


def permute(labels: Labels, seed: int) -> Labels:
    """The same votes dealt out to the same pairs at random: a placebo."""
    return labels._replace(share=np.random.default_rng([seed, 3]).permutation(labels.share))


def leave_out(labels: Labels, pairs: Sequence[VotedPair], domain: str) -> Labels:
    """The labels of all pairs but those of a domain."""
    kept = np.array([pairs[i].domain != domain for i in labels.at])
    return Labels(labels.at[kept], labels.share[kept])
