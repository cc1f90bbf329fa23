"""What one training step keeps in memory and how much it multiplies, from the model's configuration alone.

The weights are on the meta device: they have shapes and no bytes. The engine's own forward pass then runs over two
layers of fake tensors, and what autograd saves in the upper one is counted; from that follow all layers and lengths.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from prefcore.data.types import Example
from prefcore.engine import models
from prefcore.engine.attention import along
from prefcore.engine.collate import collate
from prefcore.engine.logps import COLUMNS, KEPT_BYTES, unwrap
from prefcore.engine.machine import rounding
from prefcore.engine.reference import TOKENS, TRUNK_BYTES

LARGE = 32 * 2**20  # what is at least as large goes back to the system when it is freed (the C library's limit)
# Freed memory below it stays in the process, in pieces that fit nothing: so much of what is saved, an adapter's
# many passing tensors leaving more. Measured: python -m benchmarks.peaks
LEFT = {True: 0.75, False: 0.35}
PASSING = 0.5  # what a layer's backward pass needs besides, of what its forward pass has saved
LIBRARIES = 25 * 2**20  # that the first real step loads
CUDA_LEFT = 0.1  # of everything but the weights: what PyTorch's own allocator rounds up


class Step(NamedTuple):
    """The largest batch: `rows` prompts of `prompt` tokens, each with `answers` answers of `answer` tokens.

    mismatch: each row is read once more, without gradient, with another answer (KTO).
    """

    rows: int
    prompt: int
    answer: int
    answers: int
    mismatch: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that the network reads; the last of an answer is only predicted."""
        return self.rows * (self.prompt + self.answers * (self.answer - 1))

    @property
    def predicting(self) -> int:
        """Places whose state goes into the head."""
        return self.rows * (1 + self.answers * (self.answer - 1)) if self.answer else 0


class Outline(NamedTuple):
    """A model as its configuration describes it. Sizes in parameters; saved: of each tensor that a trained layer keeps
    for its backward pass, (bytes a token, bytes whatever the length).
    """

    name: str
    weights: int
    trained: int
    adapted: bool
    layers: int
    above: int
    layer: int
    head: int
    hidden: int
    bytes: int
    saved: tuple[tuple[float, float], ...]


class Memory(NamedTuple):
    """Bytes on one device: expected in parts, and the two ends between which the peak will lie."""

    low: float
    expected: float
    high: float
    parts: Mapping[str, float]


@lru_cache
def outline(
    name: str, *, rank: int, layers: int, whole: bool, precision: str, dtype: str, encoder: bool = False
) -> Outline:
    """The outline of a hub id's or folder's model; only its configuration is read. encoder: it predicts no tokens.

    layers: how many at the top are trained, by an adapter of this rank, or (whole) with all their weights; whole with 0
    layers is every weight of the model. ValueError for a model that cannot be described or adapted.
    """
    try:
        config = AutoConfig.from_pretrained(_base_of(name))
    except (OSError, ValueError) as error:
        why = "`make repro` makes it" if name.startswith("build/") else " ".join(str(error).split())[:200]
        raise ValueError(f"{name}: no configuration can be read ({why})") from error
    with torch.device("meta"):
        model = (AutoModel if encoder else _loader(config)).from_config(config, dtype=getattr(torch, dtype)).eval()
    parent, own, stack = _stack(model)
    above = min(layers or len(stack), len(stack))
    weights, layer = _count(model.parameters()), _count(stack[-1].parameters())
    text = config.get_text_config()
    head = None if encoder else model.get_output_embeddings()
    if whole:
        model.requires_grad_(not layers)
        stack[-above:].requires_grad_(True)
    else:
        model = models.add_lora(model, rank=rank, alpha=1.0, top_layers=above, seed=0)
    trained = _count(p for p in model.parameters() if p.requires_grad)
    setattr(parent, own, stack[-2:])
    saved = tuple(_saved(model, stack[-1], precision, encoder))
    return Outline(
        name, weights, trained, not whole, len(stack), above, layer,
        0 if encoder else _count(head.parameters()), text.hidden_size, getattr(torch, dtype).itemsize, saved,
    )  # fmt: skip


def _base_of(name: str) -> str:
    """The model below an adapter's folder; any other name is itself."""
    adapter = Path(name) / "adapter_config.json"
    return json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter.exists() else name


def _loader(config):
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    raise ValueError(f"a {config.model_type} model continues no text, so no policy can be planned on it")


def _stack(model) -> tuple[nn.Module, str, nn.ModuleList]:
    """(what holds it, its name there, the list of the language model's or encoder's layers)."""
    count = model.config.get_text_config().num_hidden_layers
    found = [(part, name, inner) for part in model.modules() for name, inner in part.named_children()
             if isinstance(inner, nn.ModuleList) and len(inner) == count]  # fmt: skip
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of {count} layers, so it cannot be planned for")
    return max(found, key=lambda one: _count(one[2].parameters()))


