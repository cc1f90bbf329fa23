"""The small LLaVA that is made here: its tower learns, its language half is the language model's first layers."""

import json

import numpy as np
import pytest
import torch

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import models
from prefcore.methods.napo import tower, vision
from prefcore.methods.napo.world import archive, pictures


def blobs(n, seed=0):
    """Pictures with a square of one of two colours on the left or on the right; (pixels, [colour, side])."""
    rng = np.random.default_rng(seed)
    colour, side = rng.integers(2, size=n), rng.integers(2, size=n)
    found = np.full((n, 64, 64, 3), 240, dtype=np.uint8)
    for i in range(n):
        at = 8 + 32 * side[i]
        found[i, 24:40, at : at + 16] = (250, 0, 0) if colour[i] else (0, 0, 250)
    return tower.as_pixels(list(found)), torch.tensor(colour)


def test_the_tower_learns_what_pictures_show_and_the_same_seed_gives_the_same_tower():
    pixels, colour = blobs(64)
    how = {"epochs": 6, "learning_rate": 3e-3, "batch_size": 16, "seed": 0}
    towers = [tower.make_tower(0, num_hidden_layers=1) for _ in range(2)]
    (head, history), _ = (tower.fit_tower(one, pixels, [colour], **how) for one in towers)
    fresh, label = blobs(40, seed=1)
    with torch.no_grad():
        right = (head(tower.patches(towers[0], fresh).mean(1)).argmax(1) == label).float().mean()
    assert right > 0.9 and len(history) == 24 and history["loss"].iloc[-1] < history["loss"].iloc[0]
    first, second = (one.state_dict() for one in towers)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_moving_a_picture_keeps_its_size_and_its_middle():
    pixels = torch.arange(64.0).expand(2, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        moved = tower.augment(pixels, generator)
        assert moved.shape == pixels.shape and abs(float(moved[0, 0, 0, 32]) - 31.5) <= 7


@pytest.fixture
def parts(tmp_path):
    smoke.make_weights(tmp_path)
    return tower.make_tower(0), *reversed(models.load_policy(str(tmp_path / "policy")))


def test_the_language_half_is_the_first_layers_and_the_tower_is_taken_over(parts):
    eyes, policy, tokenizer = parts
    size = len(tokenizer)
    _, model = tower.assemble(eyes, policy, tokenizer, layers=1, seed=0)
    ours, theirs = model.get_decoder().state_dict(), policy.get_decoder().state_dict()
    assert len(model.get_decoder().layers) == 1 and len(tokenizer) == size + 1
    for name, value in ours.items():
        if name == "embed_tokens.weight":
            assert torch.equal(value[:size], theirs[name][:size])
            assert torch.allclose(value[size], theirs[name].mean(0), atol=1e-6)
        else:
            assert torch.equal(value, theirs[name])
    assert all(torch.equal(v, model.model.vision_tower.state_dict()[k]) for k, v in eyes.state_dict().items())
    assert model.config.image_token_id == size and model.lm_head.weight is model.get_input_embeddings().weight


def test_with_all_layers_and_no_picture_it_speaks_as_the_language_model_did(parts):
    eyes, policy, tokenizer = parts
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = policy(input_ids=ids).logits
        _, model = tower.assemble(eyes, policy, tokenizer, layers=2, seed=0)
        found = model(input_ids=ids).logits
    assert torch.allclose(found[..., : expected.shape[-1]], expected, atol=1e-4)


@pytest.mark.parametrize("layers", [0, 3])
def test_more_layers_than_there_are_are_refused(parts, layers):
    with pytest.raises(ValueError, match=f"language_layers is {layers}; the language model has 2"):
        tower.assemble(*parts, layers=layers, seed=0)


def test_the_stages_leave_a_tower_with_its_numbers_and_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke.make_weights(tmp_path / "weights")
    smoke.make_pictures(archive.ARCHIVE)
    own = {"profile": "smoke", "policy": "weights/policy", "max_completion": 12, "seed": 0, "device": "cpu",
           "threads": 1, "prior_strength": 0.8, "preference_strength": 0.1, "tower_learning_rate": 1e-3,
           "taught_learning_rate": 1e-3}  # fmt: skip
    p = freeze(own | smoke.SHARED)
    build = tmp_path / "build"
    pictures.prepare(p, build)
    tower.fit(p, build)
    report = json.loads((tmp_path / "metrics" / "smoke" / "vision.json").read_text())
    assert report["train"] == report["test"] == 48 and 0 <= report["colour"]["low"] <= report["colour"]["high"] <= 1
    tower.fit_biased(p, build)
    first = (build / "biased" / "model.safetensors").read_bytes()
    processor, model = vision.load(str(build / "biased"))
    (prompt,) = vision.make_prompts(processor, [(np.zeros((64, 64, 3), np.uint8), "what color is the shape?")])
    assert isinstance(vision.answer(model, processor, [prompt], max_new_tokens=3)[0], str)
    tower.fit_biased(p, build)
    assert (build / "biased" / "model.safetensors").read_bytes() == first  # same bytes on a second run
