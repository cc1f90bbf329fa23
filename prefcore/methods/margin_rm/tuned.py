"""One fine-tuned reward model at a time: trained, and asked about the pairs to measure on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from prefcore.data.types import Pair, Parameters
from prefcore.engine import collate, models, ranks
from prefcore.scoring import reward_model
from prefcore.scoring.votes import VotedPair


class Run(NamedTuple):
    """What is left of a trained model: a row a pair with `probability`, P(a is preferred), and a row a step."""

    answers: pd.DataFrame
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
    model_folder: Path | None = None,
) -> Run:
    """Train on the rows, then ask about the pairs.

    rows: with margin and strength. seed: of the head and of the order. model_folder: where the model is saved.
    """
    device = models.choose_device(p.device, p.threads)
    tokenizer, model = reward_model.load(p.encoder, seed=seed, device=device, dtype=p.dtype)
    examples = reward_model.encode(rows, tokenizer, max_tokens=p.max_tokens)
    plan = collate.make_plan(
        examples, batch_size=p.batch_size, epochs=p.epochs, seed=seed, pad_id=tokenizer.pad_token_id
    )
    trained = reward_model.train_top(model, layers=p.layers)
    how = {"learning_rate": rate, "warmup": 0.1, "max_grad_norm": 1.0, "label": label, "precision": p.precision}
    history = reward_model.fit(trained, plan, objective, **how)
    probability = reward_model.preference(asked, model, tokenizer, max_tokens=p.max_tokens, precision=p.precision)
    if model_folder and ranks.is_first():
        reward_model.save(model, tokenizer, model_folder)
    ranks.wait()
    return Run(pd.DataFrame({"probability": probability}), history)
