"""Pairs of four texts, a tiny random model that can judge them, and the parameters of a small run."""

import pytest

from prefcore.data.types import freeze
from prefcore.engine import models
from prefcore.engine.collate import Plan
from prefcore.methods.autoraters import prompt
from prefcore.scoring.votes import VotedPair


@pytest.fixture
def texts():
    return ("The long story is a wonderful great joy for us", "My old phone was a poor and sad thing",
            "A short song came on the third of May", "Our own town is an awful terrible pain for us")  # fmt: skip


@pytest.fixture
def p():
    return freeze({
        "question": "The more positive text is", "max_text": 24, "batch_size": 4, "profile": "smoke", "seed": 0,
        "data": "own", "device": "cpu", "threads": 1, "dtype": "float32", "precision": "float32",
        "lora_rank": 4, "lora_alpha": 8.0,
        "lora_layers": 1, "policy": "", "train_pairs": 2, "validation_pairs": 1, "test_pairs": 2,
    })  # fmt: skip


@pytest.fixture
def pair(texts):
    """pair(i, j, ...) -> the pair of texts i and j."""
    def make(i=0, j=1, votes=(1.0, 1.0, 0.0, 0.5), share=0.75, **more):
        row = {"id": f"{i}|{j}", "prompt": "", "a": texts[i], "b": texts[j], "votes": votes, "truth": (),
               "share": share, "domain": "Tweet", "stratum": "clear", "split": "train"}  # fmt: skip
        return VotedPair(**row | more)
    return make


@pytest.fixture
def pairs(pair):
    """All twelve pairs."""
    return [pair(i, j) for i in range(4) for j in range(4) if i != j]


@pytest.fixture
def model(toy_weights):
    """(tokenizer, tiny random Llama)."""
    return models.load_policy(str(toy_weights / "policy"))


@pytest.fixture
def shown(p):
    """shown(tokenizer, pairs) -> a plan that holds their prompts, as they are."""
    return lambda tokenizer, pairs: Plan(prompt.encode(pairs, tokenizer, p), [], pad_id=tokenizer.pad_token_id)
