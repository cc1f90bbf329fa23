"""Real texts under criteria that contradict each other, every one of them measured on the text or by its raters.

Nothing is guessed: a criterion prefers a text because a number is larger (`MEASURES` has the formulas). Each has
several wordings, some held out. Nothing here is made up; what is stands in world/.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.data import ratings

DOMAINS = tuple(ratings.COUNTS)
SPLITS = ("train", "validation", "test")
MEASURES = {
    "rating": "mean of all human ratings",
    "agreement": "- standard deviation of the human ratings",
    "length": "number of words",
    "plainness": "- letters / words",
    "punctuation": "characters that are no letter, digit or space / characters that are no space",
    "person": "words among I, me, my, mine, we, us, our, you, your / words",
}
PERSONS = {"i", "me", "my", "mine", "we", "us", "our", "you", "your"}
SEEN = 4  # of the six phrases of a quality; the other two are never trained on
FRAMES = ("Which text is {}?", "Prefer the text that is {}.", "I want a text that is {}.", "Criterion: it is {}.")
QUALITIES = {  # name: (measure, direction, phrases)
    "positive": ("rating", 1, ("more positive", "more enthusiastic", "fuller of praise", "happier with its subject",
                               "more approving", "kinder in its judgement")),
    "negative": ("rating", -1, ("more negative", "more disappointed", "fuller of complaints",
                                "angrier with its subject", "more disapproving", "harsher in its judgement")),
    "agreed": ("agreement", 1, ("easier to agree about", "clear in its feeling to every reader", "rated alike by all",
                                "less ambiguous in its mood", "read the same way by everyone", "beyond dispute")),
    "long": ("length", 1, ("longer", "made of more words", "more extended", "less brief", "wordier", "of more length")),
    "plain": ("plainness", 1, ("written in shorter words", "plainer in its words", "made of simple words",
                               "free of long words", "in everyday vocabulary", "easy in its vocabulary")),
    "punctuated": ("punctuation", 1, ("fuller of punctuation", "richer in commas and exclamation marks",
                                      "made of more punctuation marks", "dotted with signs and symbols",
                                      "busy with punctuation", "heavy with dashes, quotes and dots")),
    "personal": ("person", 1, ("more personal", "about I and you", "said in the first person", "spoken from me to you",
                               "close to its speaker", "full of I, my and we")),
    "disputed": ("agreement", -1, ("harder to agree about", "unclear in its feeling", "rated differently by many",
                                   "more ambiguous in its mood", "read in different ways", "open to dispute")),
    "short": ("length", -1, ("shorter", "made of fewer words", "more concise", "briefer", "less wordy",
                           "of less length")),
    "learned": ("plainness", -1, ("written in longer words", "more learned in its words", "made of difficult words",
                                  "full of long words", "in academic vocabulary", "hard in its vocabulary")),
    "bare": ("punctuation", -1, ("emptier of punctuation", "poorer in commas and exclamation marks",
                                 "made of fewer punctuation marks", "clean of signs and symbols",
                                 "calm in its punctuation", "free of dashes, quotes and dots")),
    "impersonal": ("person", -1, ("more impersonal", "not about I or you", "said in the third person",
                                  "spoken by nobody in particular", "far from its speaker", "free of I, my and we")),
}  # fmt: skip
CRITERIA = ("positive", "negative", "agreed", "long", "short", "plain", "punctuated", "bare", "personal")


class Pool(NamedTuple):
    """N texts of one split: domain [N] (number), vectors [N,D], levels [N,M]: measures in standard deviations."""

    texts: Sequence[ratings.Text]
    domain: np.ndarray
    vectors: np.ndarray
    levels: np.ndarray


class Contexts(NamedTuple):
    """What a router reads, by attribute and domain: prompt [A,domains,Q], and with a context in trained (seen) and in
    held-out words (unseen) [A, wordings, domains, Q].
    """

    prompt: Tensor
    seen: Tensor
    unseen: Tensor


def measure(texts: Sequence[ratings.Text]) -> np.ndarray:
    """The six measures [N,M] of each text, in the order of MEASURES."""
    return np.array([_measure(text) for text in texts], dtype=float).reshape(len(texts), len(MEASURES))


def _measure(text: ratings.Text) -> tuple[float, ...]:
    words, letters = text.text.split(), [c for c in text.text if not c.isspace()]
    bare = [word.strip(".,;:!?\"'()").lower() for word in words]
    return (
        float(np.mean(text.ratings)),
        -float(np.std(text.ratings)),
        len(words),
        -sum(c.isalpha() for c in letters) / len(words),
        sum(not c.isalnum() for c in letters) / len(letters),
        sum(word in PERSONS for word in bare) / len(words),
    )


def make_pools(texts: Mapping[str, Sequence[ratings.Text]], vectors: Mapping[str, np.ndarray]) -> dict[str, Pool]:
    """A pool for each split, "train" among them: levels are standardised in each domain by the training texts' mean
    and standard deviation and cut at 3. vectors: of each split's texts, [N,D].
    """
    raw = {name: measure(part) for name, part in texts.items()}
    domain = {name: np.array([DOMAINS.index(t.domain) for t in part]) for name, part in texts.items()}
    pools = {}
    for name, part in texts.items():
        levels = np.zeros_like(raw[name])
        for d, title in enumerate(DOMAINS):
            inside = raw["train"][domain["train"] == d]
            if len(inside) < 2:
                raise ValueError(f"{len(inside)} training texts of {title} are too few: raise the number of texts")
            spread = inside.std(0)
            here = domain[name] == d
            levels[here] = (raw[name][here] - inside.mean(0)) / np.where(spread > 0, spread, 1)
        pools[name] = Pool(part, domain[name], vectors[name], np.clip(levels, -3, 3))
    return pools


def scaled(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 as vectors whose entries have about unit size, whatever their number."""
    return (vectors * np.sqrt(vectors.shape[1])).astype(np.float32)


