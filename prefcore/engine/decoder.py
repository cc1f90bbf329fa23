"""The parts of a language model, found by what they are and do, not by the names that a family gives them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

LINEAR = (nn.Linear, Conv1D)  # GPT-2's Conv1D is a linear map whose weight lies the other way round
UNUSED = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")  # change no number


def unwrap(policy):
    """The causal language model inside a PEFT wrapper, or the model itself."""
    return policy.get_base_model() if hasattr(policy, "get_base_model") else policy


def describe_settings(model) -> str:
    """What decides the model's numbers beside its weights (a rotary base, a cap on the logits), as one text."""
    kept = {name: value for name, value in model.config.to_dict().items() if name not in UNUSED}
    return json.dumps(kept, sort_keys=True, default=str)


@contextmanager
def attending(model, name: str) -> Iterator[None]:
    """While it is open, the model's layers ask the attention that is registered under this name."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def find_additions(extra: dict) -> list[str]:
    """What a family adds to the softmax of scaled products, of the arguments that its layers give to attention."""
    return [name for name in ("softcap", "s_aux", "position_bias") if extra.get(name) is not None]


def find_layers(policy) -> tuple[str, nn.ModuleList]:
    """(name inside the decoder, list) of the decoder's layers: the list that has one module for each of them.

    ValueError for a model without such a list.
    """
    decoder = unwrap(policy).get_decoder()
    count = getattr(decoder.config, "num_hidden_layers", 0)
    lists = [(name, part) for name, part in decoder.named_children() if isinstance(part, nn.ModuleList)]
    lists = [(name, part) for name, part in lists if len(part) == count > 0]
    if not lists:
        raise ValueError(
            f"{type(decoder).__name__} has no list of {count} layers: bring a decoder whose layers lie one on another"
        )
    return lists[0] if len(lists) == 1 else max(lists, key=lambda found: sum(p.numel() for p in found[1].parameters()))


def find_tail(policy) -> list[str]:
    """Names of the decoder's own parts that have weights and run after its last layer: in most families the final norm.

    Which they are is seen by reading one token.
    """
    decoder = unwrap(policy).get_decoder()
    own, layers = find_layers(policy)
    parts = {name: part for name, part in decoder.named_children() if name != own and list(part.parameters())}
    ran: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, part in {**parts, own: layers[-1]}.items()
    ]
    token = torch.zeros(1, 1, dtype=torch.long, device=next(decoder.parameters()).device)
    try:
        with torch.no_grad():
            decoder(input_ids=token, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[ran.index(own) + 1 :]


def find_linear_maps(layers: Iterable[nn.Module]) -> list[str]:
    """Last parts of the names of all linear maps in these layers, in their order.

    ValueError where a layer has weights that are in no linear map (fused experts, convolutions): an adapter would
    leave them out in silence.
    """
    names: dict[str, None] = {}
    for layer in layers:
        maps = {name: part for name, part in layer.named_modules() if isinstance(part, LINEAR)}
        inside = {id(weight) for part in maps.values() for weight in part.parameters()}
        left = [name for name, weight in layer.named_parameters() if weight.dim() > 1 and id(weight) not in inside]
        if left:
            raise ValueError(
                f"{type(layer).__name__}: an adapter on its linear maps would leave out {', '.join(left)}; train the "
                "weights of the last layers themselves (models.train_top), or bring another model"
            )
        names |= dict.fromkeys(name.rpartition(".")[2] for name in maps)
    return list(names)
