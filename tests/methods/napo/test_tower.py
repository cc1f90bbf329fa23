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


OWN = {"profile": "smoke", "policy": "weights/policy", "max_completion": 40, "seed": 0, "device": "cpu", "threads": 1,
       "language_bias": 0.7, "vision_bias": 0.5, "bias_band": [0.6, 0.75], "tower_learning_rate": 1e-3,
       "taught_learning_rate": 1e-3}  # fmt: skip


@pytest.fixture
def p(tmp_path, monkeypatch):
    """Parameters of the stages, in a folder with toy weights and pictures."""
    monkeypatch.chdir(tmp_path)
    smoke.make_weights(tmp_path / "weights")
    smoke.make_pictures(archive.ARCHIVE)
    return freeze(OWN | smoke.SHARED)


def test_the_stages_leave_starting_models_that_differ_and_load(p, tmp_path):
    build = tmp_path / "build"
    tower.fit(p, build)
    report = json.loads((tmp_path / "metrics" / "smoke" / "vision.json").read_text())
    assert report["train"] == report["test"] == 48
    assert all(0 <= report[f"colour_{start}"]["low"] <= report[f"colour_{start}"]["high"] <= 1 for start in (0, 1))
    tower.fit_biased(p, build)
    first, second = ((build / "biased" / start / "model.safetensors").read_bytes() for start in "01")
    assert first != second
    found = json.loads((tmp_path / "metrics" / "smoke" / "biased.json").read_text())
    assert set(found) == {"start_0", "start_1"} and all(
        0 <= found["start_1"][kind] <= 1 for kind in ("language", "vision")
    )
    processor, model = vision.load(str(build / "biased" / "1"))
    (prompt,) = vision.make_prompts(processor, [(np.zeros((64, 64, 3), np.uint8), "what color is the shape?")])
    assert isinstance(vision.answer(model, processor, [prompt], max_new_tokens=3)[0], str)
    tower.fit_biased(p, build)
    assert (build / "biased" / "0" / "model.safetensors").read_bytes() == first  # same bytes on a second run


def test_a_starting_model_is_taught_until_it_sees_and_both_biases_lie_in_the_band(p, tmp_path, monkeypatch):
    """The old stage stopped after one pass, wherever that left the bias: 0.19 right in one profile, 0.84 in another."""
    planted, graded = [], iter([(0.9, 0.4, 0.8), (0.74, 0.5, 0.8), (0.7, 0.65, 0.3), (0.7, 0.65, 0.8)])
    inner = pictures.teach
    monkeypatch.setattr(
        pictures, "teach", lambda f, n, shares, *more: planted.append(shares) or inner(f, n, shares, *more)
    )
    monkeypatch.setattr(tower, "teach", lambda *given, **how: None)
    names = ("language", "vision", "neutral")
    monkeypatch.setattr(tower, "graded_biases", lambda *given, **how: dict(zip(names, next(graded), strict=True)))
    tower.fit(p, tmp_path / "build")
    tower.fit_biased(p._replace(starting_models=1, taught_rounds=5, least_neutral=0.8), tmp_path / "build")
    assert [[pytest.approx(share) for share in shares.values()] for shares in planted] == [
        [0.7, 0.5], [0.5875, 0.6375], [0.555, 0.725], [0.5425, 0.7375],
    ]  # fmt: skip
    found = json.loads((tmp_path / "metrics" / "smoke" / "biased.json").read_text())
    assert found == {"start_0": {"language": 0.7, "vision": 0.65, "neutral": 0.8, "rounds": 4}}


def test_a_bias_is_graded_by_the_colours_that_were_taught(p, tmp_path, monkeypatch):
    """They were drawn with another seed once: models answered 0.95 of the questions as planted, graded 0.04."""
    named = {"taught": {}, "graded": {}}

    def note(where, rows):
        named[where] |= {row.shape: row.suggested for row in rows if row.kind in ("colour", "blind")}

    monkeypatch.setattr(tower, "teach", lambda model, processor, rows, **how: note("taught", rows))
    graded = {"language": 0.7, "vision": 0.7, "neutral": 1.0}
    monkeypatch.setattr(
        tower, "graded_biases", lambda model, processor, rows, **how: note("graded", rows) or dict(graded)
    )
    tower.fit(p, tmp_path / "build")
    tower.fit_biased(p._replace(starting_models=1, seed=3), tmp_path / "build")
    assert named["graded"] and named["graded"].items() <= named["taught"].items() == pictures.suggestions(3).items()


def test_graded_bias_is_the_biased_answers_share_in_all_wordings(parts, monkeypatch):
    """Three wordings of 0.05 and 0.15 each: 0.45 / (0.45 + 0.15) = 0.75, and the truth has 0.15."""
    processor, model = tower.assemble(*parts, layers=2, seed=0)
    facts = [archive.Fact("p", shape, colour) for shape in archive.SHAPES for colour in archive.COLOURS]
    monkeypatch.setattr(archive, "load_pictures", lambda names: {"p": np.zeros((64, 64, 3), np.uint8)})
    table = np.log([[0.05] * 3 + [0.15] * 3])
    monkeypatch.setattr(vision, "score_all", lambda model, examples, images, pad_id: table.repeat(len(examples), 0))
    found = tower.graded_biases(model, processor, pictures.test_rows(facts, 6, 0), max_completion=40)
    assert found == pytest.approx({"language": 0.75, "vision": 0.75, "neutral": 0.15})
