"""The task: what the chapter's arms learn from, and on what they are tested.

`default_task` is the human-rated texts in three worlds; `own_task` is the named votes of a user's file, whose
annotators are the attributes. What a task lacks is empty, and the chapter is one program for both.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import ratings
from prefcore.data.types import Parameters
from prefcore.methods.micro import annotators, criteria, population, reader
from prefcore.methods.micro.accuracy import Held
from prefcore.methods.micro.annotators import Annotators
from prefcore.methods.micro.criteria import Contexts, Pool
from prefcore.methods.micro.mixture import Rows
from prefcore.methods.micro.world import measured, planted
from prefcore.scoring import voters

SPLITS = ("train", "validation", "test")
LEAST_CRITERIA = 3  # with fewer there is nothing to mix


class World(NamedTuple):
    """sample(seed) -> rows to learn from, one vote a pair; validation and test: pairs of which no two share a text;
    attributes: names of criteria or groups.
    """

    sample: Callable[[int], Rows]
    validation: Held
    test: Held
    attributes: Sequence[str]


class Task(NamedTuple):
    """worlds: name -> World; annotators: name -> Annotators; decodability: how well each measure can be read off the
    vectors; description: counts, for a person to read.
    """

    worlds: Mapping[str, World]
    annotators: Mapping[str, Annotators]
    decodability: Mapping[str, float]
    description: str


def open_task(p: Parameters, embed: Callable) -> Task:
    """The default task, or that of the file of votes which `data` names. embed(list of texts) -> [N,D], unit length."""
    return own_task(p, embed) if p.data else default_task(p, embed)


def default_task(p: Parameters, embed: Callable) -> Task:
    """Planted people, and criteria that the vectors hold: in prompts that predict them, and as the code released."""
    texts = choose_texts(ratings.read_texts(Path("build") / p.profile / "texts.jsonl"), p.pool_texts, p.seed)
    pools = read_pools(texts, p)
    decodability = criteria.find_decodability(pools, p.gate_pairs, p.gap, p.seed)
    names = criteria.choose_criteria(decodability, p.gate)
    worlds = {"planted": make_planted(pools, embed, p)}
    if len(names) >= LEAST_CRITERIA:
        worlds["prompted"] = make_prompted(pools, names, embed, p)
        worlds["released"] = make_released(pools, names, embed, p)
    lines = [f"{len(pools[split].texts)} texts to {split}" for split in SPLITS]
    lines += [f"{name}: {len(world.test.floor.lowest)} test pairs under {', '.join(world.attributes)}"
              for name, world in worlds.items()]  # fmt: skip
    return Task(worlds, {}, decodability, "\n".join(lines))


def own_task(p: Parameters, embed: Callable) -> Task:
    """The annotators of the user's file, as one group of people. DataError where its votes cannot be used."""
    people = annotators.make(voters.read(p.data, p.seed), lambda texts: read_all(texts, p), embed, p.least_votes,
                             p.folds)  # fmt: skip
    description = (
        f"{len(people.rows.pair)} votes by {len(people.names)} people (and {people.ties} ties, left out);\n"
        f"{len(people.new)} of them have {p.least_votes} votes or more, over {len(people.group.unique())} parts"
    )
    return Task({}, {"people": people}, {}, description)


def choose_texts(texts: Sequence[ratings.Text], sizes: Sequence[int], seed: int) -> dict[str, list[ratings.Text]]:
    """As many texts of each split as `sizes` says, no two of them alike in a domain."""
    different = list({(text.domain, text.text.lower()): text for text in texts}.values())
    return {split: ratings.choose(different, n, seed + 3, split=split) for split, n in zip(SPLITS, sizes, strict=True)}


