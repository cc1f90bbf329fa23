"""Labels that are wrong on purpose: a drawn share of the pairs is turned round."""

from collections.abc import Sequence

import numpy as np

from prefcore.data.types import Example


def flip(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """The examples with a `share` of the language pairs, and of the vision pairs, labelled the wrong way round (-1)."""
    if not 0 <= share < 1:
        raise ValueError(f"the share of flipped labels must be in [0, 1); got {share}")
    rng, out = np.random.default_rng(seed), list(examples)
    for name in ("language", "vision"):
        there = [i for i, example in enumerate(out) if example.columns[name]]
        for i in rng.permutation(there)[: round(share * len(there))]:
            out[i] = out[i]._replace(columns={**out[i].columns, name: -out[i].columns[name]})
    return out


def swap(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Pairs of texts of which a `share`, drawn, has its two answers the wrong way round."""
    out = list(examples)
    for i in np.random.default_rng(seed).permutation(len(out))[: round(share * len(out))]:
        out[i] = out[i]._replace(completions=out[i].completions[::-1])
    return out
