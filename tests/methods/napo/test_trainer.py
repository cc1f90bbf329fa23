"""An arm's training: from the model as it is, and never from the checkpoints of other settings."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from prefcore.data.types import LossOutput
from prefcore.engine import checkpoints, collate
from prefcore.methods.napo import losses, negatives, noise, objectives, trainer, vision, vqa

FIXED = partial(objectives.fixed, q=0.5)
EQUAL = partial(objectives.constant, weights=[1.0, 1.0, 1.0])
SETTINGS = {"rule": FIXED, "weigh": EQUAL, "beta": 0.1}
OTHERS = {
    "another beta": {"beta": 0.5},
    "another q": {"rule": partial(objectives.fixed, q=0.7)},
    "another rule": {"rule": partial(objectives.paper, alphas=[1.0, 2.0])},
    "another rule with the same numbers": {"rule": partial(objectives.released, alphas=[1.0, 2.0])},
    "another alpha": {"rule": partial(objectives.paper, alphas=[1.0, 3.0])},
    "label smoothing": {"rule": partial(objectives.smoothed, label_smoothing=0.1)},
    "more label smoothing": {"rule": partial(objectives.smoothed, label_smoothing=0.2)},
    "other weights": {"weigh": partial(objectives.constant, weights=[1.0, 0.0, 0.0])},
    "dynamic weights": {"weigh": objectives.dynamic},
}


@pytest.fixture
def world(p, rows, album):
    """(examples, pictures, attached plan) of four rows whose biased answers are "a" and "b"."""
    processor, _ = vqa.load_model(p)
    prompts = negatives.make_prompts(rows, album, processor)
    made, _ = negatives.encode(rows, (["a"] * 4, ["b"] * 4), prompts, processor.tokenizer, max_completion=9)
    images = [prompt.image for prompt in prompts]
    order = collate.make_plan(made, batch_size=2, epochs=2, seed=0, pad_id=processor.tokenizer.pad_token_id)
    return made, images, vision.attach(order, trainer.fresh_policy(p, 0), images)


def test_an_arm_is_trained_from_the_model_as_it_is_and_leaves_its_numbers_in_the_history(p, world):
    made, images, attached = world
    plan = trainer.replan(attached, noise.flip(made, 0.5, 0), p, seed=7)
    assert plan.trunk is attached.trunk and plan.ref_logps is attached.ref_logps and plan.batches != attached.batches
    assert sum(e.columns["vision"] == -1 for e in plan.examples) == 2

    def loss(logps, ref_logps, batch, state):
        rewards = logps - ref_logps
        state["seen"].copy_(batch["vision"].mean())
        return LossOutput(-rewards[:, 0], rewards.detach())

    policy, history = trainer.fit_arm(p, plan, loss, {}, arm="x", seed=0, learning_rate=1e-2, state=["seen"])
    assert list(history["arm"]) == ["x"] * 4 and set(history["state_seen"]) <= {-1.0, 0.0, 1.0}
    with torch.no_grad():
        _, model = vqa.load_model(p)
        after, before = (vision.logps(m, made, images, pad_id=plan.pad_id)[:, 0] for m in (policy, model))
    assert after.mean() > before.mean() + 0.1


def test_an_arm_with_another_number_or_rule_is_another_run(p, world):
    policy, (*_, plan) = trainer.fresh_policy(p, 0), world

    def identity(**changes):
        return checkpoints.identity(policy, plan, objectives.loss, SETTINGS | changes, {})

    assert identity() == identity(rule=partial(objectives.fixed, q=0.5))
    assert len({identity(), *(identity(**changes) for changes in OTHERS.values())}) == 1 + len(OTHERS)


@pytest.mark.parametrize("change", ["another beta", "dynamic weights"])
def test_a_finished_run_is_taken_up_by_the_same_settings_and_by_no_other(p, world, monkeypatch, change):
    """The old trainer saw nothing of this: for beta 0.5 it gave back the finished run of beta 0.1, number by number."""
    steps, inner = [], losses.loss
    monkeypatch.setattr(losses, "loss", lambda *given, **numbers: steps.append(1) or inner(*given, **numbers))

    def run(**changes):
        steps.clear()
        how = {"arm": "x", "seed": 0, "learning_rate": 1e-2, "state": objectives.STATE}
        policy, history = trainer.fit_arm(p, world[2], objectives.loss, SETTINGS | changes, **how)
        weights = {name: value.clone() for name, value in policy.named_parameters() if value.requires_grad}
        return len(steps), history.to_csv(), weights

    count, history, weights = run()
    assert count == 4 and run()[:2] == (0, history)
    assert all(torch.equal(value, weights[name]) for name, value in run()[2].items())
    other = run(**OTHERS[change])
    shutil.rmtree(Path(".checkpoints"))
    alone = run(**OTHERS[change])
    assert other[:2] == alone[:2] and other[0] == 4 and other[1] != history
    assert all(torch.equal(value, alone[2][name]) for name, value in other[2].items())
