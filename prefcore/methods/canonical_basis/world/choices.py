"""Choices of planted people between real texts. What is planted, and what is not:

real       the texts (build/<profile>/texts.jsonl), their domains, and 24 traits that are *measured* on any text
           (traits.py); topics are found in the texts (three groups of alike texts in each of the four domains)
planted    24 categories of preference, one for each trait; how often each is meant (Zipf: the r-th by 1/r); 200
           people, each with weights over categories (Dirichlet); how a topic shifts them; 8 "models", each a taste
           for traits by which texts are attributed to it; who wins a pair; the phrases that name why (7 of each
           category in 30 wordings, 5,040 in all), a part of them at random (`noise`)
a choice   a person meets two texts of one topic by two models, one category comes to mind, drawn by the person's
           weights among those in which the texts differ, and the text with more of its trait wins with probability
           sigmoid(sharpness x difference). An annotator who sees the winner names one to three categories that speak
           for it; another one, who does not, names a category in which the two differ.

Nothing here is a result about people. What the pipeline finds is scored against what was planted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import ratings
from prefcore.data.ratings import Text
from prefcore.data.types import Parameters
from prefcore.methods.canonical_basis.extraction import Comparison
from prefcore.methods.canonical_basis.world.traits import NAMES, phrases, scale_of, zipf

MODELS = 8
LEAST = 0.5  # standard deviations: a trait separates two texts from there on


class World(NamedTuple):
    """texts [n], their traits [n, 24] in standard scores; author [MODELS, 24]: mean traits of what a model showed.

    phrases [5040] and phrase_category [5040]; weights [P, 24] of each person. A choice, [N] each: topic, person, first
    and second (positions of texts), models [N, 2], first_wins, blind (the category of the annotator who does not see
    the winner). A mention, [M] each: owner (position of its choice), phrase.
    """

    texts: list[Text]
    traits: np.ndarray
    topic: np.ndarray
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


def open_world(p: Parameters) -> World:
    """The planted world of a notebook's parameters, on `world_texts` training texts of build/<profile>/."""
    texts = ratings.read_texts(Path("build") / p.profile / "texts.jsonl")
    return plant(
        ratings.choose(texts, p.world_texts, p.seed, split="train"), people=p.planted_people,
        choices=p.planted_choices, per_domain=p.topics_per_domain, concentration=p.concentration,
        taste=p.taste, sharpness=p.sharpness, noise=p.noise, seed=p.seed,
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


def compare_texts(world: World, rows: np.ndarray) -> list[Comparison]:
    """These choices as an extractor sees them."""
    texts = [text.text for text in world.texts]
    return [Comparison(f"planted:{i}", texts[world.first[i]], texts[world.second[i]], bool(world.first_wins[i]))
            for i in rows.tolist()]  # fmt: skip


def first_named(world: World, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions in `rows` of the choices that mention anything, the first phrase that each of them mentions)."""
    found = [np.flatnonzero(world.owner == i)[:1] for i in rows]
    kept = [n for n, mention in enumerate(found) if len(mention)]
    return np.array(kept, int), world.phrase[np.concatenate([found[n] for n in kept])]


def explains(world: World, category: np.ndarray, meaning: np.ndarray) -> np.ndarray:
    """[N, C] bool: the choice mentions the category, and whoever knows only what it means names the winner.

    category [M] of each mention (-1: none); meaning [C] the trait that the name of a category stands for. The explainer
    is the trait's meter, which names the winner where it has at least half a standard score more of it.
    """
    mentioned = np.zeros((len(world.person), len(meaning)), bool)
    inside = category >= 0
    mentioned[world.owner[inside], category[inside]] = True
    return mentioned & (world.gap >= LEAST)[:, meaning]


def planted_in(world: World, choice: int) -> list[int]:
    """The categories that one choice mentions."""
    return world.phrase_category[world.phrase[world.owner == choice]].tolist()


def duels(world: World, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(winning model, losing model) of these choices."""
    ahead = np.where(world.first_wins[rows], 0, 1)
    return world.models[rows, ahead], world.models[rows, 1 - ahead]


def blind_duels(world: World) -> tuple[np.ndarray, np.ndarray]:
    """(models with more, models with less) [N] of the trait that the annotator who is blind to the winner names."""
    winner, loser = duels(world, np.arange(len(world.person)))
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


def plant(texts: Sequence[Text], *, people: int, choices: int, per_domain: int, concentration: float, taste: float,
          sharpness: float, noise: float, seed: int) -> World:  # fmt: skip
    """A planted world on these texts with about `choices` choices (those of texts that nothing separates are left out).

    concentration: of the Dirichlet of people's weights (higher: people are more alike). taste: standard deviation of a
    model's log-odds for a text per standard score. sharpness: per standard score. noise: share of random phrases.
    """
    if people < 2:
        raise ValueError(f"people is {people}; variation across individuals needs at least two")
    rng = np.random.default_rng(seed)
    traits = scale_of([t.text for t in texts]).standard([t.text for t in texts])
    topic = find_topics(texts, per_domain=per_domain, seed=seed)
    kinds, topics = len(NAMES), int(topic.max()) + 1
    often = zipf(kinds)
    weights = rng.dirichlet(concentration * kinds * often, size=people)
    shift = rng.lognormal(0, 0.5, size=(topics, kinds))
    likes = rng.normal(0, taste, size=(MODELS, kinds))
    person, models = rng.integers(people, size=choices), np.argsort(rng.random((choices, MODELS)), 1)[:, :2]
    where = rng.choice(topics, size=choices, p=np.bincount(topic, minlength=topics) / len(topic))
    first, second = (_draw(where, models[:, k], topic, traits @ likes.T, rng) for k in range(2))
    gap = traits[first] - traits[second]
    apart = np.abs(gap) >= LEAST
    usable = (first != second) & apart.any(1)
    person, models, where, first, second, gap, apart = (
        x[usable] for x in (person, models, where, first, second, gap, apart)
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
        list(texts), traits, where, author, wordings, meant_by, weights, person, first, second, models, first_wins,
        blind, owner, phrase,
    )  # fmt: skip


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
