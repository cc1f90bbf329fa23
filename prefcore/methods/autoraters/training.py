"""An arm: an objective of the 99 answers, the labelled pairs that it sees, and how often; trained from one start."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.data.types import Parameters
from prefcore.engine import collate, models, train
from prefcore.methods.autoraters import prompt
from prefcore.methods.autoraters.labels import LabelledPair
from prefcore.methods.autoraters.tree import ANSWERS, AnswerTree, answer_chances


class Recipe(NamedTuple):
    """How an arm learns.

    objective(logps [B, 99] in nats, answers [99], batch, state, **settings) -> LossOutput, with batch["label"] [B]; all
    numbers that it needs are in `settings`. ratings: a digit for each text, see prompt.encode. state: the objective's
    running numbers and their start.
    """

    objective: Callable
    pairs: list[LabelledPair]
    epochs: int
    settings: Mapping = {}
    ratings: Mapping[str, int] | None = None
    state: Mapping[str, float] | None = None


def load_start(p: Parameters, seed: int):
    """(tokenizer, model, a new adapter on it): build/<profile>/judge for the default data, else the policy."""
    tokenizer, model = models.load(p, p.policy if p.data else Path("build") / p.profile / "judge")
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers, "seed": seed}
    return tokenizer, models.add_lora(model, **how)


def train_arm(p: Parameters, recipe: Recipe, *, arm: str, seed: int) -> tuple:
    """(tokenizer, trained policy, history with one row a step), from `load_start`."""
    tokenizer, policy = load_start(p, seed)
    examples = prompt.encode(recipe.pairs, tokenizer, p, recipe.ratings)
    how = {"batch_size": p.batch_size, "epochs": recipe.epochs, "seed": seed, "pad_id": tokenizer.pad_token_id}
    with closing(AnswerTree(policy, tokenizer)) as tree:

        def loss(logps, ref_logps, batch, state, *, objective, **settings):
            return objective(tree.read(logps, batch), ANSWERS.to(logps.device), batch, state, **settings)

        history = train.fit(
            policy, collate.make_plan(examples, **how), loss, {"objective": recipe.objective, **recipe.settings},
            learning_rate=p.learning_rate, seed=seed, label=arm, state=recipe.state, precision=p.precision,
            checkpoints=Path(".checkpoints") / p.profile / "autoraters" / f"{arm}-{seed}",
        )  # fmt: skip
    return tokenizer, policy, history.assign(arm=arm, seed=seed)


def answer_logps(pairs: list[LabelledPair], policy, tokenizer, p: Parameters) -> Tensor:
    """Log-probabilities [n, 99] (nats) of the answers under a policy as it is now, a constant: GRPO's reference."""
    return torch.from_numpy(np.log(answer_chances(prompt.encode(pairs, tokenizer, p), policy, tokenizer))).float()


def draw_answers(logps: Tensor, size: int, state: Mapping, seed: int) -> Tensor:
    """[B, size] positions drawn from the answers' chances, 99 for no answer; counts its steps in state["step"]."""
    chances = logps.detach().exp().cpu()
    whole = torch.cat([chances, (1 - chances.sum(1, keepdim=True)).clamp(min=0)], 1)
    source = torch.Generator().manual_seed(1_000_003 * seed + int(state["step"]))
    train.update_state(state, step=state["step"] + 1)
    return torch.multinomial(whole, size, replacement=True, generator=source).to(logps.device)
