"""Labels and votes of the training pairs: one rater's choice is the label, the share of all votes its strength."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from prefcore.data.types import Pair, Parameters
from prefcore.methods.margin_rm import losses
from prefcore.scoring.votes import VotedPair

Votes = tuple[float | None, ...]  # 1 prefers a, 0 prefers b, 0.5 a tie, None a vote that failed
RULES = {"": losses.margin_none, "abs": losses.margin_abs, "signed": losses.margin_signed, "relu": losses.margin_relu}
QUARTERS = 4  # parts of the domains, each left out by one run


def choose(voted: Sequence[VotedPair], p: Parameters) -> dict[str, list[VotedPair]]:
    """Pairs by split (train, validation, test): `pairs`, `validation_pairs` and `test_pairs` of each, at random."""
    sizes = {"train": p.pairs, "validation": p.validation_pairs, "test": p.test_pairs}
    parts = {split: [pair for pair in voted if pair.split == split] for split in sizes}
    for split in ("train", "test", *(["validation"] if p.rates else [])):
        if not parts[split]:
            raise ValueError(f"no pair of {len(voted)} falls into the {split} part: give more pairs")
    order = {split: np.random.default_rng(p.seed).permutation(len(inside)) for split, inside in parts.items()}
    return {split: [inside[i] for i in order[split][: sizes[split]]] for split, inside in parts.items()}


def quarters(voted: Sequence[VotedPair]) -> dict[str, int]:
    """The quarter, 0 to 3, of all domains (in alphabetical order) to which each pair belongs, by the pair's id."""
    domains = sorted({pair.domain for pair in voted})
    return {pair.id: domains.index(pair.domain) % QUARTERS for pair in voted}


def draw_labels(votes: Sequence[Votes], *, seed: int) -> list[bool | None]:
    """One rater's choice for each list of votes: True for a; a tie is drawn again, None where all are ties."""
    rng, labels = np.random.default_rng(seed), []
    for cast in votes:
        decided = [vote for vote in cast if vote in (0, 1)]
        labels.append(bool(decided[rng.integers(len(decided))]) if decided else None)
    return labels


def vote_share(votes: Votes) -> float:
    """P(a) over the valid votes, a tie half; 0.5, with which every rule gives margin 0, where there is none."""
    valid = [vote for vote in votes if vote is not None]
    return float(np.mean(valid)) if valid else 0.5


def label_pairs(
    pairs: Sequence[VotedPair], labels: Sequence[bool | None], shares: Sequence[float], rule: Callable, *, scale: float
) -> list[Pair]:
    """Each labelled pair as (chosen, rejected); strength is the share of votes for chosen, margin what `rule` makes
    of it. Pairs without a label are left out. shares: P(a), from whichever source."""
    kept = [row for row in zip(pairs, labels, shares, strict=True) if row[1] is not None]
    strengths = [p if label else 1 - p for _, label, p in kept]
    margins = rule(torch.tensor(strengths, dtype=torch.float64), scale=scale).tolist()
    return [
        Pair(pair.id, pair.prompt, *((pair.a, pair.b) if label else (pair.b, pair.a)), margin=margin, strength=strength)
        for (pair, label, _), strength, margin in zip(kept, strengths, margins, strict=True)
    ]


def real_votes(pairs: Sequence[VotedPair]) -> list[Votes]:
    """What the training half of the raters said; the label's rater is one of them."""
    return [pair.votes for pair in pairs]


def shares_by_source(pairs: Sequence[VotedPair], simulated: Mapping[str, Sequence[Votes]]) -> dict[str, list[float]]:
    """P(a) of every pair, from each source of votes: the real ones, and each voter of `simulated`.

    A voter has been asked about the first pairs only; of the others nobody knows, which is 0.5 and so no margin.
    """
    real = [vote_share(votes) for votes in real_votes(pairs)]
    known = {voter: [vote_share(votes) for votes in cast] for voter, cast in simulated.items()}
    return {"real": real} | {voter: first + [0.5] * (len(pairs) - len(first)) for voter, first in known.items()}


def rows_of_arm(
    arm: str, pairs: Sequence[VotedPair], shares: Mapping[str, Sequence[float]], *, scale: float, seed: int
) -> list[Pair]:
    """The labelled pairs of an arm: "source-rule", or "bt" (no margin) and "soft" (strengths) on the real votes.

    The labels are one rater's choices, drawn with the seed, the same for all arms.
    """
    source, _, rule = arm.partition("-")
    source = "real" if source in ("bt", "soft") else source
    if source not in shares or rule not in RULES:
        raise ValueError(f"the arm {arm!r} needs votes of {source!r} (there are {sorted(shares)}) and one of the rules "
                         f"{sorted(filter(None, RULES))}")  # fmt: skip
    return label_pairs(pairs, draw_labels(real_votes(pairs), seed=seed), shares[source], RULES[rule], scale=scale)
