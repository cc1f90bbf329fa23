"""From thousands of phrases to clusters of words: normalise, drop duplicates, cluster embeddings, merge, name.

Reconstruction of arXiv 2503.24150: how the paper clusters is unknown to us. Here: agglomerative clustering with average
linkage, d(A, B) = mean over a in A, b in B of 1 - cos(a, b), cut at a distance that the mean silhouette chooses (no
label is used), then clusters whose centres are closer than a cosine of `threshold` are merged, the closest first.
What words cannot tell, that "few words" and "no padding" are one wish, is signature.py's matter.

Departs from the paper: all of it is ours; no language model names or merges clusters, a cluster is named by its medoid.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import silhouette_score

ARTICLES = {"a", "an", "the"}
OPENINGS = re.compile(r"^(?:(?:they |he |she |i |we |it |reader |person )?(?:prefer(?:s|red)?|preference for)|more) ")


class Categories(NamedTuple):
    """label [n] of each phrase, 0 the most frequent; centres [C, H] of unit length; names [C], a phrase each."""

    label: np.ndarray
    centres: np.ndarray
    names: list[str]


class Mentions(NamedTuple):
    """phrases [n], distinct; of [M] the phrase of each mention; weight [n] its mentions."""

    phrases: list[str]
    of: np.ndarray
    weight: np.ndarray


class Clusters(NamedTuple):
    """What `find` went by and found: silhouette of each cut, and the cut."""

    mentions: Mentions
    silhouette: dict[float, float]
    cut: float
    found: Categories

    @property
    def category(self) -> np.ndarray:
        """[M] the cluster of each mention."""
        return self.found.label[self.mentions.of]


def find(phrases: Sequence[str], mentioned: np.ndarray, embed: Callable, *, cuts: Sequence[float], threshold: float,
         sample: int, seed: int) -> Clusters:  # fmt: skip
    """Normalise, embed, cluster, merge and name the phrases that are mentioned; see `condense` for the first three.

    embed(list of texts) -> [n, H] of unit length; sample: phrases on which a cut is judged.
    """
    mentions = condense(phrases, mentioned)
    vectors = embed(mentions.phrases)
    steps = tree(vectors)
    silhouette = choose_cut(steps, vectors, cuts=cuts, sample=sample, seed=seed)
    cut = max((c for c in cuts if not np.isnan(silhouette[c])), key=silhouette.get)
    found = group(steps, vectors, mentions.phrases, mentions.weight, cut=cut, threshold=threshold)
    return Clusters(mentions, silhouette, cut, found)


def normalise(phrase: str) -> str:
    """Lower case, letters and digits only, without articles and "prefers", plural s off; never empty if phrase is not.

    So that "Prefers the shorter answers." and "shorter answer" are one phrase.
    """
    text = re.sub(r"[^\w\s]|_", " ", phrase.lower().replace("'", ""))
    words = [word for word in text.split() if word not in ARTICLES]
    short = OPENINGS.sub("", " ".join(words) + " ").split()
    return " ".join(_singular(word) for word in (short or words)) or phrase.strip().lower()


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def distinct(phrases: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """(distinct normalised phrases in order of appearance, [n] which of them each phrase is)."""
    place: dict[str, int] = {}
    index = [place.setdefault(normalise(phrase), len(place)) for phrase in phrases]
    return list(place), np.array(index)


def condense(phrases: Sequence[str], mentioned: np.ndarray) -> Mentions:
    """The phrases that are mentioned ([M]), normalised and without duplicates."""
    used, back = np.unique(mentioned, return_inverse=True)
    kept, place = distinct([phrases[i] for i in used])
    return Mentions(kept, place[back], np.bincount(place[back], minlength=len(kept)).astype(float))


def tree(vectors: np.ndarray) -> np.ndarray:
    """The whole agglomeration of unit vectors [n, H]: average linkage on cosine distance, scipy's [n - 1, 4]."""
    _check_unit(vectors)
    if len(vectors) < 3:
        raise ValueError(f"{len(vectors)} distinct phrases are too few to cluster")
    distance = np.clip(1 - vectors @ vectors.T, 0, 2).astype(np.float64)
    return linkage(distance[np.triu_indices(len(vectors), 1)], method="average")


