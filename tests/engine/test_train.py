"""One trainer for every method: what a step does, what a checkpoint holds, and how a killed run goes on."""

import copy
import os
import shutil
import signal
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore.data.types import Example, LossOutput
from prefcore.engine import models, reference, train
from prefcore.engine.collate import Plan, add_mismatches, make_plan
from prefcore.methods import bco, dpo, kto

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
BETA = 0.5


def pair_loss(logps, ref_logps, batch, state):
    return dpo.loss(logps, ref_logps, beta=BETA)


def shifted_loss(logps, ref_logps, batch, state):
    """BCO with its running shift, which checkpoints must hold."""
    rewards = BETA * (logps - ref_logps)
    state["shift"].copy_(bco.update_ema(state["shift"], bco.class_mean_shift(rewards, batch["label"]), decay=0.9))
    return bco.loss(logps, ref_logps, batch["label"], state["shift"], torch.ones(len(logps)), beta=BETA)


def examples(n=16, branches=2, seed=0):
    rng = np.random.default_rng(seed)

    def some(low, high):
        return tuple(rng.integers(4, 97, size=rng.integers(low, high)).tolist())

    labels = [{"label": float(i % 2)} for i in range(n)]
    return [Example(f"e{i}", some(2, 9), tuple(some(1, 7) for _ in range(branches)), labels[i]) for i in range(n)]


def make_policy(layers=3, adapter=True):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    policy = LlamaForCausalLM(config).eval()
    return models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0) if adapter else policy


def planned(policy, rows, *, batch_size=4, epochs=1, seed=0):
    plan = make_plan(rows, batch_size=batch_size, epochs=epochs, seed=seed, pad_id=0)
    return reference.attach(plan, policy, cache=None)


def fit(policy, plan, loss, folder, **how):
    return train.fit(policy, plan, loss, {}, **{"learning_rate": 1e-2, "seed": 0, "checkpoints": folder} | how)


def trained(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}


def largest_gap(one, other):
    assert one.keys() == other.keys() and one
    return max((one[name] - other[name]).abs().max().item() for name in one)


# --- a step -----------------------------------------------------------------------------------------------------


