"""Labels that are wrong: by nature, as an automatic answer is right in other words, or on purpose."""

from collections.abc import Sequence

import numpy as np

from prefcore.data.types import Example
from prefcore.methods.napo.negatives import KINDS


def mix(examples: Sequence[Example], share: float, size: int, seed: int) -> list[Example]:
    """The examples with exactly `size` automatic pairs of each kind, a `share` of them noise; the others are left out.

    Rows, clean pairs and the number of automatic ones are the same for every share, and of two shares the one's noise
    is among the other's. ValueError where there are not so many pairs.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of noise must be in [0, 1]; got {share}")
    out = list(examples)
    for place, kind in enumerate(KINDS):
        order = np.random.default_rng([seed, place]).permutation(len(out))
        kept: set[int] = set()
        for right, wanted in ((1.0, round(share * size)), (0.0, size - round(share * size))):
            found = [i for i in order if out[i].columns[kind] and out[i].columns[f"{kind}_right"] == right]
            if len(found) < wanted:
                what = "right in other words" if right else "wrong"
                raise ValueError(
                    f"noise of {share:g} among {size} {kind}-biased pairs takes {wanted} that are {what}, but there "
                    f"are {len(found)}: lower automatic_pairs, or give more preference_rows"
                )
            kept.update(found[:wanted])
        out = [e._replace(columns={**e.columns, kind: e.columns[kind] * (i in kept)}) for i, e in enumerate(out)]
    return out


def turn(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples with half of the automatic pairs of each kind, drawn, labelled the wrong way round (-1): they then
    carry no information (placebo).
    """
    rng, out = np.random.default_rng(seed), list(examples)
    for kind in KINDS:
        there = [i for i, example in enumerate(out) if example.columns[kind]]
        for i in rng.permutation(there)[: len(there) // 2]:
            out[i] = out[i]._replace(columns={**out[i].columns, kind: -out[i].columns[kind]})
    return out
