"""Attention of one new token to what was read: PyTorch's own numbers, while it is asked for and where it fits."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from prefcore.engine.decoding import NAME, attend, step_by_step
from prefcore.engine.machine import small_products


def draw_heads(*, heads, shared, length=1, keys=9, rows=5):
    """A layer's query, key, value, and a mask that hides the first keys of some rows."""
    query, (key, value) = torch.randn(rows, heads, length, 8), torch.randn(2, rows, shared, keys, 8)
    mask = torch.ones(rows, 1, length, keys, dtype=torch.bool).tril(keys - length)
    mask[: rows // 2, ..., : keys // 3] = False
    return SimpleNamespace(num_key_value_groups=heads // shared, is_causal=True), query, key, value, mask


@pytest.mark.parametrize("shared", [6, 3, 1])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_attention_is_pytorchs_own(shared, length, scaling):
    module, *given, mask = draw_heads(heads=6, shared=shared, length=length)
    for hidden in (mask, None) if length == 1 else (mask,):
        expected, _ = sdpa_attention_forward(module, *given, hidden, scaling=scaling)
        found, weights = attend(module, *given, hidden, scaling=scaling)
        assert weights is None
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_mask_of_numbers_is_added_and_a_bias_of_positions_too():
    module, *given, mask = draw_heads(heads=6, shared=3)
    numbers = torch.randn(5, 1, 1, 9)
    for how in ({"mask": numbers}, {"mask": mask, "position_bias": torch.randn(1, 6, 1, 9)}):
        hidden = how.pop("mask")
        expected, _ = sdpa_attention_forward(module, *given, hidden, scaling=0.3, **how)
        torch.testing.assert_close(attend(module, *given, hidden, scaling=0.3, **how)[0], expected, rtol=0, atol=1e-5)


def test_a_policy_attends_so_while_it_is_asked_to_and_no_longer(tiny_llama):
    config = tiny_llama.config
    with pytest.raises(RuntimeError), step_by_step(tiny_llama):
        assert config._attn_implementation == NAME
        raise RuntimeError
    assert config._attn_implementation == "sdpa"


def test_a_policy_that_has_chosen_another_attention_keeps_it():
    config = LlamaConfig(vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    config._attn_implementation = "eager"
    with step_by_step(LlamaForCausalLM(config)):
        assert config._attn_implementation == "eager"


def test_small_products_leave_the_choice_of_library_as_it_was():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(RuntimeError), small_products():
            assert torch.get_float32_matmul_precision() == "highest"
            raise RuntimeError
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
