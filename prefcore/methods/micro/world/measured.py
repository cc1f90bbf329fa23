"""Worlds of measured criteria: texts and criteria are real, and how often a criterion judges is made up.

`prompted`: the prompt predicts the criterion, as in HelpSteer2 some prompts ask for what is short and some for what is
right. `released`: each pair under two criteria that disagree on it, and the criterion stands in the text that heads
and router read, as the released code of MiCRo prepares RPR.
"""

from collections.abc import Sequence

import numpy as np

from prefcore.methods.micro.criteria import DOMAINS, Contexts, Pool, find_opinions
from prefcore.methods.micro.population import Population, draw_shares


def prompted(pool: Pool, pairs: np.ndarray, names: Sequence[str], gap: float) -> Population:
    """Each pair judged by one of the criteria that have an opinion on it, with the shares of its domain.

    Pairs on which no criterion has an opinion are left out: fewer may come back than went in.
    """
    said = find_opinions(pool, pairs, names, gap)
    able = np.abs(said).sum(1) > 0
    pairs, said = pairs[able], said[able]
    domain = pool.domain[pairs[:, 0]]
    shares = draw_shares(len(DOMAINS), len(names), 0)[domain] * np.abs(said)
    gaps = pool.vectors[pairs[:, 0]] - pool.vectors[pairs[:, 1]]
    return Population(lambda pair, name: gaps[pair], domain, shares / shares.sum(1, keepdims=True), (said > 0) * 1.0)


def released(
    pool: Pool, asked: np.ndarray, pairs: np.ndarray, names: Sequence[str], gap: float, seed: int
) -> Population:  # fmt: skip
    """Each pair judged by one of two criteria that disagree on it; pairs without such criteria are left out.

    asked [N,A,D]: the vector of each text after the sentence that asks for a criterion.
    """
    said, rng = find_opinions(pool, pairs, names, gap), np.random.default_rng(seed)
    able = (said.max(1) > 0) & (said.min(1) < 0)
    pairs, said = pairs[able], said[able]
    luck, shares = rng.random(said.shape), np.zeros(said.shape)
    for sign in (1, -1):
        shares[np.arange(len(said)), np.where(said == sign, luck, -1).argmax(1)] = 0.5
    return Population(
        lambda pair, name: asked[pairs[pair, 0], name] - asked[pairs[pair, 1], name],
        pool.domain[pairs[:, 0]], shares, (said > 0) * 1.0,
    )  # fmt: skip


def ask_in_prompt(contexts: Contexts) -> Contexts:
    """Contexts whose prompt holds the criterion already, in the first of its wordings."""
    return contexts._replace(prompt=contexts.seen[:, 0])
