"""Labels and votes of the training pairs: one rater's choice is the label, the share of all votes its strength.

An arm says which votes it reads and what it makes of them: "abs" a margin from people's votes, "judge-abs" the same
from the judge's, "abs-shuffled" people's margins dealt out to other pairs, "bt-few" a part of the pairs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from prefcore.data.types import Pair, Parameters
from prefcore.methods.margin_rm import losses
from prefcore.scoring.votes import VotedPair

Votes = tuple[float | None, ...]  # 1 prefers a, 0 prefers b, 0.5 a tie, None a vote that failed; a judge's are between
RULES = {  # what an arm makes of the share of votes for the label's choice; a weight is the released margin at scale 1
    "bt": losses.margin_none, "abs": losses.margin_abs, "signed": losses.margin_signed, "scaled": losses.margin_abs,
    "soft": losses.margin_none, "ordinal": losses.margin_none,
}  # fmt: skip
QUARTERS = 4  # parts of the domains, each left out in turn


def choose(voted: Sequence[VotedPair], p: Parameters) -> dict[str, list[VotedPair]]:
    """Pairs by split (train, validation, test): `pool_pairs`, `validation_pairs` and `test_pairs` of each, at random.

    No two pairs to measure on share a text, as they are units: of those that do the first is kept, the rest counted.
    """
    sizes = {"train": p.pool_pairs, "validation": p.validation_pairs, "test": p.test_pairs}
    chosen = {}
    for split, size in sizes.items():
        inside = [pair for pair in voted if pair.split == split]
        if not inside:
            raise ValueError(f"no pair of {len(voted)} falls into the {split} part: give more pairs")
        mixed = [inside[i] for i in np.random.default_rng(p.seed).permutation(len(inside))]
        apart = mixed if split == "train" else share_no_text(mixed)
        if len(apart) < len(mixed):
            print(f"{split}: {len(apart)} of {len(mixed)} pairs share no text with another; the rest is left out")
        chosen[split] = apart[:size]
    return chosen


def share_no_text(pairs: Sequence[VotedPair]) -> list[VotedPair]:
    """The pairs, in order, of which no text has been in one that is kept."""
    seen, kept = set(), []
    for pair in pairs:
        if seen.isdisjoint((pair.a, pair.b)):
            seen |= {pair.a, pair.b}
            kept.append(pair)
    return kept


def quarters(voted: Sequence[VotedPair]) -> dict[str, int]:
    """The quarter, 0 to 3, of all domains (in alphabetical order) to which each domain belongs."""
    return {domain: i % QUARTERS for i, domain in enumerate(sorted({pair.domain for pair in voted}))}


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


def shares_by_source(pairs: Sequence[VotedPair], simulated: Mapping[str, Sequence[Votes]]) -> dict[str, list[float]]:
    """P(a) of the pairs from each source of votes: "real", the training half of the raters, and each simulated voter.

    A voter has been asked about the first pairs only; its list ends there.
    """
    cast = {"real": [pair.votes for pair in pairs]} | dict(simulated)
    return {source: [vote_share(votes) for votes in given] for source, given in cast.items()}


def rows_of_arm(
    arm: str,
    pool: Sequence[VotedPair],
    shares: Mapping[str, Sequence[float]],
    *,
    size: int,
    few: float,
    scale: float,
    seed: int,
) -> list[Pair]:
    """The training rows of an arm: (chosen, rejected) with the strength, P(chosen), and the margin by its rule.

    The seed draws `size` pairs of the pool (all, where it is smaller) and one rater's choice for each: the same for all
    arms. Pairs with nothing but ties have no label and are left out. "-few" keeps the first share `few` of the pairs.
    """
    source, rule, change = read_arm(arm, shares)
    drawn = np.random.default_rng([seed, 0]).permutation(len(pool))[:size]
    if drawn.max() >= len(shares[source]):
        asked = f"{len(shares[source])} of {len(pool)} pairs have votes of {source!r}"
        raise ValueError(f"the arm {arm!r} needs all of them: {asked}; raise judged_pairs or leave the arm out")
    labels = draw_labels([pool[i].votes for i in drawn], seed=seed)
    kept = [(pool[i], label, shares[source][i]) for i, label in zip(drawn, labels, strict=True) if label is not None]
    kept = kept[: max(1, round(few * len(kept)))] if change == "few" else kept
    strengths = [p if label else 1 - p for _, label, p in kept]
    margins = RULES[rule](torch.tensor(strengths, dtype=torch.float64), scale=scale if rule != "scaled" else 1.0)
    if change == "shuffled":
        margins = margins[np.random.default_rng([seed, 1]).permutation(len(kept))]
    return [
        Pair(pair.id, pair.prompt, *((pair.a, pair.b) if label else (pair.b, pair.a)), margin=margin, strength=strength)
        for (pair, label, _), strength, margin in zip(kept, strengths, margins.tolist(), strict=True)
    ]


def read_arm(arm: str, sources: Mapping[str, Sequence]) -> tuple[str, str, str]:
    """(source of votes, rule, "", "few" or "shuffled") of an arm's name; ValueError for a name that says none."""
    front, _, rest = arm.rpartition("judge-")
    rule, _, change = rest.partition("-")
    source = "judge" if arm.startswith("judge-") else "real"
    if front or rule not in RULES or change not in ("", "few", "shuffled") or source not in sources:
        raise ValueError(f"the arm {arm!r} needs votes of {source!r} (there are {sorted(sources)}), one of the rules "
                         f"{sorted(RULES)}, and nothing after it but -few or -shuffled")  # fmt: skip
    return source, rule, change
