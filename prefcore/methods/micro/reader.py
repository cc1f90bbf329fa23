"""What heads read: a text as one vector, put together from frozen readers of which each sees something else.

A sentence encoder, the mean state of an early layer of a language model (which still knows the letters), and the last
state of the rater of texts, where there is one. Each part is reduced to its largest principal components and whitened,
so that no part and no direction outshouts the others.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.engine import collate, models, reference
from prefcore.engine.decoder import find_layers
from prefcore.engine.machine import small_products
from prefcore.engine.progress import track
from prefcore.scoring import scorers

MAX_TOKENS = 96
BATCH = 32
CACHE, PIECE, VERSION = Path("build/states"), 1024, 1  # of this computation: another one must not find what it kept


class Whitening(NamedTuple):
    """(x - mean) @ matrix has `size` uncorrelated entries of unit size: mean [D], matrix [D,size]."""

    mean: np.ndarray
    matrix: np.ndarray


def read_states(texts: Sequence[str], p: Parameters) -> dict[str, np.ndarray]:
    """The states [N,D] of each of the `readers`, by name. Own data have no rater, so it does not read them."""
    read = {"encoder": read_encoder, "policy": read_policy, "rater": read_rater}
    if unknown := sorted(set(p.readers) - set(read)):
        raise ValueError(f"readers {unknown} are not known: choose of {', '.join(read)}")
    return {name: read[name](texts, p) for name in p.readers if not (name == "rater" and p.data)}


def read_encoder(texts: Sequence[str], p: Parameters) -> np.ndarray:
    """The sentence encoder's vector, which knows what a text is about."""
    tokenizer, encoder = models.load_encoder(p.encoder, device=str(models.choose_device(p.device, p.threads)))
    return models.embed(texts, encoder, tokenizer)


def read_policy(texts: Sequence[str], p: Parameters) -> np.ndarray:
    """The mean state after `reader_layers` layers of the language model, which knows how a text is written."""
    tokenizer, policy = models.load(p, p.policy)
    return mean_states(texts, cut_layers(policy, p.reader_layers), tokenizer)


def read_rater(texts: Sequence[str], p: Parameters) -> np.ndarray:
    """The rater's last state after the question that it was taught to answer.

    All its layers read every text, which takes most of a study's time: what is read is kept by content, a piece each.
    """
    tokenizer, rater = models.load(p, Path("build") / p.profile / "gold")
    asked = [text + scorers.QUESTION for text in texts]
    pieces = [asked[start : start + PIECE] for start in range(0, len(asked), PIECE)]
    named = reference.weight_hash(rater)
    return np.concatenate([_kept(piece, rater, tokenizer, named) for piece in track(pieces, "texts read by the rater")])


def _kept(texts: Sequence[str], rater, tokenizer, named: str) -> np.ndarray:
    """last_states of the texts, from CACHE if they are there; named: the hash of the rater's weights."""
    path = CACHE / f"{hashlib.sha256(repr((VERSION, named, list(texts))).encode()).hexdigest()}.safetensors"
    if not path.exists():
        states = np.ascontiguousarray(last_states(texts, rater, tokenizer))
        with files.whole(path) as aside:
            save_file({"states": states}, aside)
    return load_file(path)["states"]


def cut_layers(model: nn.Module, layers: int) -> nn.Module:
    """The same model with its first layers alone, in place: what it then costs to read is a fraction."""
    name, found = find_layers(model)
    if not 1 <= layers <= len(found):
        raise ValueError(f"the model has {len(found)} layers and {layers} are asked for")
    setattr(model.get_decoder(), name, found[:layers])
    return model


def mean_states(texts: Sequence[str], model: nn.Module, tokenizer) -> np.ndarray:
    """The mean over a text's tokens of the decoder's last state, [N,D]."""
    return _states(texts, model, tokenizer, lambda hidden, mask: (hidden * mask).sum(1) / mask.sum(1))


def last_states(texts: Sequence[str], model: nn.Module, tokenizer) -> np.ndarray:
    """The decoder's last state at a text's last token, [N,D]."""

    def at_end(hidden, mask):
        return hidden[torch.arange(len(hidden)), mask.sum(1)[:, 0].long() - 1]

    return _states(texts, model, tokenizer, at_end)


def _states(texts, model, tokenizer, pool) -> np.ndarray:
    """A long text loses its beginning. Texts of like length are read together; right padding is never attended to."""
    ids = [collate.encode_text(text, tokenizer)[-MAX_TOKENS:] for text in texts]
    if empty := [text for text, tokens in zip(texts, ids, strict=True) if not tokens]:
        raise ValueError(f"{len(empty)} texts have no token: leave them out")
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    decoder, out = model.get_decoder(), None
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        length = max(len(ids[i]) for i in chosen)
        batch = torch.tensor([[*ids[i], *[tokenizer.pad_token_id] * (length - len(ids[i]))] for i in chosen])
        mask = torch.tensor([[1] * len(ids[i]) + [0] * (length - len(ids[i])) for i in chosen])
        with torch.no_grad(), small_products():
            hidden = decoder(batch.to(model.device), mask.to(model.device)).last_hidden_state.float().cpu()
        out = np.empty((len(ids), hidden.shape[2]), np.float32) if out is None else out
        out[chosen] = pool(hidden, mask[..., None].to(hidden.dtype)).numpy()
    return out


def fit_whitening(states: np.ndarray, size: int) -> Whitening:
    """From states [N,D]: the `size` largest principal components; fewer where there are no more."""
    mean = states.mean(0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(states - mean, full_matrices=False)
    kept = slice(0, min(size, int((spread > 1e-6 * spread[0]).sum())))
    return Whitening(mean, directions[kept].T * (np.sqrt(len(states)) / spread[kept]))


def whiten(parts: Sequence[np.ndarray], fitted: Sequence[Whitening]) -> np.ndarray:
    """The parts' states as one vector a text, [N, sum of sizes], float32, with entries of about unit size.

    Entries are cut at 5, as a few states of language models are hundreds of times the others.
    """
    read = [(part - one.mean) @ one.matrix for part, one in zip(parts, fitted, strict=True)]
    return np.clip(np.concatenate(read, 1), -5, 5).astype(np.float32)
