"""Choices of planted people between real texts. What is planted, and what is not:

real       the texts (build/<profile>/texts.jsonl), their domains, and 24 traits that are *measured* on any text
           (traits.py); topics are found in the texts (three groups of alike texts in each of the four domains)
planted    24 categories of preference, one for each trait; how often each is meant (Zipf: the r-th by 1/r); 200
           people whose weights over categories follow a few latent tastes that they share in different degrees; how
           a topic shifts them; 8 "models", each a taste for traits by which texts are attributed to it; who wins a
           pair; the phrases that name why (7 of each category in 30 wordings, 5,040 in all), a part of them at
           random (`noise`)
a choice   a person meets two texts of one topic by two models, one category comes to mind, drawn by the person's
           weights among those in which the texts differ, and the text with more of its trait wins with probability
           sigmoid(sharpness x difference). An annotator who sees the winner names one to three categories that speak
           for it; another one, who does not, names a category in which the two differ.
held out   half of the choices are between texts of one half, which the other choices never show

Nothing here is a result about people. What the pipeline finds is scored against what was planted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import ratings
from prefcore.data.ratings import Text
from prefcore.data.types import Parameters
from prefcore.methods.canonical_basis.world.traits import NAMES, phrases, scale_of, zipf

MODELS = 8
LEAST = 0.5  # standard deviations: a trait separates two texts from there on


class World(NamedTuple):
    """texts [n], their traits [n, 24] in standard scores; author [MODELS, 24]: mean traits of what a model showed.

    phrases [5040] and phrase_category [5040]; weights [P, 24] of each person. A choice, [N] each: topic, held_out,
    person, first and second (positions of texts), models [N, 2], first_wins, blind (the category of the annotator who
    does not see the winner). A mention, [M] each: owner (position of its choice), phrase.
    """

    texts: list[Text]
    traits: np.ndarray
    topic: np.ndarray
    held_out: np.ndarray
    author: np.ndarray
    phrases: list[str]
    phrase_category: np.ndarray
    weights: np.ndarray
    person: np.ndarray
    first: np.ndarray
    second: np.ndarray
    models: np.ndarray
    first_wins: np.ndarray
    blind: np.ndarray
    owner: np.ndarray
    phrase: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """[N, 24] traits of the winner minus traits of the loser, in standard scores."""
        return self.traits[self.winner] - self.traits[self.loser]

    @property
    def winner(self) -> np.ndarray:
        """[N] the text that won."""
        return np.where(self.first_wins, self.first, self.second)

    @property
    def loser(self) -> np.ndarray:
        """[N] the text that lost."""
        return np.where(self.first_wins, self.second, self.first)


def open_world(p: Parameters, seed: int) -> World:
    """The planted world of one training seed, on `world_texts` training texts of build/<profile>/ that it draws."""
    texts = ratings.read_texts(Path("build") / p.profile / "texts.jsonl")
    return plant(
        ratings.choose(texts, p.world_texts, p.seed + seed, split="train"), people=p.planted_people,
        choices=p.planted_choices, per_domain=p.topics_per_domain, factors=p.factors, spread=p.spread,
        factor_share=p.factor_share, taste=p.taste, sharpness=p.sharpness, noise=p.noise, seed=p.seed + seed,
    )  # fmt: skip


def describe(world: World, *, size: int) -> str:
    """Counts, and the first choices as a person reads them."""
    choices, mentions, distinct = len(world.person), len(world.phrase), len(np.unique(world.phrase))
    lines = [f"{choices:,} choices by {len(world.weights)} planted people between {len(world.texts):,} real texts;"]
    lines += [f"{mentions:,} mentions of {distinct:,} distinct planted phrases"]
    for i in range(size):
        winner, loser = world.texts[world.winner[i]], world.texts[world.loser[i]]
        named = ", ".join(world.phrases[j] for j in world.phrase[world.owner == i]) or "nothing"
        lines += [f"\n{winner.domain}\n  chosen    {winner.text[:150]}\n  rejected  {loser.text[:150]}"]
        lines += [f"  because   {named}"]
    return "\n".join(lines)


def duels(world: World) -> tuple[np.ndarray, np.ndarray]:
    """(winning model, losing model) [N] of each choice."""
    rows, ahead = np.arange(len(world.person)), np.where(world.first_wins, 0, 1)
    return world.models[rows, ahead], world.models[rows, 1 - ahead]


def blind_duels(world: World) -> tuple[np.ndarray, np.ndarray]:
    """(models with more, models with less) [N] of the trait that the annotator who is blind to the winner names."""
    winner, loser = duels(world)
    more = np.take_along_axis(world.gap, world.blind[:, None], 1)[:, 0] > 0
    return np.where(more, winner, loser), np.where(more, loser, winner)


def find_topics(texts: Sequence[Text], *, per_domain: int, seed: int) -> np.ndarray:
    """[n] topics: in each domain k-means on 20 latent dimensions of the words (tf-idf), `per_domain` groups."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    topic = np.zeros(len(texts), int)
    for d, domain in enumerate(sorted({text.domain for text in texts})):
        here = np.flatnonzero([text.domain == domain for text in texts])
        if len(here) < 2 * per_domain:
            raise ValueError(f"{len(here)} texts of {domain} are too few for {per_domain} topics: raise world_texts")
        words = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit_transform([texts[i].text for i in here])
        latent = TruncatedSVD(min(20, words.shape[1] - 1, len(here) - 1), random_state=seed).fit_transform(words)
        label = KMeans(per_domain, n_init=3, random_state=seed).fit_predict(normalize(latent))
        topic[here] = d * per_domain + label
    return topic


