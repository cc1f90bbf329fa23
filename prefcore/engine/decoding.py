"""Attention while text is written, on a CPU: one new token of each row looks back, as two batched products.

PyTorch's fused attention makes two small products for each row and head; sent through oneDNN (see machine.py), as
float32 is, each of them costs many times its arithmetic.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from prefcore.engine.decoder import attending, find_additions, unwrap
from prefcore.engine.machine import small_products

NAME = "prefcore_decoding"


def fits(policy) -> bool:
    """Whether a policy is on a CPU, lets its attention be chosen, and has left it to PyTorch or to this module."""
    model = unwrap(policy)
    plain = model.config.get_text_config()._attn_implementation in ("sdpa", NAME)
    return plain and model.device.type == "cpu" and model._supports_attention_backend


def step_by_step(policy) -> AbstractContextManager:
    """While it is open, a policy on a CPU attends so, if it would have used PyTorch's attention and lets one choose."""
    return attending(unwrap(policy), NAME) if fits(policy) else nullcontext()


def attend(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling=None, **more) -> tuple:
    """What transformers calls in each layer: query [B, heads, t, D], key and value [B, as many or fewer heads, T, D].

    mask: None or bool, True where a query sees a key. Returns ([B, t, heads, D], None).
    """
    rows, heads, length, size = query.shape
    shared = mask is None or mask.dtype == torch.bool and mask.shape[1] == 1
    if length > 1 or not shared or find_additions(more):
        with small_products():
            return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **more)
    groups = query.view(rows, key.shape[1], -1, size)
    scores = groups * (size**-0.5 if scaling is None else scaling) @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill_(~mask, -torch.inf)
    return (scores.softmax(-1) @ value).view(rows, 1, heads, -1), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
