"""Real texts under criteria that contradict each other, every one of them measured on the text or by its raters.

Nothing is guessed: a criterion prefers a text because a number is larger (`MEASURES` has the formulas). Each has
several wordings, some held out. The *planted* population has the same real texts, but made-up people: six groups
that each want two qualities, whose choice probabilities are known exactly. All that is made up is called planted.
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
PLANTED = (  # what a planted group wants: 0.8 of the first quality, 0.6 of the second (a vector of length 1)
    ("positive", "long"), ("negative", "plain"), ("short", "agreed"), ("punctuated", "personal"), ("bare", "learned"),
    ("impersonal", "disputed"),
)  # fmt: skip
MOST = 8  # pairs that a text may be in
LEAST_SHARE = 0.05  # of every planted group in every domain


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


class Said(NamedTuple):
    """What a router reads: prompt [domains,Q]; seen, unseen [attributes, wordings, domains, Q] in two sets of words."""

    prompt: Tensor
    seen: Tensor
    unseen: Tensor


class Planted(NamedTuple):
    """A *planted* test set with its exact probabilities, every pair once for each of G groups.

    rows: n x G rows, pair by pair; the first text counts as preferred. shares [n,G] = P(group | domain),
    preferences [n,G] = P(first is preferred | pair, group).
    """

    rows: Rows
    shares: Tensor
    preferences: Tensor


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
    wanted = np.stack([_level(pool.levels, name) for name in CRITERIA], 1)
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


def _level(levels: np.ndarray, quality: str) -> np.ndarray:
    measure, direction, _ = QUALITIES[quality]
    return direction * levels[:, list(MEASURES).index(measure)]


def wordings(qualities: Sequence[str], *, seen: bool) -> list[str]:
    """All ways of asking for these qualities together, in phrases for training or in held-out ones."""
    places = range(SEEN) if seen else range(SEEN, 6)
    phrases = [" and ".join(QUALITIES[quality][2][i] for quality in qualities) for i in places]
    return [frame.format(phrase) for phrase in phrases for frame in FRAMES]


def say(attributes: Sequence[Sequence[str]], embed: Callable) -> Said:
    """The router's vectors: the domain alone, and each wording of each attribute with the domain after it."""
    def table(seen):
        lines = [f"{words} {domain}" for qualities in attributes for words in wordings(qualities, seen=seen)
                 for domain in DOMAINS]
        found = torch.from_numpy(scaled(embed(lines)))
        return found.reshape(len(attributes), -1, len(DOMAINS), found.shape[1])

    return Said(torch.from_numpy(scaled(embed(list(DOMAINS)))), table(True), table(False))


def make_rows(pool: Pool, choices: Sequence[Choice], said: Said, seed: int) -> Rows:
    """The choices as vectors; each gets one wording of either set, drawn with `seed`."""
    preferred, other, attribute, pair = (np.array(column) for column in zip(*choices, strict=True))
    difference = torch.from_numpy(pool.vectors[preferred] - pool.vectors[other])
    return _rows(difference, pool.domain[preferred], attribute, pair, said, seed)


def _rows(difference: Tensor, domain, attribute, pair, said: Said, seed: int) -> Rows:
    rng = np.random.default_rng([seed, len(pair)])
    seen, unseen = (t[attribute, rng.integers(t.shape[1], size=len(pair)), domain] for t in (said.seen, said.unseen))
    return Rows(difference, said.prompt[domain], seen, unseen, torch.from_numpy(attribute), torch.from_numpy(pair))


def make_worlds(pools: Mapping[str, Pool], embed: Callable, p: Parameters) -> dict[str, dict[str, Rows]]:
    """"opposite" and "pooled": rows of each split, `criteria_pairs` pairs with opinions of at least `gap`."""
    said = say([(name,) for name in CRITERIA], embed)
    worlds: dict[str, dict[str, Rows]] = {}
    for name, choose in (("opposite", opposite_choices), ("pooled", pooled_choices)):
        sizes = zip(SPLITS, p.criteria_pairs, strict=True)
        choices = {split: choose(pools[split], size, p.gap, p.seed) for split, size in sizes}
        worlds[name] = {split: make_rows(pools[split], rows, said, p.seed) for split, rows in choices.items()}
    return worlds


def planted_shares(seed: int) -> np.ndarray:
    """P(planted group | domain) [domains, groups]: 0.05 each, and the rest as a Dirichlet(1) draw of the domain."""
    drawn = np.random.default_rng([seed, 1]).dirichlet(np.ones(len(PLANTED)), size=len(DOMAINS))
    return LEAST_SHARE + (1 - LEAST_SHARE * len(PLANTED)) * drawn


def planted_rewards(levels: np.ndarray, beta: float) -> np.ndarray:
    """The planted groups' rewards [N,G] of texts with these levels [N,M]: beta x (0.8 first + 0.6 second quality)."""
    return beta * np.stack([0.8 * _level(levels, a) + 0.6 * _level(levels, b) for a, b in PLANTED], 1)


def planted_votes(pool: Pool, said: Said, pairs: int, beta: float, seed: int) -> Rows:
    """Training rows of the planted population: for each pair one person's group and vote are drawn.

    difference is that of the measured levels [n,M], in which the planted rewards are linear: what a model then misses
    is due to the groups, not to the encoder.
    """
    exact = planted_exact(pool, said, pairs, beta, seed)
    rng = np.random.default_rng([seed, pairs, 2])
    groups = exact.shares.shape[1]
    group = np.array([rng.choice(groups, p=row) for row in exact.shares.numpy()])
    row = np.arange(pairs) * groups + group
    first = rng.random(pairs) < exact.preferences.numpy()[np.arange(pairs), group]
    rows = Rows(*(column[torch.from_numpy(row)] for column in exact.rows))
    sign = torch.from_numpy(np.where(first, 1, -1).astype(np.float32))
    return rows._replace(difference=rows.difference * sign[:, None])


def planted_exact(pool: Pool, said: Said, pairs: int, beta: float, seed: int) -> Planted:
    """Random pairs of one domain with the exact probabilities of the planted population."""
    rng = np.random.default_rng([seed, pairs, 3])
    members = [np.flatnonzero(pool.domain == d) for d in range(len(DOMAINS))]
    a = rng.integers(len(pool.texts), size=pairs)
    b = np.array([rng.choice(members[pool.domain[i]][members[pool.domain[i]] != i]) for i in a])
    rewards = planted_rewards(pool.levels, beta)
    shares = planted_shares(0)[pool.domain[a]]
    groups = shares.shape[1]
    difference = torch.from_numpy((pool.levels[a] - pool.levels[b]).astype(np.float32)).repeat_interleave(groups, 0)
    rows = _rows(difference, np.repeat(pool.domain[a], groups), np.tile(np.arange(groups), pairs),
                 np.repeat(np.arange(pairs), groups), said, seed)  # fmt: skip
    return Planted(rows, torch.from_numpy(shares), torch.from_numpy(rewards[a] - rewards[b]).sigmoid())


def planted_cross_entropy(log_first: Tensor, log_second: Tensor, planted: Planted) -> Tensor:
    """Exact cross-entropy [n] (nats) of a prediction for each pair, the mean over its groups and votes.

    log_first, log_second [n x G]: the log-probabilities that the first and the second text is preferred.
    """
    first, second = (x.double().reshape(planted.shares.shape) for x in (log_first, log_second))
    expected = planted.preferences * first + (1 - planted.preferences) * second
    return -(planted.shares * expected).sum(1)
