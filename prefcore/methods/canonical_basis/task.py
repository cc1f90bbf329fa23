"""The task: the planted world of the default data, or the votes of people that `data` names.

The world has texts, reasons and an answer that is known, so that every step can be tested on it; votes have people and
statements alone. What a task lacks is empty, and the chapter is one program for both.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.methods.canonical_basis import people
from prefcore.methods.canonical_basis.people import Votes
from prefcore.methods.canonical_basis.world import choices
from prefcore.methods.canonical_basis.world.choices import World
from prefcore.scoring import llm
from prefcore.scoring.llm import LanguageModel


class Task(NamedTuple):
    """worlds: the planted world by name; conversations: votes of people by name. description: for a person to read.

    embed(list of texts) -> [n, H] of unit length and `extractor`, a language model, read the world's texts; both are
    None where there is no world.
    """

    worlds: Mapping[str, World]
    conversations: Mapping[str, Votes]
    embed: Callable | None
    extractor: LanguageModel | None
    description: str


def open_task(p: Parameters) -> Task:
    """The default task, or that of the votes which `data` names."""
    return own_task(p) if p.data else default_task(p)


def default_task(p: Parameters) -> Task:
    """The planted world on the texts of build/<profile>/, with the encoder and the extractor that read it."""
    world = choices.open_world(p)
    tokenizer, encoder = models.load_encoder(p.encoder, device=str(models.choose_device(p.device, p.threads)))
    embed = partial(models.embed, encoder=encoder, tokenizer=tokenizer)
    return Task({"planted": world}, {}, embed, llm.open_model(p.extractor or p.policy, p),
                choices.describe(world, size=2))  # fmt: skip


def own_task(p: Parameters) -> Task:
    """A user's conversations, without people and statements of too few votes. DataError where nothing is left."""
    found = [people.active(votes, least=p.least_votes) for votes in people.read(p.data)]
    lines = [f"{votes.name}  {votes.values.shape}  {np.isnan(votes.values).mean():.0%} missing;  "
             + "  ".join(votes.texts[:2]) for votes in found]  # fmt: skip
    return Task({}, {votes.name: votes for votes in found}, None, None, "\n".join(lines))
