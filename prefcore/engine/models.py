"""Load and save policies and encoders: any hub id or local folder, safetensors only, no remote code."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from prefcore.data.types import Parameters

logging.disable_progress_bar()  # weights load in a second; the bars would fill the terminal
LAYER_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def choose_device(device: str, threads: int) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU. Also fixes the number of CPU threads, on which float sums depend."""
    torch.set_num_threads(threads)
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_policy(name: str, *, device: str = "cpu", dtype: str = "float32"):
    """(tokenizer, causal language model in eval mode). A folder that holds a LoRA adapter loads with its base."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    loader = AutoModelForCausalLM
    if (Path(name) / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM as loader
    policy = loader.from_pretrained(name, dtype=getattr(torch, dtype), use_safetensors=True)
    policy.config.use_cache = False
    return tokenizer, policy.to(device).eval()


def load(p: Parameters, name) -> tuple:
    """(tokenizer, model) on the device and in the precision that the run's parameters say."""
    return load_policy(str(name), device=choose_device(p.device, p.threads), dtype=p.dtype)


def add_lora(policy, *, rank: int, alpha: float, top_layers: int, seed: int):
    """A LoRA adapter (arXiv 2106.09685) on all linear maps of the last `top_layers` layers; the rest is frozen.

    No dropout: policy and reference must be the same function at step 0.
    """
    total = policy.config.num_hidden_layers
    layers = list(range(max(0, total - top_layers), total))
    return add_adapter(policy, list(LAYER_LINEARS), rank=rank, alpha=alpha, seed=seed, layers_to_transform=layers)


def add_adapter(policy, modules: list[str] | str, *, rank: int, alpha: float, seed: int, **how):
    """A LoRA adapter on the linear maps of these names (or of this pattern); `how` goes to peft's LoraConfig."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=modules, task_type="CAUSAL_LM", **how
    )
    return get_peft_model(policy, config).eval()


def train_top(policy, *, layers: int):
    """Train the weights of the last `layers` layers and the final norm; the embedding (tied to the head) stays."""
    for parameter in policy.parameters():
        parameter.requires_grad_(False)
    decoder = policy.get_decoder()
    for block in [*decoder.layers[-layers:], decoder.norm]:
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
        with torch.no_grad():
            hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        out[chosen] = normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).float().cpu().numpy()
    return out
