"""A case as this project does it: reference pass and training, each prompt and each answer read once."""

from functools import partial
from pathlib import Path

from torch.nn.functional import logsigmoid

from benchmarks.cases import Case
from benchmarks.meter import Took, timed
from benchmarks.work import ALPHA, BETA, CLIP, RANK, RATE, make_pairs, make_questions
from prefcore.data.types import Example, LossOutput
from prefcore.engine import models, reference, train
from prefcore.engine.collate import Plan
from prefcore.methods import bco, dpo, kto


def run(case: Case, model, precision: str, folder: Path) -> tuple[Took, Took, list[float]]:
    """(how long the reference pass took, how long training, the loss of each step); writes no checkpoint."""
    policy = model
    if case.adapted:
        policy = models.add_lora(model, rank=RANK, alpha=ALPHA, top_layers=case.adapted, seed=0)
    plan = make_plan(case)
    before, plan = timed(partial(reference.attach, plan, policy, cache=None, precision=precision))
    took, history = timed(partial(
        train.fit, policy, plan, OBJECTIVES[case.method], {}, learning_rate=RATE, checkpoints=folder, seed=0, warmup=0,
        schedule="constant", max_grad_norm=CLIP, save_every=None, precision=precision,
        state={"total": 0.0, "count": 0.0} if case.method == "bco" else None,
    ))
    return before, took, history["loss"].tolist()


def make_plan(case: Case) -> Plan:
    """The data in their order; single answers alternate chosen and rejected; KTO's mismatches are TRL's rotation."""
    if case.method == "dpo":
        rows = [(p.prompt, (p.chosen, p.rejected), {}) for p in make_pairs(case)]
    elif case.method == "ranked":
        rows = [(q.prompt, q.answers, {}) for q in make_questions(case)]
    else:
        rows = [(p.prompt, (answer,), {"label": label}) for p in make_pairs(case)
                for answer, label in ((p.chosen, 1.0), (p.rejected, 0.0))]
    examples = [Example(str(i), tuple(x), tuple(map(tuple, y)), columns) for i, (x, y, columns) in enumerate(rows)]
    steps = [list(range(s, min(s + case.batch, len(examples)))) for s in range(0, len(examples), case.batch)]
    plan = Plan(examples, steps)
    if case.method != "kto":
        return plan
    before = [[step[-1], *step[:-1]] for step in steps]
    return plan._replace(mismatches=[
        [examples[i]._replace(completions=examples[j].completions) for i, j in zip(step, shifted, strict=True)]
        for step, shifted in zip(steps, before, strict=True)
    ])


def dpo_objective(logps, ref_logps, batch, state):
    """DPO's loss."""
    return dpo.loss(logps, ref_logps, beta=BETA)


def kto_objective(logps, ref_logps, batch, state):
    """KTO's loss with both weights 1."""
    kl = kto.kl_estimate(batch["mismatch_logps"], batch["ref_mismatch_logps"])
    return kto.loss(logps, ref_logps, batch["label"], kl, beta=BETA, desirable_weight=1.0, undesirable_weight=1.0)


def bco_objective(logps, ref_logps, batch, state):
    """BCO's loss in the form that its authors put into TRL."""
    total, count = bco.update_cumulative(state["total"], state["count"], BETA * (logps - ref_logps))
    train.update_state(state, total=total, count=count)
    label = batch["label"]
    return bco.pooled_loss(logps, ref_logps, label, total / count, label.new_ones(label.shape), beta=BETA)


def ranked_objective(logps, ref_logps, batch, state):
    """DPO's loss of the best answer against each other one, so that its work grows with K and not with its square."""
    rewards = BETA * (logps - ref_logps)
    return LossOutput(-logsigmoid(rewards[:, :1] - rewards[:, 1:]).mean(1), rewards.detach())


OBJECTIVES = {"dpo": dpo_objective, "kto": kto_objective, "bco": bco_objective, "ranked": ranked_objective}
