"""One fine-tuned reward model at a time: trained, asked about the pairs to measure on, and remembered until the end.

A run takes minutes and there are many, so what each has said is kept in a folder until the chapter has finished: one
that was stopped goes on with the run that was under way.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data import files
from prefcore.data.types import Pair, Parameters
from prefcore.engine import collate, content, models, ranks, reference
from prefcore.scoring import reward_model
from prefcore.scoring.votes import VotedPair


class Run(NamedTuple):
    """What one trained model says of the pairs, P(a is preferred) [n], and a history row a step."""

    probability: np.ndarray
    history: pd.DataFrame


def run(
    rows: Sequence[Pair],
    asked: Sequence[VotedPair],
    objective: Callable,
    p: Parameters,
    *,
    rate: float,
    seed: int,
    label: str,
    kept: Path,
    model_folder: Path | None = None,
) -> Run:
    """Train on the rows, ask about the pairs, and keep the answers under `kept`; the same run is read from there.

    rows: with margin and strength. seed: of the head and of the order. model_folder: where the model is saved too.
    """
    device = models.choose_device(p.device, p.threads)
    tokenizer, model = reward_model.load(p.encoder, seed=seed, device=device, dtype=p.dtype)
    settings = {"layers": p.layers, "max_tokens": p.max_tokens, "batch_size": p.batch_size, "epochs": p.epochs,
                "rate": rate, "seed": seed, "dtype": p.dtype}  # fmt: skip
    known = [list(map(tuple, rows)), [(pair.prompt, pair.a, pair.b) for pair in asked], objective, settings]
    digest = hashlib.sha256(reference.weight_hash(model).encode())
    for piece in content.describe(known, modules=[__name__]):
        digest.update(piece.encode() + b"\0")
    folder = kept / digest.hexdigest()[:16]
    there = (folder / "probability.csv").exists() and (model_folder is None or model_folder.exists())
    if ranks.first_says(there):
        probability, history = (pd.read_csv(folder / f"{name}.csv") for name in ("probability", "history"))
        return Run(probability["probability"].to_numpy(), history)
    examples = reward_model.encode(rows, tokenizer, max_tokens=p.max_tokens)
    plan = collate.make_plan(
        examples, batch_size=p.batch_size, epochs=p.epochs, seed=seed, pad_id=tokenizer.pad_token_id
    )
    trained = reward_model.train_top(model, layers=p.layers)
    history = reward_model.fit(trained, plan, objective, learning_rate=rate, warmup=0.1, max_grad_norm=1.0, label=label)
    probability = reward_model.preference(asked, model, tokenizer, max_tokens=p.max_tokens)
    if ranks.is_first():
        if model_folder:
            reward_model.save(model, tokenizer, model_folder)
        folder.mkdir(parents=True, exist_ok=True)
        history.to_csv(folder / "history.csv", index=False)
        with files.whole(folder / "probability.csv") as aside:  # written last: what is there is whole
            pd.DataFrame({"probability": probability}).to_csv(aside, index=False)
    ranks.wait()
    return Run(probability, history)
