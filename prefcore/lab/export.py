"""A trained policy as a folder that others can load: whole weights, tokenizer with its chat template, a model card.

What was written is read again and must give the same greedy tokens as the run, or nothing is said to be exported.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from prefcore.engine import collate, models

PROMPTS = ("The film was", "To be honest, I", "My first thought:")
TOKENS = 16  # of each continuation that is compared
CONVERTER = "convert_hf_to_gguf.py"  # llama.cpp's


def export(tokenizer, policy, run: Path, folder: Path) -> Path:
    """Write the policy of a run into an empty or new folder. RuntimeError where it does not come back as it was."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder")
    before = [greedy(policy, tokenizer, prompt) for prompt in PROMPTS]
    models.save_policy(policy, tokenizer, folder)
    again, written = models.load_policy(str(folder))
    for prompt, was in zip(PROMPTS, before, strict=True):
        if (found := greedy(written, again, prompt)) != was:
            raise RuntimeError(f"{folder}: after {prompt!r} it writes {found}, and the run {was}: do not use it")
    (folder / "README.md").write_text(card(run), encoding="utf-8")
    return folder


@torch.no_grad()
def greedy(policy, tokenizer, prompt: str) -> list[int]:
    """The likeliest tokens after a prompt, each by a plain pass over all that is there: slow, and without a cache."""
    ids = collate.encode_prompt(prompt, tokenizer)
    start = len(ids)
    for _ in range(TOKENS):
        logits = policy(input_ids=torch.tensor([ids], device=policy.device), use_cache=False).logits
        ids = [*ids, int(logits[0, -1].argmax())]
    return ids[start:]


def card(run: Path) -> str:
    """The model card of a run: what it was trained on and how, and what its chapter measured."""
    notebook = run / "notebook.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.exists() else []
    given = [c for c in cells if {"injected-parameters", "parameters"} & set(c["metadata"].get("tags", []))]
    lines = "".join(given[-1]["source"]) if given else ""
    measured = Path("metrics") / run.parent.relative_to("runs") / f"{run.name}.json" if not run.is_absolute() else None
    numbers = json.loads(measured.read_text(encoding="utf-8")) if measured and measured.exists() else {}
    arms = json.dumps(numbers.get("arms", {}), indent=1, ensure_ascii=False)
    return (
        f"# {run.name}\n\nA policy trained by prefcore ({run.as_posix()}, commit {commit()}): adapter and base are "
        "merged, the tokenizer and its chat template are those of the base.\n\n"
        f"## Parameters\n\n```python\n{lines}\n```\n\n## Measured\n\n```json\n{arms}\n```\n"
    )


def commit() -> str:
    """The commit of this checkout, or 'unknown'."""
    git = shutil.which("git")
    done = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True) if git else None
    return done.stdout.strip() if done and not done.returncode else "unknown"


def to_gguf(folder: Path) -> Path:
    """An exported folder as one GGUF file beside it. FileNotFoundError where llama.cpp's converter is not there."""
    converter = shutil.which(CONVERTER)
    if converter is None:
        raise FileNotFoundError(f"{CONVERTER} of llama.cpp is not on the PATH: install llama.cpp, or leave --gguf out")
    out = folder.with_suffix(".gguf")
    command = [sys.executable, converter, str(folder), "--outfile", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{CONVERTER} failed: {done.stderr.strip().splitlines()[-1:]}")
    return out
