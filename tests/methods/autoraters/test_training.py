"""Training an arm: it learns, repeats byte for byte, and its numbers are settings that a checkpoint knows."""

import shutil

import numpy as np
import pytest
import torch

from prefcore.data.types import LossOutput
from prefcore.methods.autoraters import readout, training
from prefcore.methods.autoraters.labels import LabelledPair


@pytest.fixture
def p(p, toy_weights, tmp_path, monkeypatch):
    """The parameters with a policy to start from, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return p._replace(policy=str(toy_weights / "policy"))


def nll(logps, answers, batch, state):
    place = (answers[None] - batch["label"][:, None]).abs().argmin(1)
    return LossOutput(-logps.gather(1, place[:, None]).squeeze(1), logps.detach()[:, :1])


def test_training_through_the_engine_teaches_the_answer_and_repeats_byte_for_byte(pairs, p, tmp_path):
    recipe = training.Recipe(nll, [LabelledPair(one, 0.25) for one in pairs], 12)
    tokenizer, untaught = training.load_start(p, 0)
    before, histories = readout.judge_pairs(pairs, untaught, tokenizer, p), []
    for _ in range(2):
        tokenizer, policy, history = training.train_arm(p, recipe, arm="x", seed=0)
        after = readout.judge_pairs(pairs, policy, tokenizer, p)
        assert np.all(readout.greedy(after.reshape(24, 99)) == 0.25)
        assert after[..., 24].mean() > 5 * before[..., 24].mean()
        histories.append(history.to_csv())
        shutil.rmtree(tmp_path / ".checkpoints")  # so that the second run starts anew
    assert histories[0] == histories[1] and len(history) == 36


def distance(logps, answers, batch, state, *, reference, size):
    """How far the chances are from the reference's of the same rows; draws, so that the step is counted."""
    apart = (logps.detach() - reference[[int(i) for i in batch["ids"]]]).abs().amax(1, keepdim=True)
    training.draw_answers(logps, size, state, 0)
    return LossOutput(0.0 * logps.sum(1), apart)


def test_a_sampling_objective_sees_the_start_on_its_own_rows(pairs, p):
    rows = [LabelledPair(pair, 0.25) for pair in pairs]
    tokenizer, start = training.load_start(p, 0)
    known = training.answer_logps(rows, start, tokenizer, p)
    recipe = training.Recipe(distance, rows, 1, {"reference": known, "size": 2}, state={"step": 0.0})
    _, _, history = training.train_arm(p, recipe, arm="x", seed=0)
    assert len(history) == 3 and history["reward_0"].max() < 1e-3
    assert history["state_step"].tolist() == [1, 2, 3]
    turned = recipe._replace(settings={"reference": known.flip(0), "size": 2})
    assert training.train_arm(p, turned, arm="y", seed=0)[2]["reward_0"].max() > 1e-2


def scaled(logps, answers, batch, state, *, weight):
    return LossOutput(weight * nll(logps, answers, batch, state).losses, logps.detach()[:, :1])


def test_an_arm_with_another_setting_does_not_go_on_from_the_checkpoint_of_the_first(pairs, p):
    """A finished run of the same settings is not run again; with another weight nothing of it is used."""
    rows, histories = [LabelledPair(pair, 0.25) for pair in pairs], []
    for weight in (1.0, 1.0, 3.0):
        recipe = training.Recipe(scaled, rows, 1, {"weight": weight})
        histories.append(training.train_arm(p, recipe, arm="x", seed=0)[2])
    assert histories[0].equals(histories[1])
    assert histories[2]["loss"].iloc[0] == pytest.approx(3 * histories[0]["loss"].iloc[0], rel=1e-3)


def test_a_number_from_around_the_objective_is_refused(pairs, p):
    weight = 2.0

    def closed(logps, answers, batch, state):
        return LossOutput(weight * nll(logps, answers, batch, state).losses, logps.detach()[:, :1])

    with pytest.raises(ValueError, match="weight.*settings"):
        training.train_arm(p, training.Recipe(closed, [LabelledPair(pairs[0], 0.5)], 1), arm="x", seed=0)


def test_draws_follow_the_chances_and_depend_on_seed_and_step_alone():
    answers = torch.log(torch.full((2, 99), 0.9 / 99))
    state = {"step": torch.tensor(0.0)}
    first, second = training.draw_answers(answers, 5_000, state, 0), training.draw_answers(answers, 5_000, state, 0)
    assert state["step"] == 2 and not torch.equal(first, second)
    assert torch.equal(first, training.draw_answers(answers, 5_000, {"step": torch.tensor(0.0)}, 0))
    assert (first == 99).double().mean().item() == pytest.approx(0.1, abs=0.02)