def test_the_first_step_has_loss_ln_2_as_policy_and_reference_agree(tmp_path):
    policy = make_policy()
    history = fit(policy, planned(policy, examples()), pair_loss, tmp_path)
    assert history["loss"][0] == pytest.approx(log(2), abs=1e-5) and history["margin"][0] == pytest.approx(0, abs=1e-5)
    assert history["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "all weights"])
def test_training_moves_rewards_and_only_what_requires_a_gradient(tmp_path, adapter):
    policy = make_policy(adapter=adapter)
    plan = planned(policy, examples(), epochs=6)
    before, frozen = trained(policy), {n: p.clone() for n, p in policy.named_parameters() if not p.requires_grad}
    history = fit(policy, plan, pair_loss, tmp_path)
    assert history["margin"].iloc[-4:].mean() > 0.1 and history["loss"].iloc[-4:].mean() < log(2) - 0.05
    assert all((p != before[name]).any() for name, p in trained(policy).items())
    assert all(torch.equal(p, frozen[name]) for name, p in policy.named_parameters() if name in frozen)


def test_a_batch_of_8_takes_the_step_of_2_accumulated_batches_of_4(tmp_path):
    found = []
    for size, accumulation in ((8, 1), (4, 2)):
        policy, batches = make_policy(), [list(range(start, start + size)) for start in range(0, 16, size)]
        plan = reference.attach(Plan(examples(), batches, pad_id=0), policy, cache=None)
        how = {"accumulation": accumulation, "warmup": 0.0, "schedule": "constant"}
        history = fit(policy, plan, pair_loss, tmp_path / str(accumulation), **how)
        found.append((history, trained(policy)))
    (one, weights), (two, others) = found
    np.testing.assert_allclose(one["loss"], two["loss"], atol=1e-5)
    np.testing.assert_allclose(one["grad_norm"], two["grad_norm"], rtol=1e-3)
    assert largest_gap(weights, others) < 1e-4 < largest_gap(weights, trained(make_policy()))


def test_frozen_layers_kept_aside_train_the_same_weights(tmp_path, monkeypatch):
    found = []
    for limit in (reference.TRUNK_BYTES, 0):
        monkeypatch.setattr(reference, "TRUNK_BYTES", limit)
        policy = make_policy()
        plan = planned(policy, examples(), epochs=2)
        assert plan.depth == (2 if limit else 0)
        found.append((fit(policy, plan, pair_loss, tmp_path / str(limit))["loss"], trained(policy)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    assert largest_gap(found[0][1], found[1][1]) < 1e-3


def test_two_equal_runs_end_with_equal_bytes(tmp_path):
    found = []
    for name in ("a", "b"):
        policy = make_policy()
        history = fit(policy, planned(policy, examples(), epochs=2), pair_loss, tmp_path / name)
        found.append((history.to_csv(), {k: v.numpy().tobytes() for k, v in trained(policy).items()}))
    assert found[0] == found[1]


def test_a_loss_sees_columns_lengths_and_mismatches_without_gradient(tmp_path):
    policy, rows, seen = make_policy(), examples(7, branches=1), []
    plan = make_plan(rows, batch_size=3, epochs=2, seed=0, pad_id=0)
    plan = reference.attach(add_mismatches(plan), policy, cache=None)

    def thumbs(logps, ref_logps, batch, state):
        seen.append(batch)
        kl = kto.kl_estimate(batch["mismatch_logps"], batch["ref_mismatch_logps"])
        return kto.loss(logps, ref_logps, batch["label"], kl, beta=BETA, desirable_weight=1.0, undesirable_weight=1.0)

    history = fit(policy, plan, thumbs, tmp_path)
    assert [batch["ids"] for batch in seen] == [[rows[i].id for i in batch] for batch in plan.batches]
    for batch, chosen in zip(seen, plan.batches, strict=True):
        assert batch["label"].tolist() == [rows[i].columns["label"] for i in chosen]
        assert batch["lengths"].tolist() == [[len(rows[i].completions[0])] for i in chosen]
        assert not batch["mismatch_logps"].requires_grad and batch["mismatch_logps"].shape == (len(chosen),)
    assert history["loss"][0] == pytest.approx(0.5, abs=1e-5)
    assert history["mismatch_logratio"][0] == pytest.approx(0, abs=1e-4) and history["mismatch_logratio"].iloc[-1] != 0


def test_a_batch_of_one_trains(tmp_path):
    policy = make_policy()
    plan = planned(policy, examples(3, branches=1), batch_size=1)
    history = fit(policy, plan, shifted_loss, tmp_path, state={"shift": 0.0})
    assert len(history) == 3 and history["loss"].notna().all() and (history["state_shift"] == 0).all()


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_rows(tmp_path):
    policy = make_policy()

    def spoilt(logps, ref_logps, batch, state):
        bad = torch.tensor([id in ("e3", "e5") for id in batch["ids"]])
        out = dpo.loss(logps, ref_logps, beta=BETA)
        return LossOutput(torch.where(bad, float("nan"), out.losses), out.rewards)

    with pytest.raises(FloatingPointError, match=r"not finite for \['e3', 'e5'\]"):
        fit(policy, reference.attach(Plan(examples(), [list(range(8))]), policy, cache=None), spoilt, tmp_path)


def test_a_policy_without_anything_to_train_is_refused(tmp_path):
    policy = make_policy(adapter=False).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        fit(policy, planned(policy, examples()), pair_loss, tmp_path)


# --- kill and resume --------------------------------------------------------------------------------------------
# A process is killed for good (SIGKILL), a second one goes on. Every two steps is a checkpoint, of twelve steps.


def run_process(folder, moment):
    """The whole run in a process of its own, which kills itself at `moment`; leaves history and weights in `folder`."""
    torch.set_num_threads(1)
    steps = 0

    def die_in(name, when, halfway=lambda *_: None):
        original = getattr(train.PlanTrainer, name)

        def step_or_die(self, *args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == when:
                halfway(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **kwargs)

        setattr(train.PlanTrainer, name, step_or_die)

    def half_a_file(output_dir, *_):
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        (Path(output_dir) / "trained.safetensors").write_bytes(b"half")

    if moment == "before the first checkpoint":
        die_in("training_step", 2)
    elif moment == "after a checkpoint":
        die_in("training_step", 8)
    elif moment == "inside a checkpoint":
        die_in("_save", 3, half_a_file)
    elif moment == "after the weights of a checkpoint":
        die_in("_save_optimizer_and_scheduler", 2)
    policy = make_policy()
    plan = planned(policy, examples(24, branches=1), batch_size=4, epochs=2)
    history = fit(policy, plan, shifted_loss, folder / "checkpoints", state={"shift": 0.0}, save_every=2)
    history.to_csv(folder / "history.csv")
    torch.save({k: v for k, v in trained(policy).items()}, folder / "weights")


def start(processes, folder, moment=None):
    """The exit code of one such process."""
    process = processes.Process(target=run_process, args=(folder, moment))
    process.start()
    process.join(240)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(processes, folder) == 0
    return folder


@pytest.mark.parametrize(
    "moment",
    ["before the first checkpoint", "after a checkpoint", "inside a checkpoint", "after the weights of a checkpoint"],
)
def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(processes, uninterrupted, tmp_path, moment):
    assert start(processes, tmp_path, moment) == -signal.SIGKILL
    assert not (tmp_path / "history.csv").exists()
    assert start(processes, tmp_path) == 0
    for name in ("history.csv", "weights"):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert "state_shift" in (tmp_path / "history.csv").read_text()


class Stop(Exception):
    pass


def interrupted(monkeypatch, folder, *, at=7, loss=pair_loss, **how):
    """A run of 12 steps that stops in step `at`; returns its plan."""
    policy = make_policy()
    plan = planned(policy, examples(24), epochs=2)
    step, original = [0], train.PlanTrainer.training_step

    def stop(self, *args, **kwargs):
        step[0] += 1
        if step[0] == at:
            raise Stop
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train.PlanTrainer, "training_step", stop)
        fit(policy, plan, loss, folder, save_every=2, **how)


def count_steps(monkeypatch):
    steps, original = [], train.PlanTrainer.training_step
    monkeypatch.setattr(train.PlanTrainer, "training_step", lambda *a, **k: steps.append(1) or original(*a, **k))
    return steps


def go_on(folder, *, loss=pair_loss, seed=0, **how):
    policy = make_policy()
    history = fit(policy, planned(policy, examples(24), epochs=2, seed=seed), loss, folder, save_every=2, **how)
    return history, trained(policy)


def test_resuming_skips_the_steps_that_are_done(monkeypatch, tmp_path):
    interrupted(monkeypatch, tmp_path)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    steps = count_steps(monkeypatch)
    history, _ = go_on(tmp_path)
    assert len(steps) == 6 and history["step"].tolist() == list(range(1, 13))
    assert len(go_on(tmp_path)[0]) == 12 and len(steps) == 6  # a finished run has nothing left to do


def twice_the_loss(logps, ref_logps, batch, state):
    out = dpo.loss(logps, ref_logps, beta=BETA)
    return LossOutput(2 * out.losses, out.rewards)


@pytest.mark.parametrize("change", ["learning rate", "seed", "loss", "number in the loss", "state", "our code"])
def test_a_changed_run_starts_anew(monkeypatch, tmp_path, change):
    interrupted(monkeypatch, tmp_path / "a")
    how = {}
    if change == "learning rate":
        how["learning_rate"] = 2e-2
    elif change == "seed":
        how["seed"] = 1
    elif change == "loss":
        how["loss"] = twice_the_loss
    elif change == "number in the loss":
        monkeypatch.setattr("test_train.BETA", 0.25)
    elif change == "state":
        how["state"] = {"shift": 1.0}
    else:
        (tmp_path / "method.py").write_text("# edited")
        monkeypatch.setattr(train, "__file__", str(tmp_path / "train.py"))
    steps = count_steps(monkeypatch)
    changed, weights = go_on(tmp_path / "a", **how)
    assert len(steps) == 12
    fresh, expected = go_on(tmp_path / "b", **how)
    assert changed.to_csv() == fresh.to_csv() and largest_gap(weights, expected) == 0


def test_a_checkpoint_without_its_mark_does_not_count(monkeypatch, tmp_path):
    interrupted(monkeypatch, tmp_path)
    shutil.copytree(tmp_path / "checkpoint-6", tmp_path / "checkpoint-8")
    for number in (6, 8):
        (tmp_path / f"checkpoint-{number}" / train.DONE).unlink()
    steps = count_steps(monkeypatch)
    go_on(tmp_path)
    assert len(steps) == 8  # from checkpoint-4


def test_a_checkpoint_holds_what_is_trained_and_no_base_weights(monkeypatch, tmp_path):
    interrupted(monkeypatch, tmp_path, loss=shifted_pair_loss, state={"shift": 3.0})
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "checkpoint-6" / "trained.safetensors")
    assert kept["state.shift"].item() == pytest.approx(3.0 + 6)
    assert all("lora_" in name for name in kept if name != "state.shift") and len(kept) == 1 + 7 * 2


def shifted_pair_loss(logps, ref_logps, batch, state):
    state["shift"].add_(1)
    return dpo.loss(logps, ref_logps, beta=BETA)


def test_the_callers_plan_and_state_stay_as_they_were(tmp_path):
    policy, state = make_policy(), {"shift": 0.0}
    plan = planned(policy, examples(24))
    before = copy.deepcopy(plan.batches), plan.ref_logps.copy()
    fit(policy, plan, shifted_pair_loss, tmp_path, state=state)
    assert state == {"shift": 0.0} and plan.batches == before[0] and (plan.ref_logps == before[1]).all()