def plant(texts: Sequence[Text], *, people: int, choices: int, per_domain: int, factors: int, spread: float,
          factor_share: float, taste: float, sharpness: float, noise: float, seed: int) -> World:  # fmt: skip
    """A planted world on these texts with about `choices` choices (those of texts that nothing separates are left out).

    factors, spread, factor_share: see `weigh`. taste: standard deviation of a model's log-odds for a
    text per standard score. sharpness: per standard score. noise: share of random phrases.
    """
    if people < 2:
        raise ValueError(f"people is {people}; variation across individuals needs at least two")
    rng = np.random.default_rng(seed)
    traits = scale_of([t.text for t in texts]).standard([t.text for t in texts])
    topic = find_topics(texts, per_domain=per_domain, seed=seed)
    kinds, topics = len(NAMES), int(topic.max()) + 1
    often = zipf(kinds)
    weights = weigh(often, people, factors=factors, spread=spread, factor_share=factor_share, rng=rng)
    shift = rng.lognormal(0, 0.5, size=(topics, kinds))
    likes = rng.normal(0, taste, size=(MODELS, kinds))
    person, models = rng.integers(people, size=choices), np.argsort(rng.random((choices, MODELS)), 1)[:, :2]
    where = rng.choice(topics, size=choices, p=np.bincount(topic, minlength=topics) / len(topic))
    held_out, half = rng.random(choices) < 0.5, rng.permutation(len(texts)) % 2
    group, pool = 2 * where + held_out, 2 * topic + half
    first, second = (_draw(group, models[:, k], pool, traits @ likes.T, rng) for k in range(2))
    gap = traits[first] - traits[second]
    apart = np.abs(gap) >= LEAST
    usable = (first != second) & apart.any(1)
    person, models, where, held_out, first, second, gap, apart = (
        x[usable] for x in (person, models, where, held_out, first, second, gap, apart)
    )
    wish = np.maximum(weights[person] * shift[where], 1e-12) * apart
    meant = _pick(wish, rng)
    pull = np.take_along_axis(gap, meant[:, None], 1)[:, 0]
    first_wins = rng.random(len(pull)) < 1 / (1 + np.exp(-sharpness * pull))
    blind = _pick((often * shift[where]) * apart, rng)
    owner, category = _mentions(wish, gap, first_wins, meant, rng)
    random = rng.random(len(category)) < noise
    category = np.where(random, rng.choice(kinds, size=len(category), p=often), category)
    wordings, meant_by = phrases()
    order = np.stack([rng.permutation(np.flatnonzero(meant_by == c)) for c in range(kinds)])
    phrase = order[category, rng.choice(order.shape[1], size=len(category), p=zipf(order.shape[1]))]
    author = _author(models, np.stack([first, second], 1), traits)
    return World(
        list(texts), traits, where, held_out, author, wordings, meant_by, weights, person, first, second, models,
        first_wins, blind, owner, phrase,
    )  # fmt: skip


def weigh(
    often: np.ndarray, people: int, *, factors: int, spread: float, factor_share: float, rng: np.random.Generator
) -> np.ndarray:
    """[P, C] each person's weights, which sum to 1: softmax(log often + spread x deviation), deviations of variance 1.

    A deviation follows `factors` latent tastes, which load on all categories, by `factor_share` of its variance; the
    rest is the person's alone. So what a person likes tells of what else that person likes.
    """
    loadings = rng.normal(size=(factors, len(often)))
    loadings /= np.linalg.norm(loadings, axis=0)
    tastes, own = rng.normal(size=(people, factors)), rng.normal(size=(people, len(often)))
    scores = np.log(often) + spread * (np.sqrt(factor_share) * tastes @ loadings + np.sqrt(1 - factor_share) * own)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _draw(where, model, topic, odds, rng) -> np.ndarray:
    """[N] a text of the topic by the model: drawn with probability proportional to exp(odds [n, MODELS])."""
    out = np.zeros(len(where), int)
    for t, m in sorted(set(zip(where.tolist(), model.tolist(), strict=True))):
        pool, rows = np.flatnonzero(topic == t), np.flatnonzero((where == t) & (model == m))
        chance = np.exp(odds[pool, m] - odds[pool, m].max())
        out[rows] = rng.choice(pool, size=len(rows), p=chance / chance.sum())
    return out


def _pick(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N] a column of each row, with probability proportional to its weight [N, C]."""
    steps = weight.cumsum(1)
    return (steps < rng.random((len(weight), 1)) * steps[:, -1:]).sum(1).clip(max=weight.shape[1] - 1)


def _mentions(wish, gap, first_wins, meant, rng) -> tuple[np.ndarray, np.ndarray]:
    """(owner [M], category [M]): what meant, if it speaks for the winner, and up to two more that do."""
    agrees = (np.sign(gap) == np.where(first_wins, 1, -1)[:, None]) & (wish > 0)
    score = np.where(agrees, np.log(np.maximum(wish, 1e-300)) + rng.gumbel(size=wish.shape), -np.inf)
    rows = np.arange(len(wish))
    score[rows, meant] = np.where(agrees[rows, meant], np.inf, -np.inf)
    best = np.argsort(-score, 1, kind="stable")[:, :3]
    used = np.isfinite(np.take_along_axis(np.where(score == np.inf, 0, score), best, 1))
    used &= np.arange(3) <= rng.binomial(2, 0.35, size=(len(wish), 1))
    owner, place = np.nonzero(used)
    return owner, best[owner, place]


def _author(models, shown, traits) -> np.ndarray:
    """[MODELS, 24] mean standard score of the texts that each model showed."""
    return np.stack([traits[shown[models == m]].mean(0) for m in range(MODELS)])