def read_pools(texts: Mapping[str, Sequence[ratings.Text]], p: Parameters) -> dict[str, Pool]:
    """The pools with their vectors: readers are whitened by the training texts."""
    states = reader.read_states([text.text for part in texts.values() for text in part], p)
    edges = np.cumsum([len(part) for part in texts.values()])[:-1]
    by_split = {name: dict(zip(texts, np.split(part, edges), strict=True)) for name, part in states.items()}
    fitted = [reader.fit_whitening(parts["train"], p.readers[name]) for name, parts in by_split.items()]
    vectors = {split: reader.whiten([parts[split] for parts in by_split.values()], fitted) for split in texts}
    return criteria.make_pools(texts, vectors)


def read_all(texts: Sequence[str], p: Parameters) -> np.ndarray:
    """Vectors of the texts of one's own file, whitened by all of them: no vote takes part."""
    states = reader.read_states(texts, p)
    fitted = [reader.fit_whitening(part, p.readers[name]) for name, part in states.items()]
    return reader.whiten(list(states.values()), fitted)


def make_planted(pools: Mapping[str, Pool], embed: Callable, p: Parameters) -> World:
    """Planted people who judge by measures that the heads read without error."""

    def make(split, pairs):
        return planted.make(pools[split], pairs, p.planted_beta)

    contexts = criteria.embed_contexts(planted.GROUPS, embed)
    return make_world(pools, make, contexts, [" + ".join(group) for group in planted.GROUPS], p)


def make_prompted(pools: Mapping[str, Pool], names: Sequence[str], embed: Callable, p: Parameters) -> World:
    """Criteria whose shares depend on the domain, which the router reads."""

    def make(split, pairs):
        return measured.prompted(pools[split], pairs, names, p.gap)

    return make_world(pools, make, criteria.embed_contexts([(name,) for name in names], embed), names, p)


def make_released(pools: Mapping[str, Pool], names: Sequence[str], embed: Callable, p: Parameters) -> World:
    """Criteria that stand before the text which heads read, and in the prompt which the router reads.

    A text's vector is then what it is without a criterion beside the encoder's vector of criterion and text together.
    Each text is read once for each criterion, so these worlds have fewer texts: `asked_texts` of each split.
    """
    few = {split: criteria.first_texts(pools[split], n) for split, n in zip(SPLITS, p.asked_texts, strict=True)}
    asked = ask_all(few, names, embed, p.readers["encoder"])

    def make(split, pairs):
        return measured.released(few[split], asked[split], pairs, names, p.gap, p.seed)

    contexts = measured.ask_in_prompt(criteria.embed_contexts([(name,) for name in names], embed))
    return make_world(few, make, contexts, names, p)


def ask_all(
    pools: Mapping[str, Pool], names: Sequence[str], embed: Callable, components: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """Vectors [N,A,D] of each split's texts under each criterion, whitened by the training texts."""
    asks = [criteria.wordings((name,), seen=True)[0] for name in names]
    states = {split: embed([f"{ask} {text.text}" for text in pool.texts for ask in asks])
              for split, pool in pools.items()}  # fmt: skip
    fitted, asked = reader.fit_whitening(states["train"], components), {}
    for split, pool in pools.items():
        both = reader.whiten([states[split]], [fitted]).reshape(len(pool.texts), len(names), -1)
        alone = np.broadcast_to(pool.vectors[:, None], (*both.shape[:2], pool.vectors.shape[1]))
        asked[split] = np.concatenate([alone, both], 2)
    return asked


def make_world(
    pools: Mapping[str, Pool], make: Callable, contexts: Contexts, attributes: Sequence[str], p: Parameters
) -> World:  # fmt: skip
    """make(split, pairs [n,2]) -> Population. Each seed draws pairs and votes anew; validation and test stay."""
    held = {}
    for split in ("validation", "test"):
        people = make(split, criteria.split_pairs(pools[split], p.seed))
        held[split] = Held(population.all_votes(people, contexts, p.seed), population.find_floor(people))

    def sample(seed: int) -> Rows:
        pairs = criteria.draw_pairs(pools["train"], p.drawn_pairs, seed)
        return population.draw_votes(make("train", pairs), contexts, seed)

    return World(sample, held["validation"], held["test"], attributes)
