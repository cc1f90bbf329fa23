"""Voted pairs: two texts and the individual votes on them, from the default data or from a file.

In the default data raters are not linked across texts, so a vote compares one rater's score of A with the score of B by
an independent rater. The raters of each text are split in halves: one half makes the votes to learn from, the other
half is the truth.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import files, ratings
from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.scoring import judge

STRATA = ("clear", "indistinguishable", "plural")
NEAR_MEANS = 0.5  # rating points: "near-equal means" of an indistinguishable pair
CLEAR_GAP = 1.0  # rating points: means of a clear pair differ by at least that much
USES = {"train": 4, "validation": 1, "test": 1}  # pairs of one text; pairs to measure on are units, so they share none
DRAWN = 60  # random pairs of two texts that are looked through for each pair that is wanted


class VotedPair(NamedTuple):
    """Two texts, and what people said of them: 1 prefers a, 0 prefers b, 0.5 a tie.

    votes are to learn from, truth is held out: other raters of the default data, and empty where a file has one list
    of votes. share is P(a is preferred) by the truth's raters (of all votes, where there is no truth), in [0, 1].
    voters names who cast each of `votes`; empty where nobody knows.
    """

    id: str
    prompt: str
    a: str
    b: str
    votes: tuple[float, ...]
    truth: tuple[float, ...]
    share: float
    domain: str
    stratum: str
    split: str
    voters: tuple[str, ...] = ()


def prepare(p: Parameters, build: Path) -> None:
    """texts.jsonl -> voted.jsonl and metrics/<profile>/voted.json: a stage of its own."""
    device = models.choose_device(p.device, p.threads)
    texts = ratings.read_texts(build / "texts.jsonl")
    tokenizer, encoder = models.load_encoder(p.encoder, device=device)
    pairs, counts = [], {}
    for split in ("train", "validation", "test"):
        pool = ratings.choose(texts, p.voted_texts[split], p.seed + 2, split=split)
        vectors = models.embed([t.text for t in pool], encoder, tokenizer)
        how = {"uses": USES[split], "quantile": p.similar_quantile, "seed": p.seed + 4}  # a pilot has seen those of 0
        found, counts[split] = choose_pairs(pool, vectors, p.voted_pairs[split], **how)
        pairs += found
    files.write_lines(pairs, build / "voted.jsonl")
    files.write_metrics(counts, p.profile, "voted")


def choose_pairs(
    texts: Sequence[ratings.Text], vectors: np.ndarray, size: int, *, uses: int, quantile: float, seed: int
) -> tuple[list[VotedPair], dict]:
    """(about `size` pairs of one split, a third of each stratum where there are enough; how many were found of each).

    Pairs are two texts of one domain. indistinguishable: similarity of the embeddings (unit length) at or above the
    `quantile` of all pairs of the domain, and means at most 0.5 points apart. plural: the highest third of rater
    disagreement (mean standard deviation of the two lists) among the others. clear: means at least 1 point apart, of
    what is then left. Means and disagreement are those of the training half of the raters. No text is in more than
    `uses` pairs; the stratum with the least room chooses first.
    """
    rng = np.random.default_rng([seed, len(texts)])
    halves = [halve(t.ratings, rng) for t in texts]
    candidates = _candidates(texts, vectors, quantile, rng, DRAWN * size)
    mean = np.array([np.mean(votes) for votes, _ in halves])
    spread = np.array([np.std(votes) for votes, _ in halves])
    kinds = _strata(candidates, mean, spread)
    same = np.unique([t.text for t in texts], return_inverse=True)[1]  # a few texts are in the data twice
    chosen, used = [], np.zeros(len(texts), int)
    counts: dict = {"similarity_at_quantile": candidates.cuts, "candidates": {}}
    for stratum in ("indistinguishable", "plural", "clear"):
        inside = [k for k in rng.permutation(len(kinds)) if kinds[k] == stratum]
        counts["candidates"][stratum] = len(inside)
        taken = []
        for k in inside:
            i, j = candidates.pairs[k]
            ends = same[[i, j]]
            if ends[0] != ends[1] and used[ends].max() < uses and len(taken) < size // len(STRATA):
                used[ends] += 1
                taken.append(_voted(texts, halves, i, j, stratum, rng))
        chosen += taken
        counts[stratum] = len(taken)
    return [chosen[k] for k in rng.permutation(len(chosen))], counts


class Candidates(NamedTuple):
    """pairs [n, 2] of positions; similar [n]: at or above the cut of their domain; cuts: that similarity by domain."""

    pairs: np.ndarray
    similar: np.ndarray
    cuts: dict[str, float]


def _candidates(texts, vectors, quantile: float, rng, size: int) -> Candidates:
    """All pairs of a domain at or above the quantile of similarity, and `size` random ones of all domains."""
    pairs, similar, cuts = [], [], {}
    for domain in ratings.COUNTS:
        here = np.array([i for i, t in enumerate(texts) if t.domain == domain], dtype=int)
        if len(here) < 4:
            raise ValueError(f"{len(here)} texts of {domain} are too few for pairs: raise the number of texts")
        first, second = np.triu_indices(len(here), 1)
        close = (vectors[here] @ vectors[here].T)[first, second]
        cuts[domain] = float(np.quantile(close, quantile))
        near = close >= cuts[domain]
        drawn = rng.choice(len(first), size=min(len(first), size * len(here) // len(texts)), replace=False)
        picked = np.union1d(np.flatnonzero(near), drawn)
        pairs.append(np.stack([here[first[picked]], here[second[picked]]], 1))
        similar.append(near[picked])
    return Candidates(np.concatenate(pairs), np.concatenate(similar), cuts)


def _strata(candidates: Candidates, mean: np.ndarray, spread: np.ndarray) -> list[str]:
    """The stratum of each candidate, "" for those of none."""
    a, b = candidates.pairs.T
    gap = np.abs(mean[a] - mean[b])
    alike, apart = candidates.similar & (gap <= NEAR_MEANS), ~candidates.similar
    disagreement = (spread[a] + spread[b]) / 2
    plural = apart & (disagreement > np.quantile(disagreement[apart], 2 / 3))
    clear = apart & ~plural & (gap >= CLEAR_GAP)
    return np.select([alike, plural, clear], [STRATA[1], STRATA[2], STRATA[0]], default="").tolist()


def _voted(texts, halves, i: int, j: int, stratum: str, rng) -> VotedPair:
    a, b = (i, j) if rng.random() < 0.5 else (j, i)
    votes, truth = (compare(halves[a][side], halves[b][side], rng) for side in (0, 1))
    share = round(judge.share_preferring(halves[a][1], halves[b][1]), 6)
    first, second = texts[a], texts[b]
    return VotedPair(
        f"{first.id}|{second.id}", "", first.text, second.text, votes, truth, share, first.domain, stratum, first.split
    )


def halve(scores: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(training raters' scores, held-out raters' scores): a random half each; every rater is in one of the two."""
    mixed = rng.permutation(np.asarray(scores))
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def compare(a: Sequence[int], b: Sequence[int], rng: np.random.Generator) -> tuple[float, ...]:
    """Votes of paired raters, each used once: 1 where the score of a is higher, 0.5 where the two are equal."""
    n = min(len(a), len(b))
    difference = rng.permutation(np.asarray(a))[:n] - rng.permutation(np.asarray(b))[:n]
    return tuple(((np.sign(difference) + 1) / 2).tolist())


def read(path: Path) -> list[VotedPair]:
    """What `prepare` wrote."""
    lists = ("votes", "truth", "voters")
    return [VotedPair(**row | {name: tuple(row[name]) for name in lists}) for row in files.read_lines(path)]


def swap(pair: VotedPair) -> VotedPair:
    """The same pair seen the other way round; doing it twice gives the pair back."""
    return pair._replace(
        a=pair.b, b=pair.a, share=1 - pair.share,
        votes=tuple(1 - v for v in pair.votes), truth=tuple(1 - v for v in pair.truth),
    )  # fmt: skip
