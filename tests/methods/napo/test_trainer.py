"""An arm's training: a model that is lent and comes back as it was, and no checkpoint of other settings."""

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
def model(p):
    return vqa.load_model(p, 0)[1]


@pytest.fixture
def plan(p, model, rows, album):
    """Attached plan of four rows whose biased answers are "a" and "b"."""
    processor, _ = vqa.load_model(p, 0)
    prompts = negatives.make_prompts(rows, album, processor)
    made = negatives.encode(rows, (["a"] * 4, ["b"] * 4), prompts, processor.tokenizer, max_completion=9)
    order = collate.make_plan(made, batch_size=2, epochs=2, seed=0, pad_id=processor.tokenizer.pad_token_id)
    with trainer.borrow(model, p, 0) as policy:
        return vision.attach(order, policy, [prompt.image for prompt in prompts])


def gain(logps, ref_logps, batch, state):
    rewards = logps - ref_logps
    return LossOutput(-rewards[:, 0], rewards.detach())


def score(model, plan):
    with torch.no_grad():
        return vision.logps(model, plan.examples, plan.images, pad_id=plan.pad_id)


@pytest.mark.parametrize("how", [{}, {"lora_rank": 0}, {"lora_layers": 1}, {"accumulation": 2, "recompute": True}])
def test_a_borrowed_model_learns_and_comes_back_bit_by_bit(p, model, plan, how):
    """So that one model serves all arms; the old code loaded it anew for each, and kept three or four."""
    own, before = p._replace(**how), {name: value.clone() for name, value in model.state_dict().items()}
    start = score(model, plan)
    for _ in range(2):
        with trainer.borrow(model, own, 0) as policy:
            assert torch.allclose(score(policy, plan), start, atol=1e-4)
            history = trainer.fit_arm(own, policy, plan, gain, {}, arm="x", seed=0, learning_rate=1e-2)
            assert score(policy, plan)[:, 0].mean() > start[:, 0].mean() + 0.1
        after = model.state_dict()
        assert set(after) == set(before) and all(torch.equal(after[name], value) for name, value in before.items())
        assert torch.equal(score(model, plan), start) and not hasattr(model, "peft_config")
    assert list(history["arm"]) == ["x"] * (4 // own.accumulation)


def test_an_arms_plan_keeps_pictures_and_reference_and_has_its_own_pairs_and_order(p, plan):
    turned = trainer.replan(plan, noise.turn(plan.examples, 0), p, seed=7)
    assert turned.images is plan.images and turned.ref_logps is plan.ref_logps and turned.batches != plan.batches
    assert sum(e.columns["vision"] == -1 for e in turned.examples) == 2


def test_an_arm_with_another_number_or_rule_is_another_run(p, model, plan):
    with trainer.borrow(model, p, 0) as policy:

        def identity(**changes):
            return checkpoints.identity(policy, plan, objectives.loss, SETTINGS | changes, {})

        assert identity() == identity(rule=partial(objectives.fixed, q=0.5))
        assert len({identity(), *(identity(**changes) for changes in OTHERS.values())}) == 1 + len(OTHERS)


@pytest.mark.parametrize("change", ["another beta", "dynamic weights"])
def test_a_finished_run_is_taken_up_by_the_same_settings_and_by_no_other(p, model, plan, monkeypatch, change):
    """The old trainer saw nothing of this: for beta 0.5 it gave back the finished run of beta 0.1, number by number."""
    steps, inner = [], losses.loss
    monkeypatch.setattr(losses, "loss", lambda *given, **numbers: steps.append(1) or inner(*given, **numbers))

    def run(**changes):
        steps.clear()
        how = {"arm": "x", "seed": 0, "learning_rate": 1e-2, "state": objectives.STATE}
        with trainer.borrow(model, p, 0) as policy:
            history = trainer.fit_arm(p, policy, plan, objectives.loss, SETTINGS | changes, **how)
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
