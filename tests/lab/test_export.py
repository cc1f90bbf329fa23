"""What is exported writes the same greedy tokens as the run, and says where it comes from."""

import json

import pytest
import torch

from prefcore.engine import models
from prefcore.lab import export


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder as a notebook leaves it, beside its metrics."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "own" / "dpo"
    folder.mkdir(parents=True)
    cells = [{"metadata": {"tags": ["parameters"]}, "source": ["beta = 9"]},
             {"metadata": {"tags": ["injected-parameters"]}, "source": ["beta = 0.1\n", "epochs = 2"]}]  # fmt: skip
    (folder / "notebook.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "metrics" / "own").mkdir(parents=True)
    (tmp_path / "metrics" / "own" / "dpo.json").write_text(json.dumps({"arms": {"dpo": {"estimate": 0.25}}}))
    return folder.relative_to(tmp_path)


@pytest.fixture
def adapted(tiny_llama):
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.5, generator=generator)
    return policy


def test_the_export_loads_plainly_and_writes_what_the_run_writes(run, adapted, tokenizer, tmp_path):
    before = [export.greedy(adapted, tokenizer, prompt) for prompt in export.PROMPTS]
    with models.scaled(adapted, 0.0):
        assert before != [export.greedy(adapted, tokenizer, prompt) for prompt in export.PROMPTS]  # the adapter matters
    folder = export.export(tokenizer, adapted, run, tmp_path / "out")
    again, policy = models.load_policy(str(folder))
    assert not hasattr(policy, "peft_config")
    assert [export.greedy(policy, again, prompt) for prompt in export.PROMPTS] == before


def test_the_card_holds_parameters_in_force_and_what_was_measured(run):
    said = export.card(run)
    assert "beta = 0.1\nepochs = 2" in said and "beta = 9" not in said and '"estimate": 0.25' in said


def test_a_file_that_comes_back_as_another_model_is_no_export(run, adapted, tokenizer, tmp_path, monkeypatch):
    original = models.save_policy

    def spoil(policy, words, folder):
        original(policy, words, folder)
        _, other = models.load_policy(str(folder))
        other.get_input_embeddings().weight.data.neg_()
        other.save_pretrained(folder)

    monkeypatch.setattr(models, "save_policy", spoil)
    with pytest.raises(RuntimeError, match="do not use it"):
        export.export(tokenizer, adapted, run, tmp_path / "out")


def test_a_folder_in_use_and_a_missing_converter_are_refused(run, adapted, tokenizer, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        export.export(tokenizer, adapted, run, tmp_path / "out")
    monkeypatch.setattr(export.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="install llama.cpp"):
        export.to_gguf(tmp_path / "out")
    assert export.commit() == "unknown"
