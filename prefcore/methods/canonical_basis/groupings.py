"""The ways to group mentions into categories that are compared, and what a basis of each is worth to each person.

    chosen      clusters of words, merged by what they choose (signature.py)
    words       clusters of words alone
    matched     the merge of `chosen`, dealt out anew among clusters that are about as often mentioned (control)
    exact       the planted categories: the ceiling
    one         one category for everything: what over-merging is worth

A basis is the `size` most mentioned categories; `exact` keeps all of them.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prefcore.methods.canonical_basis import cluster, signature, variance
from prefcore.methods.canonical_basis.world.choices import World

WINDOW = 8  # categories next to each other in frequency, among which `matched` deals the merge out anew


def group(words: np.ndarray, merge: np.ndarray, planted: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """arm -> category [M] of each mention; words [M] clusters, merge [C] where each goes, planted [M] true ones."""
    weight = np.bincount(words, minlength=len(merge))
    return {
        "chosen": _heaviest_first(merge[words]),
        "words": _heaviest_first(words),
        "matched": _heaviest_first(deal(merge, weight, seed=seed)[words]),
        "exact": planted,
        "one": np.zeros_like(words),
    }


def deal(merge: np.ndarray, weight: np.ndarray, *, seed: int, window: int = WINDOW) -> np.ndarray:
    """The same merge [C] with its places exchanged at random among `window` neighbours in frequency, weight [C]."""
    rng, out = np.random.default_rng(seed), merge.copy()
    order = np.argsort(-weight, kind="stable")
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        out[rows] = merge[rng.permutation(rows)]
    return out


def halves(held_out: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(learns, judges) [N] bool: a random half each of the choices that are not held out."""
    coin = np.random.default_rng(seed).random(len(held_out)) < 0.5
    return ~held_out & coin, ~held_out & ~coin


def point(world: World, change: np.ndarray, category: np.ndarray) -> np.ndarray:
    """[C, D] signatures from all choices that are not held out."""
    past = np.where(world.held_out[world.owner], -1, category)
    return signature.signatures(change, world.owner, past, categories=int(category.max()) + 1)


def explain(world: World, change: np.ndarray, category: np.ndarray, *, size: int) -> np.ndarray:
    """[N] 1, -1 or 0 of each held-out choice by the `size` heaviest categories (signature.explained); else NaN."""
    there = np.where(world.held_out[world.owner] & (category < size), category, -1)
    found = signature.explained(change, world.owner, there, point(world, change, category))
    return np.where(world.held_out, found, np.nan)


def coin(world: World, change: np.ndarray, category: np.ndarray, *, size: int, draws: int, seed: int) -> np.ndarray:
    """[P] `explained` of `judge` where a coin decides each choice that makes signatures, mean over draws (placebo)."""
    rng, values = np.random.default_rng(seed), []
    for _ in range(draws):
        sign = np.where(rng.random(len(change)) < 0.5, -1.0, 1.0)
        flipped = change * np.where(world.held_out, 1.0, sign)[:, None]
        values.append(explain(world, flipped, category, size=size))
    return _mean(world.person, np.mean(values, axis=0), len(world.weights))


def majority(category: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """[C] the planted category of most of a category's mentions; category, planted [M]."""
    return count(category, planted, int(category.max()) + 1, int(planted.max()) + 1).argmax(1)


def judge(world: World, change: np.ndarray, category: np.ndarray, *, size: int, noises, parts: int,
          seed: int) -> pd.DataFrame:  # fmt: skip
    """A row a person: id, and over that person's held-out choices

    explained   mean of 1 (the basis names the winner), -1 (the loser) and 0 (neither)
    recovered   share of mentions in a category whose planted partner, matched one to one on the past, is their own
    mass        share of mentions in the basis
    variance    share of the spread over people of what is mentioned, by planted category, that the basis foretells from
                the person's past (variance.future); divided by the mean spread, so that its mean is the share
    """
    people, planted = len(world.weights), world.phrase_category[world.phrase]
    future = world.held_out[world.owner]
    who, kept = world.person[world.owner], min(size, int(category.max()) + 1)
    partner = cluster.match(category[~future], planted[~future], np.ones((~future).sum()))
    right = np.array([partner.get(c, -1) for c in range(int(category.max()) + 1)])[category] == planted
    target = _shares(who[future], planted[future], people, int(world.phrase_category.max()) + 1)
    known = _shares(who[~future], category[~future], people, int(category.max()) + 1)[:, :kept]
    share = variance.future(known, target, parts=parts, noises=noises, seed=seed)
    return pd.DataFrame({
        "id": [f"person {n}" for n in range(people)],
        "explained": _mean(world.person, explain(world, change, category, size=size), people),
        "recovered": _mean(who[future], right[future], people),
        "mass": _mean(who[future], (category < size)[future], people),
        "variance": share.covered / share.total.mean(),
    })  # fmt: skip


def strangers(world: World, category: np.ndarray, *, size: int, noises, parts: int, seed: int) -> np.ndarray:
    """[P] `variance` of `judge` where each person's past is that of another (placebo)."""
    people, planted = len(world.weights), world.phrase_category[world.phrase]
    future, who = world.held_out[world.owner], world.person[world.owner]
    known = _shares(who[~future], category[~future], people, int(category.max()) + 1)[:, :size]
    target = _shares(who[future], planted[future], people, int(world.phrase_category.max()) + 1)
    order = np.random.default_rng(seed).permutation(people)
    share = variance.future(known[order], target, parts=parts, noises=noises, seed=seed)
    return share.covered / share.total.mean()


def by_topic(world: World, values: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A row a topic: the mean of each arm's values [N] (NaN left out) over its choices, and how many there are."""
    rows = []
    for topic in range(int(world.topic.max()) + 1):
        here = world.topic == topic
        means = {arm: np.nanmean(value[here]) for arm, value in values.items()}
        rows.append({"topic": topic, "choices": int((here & world.held_out).sum())} | means)
    return pd.DataFrame(rows)


def count(owner: np.ndarray, category: np.ndarray, owners: int, categories: int) -> np.ndarray:
    """[owners, categories] mentions; owner [M] and category [M] of each mention, category -1 (none) left out."""
    if owner.shape != category.shape:
        raise ValueError(f"expected owner [M], category [M]; got {owner.shape}, {category.shape}")
    inside = category >= 0
    out = np.zeros((owners, categories))
    np.add.at(out, (owner[inside], category[inside]), 1)
    return out


def _shares(who: np.ndarray, category: np.ndarray, people: int, kinds: int) -> np.ndarray:
    counts = count(who, category, people, kinds)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _mean(who: np.ndarray, values: np.ndarray, people: int) -> np.ndarray:
    """[P] mean of values [n] over each person's rows, NaN ones left out."""
    there = ~np.isnan(values.astype(float))
    sums = np.bincount(who[there], weights=values[there].astype(float), minlength=people)
    return sums / np.maximum(np.bincount(who[there], minlength=people), 1)


def _heaviest_first(category: np.ndarray) -> np.ndarray:
    label = np.unique(category, return_inverse=True)[1]
    return np.argsort(np.argsort(-np.bincount(label), kind="stable"))[label]
