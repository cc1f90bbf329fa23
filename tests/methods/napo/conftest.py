"""What the chapter's tests share: a small LLaVA of random weights, parameters that read it, and four rows about it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)  # fmt: skip

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import models
from prefcore.methods.napo import tower, vision
from prefcore.methods.napo.world.pictures import Row

P = freeze({
    "profile": "toy", "data": "", "vision_policy": "", "device": "cpu", "threads": 1, "dtype": "float32",
    "precision": "float32", "seed": 0, "seeds": 1, "ablation_seeds": 1,
    "lora_rank": 2, "lora_alpha": 4.0, "lora_layers": 0, "batch_size": 2, "accumulation": 1, "recompute": False,
    "epochs": 2, "max_completion": 20, "max_new_tokens": 4, "temperature": 1.0, "band": [0.0, 1.0],
    "pairs": 4, "validation_questions": 1, "test_questions": 2, "spoken_questions": 1, "text_pairs": 0,
    "arms": ["sft", "clean", "dpo-35"], "ablations": ["dpo-0", "no-vision-35"],
})  # fmt: skip


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """build/<profile>/biased/0: a small LLaVA of random weights, as the stage leaves it."""
    root = tmp_path_factory.mktemp("napo")
    smoke.make_weights(root / "weights")
    tokenizer, policy = models.load_policy(str(root / "weights" / "policy"))
    processor, model = tower.assemble(tower.make_tower(0), policy, tokenizer, layers=2, seed=0)
    vision.save(model, processor, root / "build" / "toy" / "biased" / "0")
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


@pytest.fixture
def make_model():
    """Makes (model, what its tower is given of a picture, what else its own forward asks for): tiny and random.

    Four tokens stand for a picture. Qwen-VL gives them places in a plane.
    """

    def make(family, *, vocab, token):
        torch.manual_seed(0)
        text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": vocab, "pad_token_id": 0}  # fmt: skip
        if family == "smolvlm":
            seen = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "image_size": 32, "patch_size": 8}  # fmt: skip
            own = {"image_token_id": token, "scale_factor": 2, "pad_token_id": 0}
            config = SmolVLMConfig(text_config={"model_type": "llama", **text}, vision_config=seen, **own)
            model = SmolVLMForConditionalGeneration(config).eval()
            return model, {"pixel_values": torch.randn(1, 1, 3, 32, 32)}, lambda ids: {}
        turns = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
        seen = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
                "temporal_patch_size": 2, "spatial_merge_size": 2, "out_hidden_size": 32, "window_size": 16,
                "fullatt_block_indexes": [0]}  # fmt: skip
        own = {"image_token_id": token, "vision_start_token_id": token - 1, "video_token_id": token - 2}
        config = Qwen2_5_VLConfig(text_config={**text, "rope_parameters": turns}, vision_config=seen, **own)
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
        image = {"pixel_values": torch.randn(16, 96), "image_grid_thw": torch.tensor([[1, 4, 4]])}
        return model, image, lambda ids: {"mm_token_type_ids": (ids == token).int()}

    return make
