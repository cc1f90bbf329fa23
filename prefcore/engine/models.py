"""Load and save policies and encoders: any hub id or local folder, safetensors only, no remote code."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from prefcore.data.types import Example, Parameters
from prefcore.engine import ranks
from prefcore.engine.collate import collate
from prefcore.engine.decoder import describe_settings, find_layers, find_linear_maps, find_tail, unwrap
from prefcore.engine.logps import UNFIT, plain_logps, to_device
from prefcore.engine.machine import small_products, use_best_float32
from prefcore.engine.sample import sample

logging.disable_progress_bar()  # weights load in a second; the bars would fill the terminal
PASSED: set[str] = set()  # kinds of model that `check` has let pass in this process
CONTEXT = 4096  # tokens that are read of a model whose configuration names no context


def context_of(model) -> int:
    """Tokens that a model can read at once, by its configuration; CONTEXT where that names none (ALiBi, say)."""
    return getattr(model.config, "max_position_embeddings", None) or CONTEXT


def choose_device(device: str, threads: int) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU; of several processes each has its own CUDA device.

    Also fixes the number of CPU threads, on which float sums depend.
    """
    torch.set_num_threads(threads)
    use_best_float32()
    if device == "auto":
        other = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else other
    return ranks.join(torch.device(device))


def load_policy(name: str, *, device: str = "cpu", dtype: str = "float32"):
    """(tokenizer, causal language model in eval mode). A folder that holds a LoRA adapter loads with its base.

    ValueError for a model that does not write, or that could not be trained and sampled from here (see `check`).
    """
    tokenizer = AutoTokenizer.from_pretrained(name)
    loader = AutoModelForCausalLM
    if (Path(name) / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM as loader
    else:
        config = AutoConfig.from_pretrained(name)
        if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"{name} is a {config.model_type} model, which continues no text: bring a causal one")
    policy = loader.from_pretrained(name, dtype=getattr(torch, dtype), use_safetensors=True)
    policy.config.use_cache = False
    policy = policy.to(device).eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check(policy, tokenizer, name)
    return tokenizer, policy


def check(policy, tokenizer, name: str) -> None:
    """ValueError unless the model is a pile of layers that samples what it scores: a few tokens are drawn, and their
    log-probabilities compared. So models that look ahead (BERT) or remember padding (Mamba, RWKV) are refused.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {name} has no token that ends a text: set its eos_token")
    model, half = unwrap(policy), policy.dtype in (torch.float16, torch.bfloat16)
    kind = f"{describe_settings(model)} {policy.dtype} {policy.device}"
    if kind in PASSED:
        return
    prompts = [tuple(range(10, 16)), tuple(range(20, 23))]
    try:
        find_layers(policy)
        drawn = sample(policy, tokenizer, prompts, max_new_tokens=3, seed=0)
        ends = [(tokenizer.eos_token_id,) if one.finished else () for one in drawn]
        rows = [Example("", prompt, (one.ids + end,)) for prompt, one, end in zip(prompts, drawn, ends, strict=True)]
        batch = to_device(collate(rows, pad_id=tokenizer.pad_token_id), policy.device)
        with torch.no_grad():
            scored = plain_logps(policy, batch)[:, 0].cpu()
        gap = (scored - torch.tensor([one.logp for one in drawn])).abs().max().item()
        reason = None if gap <= (1.0 if half else 1e-2) else f"{gap:.2g} nats lie between what it samples and scores"
    except UNFIT as error:
        reason = str(error)
    if reason:
        kind = model.config.model_type
        raise ValueError(f"{name} is a {kind} model, which cannot be used here: {reason}. Bring a causal transformer")
    PASSED.add(kind)


def load(p: Parameters, name) -> tuple:
    """(tokenizer, model) on the device and in the precision that the run's parameters say."""
    return load_policy(str(name), device=choose_device(p.device, p.threads), dtype=p.dtype)


