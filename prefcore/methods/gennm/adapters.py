"""Two adapters, trained one after the other, as one: a model tuned twice is a few MB and its base's name."""

from collections.abc import Mapping

import torch
from torch import Tensor

Adapter = dict[str, tuple[Tensor, Tensor]]  # module -> (A [r, in], B [out, r]); the update is scale x B @ A


def take(policy) -> Adapter:
    """A copy of the LoRA weights of a peft policy."""
    found = {}
    for name, module in policy.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            pair = module.lora_A["default"].weight, module.lora_B["default"].weight
            found[name] = tuple(weight.detach().clone() for weight in pair)
    return found


def stack(first: Mapping, second: Mapping) -> Adapter:
    """The sum of two updates of the same modules with one scale: ranks side by side, exact. An empty second adds 0."""
    second = second or {name: (torch.zeros_like(a), torch.zeros_like(b)) for name, (a, b) in first.items()}
    if first.keys() != second.keys():
        raise ValueError(f"the adapters change different modules: {sorted(first.keys() ^ second.keys())[:3]}")
    return {name: (torch.cat([first[name][0], second[name][0]]), torch.cat([first[name][1], second[name][1]], 1))
            for name in first}  # fmt: skip


def put(policy, weights: Mapping) -> None:
    """Set the LoRA weights of a peft policy of the same rank."""
    modules = dict(policy.get_base_model().named_modules())
    with torch.no_grad():
        for name, (a, b) in weights.items():
            modules[name].lora_A["default"].weight.copy_(a)
            modules[name].lora_B["default"].weight.copy_(b)
