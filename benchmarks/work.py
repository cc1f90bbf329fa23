"""The work that both sides do: models, token ids, order and optimiser settings, fixed by a seed."""

import random
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

VOCABULARY, SPECIAL, EOS = 49152, 4, 2  # ids below SPECIAL: pad, bos, eos, unknown
RATE, BETA, CLIP = 1e-4, 0.1, 1.0  # AdamW, constant, without warm-up and weight decay


class Case(NamedTuple):
    """`pairs` at full size; a batch is so many pairs (DPO) or single answers (KTO, BCO); lengths in tokens."""

    method: str
    peer: str  # the release of TRL that has the method
    pairs: int = 256
    batch: int = 8
    prompt: int = 96
    answer: int = 64  # EOS included
    pretrained: bool = False  # the folder of --policy, else a random 4-layer Llama
    speed: float = 0.0  # what we want: our tokens/s are at least so many times the peer's ...
    memory: float = 0.0  # ... and our memory at most so much of the peer's


CASES = {
    "dpo": Case("dpo", "1.16.0", speed=5, memory=0.3),
    "kto": Case("kto", "1.16.0", speed=5, memory=0.3),
    "bco": Case("bco", "1.13.0", speed=3, memory=0.3),
    "smollm2": Case("dpo", "1.16.0", pairs=16, batch=4, prompt=256, pretrained=True, speed=2.7, memory=0.5),
}


class Pair(NamedTuple):
    """Token ids; the answers end with EOS."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def make_pairs(case: Case, count: int) -> list[Pair]:
    """Random words, the first `count` of always the same pairs."""
    rng = random.Random(0)

    def words(length):
        return [rng.randrange(SPECIAL, VOCABULARY) for _ in range(length)]

    return [
        Pair(words(case.prompt), words(case.answer - 1) + [EOS], words(case.answer - 1) + [EOS]) for _ in range(count)
    ]


def make_model(case: Case, policy: Path):
    """A float32 causal language model, the same at each call."""
    if case.pretrained:
        if not (policy / "config.json").exists():
            raise FileNotFoundError(f"no model in {policy}: `make repro` builds it, or name a folder with --policy")
        return AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32, use_safetensors=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def count_tokens(case: Case, pairs: int) -> int:
    """Each answer with its prompt, whatever else a method or a library reads: 81,920 for the 256 fixed pairs."""
    return 2 * pairs * (case.prompt + case.answer)


def count_flops(case: Case, model, pairs: int) -> float:
    """Floating-point operations that the task needs, the same for both sides.

    Each prompt is read once with all its answers, an answer's last token is only predicted, and the head sees only
    positions that predict an answer's token. Matrix products (2 per weight and token) and attention's two products with
    the tokens that are really seen; forward once for the reference, and three times (forward, two gradients) for
    training. KTO also reads each mismatched answer, after the same prompt, forward once with either model. A pair is
    one example of two answers for DPO, two examples of one answer for KTO and BCO.
    """
    config, decoder = model.config, model.get_decoder()
    inside = sum(p.numel() for name, p in decoder.named_parameters() if p.dim() == 2 and "embed_tokens" not in name)
    head = model.get_output_embeddings().weight.numel()
    per_key = 2 * config.num_hidden_layers * config.hidden_size  # multiply-adds of a token with one key and its value
    read = case.answer - 1

    def forward(prompts: int, answers: int) -> float:
        """`answers` per prompt; `prompts` 0 where the prompt has been read already."""
        tokens = prompts * case.prompt + answers * read
        keys = prompts * case.prompt * (case.prompt + 1) / 2 + answers * (read * case.prompt + read * (read + 1) / 2)
        return 2 * (inside * tokens + per_key * keys + head * answers * case.answer)

    each = {
        "dpo": 4 * forward(1, 2),
        "bco": 2 * 4 * forward(1, 1),
        "kto": 2 * (4 * forward(1, 1) + 2 * forward(0, 1)),
    }
    return pairs * each[case.method]