def choose_cut(steps: np.ndarray, vectors: np.ndarray, *, cuts: Sequence[float], sample: int, seed: int) -> dict:
    """cut -> mean silhouette (of at most `sample` phrases), NaN where a cut leaves one cluster or none with two."""
    out = {}
    for cut in cuts:
        label = fcluster(steps, cut, criterion="distance")
        kinds = len(set(label))
        size = min(sample, len(vectors))
        pick = np.random.default_rng(seed).permutation(len(vectors))[:size]
        inside = len(set(label[pick]))
        usable = kinds > 1 and 1 < inside < size
        out[cut] = float(silhouette_score(vectors[pick], label[pick], metric="cosine")) if usable else float("nan")
    if all(np.isnan(value) for value in out.values()):
        raise ValueError(f"none of the cuts {list(cuts)} gives several clusters with several phrases: widen them")
    return out


def group(steps: np.ndarray, vectors: np.ndarray, phrases: Sequence[str], weight: np.ndarray, *, cut: float,
          threshold: float) -> Categories:  # fmt: skip
    """Clusters at the cut, merged where centres are alike, named, the heaviest first. weight [n]: mentions of each."""
    label = merge(fcluster(steps, cut, criterion="distance") - 1, vectors, weight, threshold=threshold)
    heavy = np.argsort(-np.bincount(label, weights=weight), kind="stable")
    label = np.argsort(heavy)[label]
    middle = centres(label, vectors, weight)
    names = []
    for c in range(len(middle)):
        members = np.flatnonzero(label == c)
        names.append(phrases[members[(vectors[members] @ middle[c]).argmax()]])
    return Categories(label, middle, names)


def merge(label: np.ndarray, vectors: np.ndarray, weight: np.ndarray, *, threshold: float) -> np.ndarray:
    """Labels after the two clusters with the closest centres became one, again and again while cosine >= threshold."""
    label = np.unique(label, return_inverse=True)[1]
    sums = _sums(label, vectors, weight)
    home, alive = np.arange(len(sums)), np.ones(len(sums), bool)
    units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    close = units @ units.T
    np.fill_diagonal(close, -2)
    while alive.sum() > 1 and close.max() >= threshold:
        a, b = sorted(divmod(int(close.argmax()), len(sums)))
        sums[a] += sums[b]
        home[home == b], alive[b] = a, False
        units[a] = sums[a] / np.linalg.norm(sums[a])
        row = np.where(alive, units @ units[a], -2)
        row[a] = -2
        close[a], close[:, a], close[b], close[:, b] = row, row, -2, -2
    return np.unique(home[label], return_inverse=True)[1]


def centres(label: np.ndarray, vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean [C, H] of each cluster's phrases, at unit length."""
    sums = _sums(label, vectors, weight)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def match(label: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> dict[int, int]:
    """cluster -> true category, one to one, so that the weight [n] of phrases on which they agree is greatest.

    Hungarian method on overlaps; clusters (or categories) that are too many stay without a partner.
    """
    overlap = np.zeros((label.max() + 1, truth.max() + 1))
    np.add.at(overlap, (label, truth), weight)
    rows, columns = linear_sum_assignment(-overlap)
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0}


def _sums(label: np.ndarray, vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sum [C, H] of each cluster's phrases."""
    sums = np.zeros((label.max() + 1, vectors.shape[1]))
    np.add.at(sums, label, vectors * np.maximum(weight, 1e-9)[:, None])
    return sums


def _check_unit(vectors: np.ndarray) -> None:
    length = np.linalg.norm(vectors, axis=1)
    if np.abs(length - 1).max() > 1e-3:
        raise ValueError(f"vectors must be of unit length; the first that is not has length {length[0]:.3g}")
