"""Transfer: does training on the choices that one preference explains move a policy towards that preference?

Subsets of the planted choices become pairs to train on; every policy then writes texts from the same starts with the
same random numbers, and the traits of what it wrote are measured.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Pair
from prefcore.engine import collate, sample
from prefcore.methods.canonical_basis.world.choices import World
from prefcore.methods.canonical_basis.world.traits import NAMES, Scale
from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval


def holders(meaning: np.ndarray, *, count: int) -> dict[str, int]:
    """trait -> the first category whose name means it, for the first `count` traits that meaning [C] holds."""
    traits = list(dict.fromkeys(meaning.tolist()))[:count]
    return {NAMES[j]: int(np.flatnonzero(meaning == j)[0]) for j in traits}


def draw_subsets(mentioned: np.ndarray, categories: Mapping[str, int], *, size: int, seed: int,
                 controls: Sequence[str]) -> dict[str, np.ndarray]:  # fmt: skip
    """name -> `size` random choices that mention its category, mentioned [N, C]; and the controls that are asked for.

    "random": as many of all choices; "all": as many as all subsets have together.
    """
    mixed = np.random.default_rng(seed).permutation(len(mentioned))
    own = {name: mixed[mentioned[mixed, c]][:size] for name, c in categories.items()}
    others = {"random": mixed[:size], "all": mixed[: size * len(categories)]}
    return own | {name: rows for name, rows in others.items() if name in controls}


def make_pairs(world: World, rows: np.ndarray) -> list[Pair]:
    """These choices as pairs to train on: the winner's whole text after its domain's name."""
    out = []
    for i, winner, loser in zip(rows.tolist(), world.winner[rows], world.loser[rows], strict=True):
        better, worse = world.texts[winner], world.texts[loser]
        out.append(Pair(f"planted:{i}", f"{better.domain}:", f" {better.text}", f" {worse.text}"))
    return out


def write(tokenizer, policy, starts: Sequence[str], scale: Scale, *, arm: str, tokens: int, seed: int) -> pd.DataFrame:
    """What a policy writes after each start, and its 24 traits in standard scores of the world's texts.

    Columns: arm, seed, id, prompt, text, then the traits by name. One text a row, the same random numbers for any arm.
    """
    ids = [collate.encode_prompt(start, tokenizer) for start in starts]
    texts = [s.text for s in sample.sample(policy, tokenizer, ids, max_new_tokens=tokens, seed=seed)]
    frame = pd.DataFrame({"arm": arm, "seed": seed, "id": range(len(ids)), "prompt": starts, "text": texts})
    return frame.assign(**dict(zip(NAMES, scale.standard(texts).T, strict=True)))


def gain(written: pd.DataFrame, arm: str, trait: str, *, seed: int) -> Interval:
    """Mean change of a trait from the reference's texts to the arm's, text by text, in standard scores."""
    wide = written.pivot(index="id", columns="arm", values=trait)
    return metrics.paired_difference(wide[arm], wide["reference"], seed=seed)


def own_gain(written: pd.DataFrame, arms: Sequence[str], *, seed: int) -> Interval:
    """Mean over the arms, each named like the trait it should move, of that trait's lead over the arm "random"."""
    tables = [written.pivot(index="id", columns="arm", values=trait) for trait in arms]
    leads = [table[trait] - table["random"] for trait, table in zip(arms, tables, strict=True)]
    return metrics.bootstrap_interval(np.mean(leads, axis=0), seed=seed)
