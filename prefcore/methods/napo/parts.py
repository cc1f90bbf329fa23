"""Which parts of a vision-language model are trained: language layers, and the projector where it is all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from prefcore.engine import attention, models
from prefcore.engine.decoder import LINEAR, find_layers, find_linear_maps, find_tail, unwrap

PROJECTORS = ("multi_modal_projector", "connector", "merger")  # LLaVA's name, SmolVLM's, Qwen-VL's


def add_lora(model, *, rank: int, alpha: float, top_layers: int, seed: int):
    """A LoRA adapter on all linear maps of `trained_parts`; everything else is frozen."""
    parts = trained_parts(model, top_layers)
    inside = {id(module) for part in parts for module in part.modules() if isinstance(module, LINEAR)}
    find_linear_maps(find_layers(model)[1][-top_layers:])  # its error, where a layer is more than linear maps
    names = [name for name, module in model.named_modules() if id(module) in inside]
    return models.add_adapter(model, names, rank=rank, alpha=alpha, seed=seed)


def thaw(model, *, top_layers: int):
    """Train the weights of `trained_parts` and of the norm after the last layer themselves; the rest is frozen."""
    model.requires_grad_(False)
    decoder = model.get_decoder()
    for trained in [*trained_parts(model, top_layers), *map(decoder.get_submodule, find_tail(model))]:
        trained.requires_grad_(True)
    return model


def trained_parts(model, top_layers: int) -> list[torch.nn.Module]:
    """The last `top_layers` language layers; where these (or 0, which says so) are all of them, the projector too.

    ValueError for more layers than there are, and for a model whose projector has none of the PROJECTORS' names.
    """
    layers = find_layers(model)[1]
    if not 0 <= top_layers <= len(layers):
        raise ValueError(f"lora_layers is {top_layers}; the model has {len(layers)} language layers (0: all)")
    if 0 < top_layers < len(layers):
        return list(layers[-top_layers:])
    found = [part for name, part in model.named_modules() if name.rpartition(".")[2] in PROJECTORS]
    if not found:
        raise ValueError(f"no projector of the name {', '.join(PROJECTORS)} found: train fewer than all layers")
    return [*layers, *found]


@contextmanager
def recomputing(policy) -> Iterator[None]:
    """While it is open, a language layer keeps its input alone for the backward pass and is run again there.

    Activations then take a layer's room and not that of all. Gradients stay what they are.
    """
    decoder, layers = unwrap(policy).get_decoder(), find_layers(policy)[1]
    for layer in layers:
        layer.forward = partial(_run_again, decoder, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _run_again(decoder, forward, *given, **named):
    layout = attention.current_layout()
    if layout is None or not torch.is_grad_enabled():
        return forward(*given, **named)

    def run(*given, **named):
        with attention.along(decoder, layout):
            return forward(*given, **named)

    return checkpoint(run, *given, use_reentrant=False, **named)
