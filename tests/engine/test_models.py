"""Policies and encoders: loaded from safetensors without foreign code, adapted, saved, and loaded again the same."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import models, reference

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ROWS = [Example("a", (5, 6, 7), ((8, 9, 2), (10, 2))), Example("b", (5,), ((11, 12), (13, 14)))]


def score(policy):
    return reference.score_all(policy, ROWS, pad_id=0)


def adapted(policy):
    """The policy with an adapter on the last layer, already moved."""
    policy = models.add_lora(policy, rank=2, alpha=4.0, top_layers=1, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
    return policy


def test_a_new_adapter_changes_nothing_and_sits_on_the_last_layers_only(tiny_llama):
    before = score(tiny_llama)
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    np.testing.assert_array_equal(score(policy), before)
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert len(trained) == 7 * 2 and all("lora_" in name and ".layers.1." in name for name in trained)


def test_an_adapter_is_a_function_of_its_seed(tiny_llama):
    import copy

    def start(seed):
        torch.manual_seed(99)
        policy = models.add_lora(copy.deepcopy(tiny_llama), rank=2, alpha=4.0, top_layers=1, seed=seed)
        return torch.cat([p.flatten() for name, p in policy.named_parameters() if "lora_A" in name])

    assert torch.equal(start(0), start(0)) and not torch.equal(start(0), start(1))


def test_training_the_top_leaves_embedding_and_lower_layers(tiny_llama):
    models.train_top(tiny_llama, layers=1)
    trained = {name for name, p in tiny_llama.named_parameters() if p.requires_grad}
    assert "model.norm.weight" in trained and len(trained) == 1 + 9
    assert all(name.startswith("model.layers.1.") for name in trained - {"model.norm.weight"})


def test_a_merged_policy_loads_in_plain_transformers_with_the_same_numbers(tiny_llama, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    policy = adapted(tiny_llama)
    expected = score(policy)
    models.save_policy(policy, tokenizer, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not hasattr(plain, "peft_config") and not (tmp_path / "adapter_config.json").exists()
    np.testing.assert_allclose(score(plain), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(score(models.load_policy(str(tmp_path))[1]), expected, rtol=1e-5, atol=1e-4)


def test_an_adapter_alone_loads_with_its_base(toy_weights, tmp_path):
    tokenizer, base = models.load_policy(str(toy_weights / "policy"))
    plain, policy = score(base), adapted(base)
    expected = score(policy)
    models.save_adapter(policy, tokenizer, tmp_path)
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / "README.md").exists()
    again, loaded = models.load_policy(str(tmp_path))
    np.testing.assert_allclose(score(loaded), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(reference.logps(loaded, ROWS, pad_id=0), plain, rtol=1e-5, atol=1e-4)
    assert again("hello")["input_ids"] == tokenizer("hello")["input_ids"]


SAVE = """import sys
from pathlib import Path
from prefcore.engine import models
tokenizer, base = models.load_policy(sys.argv[1])
models.save_adapter(models.add_lora(base, rank=2, alpha=4.0, top_layers=1, seed=0), tokenizer, Path(sys.argv[2]))
"""


def test_an_adapter_is_saved_with_the_same_bytes_in_every_process(toy_weights, tmp_path):
    """Sets of strings come in another order in each process, as their hashes are seeded."""
    import os
    import subprocess
    import sys

    found = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", SAVE, str(toy_weights / "policy"), str(tmp_path / seed)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True)
        found.append({path.name: path.read_bytes() for path in sorted((tmp_path / seed).iterdir())})
    assert found[0] == found[1] and "adapter_config.json" in found[0]


def test_pickled_weights_are_refused(tiny_llama, tokenizer, tmp_path):
    tiny_llama.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(tiny_llama.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        models.load_policy(str(tmp_path))


def test_foreign_code_is_not_run(toy_weights, tmp_path):
    import json
    import shutil

    shutil.copytree(toy_weights / "policy", tmp_path / "policy")
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Strange: pass\n"
    (tmp_path / "policy" / "strange.py").write_text(code)
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    names = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "strange.Strange")
    config |= {"model_type": "strange", "auto_map": names}
    (tmp_path / "policy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code|strange"):
        models.load_policy(str(tmp_path / "policy"))
    assert not (tmp_path / "ran").exists()


def test_a_policy_loads_in_the_precision_that_is_asked_for(toy_weights):
    assert models.load_policy(str(toy_weights / "policy"))[1].dtype == torch.float32
    assert models.load_policy(str(toy_weights / "policy"), dtype="bfloat16")[1].dtype == torch.bfloat16


def test_choosing_a_device_fixes_the_number_of_threads():
    assert models.choose_device("cpu", 2) == torch.device("cpu")
    assert torch.get_num_threads() == 2
    first = [torch.cuda.is_available() and "cuda", torch.backends.mps.is_available() and "mps", "cpu"]
    assert models.choose_device("auto", 1).type == next(filter(None, first))


# --- the encoder ------------------------------------------------------------------------------------------------


def test_an_embedding_has_length_one_and_does_not_depend_on_its_company(toy_weights):
    tokenizer, encoder = models.load_encoder(str(toy_weights / "encoder"))
    texts = ["good", "a much longer text about the long story of my old phone", "bad and sad"]
    together = models.embed(texts, encoder, tokenizer)
    assert together.shape == (3, 48) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for text, embedding in zip(texts, together, strict=True):
        np.testing.assert_allclose(models.embed([text], encoder, tokenizer)[0], embedding, atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_nothing_to_embed_is_an_error(toy_weights):
    tokenizer, encoder = models.load_encoder(str(toy_weights / "encoder"))
    with pytest.raises(ValueError, match="nothing to embed"):
        models.embed([], encoder, tokenizer)
