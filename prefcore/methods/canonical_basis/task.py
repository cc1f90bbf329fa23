"""What the chapter goes over: a planted world for each training seed, its texts as vectors, and what embeds phrases."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.methods.canonical_basis import features, signature
from prefcore.methods.canonical_basis.world import choices
from prefcore.methods.canonical_basis.world.choices import World


class Task(NamedTuple):
    """worlds: one for each training seed, each with its own texts, people and choices. changes: [N, D] of each world,
    winner minus loser of each choice, in whitened dimensions. embed(list of texts) -> [n, H] of unit length.
    """

    worlds: list[World]
    changes: list[np.ndarray]
    embed: Callable


def open_task(p: Parameters) -> Task:
    """The planted worlds on the texts of build/<profile>/, with the encoder that reads them.

    ValueError where `data` is set: one's own votes are the matter of own.py.
    """
    if p.data:
        raise ValueError(f"this chapter is about planted people: run `python -m prefcore run canonical_basis --data "
                         f"{p.data}` for your own votes")  # fmt: skip
    embed = open_encoder(p)
    worlds = [choices.open_world(p, seed) for seed in range(p.seeds)]
    changes = []
    for world in worlds:
        texts = [text.text for text in world.texts]
        changes.append(differences(texts, world.winner, world.loser, embed, p))
    return Task(worlds, changes, embed)


def open_encoder(p: Parameters) -> Callable:
    """embed(list of texts) -> [n, H] of unit length, each text read once."""
    tokenizer, encoder = models.load_encoder(p.encoder, device=str(models.choose_device(p.device, p.threads)))
    return once(partial(models.embed, encoder=encoder, tokenizer=tokenizer))


def once(embed: Callable) -> Callable:
    """The same function, which embeds no text a second time."""
    known: dict[str, np.ndarray] = {}

    def remember(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(new), strict=True) if new else ())
        return np.stack([known[text] for text in texts])

    return remember


def differences(texts: Sequence[str], winner: np.ndarray, loser: np.ndarray, embed: Callable,
                p: Parameters) -> np.ndarray:  # fmt: skip
    """[N, D] winner minus loser of each choice, in the `signature_dims` whitened dimensions of these texts."""
    found = features.describe(texts, embed(texts), words=p.word_dims, seed=p.seed)
    placed = signature.whiten(found, dims=min(p.signature_dims, *found.shape)).place(found)
    return placed[winner] - placed[loser]
