"""The work that both sides do: models, token ids, order and optimiser settings, fixed by a seed."""

import random
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.cases import Case

SPECIAL, EOS = 4, 2  # ids below SPECIAL: pad, bos, eos, unknown
RATE, BETA, CLIP = 1e-4, 0.1, 1.0  # AdamW, constant, without warm-up and weight decay
RANK, ALPHA = 8, 16.0  # of an adapter


class Question(NamedTuple):
    """Token ids of a prompt and of its answers, the best one first; answers end with EOS."""

    prompt: list[int]
    answers: list[list[int]]


class Pair(NamedTuple):
    """Token ids; the answers end with EOS."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def make_questions(case: Case) -> list[Question]:
    """Random words; of a longer case, the first questions are the same."""
    rng = random.Random(0)

    def words(length):
        return [rng.randrange(SPECIAL, case.vocabulary) for _ in range(length)]

    return [
        Question(words(case.prompt), [words(case.answer - 1) + [EOS] for _ in range(case.answers)])
        for _ in range(case.prompts)
    ]


def make_pairs(case: Case) -> list[Pair]:
    """Any two answers of each question, the better one chosen."""
    return [Pair(q.prompt, *two) for q in make_questions(case) for two in combinations(q.answers, 2)]


def make_model(case: Case, policy: Path):
    """A float32 causal language model, the same at each call."""
    if case.pretrained:
        return AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32, use_safetensors=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case.vocabulary, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def count_flops(case: Case, model) -> tuple[float, float]:
    """Floating-point operations that the task needs, the same for both sides: (reference pass, training).

    Each prompt is read once with all its answers, an answer's last token is only predicted, and the head sees only
    positions that predict an answer's token. Matrix products (2 per weight and token) and attention's two products with
    the tokens that are really seen; forward once for the reference, and three times (forward, two gradients) for
    training. With an adapter at the top, training runs forward and backward through the layers that carry it, and the
    head, without gradients of weights; what lies below is the reference's. KTO also reads each mismatched answer, after
    the same prompt, forward once with either model. All answers of a prompt are one example, but for KTO and BCO each
    is one of its own.
    """
    config, decoder = model.config, model.get_decoder()
    inside = sum(p.numel() for name, p in decoder.named_parameters() if p.dim() == 2 and "embed_tokens" not in name)
    head = model.get_output_embeddings().weight.numel()
    per_key = 2 * config.num_hidden_layers * config.hidden_size  # multiply-adds of a token with one key and its value
    read = case.answer - 1

    def forward(prompts: int, answers: int, layers: float = 1.0) -> float:
        """Answers after a prompt, which costs nothing where `prompts` is 0; layers: the share of them that runs."""
        tokens = prompts * case.prompt + answers * read
        keys = prompts * case.prompt * (case.prompt + 1) / 2 + answers * (read * case.prompt + read * (read + 1) / 2)
        return 2 * (layers * (inside * tokens + per_key * keys) + head * answers * case.answer)

    if case.method in ("kto", "bco"):
        other = forward(0, 1) if case.method == "kto" else 0.0
        reference, training = (case.answers * (n * forward(1, 1) + other) for n in (1, 3))
    elif case.adapted:
        reference = forward(1, case.answers)
        training = 2 * forward(1, case.answers, case.adapted / config.num_hidden_layers)
    else:
        reference, training = (n * forward(1, case.answers) for n in (1, 3))
    return case.prompts * reference, case.prompts * training
