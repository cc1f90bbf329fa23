"""Readers: states of a model's first layers, the same in any batch, whitened by the training texts."""

import numpy as np
import pytest
import torch

from prefcore.data.types import freeze
from prefcore.methods.micro import reader


def test_whitened_states_are_uncorrelated_and_of_unit_size_on_the_texts_they_were_fitted_to():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 5
    found = reader.whiten([states], [reader.fit_whitening(states, 4)])
    assert found.shape == (400, 4) and found.dtype == np.float32
    assert np.allclose(found.T @ found / 400, np.eye(4), atol=0.05)  # but for the entries beyond 5


def test_directions_that_texts_do_not_differ_in_are_left_out():
    states = np.random.default_rng(0).normal(size=(50, 3)) @ np.ones((3, 5))
    assert reader.fit_whitening(states, 4).matrix.shape == (5, 1)


def test_parts_stand_side_by_side_and_no_entry_is_beyond_5():
    wide, narrow = np.random.default_rng(0).normal(size=(2, 300, 2))
    wide[0] = 1e4
    fitted = [reader.fit_whitening(part[1:], 2) for part in (wide, narrow)]
    found = reader.whiten([wide, narrow], fitted)
    assert found.shape == (300, 4) and abs(found).max() == 5


def test_a_states_row_is_that_of_its_text_whatever_stands_beside_it(tiny_llama, tokenizer):
    texts = ["w4 w5", "w5", "w4 w4 w9 w5 w5 w4"]
    for read in (reader.mean_states, reader.last_states):
        together = read(texts, tiny_llama, tokenizer)
        alone = np.concatenate([read([text], tiny_llama, tokenizer) for text in texts])
        assert np.allclose(together, alone, atol=1e-5) and not np.allclose(together[0], together[2], atol=1e-3)


def test_the_first_layers_alone_give_what_they_gave_before(tiny_llama, tokenizer):
    """The mean state is that after the first layer, through the model's last norm."""
    decoder, ids = tiny_llama.get_decoder(), torch.tensor([[4, 5, 4]])
    kept = []
    hook = decoder.layers[0].register_forward_hook(lambda module, given, out: kept.append(out))
    with torch.no_grad():
        decoder(ids)
        state = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        expected = decoder.norm(state).reshape(1, 3, -1).mean(1)
    hook.remove()
    with pytest.raises(ValueError, match="the model has 2 layers and 3 are asked for"):
        reader.cut_layers(tiny_llama, 3)
    cut = reader.cut_layers(tiny_llama, 1)
    assert np.allclose(reader.mean_states(["w4 w5 w4"], cut, tokenizer), expected, atol=1e-5)


def test_own_data_are_read_without_the_rater_and_unknown_readers_are_named(monkeypatch):
    for name in ("encoder", "policy", "rater"):
        monkeypatch.setattr(reader, f"read_{name}", lambda texts, p, name=name: name)
    p = freeze({"readers": {"encoder": 4, "rater": 4}, "data": ""})
    assert reader.read_states(["x"], p) == {"encoder": "encoder", "rater": "rater"}
    assert reader.read_states(["x"], p._replace(data="votes.jsonl")) == {"encoder": "encoder"}
    with pytest.raises(ValueError, match="readers .'judge'. are not known: choose of encoder, policy, rater"):
        reader.read_states(["x"], p._replace(readers={"judge": 4}))


def test_what_the_rater_has_read_is_kept_and_another_rater_reads_anew(tiny_llama, tokenizer, tmp_path, monkeypatch):
    read = []
    inner = reader.last_states
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reader, "PIECE", 2)
    monkeypatch.setattr(reader.models, "load", lambda p, name: (tokenizer, tiny_llama))
    monkeypatch.setattr(reader, "last_states", lambda texts, *more: read.append(len(texts)) or inner(texts, *more))
    p, texts = freeze({"profile": "toy"}), ["w4 w5", "w6", "w7 w8 w9"]
    first = reader.read_rater(texts, p)
    assert read == [2, 1] and first.shape[0] == 3
    assert np.array_equal(reader.read_rater(texts, p), first) and read == [2, 1]
    assert np.array_equal(reader.read_rater([*texts[:2], "w4"], p)[:2], first[:2]) and read == [2, 1, 1]
    with torch.no_grad():
        tiny_llama.get_decoder().norm.weight.mul_(2)
    assert not np.allclose(reader.read_rater(texts, p), first) and read == [2, 1, 1, 2, 1]
