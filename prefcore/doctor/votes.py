"""What single votes say about people: how often they differ, and whether some people differ from the rest."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import chi2

from prefcore.doctor import finding
from prefcore.doctor.finding import Finding
from prefcore.scoring import metrics

COMMON = 5  # pairs that two people have both judged
COUPLES = 10
SPLIT = 0.25  # a minority of this size makes a pair disputed


def disagreement(votes: Sequence[Sequence[float]]) -> Finding:
    """Share of disputed pairs, of those with four votes or more."""
    known = [np.mean(cast) for cast in votes if len(cast) >= 4]
    if len(known) < 2:
        return finding.count("disagreement", len(known), "hardly any pair has four votes or more.")
    disputed = metrics.bootstrap_interval([float(SPLIT <= share <= 1 - SPLIT) for share in known], seed=0)
    says = f"in a share of {finding.in_words(disputed)} of the pairs a quarter of the votes or more is the minority."
    do = "run margin_rm and autoraters: they learn how far people agree" if disputed.low > 0.1 else ""
    return Finding("disagreement", *disputed, says, False, do)


def people(votes: Sequence[Sequence[float]], names: Sequence[Sequence[str]]) -> Finding:
    """Whether some people agree more with each other than other people do, beyond what chance would give.

    Each couple of people with COMMON pairs or more has a rate of agreement on them (ties left out). The number is the
    spread of these rates that few votes do not explain; the test is a chi-square of equal rates. Two camps of any size
    are seen, as people of one camp agree and people of two do not.
    """
    agreed: dict[tuple[str, str], list[bool]] = {}
    for cast, who in zip(votes, names, strict=True):
        clear = [(name, vote > 0.5) for name, vote in sorted(zip(who, cast, strict=True)) if vote != 0.5]
        for (first, side), (second, other) in combinations(clear, 2):
            agreed.setdefault((first, second), []).append(side == other)
    kept = [np.array(sides) for sides in agreed.values() if len(sides) >= COMMON]
    if len(kept) < COUPLES:
        says = f"{len(kept)} couples of people have judged {COMMON} pairs or more both: too few to tell people apart."
        return finding.count("people", len(kept), says)
    counts, rates = (np.array([f(sides) for sides in kept]) for f in (len, np.mean))
    rate = float((counts * rates).sum() / counts.sum())
    own = rate * (1 - rate) / counts
    chance = float(chi2.sf(((rates - rate) ** 2 / own).sum(), len(kept) - 1)) if 0 < rate < 1 else 1.0
    spread = float(np.sqrt(max(0.0, rates.var(ddof=1) - own.mean())))
    warns = chance < 0.01
    says = (f"{len(kept)} couples of people agree in {rate:.0%} of the pairs that both have judged; their rates differ "
            f"by {spread:.2f} beyond chance (p {chance:.2g}).")  # fmt: skip
    return finding.count("people", len(kept), says, warns=warns, do="run micro: people differ" if warns else "")
