"""Sampling as this project does it, and as transformers' `generate` does: the same prompts, in one batch.

What counts are useful tokens: those of an answer until its end of text, that one included; what is computed for rows
that have ended is waste. Both draw from the whole vocabulary at temperature 1, each with its own random numbers.
"""

from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.cases import NEW, PROMPTS
from benchmarks.meter import Took, timed


def run(side: str, precision: str, policy: Path, prompts: int | None) -> tuple[Took, int]:
    """(how long it took, how many useful tokens came of it). A few tokens are drawn before the clock starts."""
    draw, ids = {"ours": prepare_ours, "peer": prepare_peer}[side](policy, precision, PROMPTS[:prompts])
    draw(ids[:2], 2)
    took, useful = timed(partial(draw, ids, NEW))
    return took, useful


def prepare_ours(policy: Path, precision: str, prompts: list[str]):
    """(a function that draws and counts, the prompts' token ids); the model is kept in float32."""
    from prefcore.engine.models import load_policy
    from prefcore.engine.sample import sample

    tokenizer, model = load_policy(str(policy))

    def draw(ids, new):
        drawn = sample(model, tokenizer, ids, max_new_tokens=new, seed=0, batch_size=len(PROMPTS), precision=precision)
        return sum(len(one.ids) + one.finished for one in drawn)

    return draw, [tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts]


def prepare_peer(policy: Path, precision: str, prompts: list[str]):
    """The same for transformers, whose model is loaded in the precision itself."""
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    how = {"dtype": getattr(torch, precision), "use_safetensors": True}
    model = AutoModelForCausalLM.from_pretrained(policy, **how).eval()

    def draw(ids, new):
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        out = model.generate(
            **batch, max_new_tokens=new, do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
            pad_token_id=tokenizer.pad_token_id,
        )
        return count_useful(out[:, batch["input_ids"].shape[1] :].tolist(), tokenizer.eos_token_id)

    return draw, tokenizer(prompts)["input_ids"]


def count_useful(rows: list[list[int]], eos: int) -> int:
    """Tokens of all rows until the first end of text, that one included."""
    return sum(row.index(eos) + 1 if eos in row else len(row) for row in rows)