def _count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def _saved(model, layer, precision: str, encoder: bool) -> list[tuple[float, float]]:
    """What autograd saves in the layer, by two lengths: (bytes a token, bytes whatever the length) of each tensor."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in model.modules():
            for name, p in part._parameters.items():
                if p is not None:
                    part._parameters[name] = nn.Parameter(torch.empty_like(p, device="cpu"), p.requires_grad)
            for name, b in part._buffers.items():
                if b is not None:
                    part._buffers[name] = torch.empty_like(b, device="cpu")
        short, long = (_run(model, layer, length, precision, encoder) for length in (32, 64))
    if len(short) != len(long):
        raise ValueError(f"{type(model).__name__} saves other tensors at other lengths, so it cannot be planned for")
    slopes = [(b - a) / 64 for a, b in zip(short, long, strict=True)]  # two texts: 64 tokens more
    return [(slope, a - 64 * slope) for slope, a in zip(slopes, short, strict=True)]


def _run(model, layer, length: int, precision: str, encoder: bool) -> list[int]:
    """Bytes of each tensor that the layer saves when two texts of this length are read."""
    known = {p.untyped_storage()._cdata for p in model.parameters()}
    sizes: dict[int, int] = {}
    inside = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if inside and storage._cdata not in known:
            sizes.setdefault(storage._cdata, storage.nbytes())
        return tensor

    hooks = [layer.register_forward_pre_hook(lambda *_: inside.append(1)),
             layer.register_forward_hook(lambda *_: inside.clear())]  # fmt: skip
    half = length // 2
    batch = collate([Example(f"{i}", (i,) * half, ((i,) * (length - half + 1),)) for i in range(2)], pad_id=0)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if encoder:
                with rounding(precision, torch.device("cpu")):
                    model(input_ids=batch["input_ids"].view(2, length)).last_hidden_state.sum()
            else:
                decoder = unwrap(model).get_decoder()
                ids = {name: batch[name] for name in ("input_ids", "position_ids")}
                with along(decoder, batch["layout"]), rounding(precision, torch.device("cpu")):
                    decoder(**ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return list(sizes.values())


# --- memory ---------------------------------------------------------------------------------------------------------


def memory(model: Outline, step: Step, *, kept: int, kind: str = "cpu", devices: int = 1) -> Memory:
    """Bytes on one of `devices` that share the step's rows and, as FSDP does, weights, gradients and moments.

    kept: tokens whose frozen layers' output would be kept (in the machine's memory, so on a CPU it counts).
    """
    step = step._replace(rows=-(-step.rows // devices))
    float_bytes = 4 if model.adapted else model.bytes
    trains_head = not model.adapted and model.above == model.layers and model.head > 0
    saved = [slope * step.tokens + fixed for slope, fixed in model.saved]
    activations = model.above * sum(saved)
    exponentials = step.predicting * model.head // model.hidden * 4
    head = 2 * 4 * step.predicting * model.hidden if model.head else 0
    block = 4 * step.predicting * COLUMNS if model.head else 0  # logits of a part of the vocabulary
    head += exponentials if trains_head and exponentials <= KEPT_BYTES else 0
    whole = model.weights * model.bytes
    weights = whole / devices
    weights += (devices > 1) * 2 * (model.layer + model.head) * model.bytes  # gathered: a layer, the next, the head
    trained = model.trained * float_bytes / devices
    double = model.head * model.bytes if trains_head else 0  # the head's gradient, and the embedding's beside it
    passing = max(PASSING * sum(saved), block)
    backward = max(activations + head + double + passing, trained + double)
    trunk = kept_bytes(model, kept) * (kind == "cpu")
    parts = {
        "weights": weights,
        "adapter": trained * model.adapted,
        "Adam's moments": 2 * trained,
        "activations and gradients": backward,
        "frozen layers' output": trunk + (4 * model.hidden * step.tokens if kept_bytes(model, kept) else 0),
    }
    reading = min(kept, max(TOKENS, step.tokens)) * max(PASSING * sum(slope for slope, _ in model.saved), 4 * COLUMNS)
    # before there are gradients and moments the reference reads, on every device by the whole model
    spare = max(0.0, whole + reading - sum(parts.values()))
    parts["the reference's pass"] = spare
    small = model.above * sum(size for size in saved if size < LARGE)
    total = sum(parts.values())
    parts["left by the allocator"] = (
        LEFT[model.adapted] * small + LIBRARIES if kind == "cpu" else CUDA_LEFT * (total - weights)
    )
    expected = sum(parts.values())
    low = max(total - passing * (backward > trained + double) - spare - 0.1 * activations, whole)
    return Memory(low, expected, expected + 0.1 * (expected - weights) + 0.4 * activations, parts)


def kept_bytes(model: Outline, tokens: int) -> float:
    """Bytes of the frozen layers' output for so many tokens; 0 where nothing is frozen below, or it is too much."""
    size = 4.0 * tokens * model.hidden
    return size if model.head and model.above < model.layers and size <= TRUNK_BYTES else 0.0


# --- operations -----------------------------------------------------------------------------------------------------


def operations(model: Outline, step: Step, *, kept: int) -> tuple[float, float]:
    """Floating-point operations of one step: (reference pass or measuring, training).

    Two for each weight and token forward; with an adapter as many again for the states' gradients, with all weights
    twice as many. Attention adds two products with the tokens that are seen.
    """
    keys = step.rows * (step.prompt**2 / 2 + step.answers * (step.answer - 1) * (step.prompt + step.answer / 2))
    one = 2 * (model.layer * step.tokens + 2 * model.hidden * keys)
    head = 2 * model.head * step.predicting
    forward = model.layers * one + head
    below = 0 if kept_bytes(model, kept) else model.layers - model.above
    training = below * one + model.above * one * (2 if model.adapted else 3) + head * (2 if model.adapted else 3)
    if step.mismatch:
        forward, training = 2 * forward, training + below * one + model.above * one + head
    return forward, training
