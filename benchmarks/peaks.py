"""How near the planner's memory is to what training takes: python -m benchmarks.peaks [--smollm2 FOLDER].

Each case runs in a process of its own, which trains a few steps on random tokens and says by how much its resident
memory has grown at most since its libraries were loaded. One thread; the rows' lengths are all equal.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

DEFAULT: dict[str, str] = {}  # the C library's own way
# what is freed is given back at once, so that what is left is in use
AT_ONCE = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class Peak(NamedTuple):
    """A model (of random weights, or those in `folder`), what of it is trained, and the batches."""

    hidden: int = 256
    inner: int = 688
    layers: int = 4
    vocabulary: int = 8192
    top: int = 0  # layers at the top that carry an adapter; 0: all weights are trained
    rows: int = 8
    prompt: int = 64
    answer: int = 32
    steps: int = 2
    precision: str = "float32"
    folder: str = ""


CASES = (
    Peak(), Peak(top=4), Peak(rows=4, prompt=192, answer=96), Peak(rows=4, prompt=192, answer=96, top=4),
    Peak(hidden=384, inner=1024, layers=6, vocabulary=16384, rows=4),
    Peak(hidden=384, inner=1024, layers=6, rows=4, top=3),
    Peak(hidden=512, inner=1376, layers=8, vocabulary=32768, rows=2, prompt=96, answer=48),
    Peak(hidden=512, inner=1376, layers=8, vocabulary=32768, rows=4, prompt=96, answer=48, top=8),
    Peak(hidden=512, inner=1376, layers=8, vocabulary=32768, rows=4, prompt=96, answer=48, top=4, precision="bfloat16"),
    Peak(hidden=768, inner=2048, layers=6, vocabulary=16384, rows=2, prompt=96, answer=48),
)  # fmt: skip


def main() -> None:
    """A table of all cases, or one case measured here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="")
    parser.add_argument("--smollm2", default="", help="folder of SmolLM2-135M, which is measured too")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(Peak(**json.loads(given.case)))))
        return
    more = Peak(top=10, rows=4, prompt=96, answer=48, folder=given.smollm2)
    cases = [*CASES, *([more, more._replace(top=0, rows=2, steps=1)] if given.smollm2 else [])]
    head = f"{'million':>8} {'trained':12}{'batch':>20} {'precision':10}"
    print(f"{head}{'low':>7}{'expected':>10}{'peak':>7}{'high':>7} MiB")
    for case in cases:
        found = run(case)
        low, expected, high = (size / 2**20 for size in found["planned"])
        batch = f"{case.rows} × ({case.prompt} + 2 × {case.answer})"
        what = f"{case.top} adapters" if case.top else "all weights"
        print(f"{found['parameters'] / 1e6:8.1f} {what:12}{batch:>20} {case.precision:10}{low:7.0f}{expected:10.0f}"
              f"{found['peak']:7.0f}{high:7.0f}  {expected / found['peak'] - 1:+.0%}", flush=True)  # fmt: skip


def run(case: Peak, allocator: dict[str, str] = DEFAULT) -> dict:
    """`measure` in a process of its own. RuntimeError with what it said where it fails."""
    command = [sys.executable, "-m", "benchmarks.peaks", "--case", json.dumps(case._asdict())]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | allocator)
    if done.returncode:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: Peak) -> dict:
    """peak: MiB beyond the start; planned: bytes (low, expected, high); parameters: of the model."""
    from benchmarks import meter
    from prefcore.engine import models
    from prefcore.lab.footprint import Step, memory, outline

    models.choose_device("cpu", 1)
    train(Peak(hidden=16, inner=16, layers=1, vocabulary=64, top=1, rows=1, prompt=2, answer=3))  # loads all libraries
    before = meter.memory_now()
    meter.reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        case = case._replace(folder=case.folder or write(case, folder))
        train(case)
        grown = meter.memory_peak() - before
        step = Step(case.rows, case.prompt, case.answer, 2)
        how = {"layers": case.top, "whole": not case.top, "precision": case.precision, "dtype": "float32"}
        model = outline(case.folder, rank=16, **how)
    planned = memory(model, step, kept=step.tokens * case.steps)[:3]
    return {"peak": grown, "planned": planned, "parameters": model.weights}


def write(case: Peak, folder: str) -> str:
    """The configuration of a random Llama; no weights."""
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=case.vocabulary, hidden_size=case.hidden, intermediate_size=case.inner,
        num_hidden_layers=case.layers, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def train(case: Peak) -> None:
    """Train as a chapter does."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from prefcore.data.types import Example
    from prefcore.engine import collate, models, reference, train

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        if any(Path(case.folder or folder).glob("*.safetensors")):
            policy = models.load_policy(case.folder)[1]
        else:
            config = AutoConfig.from_pretrained(case.folder or write(case, folder))
            policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if case.top:
            policy = models.add_lora(policy, rank=16, alpha=32.0, top_layers=case.top, seed=0)
        rng, size = random.Random(0), policy.config.vocab_size

        def text(length):
            return tuple(rng.randrange(4, size) for _ in range(length))

        examples = [Example(f"{i}", text(case.prompt), (text(case.answer), text(case.answer)))
                    for i in range(case.rows * case.steps)]  # fmt: skip
        plan = collate.make_plan(examples, batch_size=case.rows, epochs=1, seed=0, pad_id=0)
        plan = reference.attach(plan, policy, cache=None, precision=case.precision)
        how = {"learning_rate": 1e-5, "seed": 0, "save_every": None, "precision": case.precision}
        train.fit(policy, plan, prefer, {"beta": 0.1}, checkpoints=Path(folder), **how)


def prefer(logps, ref_logps, batch, state, *, beta):
    """DPO's loss."""
    from prefcore.methods import dpo

    return dpo.loss(logps, ref_logps, beta=beta)


if __name__ == "__main__":
    main()