def add_lora(policy, *, rank: int, alpha: float, top_layers: int, seed: int):
    """A LoRA adapter (arXiv 2106.09685) on all linear maps of the last `top_layers` layers; the rest is frozen.

    No dropout: policy and reference must be the same function at step 0. ValueError for layers that are more than
    linear maps (decoder.find_linear_maps).
    """
    _, layers = find_layers(policy)
    chosen = list(range(max(0, len(layers) - top_layers), len(layers)))
    names, inside = find_linear_maps(layers[i] for i in chosen), set(layers.modules())
    found = {path: part for path, part in policy.named_modules() if path.rpartition(".")[2] in names}
    if not inside.issuperset(found.values()):  # a vision tower has layers of the same names
        names = [path for path, part in found.items() if part in inside]
    turned = any(isinstance(part, Conv1D) for part in layers.modules())
    how = {"layers_to_transform": chosen, "fan_in_fan_out": turned}
    return add_adapter(policy, names, rank=rank, alpha=alpha, seed=seed, **how)


def add_adapter(policy, modules: list[str] | str, *, rank: int, alpha: float, seed: int, **how):
    """A LoRA adapter on the linear maps of these names (or of this pattern); `how` goes to peft's LoraConfig."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=modules, task_type="CAUSAL_LM", **how
    )
    return get_peft_model(policy, config).eval()


@contextmanager
def scaled(policy, factor: float) -> Iterator[None]:
    """A context in which the adapter's change of every weight is `factor` times what was learnt.

    0 is the reference, 1 the trained policy. What lies between and beyond is a tilted policy, not one that training
    with another rate or beta would have given.
    """
    layers = [part for part in policy.modules() if hasattr(part, "get_delta_weight")]
    if not layers:
        raise ValueError("this policy has no adapter, so its distance from the reference cannot be scaled")
    kept = [dict(part.scaling) for part in layers]
    try:
        for part in layers:
            part.scaling.update({name: value * factor for name, value in part.scaling.items()})
        yield
    finally:
        for part, before in zip(layers, kept, strict=True):
            part.scaling.update(before)


def train_top(policy, *, layers: int):
    """Train the weights of the last `layers` layers and the final norm; the embedding (tied to the head) stays."""
    for parameter in policy.parameters():
        parameter.requires_grad_(False)
    decoder = policy.get_decoder()
    for block in [*find_layers(policy)[1][-layers:], *map(decoder.get_submodule, find_tail(policy))]:
        block.requires_grad_(True)
    return policy


def save_adapter(policy, tokenizer, folder: Path) -> None:
    """The adapter alone (a few MB) with the name of its base; load_policy and plain transformers with peft load it."""
    for config in policy.peft_config.values():
        config.target_modules = sorted(config.target_modules)  # a set is written in another order each time
    policy.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    tokenizer.save_pretrained(folder)


def save_policy(policy, tokenizer, folder: Path) -> None:
    """Plain transformers files of the whole model, an adapter merged in."""
    if hasattr(policy, "merge_and_unload"):
        policy = policy.merge_and_unload()
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """A GGUF file, dequantised once to float32 safetensors that plain transformers loads.

    The dequantised weights differ a little from the original checkpoint (4 bits and an offset a weight).
    """
    from gguf import GGUFReader  # noqa: F401  fails here, by name, where the package is missing

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.__dict__.pop("quantization_config", None)
    config.dtype, config._name_or_path = "float32", ""
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def unpack(p: Parameters, build: Path) -> None:
    """Stage: data/ -> build/weights/{policy,encoder}, which all profiles share: the packed weights as plain folders."""
    folder = build.parent / "weights"
    shutil.rmtree(folder, ignore_errors=True)
    convert_gguf(next(Path("data").rglob("*.gguf")), folder / "policy")
    shutil.copytree(next(Path("data").rglob("model.safetensors")).parent, folder / "encoder")


def load_encoder(name: str, *, device: str = "cpu"):
    """(tokenizer, sentence encoder in eval mode)."""
    return AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name, use_safetensors=True).to(device).eval()


def embed(texts: Sequence[str], encoder, tokenizer, *, batch_size: int = 64, max_tokens: int = 128) -> np.ndarray:
    """Sentence embeddings [n, H] float32, mean over tokens, unit length."""
    if not texts:
        raise ValueError("nothing to embed: the list of texts is empty")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    device = next(encoder.parameters()).device
    out = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer(
            [texts[i] for i in chosen], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(device)
        with torch.no_grad(), small_products():
            hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        out[chosen] = normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).float().cpu().numpy()
    return out
