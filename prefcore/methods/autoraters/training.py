"""An arm: an objective of the 99 answers, the labelled pairs that it sees, and how often; all from one start.

The start is the judge with an adapter that has learnt to write its own verdict. Every arm goes on with that adapter,
in the one policy that is in memory, and leaves its weights behind.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from prefcore.data.types import Parameters
from prefcore.engine import collate, models, reference, train
from prefcore.engine.collate import Plan
from prefcore.methods.autoraters import prompt
from prefcore.methods.autoraters.labels import Labels
from prefcore.methods.autoraters.tree import ANSWERS, AnswerTree
from prefcore.scoring import votes
from prefcore.scoring.votes import VotedPair

CACHE = Path("build/logps")


class Recipe(NamedTuple):
    """How an arm learns.

    objective(logps [B, 99] in nats, answers [99], label [B], start [B, 99], **settings) -> LossOutput; all numbers that
    it needs are in `settings`. both: each pair in both orders, side by side in a batch.
    """

    objective: Callable
    labels: Labels
    epochs: int
    settings: Mapping = {}
    both: bool = True


class Start(NamedTuple):
    """Where arms begin: the adapter's weights by name, and what it writes of each shown example, logps [2n, 99]."""

    weights: Mapping[str, Tensor]
    logps: Tensor


def start_here(policy, logps: Tensor) -> Start:
    """The policy's adapter as it is now, with what it writes."""
    return Start({name: part.detach().clone() for name, part in policy.named_parameters() if part.requires_grad}, logps)


def load_judge(p: Parameters) -> tuple:
    """(tokenizer, model with a new adapter): build/<profile>/judge for the default data, else the policy."""
    tokenizer, model = models.load(p, p.policy if p.data else Path("build") / p.profile / "judge")
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers, "seed": p.seed}
    return tokenizer, models.add_lora(model, **how)


def show(pairs: Sequence[VotedPair], policy, tokenizer, p: Parameters) -> Plan:
    """Prompts of n pairs in both orders: example i shows pair i as it is, n + i with its texts exchanged.

    What the frozen layers make of them is kept, so that neither training nor judging runs these layers again.
    """
    examples = prompt.encode([*pairs, *map(votes.swap, pairs)], tokenizer, p)
    plan = Plan(examples, [], pad_id=tokenizer.pad_token_id)
    return reference.attach(plan, policy, cache=CACHE, precision=p.precision)


def schedule(shown: Plan, labels: Labels, *, both: bool, batch_size: int, epochs: int, seed: int) -> Plan:
    """The batches of a run over labelled pairs of `show`: `batch_size` rows a step, ids as in `shown`.

    both: a batch holds half as many pairs, each in both orders, the label turned round (swap augmentation): what one
    order teaches about the place of a text, the other takes back in the same step.
    """
    n, m = len(shown.examples) // 2, len(labels.at)
    at = [*labels.at, *(n + labels.at)] if both else list(labels.at)
    share = [*labels.share, *(1 - labels.share)] if both else list(labels.share)
    examples = collate.with_column([shown.examples[i] for i in at], "label", share)
    how = {"epochs": epochs, "seed": seed, "pad_id": shown.pad_id}
    if both:
        batches = collate.make_plan(examples[:m], batch_size=batch_size // 2, **how).batches
        batches = [[*batch, *(m + i for i in batch)] for batch in batches]
    else:
        batches = collate.make_plan(examples, batch_size=batch_size, **how).batches
    trunk = [shown.trunk[i] for i in at] if shown.depth else []
    return shown._replace(examples=examples, batches=batches, ref_logps=shown.ref_logps[at], trunk=trunk)


def train_arm(
    p: Parameters, recipe: Recipe, shown: Plan, policy, tokenizer, start: Start, *, rate: float, arm: str, seed: int
) -> pd.DataFrame:
    """Train the policy's adapter in place, from the start; returns one history row a step."""
    put_weights(policy, start.weights)
    how = {"both": recipe.both, "batch_size": p.batch_size, "epochs": recipe.epochs, "seed": seed}
    with closing(AnswerTree(policy, tokenizer)) as tree:

        def loss(logps, ref_logps, batch, state, *, objective, start, **settings):
            own = start[[int(i) for i in batch["ids"]]].to(logps.device)
            return objective(tree.read(logps, batch), ANSWERS.to(logps.device), batch["label"], own, **settings)

        settings = {"objective": recipe.objective, "start": start.logps, **recipe.settings}
        history = train.fit(
            policy, schedule(shown, recipe.labels, **how), loss, settings,
            learning_rate=rate, seed=seed, label=f"{arm}, seed {seed}", precision=p.precision,
            checkpoints=Path(".checkpoints") / p.profile / "autoraters" / f"{arm}-{rate:g}-{seed}",
        )  # fmt: skip
    return history.assign(arm=arm, seed=seed)


def put_weights(policy, weights: Mapping[str, Tensor]) -> None:
    """Set what is trained of a policy, in place."""
    own = dict(policy.named_parameters())
    with torch.no_grad():
        for name, part in weights.items():
            own[name].copy_(part)
