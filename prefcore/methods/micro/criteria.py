"""Real texts under criteria that contradict each other, every one of them measured on the text or by its raters.

Nothing is guessed: a criterion prefers a text because a number is larger (`MEASURES` has the formulas). Each has
several wordings, some held out. Nothing here is made up; people who are stand in world/planted.py.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.data import ratings
from prefcore.data.types import Parameters
from prefcore.methods.micro.mixture import Rows

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
CRITERIA = ("positive", "negative", "agreed", "long", "plain", "punctuated", "personal")
MOST = 8  # pairs that a text may be in


class Pool(NamedTuple):
    """N texts of one split: domain [N] (number), vectors [N,D], levels [N,M]: measures in standard deviations."""

    texts: Sequence[ratings.Text]
    domain: np.ndarray
    vectors: np.ndarray
    levels: np.ndarray


class Choice(NamedTuple):
    """Positions of the preferred and the other text in the pool, number of the criterion, and number of the pair."""

    preferred: int
    other: int
    attribute: int
    pair: int


class Contexts(NamedTuple):
    """What a router reads: prompt [domains,Q]; seen, unseen [attributes, wordings, domains, Q] in two sets of words."""

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


def open_pools(p: Parameters, embed: Callable) -> dict[str, Pool]:
    """The three pools of the default data; the list `pool_texts` says how many texts of each split."""
    texts = ratings.read_texts(Path("build") / p.profile / "texts.jsonl")
    sizes = zip(SPLITS, p.pool_texts, strict=True)
    return make_pools({s: ratings.choose(texts, n, p.seed + 3, split=s) for s, n in sizes}, embed)


def make_pools(texts: Mapping[str, Sequence[ratings.Text]], embed: Callable) -> dict[str, Pool]:
    """A pool for each split, "train" among them: levels are standardised in each domain by the training texts' mean
    and standard deviation and cut at 3. embed(list of texts) -> [N,D] of unit length, which is scaled to sqrt(D).
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
        vectors = scaled(embed([t.text for t in part]))
        pools[name] = Pool(part, domain[name], vectors, np.clip(levels, -3, 3))
    return pools


def scaled(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 as vectors whose entries have about unit size, so that one learning rate suits any width."""
    return (vectors * np.sqrt(vectors.shape[1])).astype(np.float32)


def opposite_choices(pool: Pool, pairs: int, gap: float, seed: int) -> list[Choice]:
    """Each pair twice, under two criteria of opposite opinion (as in RPR): without the criterion it is a coin toss.

    A criterion prefers a text whose measure is larger by at least `gap` standard deviations. Of those that prefer
    either side the ones with the fewest rows so far are taken. No text is in more than 8 pairs.
    """
    count, rows = np.zeros(len(CRITERIA)), []
    for number, (a, b, gaps, rng) in enumerate(_pairs(pool, pairs, gap, seed)):
        for first, second, sign in ((a, b, 1), (b, a, -1)):
            able = np.flatnonzero(sign * gaps >= gap)
            chosen = int(min(able, key=lambda c: (count[c], rng.random())))
            count[chosen] += 1
            rows.append(Choice(first, second, chosen, number))
    return rows


def pooled_choices(pool: Pool, pairs: int, gap: float, seed: int) -> list[Choice]:
    """Each pair under every criterion that has an opinion of at least `gap`, pairs without contradiction left out.

    The way HelpSteer2's attributes are pooled in the paper: without the criterion a pair is more than a coin toss.
    """
    rows = []
    for number, (a, b, gaps, _) in enumerate(_pairs(pool, pairs, gap, seed)):
        for c in np.flatnonzero(np.abs(gaps) >= gap).tolist():
            rows.append(Choice(a, b, c, number) if gaps[c] > 0 else Choice(b, a, c, number))
    return rows


def _pairs(pool: Pool, pairs: int, gap: float, seed: int):
    """(position, position, gap of each criterion [C], generator) of pairs of one domain with opinions on both sides."""
    rng, tries = np.random.default_rng([seed, len(pool.texts)]), 100 * pairs
    wanted = np.stack([level(pool.levels, name) for name in CRITERIA], 1)
    members = [np.flatnonzero(pool.domain == d) for d in range(len(DOMAINS))]
    first = rng.integers(len(pool.texts), size=tries)
    place = (rng.random(tries) * np.array([len(m) for m in members])[pool.domain[first]]).astype(int)
    second = np.array([members[d][i] for d, i in zip(pool.domain[first], place, strict=True)], dtype=int)
    gaps = wanted[first] - wanted[second]
    contradictory = np.flatnonzero((gaps.max(1) >= gap) & (gaps.min(1) <= -gap))
    used, seen, found = np.zeros(len(pool.texts), int), set(), 0
    for k in contradictory:
        a, b = int(first[k]), int(second[k])
        same = pool.texts[a].text == pool.texts[b].text or frozenset((a, b)) in seen
        if found == pairs or same or max(used[a], used[b]) >= MOST:
            continue
        seen.add(frozenset((a, b)))
        used[[a, b]] += 1
        found += 1
        yield a, b, gaps[k], rng
    if found < pairs:
        raise ValueError(f"{len(pool.texts)} texts gave {found} pairs, not {pairs}: take more texts or fewer pairs")


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
    """The router's vectors: the domain alone, and each wording of each attribute with the domain after it."""
    def table(seen):
        lines = [f"{words} {domain}" for qualities in attributes for words in wordings(qualities, seen=seen)
                 for domain in DOMAINS]
        found = torch.from_numpy(scaled(embed(lines)))
        return found.reshape(len(attributes), -1, len(DOMAINS), found.shape[1])

    return Contexts(torch.from_numpy(scaled(embed(list(DOMAINS)))), table(True), table(False))


def make_rows(pool: Pool, choices: Sequence[Choice], contexts: Contexts, seed: int) -> Rows:
    """The choices as vectors; each gets one wording of either set, drawn with `seed`."""
    preferred, other, attribute, pair = (np.array(column) for column in zip(*choices, strict=True))
    difference = torch.from_numpy(pool.vectors[preferred] - pool.vectors[other])
    return rows_of(difference, pool.domain[preferred], attribute, pair, contexts, seed)


def rows_of(difference: Tensor, domain, attribute, pair, contexts: Contexts, seed: int) -> Rows:
    """Rows of these differences [n,D]; domain, attribute, pair [n] are arrays; one wording of either set by chance."""
    rng = np.random.default_rng([seed, len(pair)])
    seen, unseen = (words[attribute, rng.integers(words.shape[1], size=len(pair)), domain]
                    for words in (contexts.seen, contexts.unseen))  # fmt: skip
    return Rows(difference, contexts.prompt[domain], seen, unseen, torch.from_numpy(attribute), torch.from_numpy(pair))


def make_worlds(pools: Mapping[str, Pool], embed: Callable, p: Parameters) -> dict[str, dict[str, Rows]]:
    """"opposite" and "pooled": rows of each split, `criteria_pairs` pairs with opinions of at least `gap`."""
    contexts = embed_contexts([(name,) for name in CRITERIA], embed)
    worlds: dict[str, dict[str, Rows]] = {}
    for name, choose in (("opposite", opposite_choices), ("pooled", pooled_choices)):
        sizes = zip(SPLITS, p.criteria_pairs, strict=True)
        choices = {split: choose(pools[split], size, p.gap, p.seed) for split, size in sizes}
        worlds[name] = {split: make_rows(pools[split], rows, contexts, p.seed) for split, rows in choices.items()}
    return worlds
