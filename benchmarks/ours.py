"""A case as this project does it: reference pass and training, each prompt read once."""

from pathlib import Path

import torch

from benchmarks.work import BETA, CLIP, RATE, Case, Pair
from prefcore.data.types import Example
from prefcore.engine import reference, train
from prefcore.engine.collate import Plan
from prefcore.methods import bco, dpo, kto


def run(case: Case, policy, pairs: list[Pair], folder: Path) -> list[float]:
    """Train the policy; returns the loss of each step. Counts the reference pass and the checkpoint at the end."""
    plan = reference.attach(make_plan(case, pairs), policy, cache=None)
    history = train.fit(
        policy, plan, OBJECTIVES[case.method], {}, learning_rate=RATE, checkpoints=folder, seed=0, warmup=0,
        schedule="constant", max_grad_norm=CLIP, save_every=len(plan.batches),
        state={"total": 0.0, "count": 0.0} if case.method == "bco" else None,
    )
    return history["loss"].tolist()


def make_plan(case: Case, pairs: list[Pair]) -> Plan:
    """The pairs in their order; single answers alternate chosen and rejected; KTO's mismatches are TRL's rotation."""
    if case.method == "dpo":
        examples = [Example(str(i), tuple(p.prompt), (tuple(p.chosen), tuple(p.rejected))) for i, p in enumerate(pairs)]
    else:
        answers = [(p.prompt, answer, label) for p in pairs for answer, label in ((p.chosen, 1.0), (p.rejected, 0.0))]
        examples = [Example(str(i), tuple(x), (tuple(y),), {"label": label}) for i, (x, y, label) in enumerate(answers)]
    steps = [list(range(s, min(s + case.batch, len(examples)))) for s in range(0, len(examples), case.batch)]
    plan = Plan(examples, steps)
    if case.method != "kto":
        return plan
    before = [[step[-1], *step[:-1]] for step in steps]
    return plan._replace(mismatches=[
        [Example(f"{i}'", examples[i].prompt, examples[j].completions) for i, j in zip(step, shifted, strict=True)]
        for step, shifted in zip(steps, before, strict=True)
    ])


def dpo_objective(logps, ref_logps, batch, state):
    return dpo.loss(logps, ref_logps, beta=BETA)


def kto_objective(logps, ref_logps, batch, state):
    kl = kto.kl_estimate(batch["mismatch_logps"], batch["ref_mismatch_logps"])
    return kto.loss(logps, ref_logps, batch["label"], kl, beta=BETA, desirable_weight=1.0, undesirable_weight=1.0)


def bco_objective(logps, ref_logps, batch, state):
    total, count = bco.update_cumulative(state["total"], state["count"], BETA * (logps - ref_logps))
    state["total"].copy_(total)
    state["count"].copy_(count)
    label = batch["label"]
    return bco.pooled_loss(logps, ref_logps, label, total / count, torch.ones_like(label), beta=BETA)


OBJECTIVES = {"dpo": dpo_objective, "kto": kto_objective, "bco": bco_objective}
