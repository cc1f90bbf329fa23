"""Small worlds for the tests of MiCRo: rows of random vectors, and made-up texts with embeddings of their words."""

import numpy as np
import pytest
import torch

from prefcore.data import ratings
from prefcore.methods.micro import criteria
from prefcore.methods.micro.mixture import Rows

WORDS = ("I", "you", "plot", "wonderful", "extraordinary", "bad", "a", "it", "my", "film!", "no,", "so...", "director")


@pytest.fixture
def make_rows():
    """A function of n that gives random rows of three attributes; each pair of texts has two rows."""

    def make(n=60, width=5, attributes=3, seed=0):
        g = torch.Generator().manual_seed(seed)
        difference = torch.randn(n, width, generator=g) + torch.tensor([1.0] + [0.0] * (width - 1))
        prompt, seen, unseen = torch.randn(3, n, 4, generator=g)
        cast = torch.ones(n)
        return Rows(difference, prompt, seen, unseen, torch.arange(n) % attributes, torch.arange(n) // 2, cast, cast)

    return make


@pytest.fixture
def rows(make_rows):
    return make_rows()


@pytest.fixture
def make_text():
    """A function that gives a rated text."""

    def make(i, domain, words, scores, split="train"):
        scores = tuple(scores)
        return ratings.Text(f"{domain}:{i}", domain, words, scores, float(np.mean(scores)), split, "", "", "")

    return make


@pytest.fixture
def texts(make_text):
    rng = np.random.default_rng(0)
    out = {}
    for split, count in (("train", 60), ("validation", 30), ("test", 40)):
        out[split] = [
            make_text(i, domain, f"{split} {i} " + " ".join(rng.choice(WORDS, rng.integers(3, 20))),
                      np.clip(rng.integers(-3, 4) + rng.integers(-2, 3, 12), -4, 4).tolist(), split)
            for domain in ratings.COUNTS for i in range(count)
        ]  # fmt: skip
    return out


@pytest.fixture
def embed():
    """Unit vectors that are a function of the line alone."""

    def embed_lines(lines):
        out = np.stack([np.random.default_rng(list(line.encode())).normal(size=12) for line in lines])
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    return embed_lines


@pytest.fixture
def pools(texts):
    """Pools whose vectors are the six measures and two numbers of noise."""
    rng = np.random.default_rng(1)
    blank = {split: np.zeros((len(part), 1), np.float32) for split, part in texts.items()}
    found = criteria.make_pools(texts, blank)
    return {split: pool._replace(vectors=np.concatenate([pool.levels, rng.normal(size=(len(pool.texts), 2))], 1)
                                 .astype(np.float32)) for split, pool in found.items()}  # fmt: skip


@pytest.fixture
def contexts(embed):
    return criteria.embed_contexts([(name,) for name in criteria.CRITERIA], embed)
