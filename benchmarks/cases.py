"""What is measured: training tasks, sampling and growth, and at which sizes."""

from math import comb
from typing import NamedTuple

VOCABULARY = 49152


class Case(NamedTuple):
    """A training task. Any two answers of a prompt are a pair; lengths in tokens.

    A step reads `batch` pairs (dpo), single answers (kto, bco), or prompts with all their answers (ranked).
    """

    label: str
    method: str = "dpo"
    peer: str = "1.16.0"  # the release of TRL that has the method
    prompts: int = 64
    batch: int = 8
    prompt: int = 96
    answer: int = 64  # EOS included
    answers: int = 2  # of one prompt
    vocabulary: int = VOCABULARY
    pretrained: bool = False  # SmolLM2-135M, else a random 4-layer Llama
    adapted: int = 0  # layers at the top that carry a LoRA adapter; 0: all weights are trained
    tolerance: float = 1e-5  # how far apart the two sides' float32 losses may be, at any step


CASES = {
    "dpo": Case("DPO, 4-layer Llama"),
    "kto": Case("KTO, 4-layer Llama", "kto"),
    "bco": Case("BCO, 4-layer Llama", "bco", "1.13.0"),
    "ultra": Case("DPO, all six pairs of four answers, 4-layer Llama", prompts=16, batch=24, answers=4),
    "lora": Case("DPO, SmolLM2-135M, adapter on 4 layers", batch=4, prompt=256, pretrained=True, adapted=4,
                 tolerance=1e-4),
    "smollm2": Case("DPO, SmolLM2-135M, all weights", batch=4, prompt=256, pretrained=True, tolerance=1e-4),
}  # fmt: skip

SMALL = Case("growth", prompts=16, batch=4, prompt=64, vocabulary=8192)  # where growth starts from


class Axis(NamedTuple):
    """How time grows with one field of a case, over a factor of 16."""

    field: str
    sizes: tuple[int, ...]
    case: Case
    label: str


GROWTH = {
    "pairs": Axis("prompts", (16, 32, 64, 128, 256), SMALL, "pairs"),
    "prompt": Axis("prompt", (64, 128, 256, 512, 1024), SMALL, "prompt length (tokens)"),
    "answers": Axis("answers", (2, 4, 8, 16, 32), SMALL._replace(method="ranked"), "answers of a prompt, K"),
    "vocabulary": Axis("vocabulary", (8192, 16384, 32768, 65536, 131072), SMALL, "vocabulary (tokens)"),
}

# Sampling: beginnings of texts as the pipeline's policies go on with them, and how many tokens may follow.
DOMAINS = ("Movie review:", "Product review:", "Tweet:", "Editorial:")
STARTS = (
    "The Rock is", "This book", "The new law", "My phone", "I never thought", "The film opens with", "Last summer",
    "Nobody expected that", "The battery", "A friend of mine", "It took years", "The actors", "Our mayor", "If only",
    "The second half", "What a", "For once,", "It is hard to", "The sound", "We were told", "Everyone", "The price of",
    "A quiet", "So much for", "The ending", "Why do", "At first", "There is no", "The best part", "He said", "Two",
    "If",
)  # fmt: skip
PROMPTS = [f"{domain} {start}" for domain in DOMAINS for start in STARTS]
NEW = 24


def shrink(case: Case, prompts: int | None) -> Case:
    """The case with at most so many prompts: a quick look."""
    return case._replace(prompts=min(case.prompts, prompts or case.prompts))


def count_pairs(case: Case) -> int:
    """Pairs of answers in the whole case."""
    return case.prompts * comb(case.answers, 2)


def count_tokens(case: Case) -> int:
    """Each answer of each pair with its prompt, whatever else a method or a library reads: 320 a pair of 96 and 64."""
    return 2 * count_pairs(case) * (case.prompt + case.answer)
