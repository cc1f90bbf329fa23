"""What the chapter's tests share: a small LLaVA of random weights, parameters that read it, and four rows about it."""

from pathlib import Path

import numpy as np
import pytest

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import models
from prefcore.methods.napo import tower, vision
from prefcore.methods.napo.world.pictures import Row

P = freeze({
    "profile": "toy", "data": "", "vision_policy": "", "device": "cpu", "threads": 1, "dtype": "float32",
    "precision": "float32",
    "seed": 0,
    "lora_rank": 2, "lora_alpha": 4.0, "lora_layers": 1, "batch_size": 2, "epochs": 2, "pairs": 4,
    "validation_questions": 1, "test_questions": 2, "text_pairs": 0, "text_held_out": 0, "text_arms": [],
    "text_noises": [], "text_seeds": 1,
})  # fmt: skip


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """build/<profile>/biased: a small LLaVA of random weights, as the stage leaves it."""
    root = tmp_path_factory.mktemp("napo")
    smoke.make_weights(root / "weights")
    tokenizer, policy = models.load_policy(str(root / "weights" / "policy"))
    processor, model = tower.assemble(tower.make_tower(0), policy, tokenizer, layers=2, seed=0)
    vision.save(model, processor, root / "build" / "toy" / "biased")
    return root


@pytest.fixture
def p(folder, tmp_path, monkeypatch):
    """Parameters, in a folder of the test's own whose build/<profile>/biased is the small LLaVA."""
    monkeypatch.chdir(tmp_path)
    Path("build/toy").mkdir(parents=True)
    Path("build/toy/biased").symlink_to(folder / "build" / "toy" / "biased")
    return P


@pytest.fixture
def rows():
    answers = "is a wonderful great joy", "was a poor thing"
    return [Row(f"r{i}", f"p{i}", "My old phone", *answers) for i in range(4)]


@pytest.fixture
def album():
    return {f"p{i}": np.full((64, 64, 3), 60 * i, dtype=np.uint8) for i in range(4)}