def first_texts(pool: Pool, count: int) -> Pool:
    """The pool's first texts alone. Raises ValueError where it has fewer."""
    if count > len(pool.texts):
        raise ValueError(f"{count} texts are asked for and the pool has {len(pool.texts)}; take fewer")
    return Pool(*(column[:count] for column in pool))


def draw_pairs(pool: Pool, count: int, seed: int) -> np.ndarray:
    """Positions [count,2] of two texts of one domain, at random: a text may be in many pairs."""
    rng = np.random.default_rng([seed, count])
    first, step = rng.integers(len(pool.texts), size=count), rng.random(count)
    order = np.argsort(pool.domain, kind="stable")
    place, size = np.empty(len(order), int), np.bincount(pool.domain, minlength=len(DOMAINS))
    start = np.cumsum(size) - size
    place[order] = np.arange(len(order)) - start[pool.domain[order]]
    if (size[pool.domain] < 2).any():
        raise ValueError(f"a domain has one text only ({dict(zip(DOMAINS, size.tolist(), strict=True))}): take more")
    domain = pool.domain[first]
    shift = 1 + (step * (size[domain] - 1)).astype(int)  # never 0, so that no text stands beside itself
    return np.stack([first, order[start[domain] + (place[first] + shift) % size[domain]]], 1)


def split_pairs(pool: Pool, seed: int) -> np.ndarray:
    """Positions [n,2] of two texts of one domain, each text in one pair at most: pairs that are independent units."""
    rng, pairs = np.random.default_rng(seed), []
    for d in range(len(DOMAINS)):
        members = rng.permutation(np.flatnonzero(pool.domain == d))
        pairs.append(members[: len(members) // 2 * 2].reshape(-1, 2))
    return rng.permutation(np.concatenate(pairs))


def find_opinions(pool: Pool, pairs: np.ndarray, names: Sequence[str], gap: float) -> np.ndarray:
    """1 where a criterion prefers the first text of a pair, -1 the second, 0 where it has no opinion: [n,A].

    A criterion prefers a text whose measure is larger by at least `gap` standard deviations.
    """
    wanted = np.stack([level(pool.levels, name) for name in names], 1)
    gaps = wanted[pairs[:, 0]] - wanted[pairs[:, 1]]
    return np.sign(gaps) * (np.abs(gaps) >= gap)


def find_decodability(pools: Mapping[str, Pool], pairs: int, gap: float, seed: int) -> dict[str, float]:
    """How well one linear reward reads each measure off the vectors: accuracy on validation pairs after `pairs`
    training pairs, 0.5 where the texts of either do not differ in it. No test text is looked at, so criteria may be
    chosen by it.
    """
    from sklearn.linear_model import LogisticRegression

    names = {measure: name for name, (measure, direction, _) in QUALITIES.items() if direction > 0}
    drawn = [(pools[split], draw_pairs(pools[split], pairs, seed)) for split in ("train", "validation")]
    found = {}
    for measure, name in names.items():
        said = [find_opinions(pool, rows, [name], gap)[:, 0] for pool, rows in drawn]
        gaps = [(pool.vectors[rows[:, 0]] - pool.vectors[rows[:, 1]])[one != 0]
                for (pool, rows), one in zip(drawn, said, strict=True)]  # fmt: skip
        labels = [one[one != 0] for one in said]
        if min(len(set(one)) for one in labels) < 2:
            found[measure] = 0.5
            continue
        reward = LogisticRegression(fit_intercept=False, max_iter=300).fit(gaps[0], labels[0])
        found[measure] = float(reward.score(gaps[1], labels[1]))
    return found


def choose_criteria(decodability: Mapping[str, float], gate: float) -> tuple[str, ...]:
    """The criteria whose measure passes the gate."""
    return tuple(name for name in CRITERIA if decodability[QUALITIES[name][0]] >= gate)


def level(levels: np.ndarray, quality: str) -> np.ndarray:
    """How much of a quality each text has, [N], from its levels [N,M]: standard deviations of the quality's measure."""
    measure, direction, _ = QUALITIES[quality]
    return direction * levels[:, list(MEASURES).index(measure)]


def wordings(qualities: Sequence[str], *, seen: bool) -> list[str]:
    """All ways of asking for these qualities together, in phrases for training or in held-out ones."""
    places = range(SEEN) if seen else range(SEEN, 6)
    phrases = [" and ".join(QUALITIES[quality][2][i] for quality in qualities) for i in places]
    return [frame.format(phrase) for phrase in phrases for frame in FRAMES]


def embed_contexts(attributes: Sequence[Sequence[str]], embed: Callable) -> Contexts:
    """The router's vectors: the domain alone, and each wording of each attribute with the domain after it.

    embed(list of texts) -> [n,Q] of unit length.
    """

    def table(seen):
        lines = [
            f"{words} {domain}"
            for qualities in attributes
            for words in wordings(qualities, seen=seen)
            for domain in DOMAINS
        ]
        found = torch.from_numpy(scaled(embed(lines)))
        return found.reshape(len(attributes), -1, len(DOMAINS), found.shape[1])

    prompt = torch.from_numpy(scaled(embed(list(DOMAINS))))
    return Contexts(prompt.expand(len(attributes), -1, -1), table(True), table(False))
