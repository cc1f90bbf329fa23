"""Trackers: they see what the history has, change nothing, and are refused by name before any work."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from transformers.integrations import integration_utils

from prefcore.__main__ import main
from prefcore.engine import collate, reference, trackers, train
from prefcore.methods import dpo


class Recorder(TrainerCallback):
    """What a tracker gets."""

    seen: list = []

    def on_log(self, args, state, control, logs=None, **_):
        self.seen.append((args.output_dir, logs))


def prefer(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


def trained(draw, folder):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    policy = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    plan = collate.make_plan(draw(8, 2), batch_size=4, epochs=2, seed=0, pad_id=0)
    plan = reference.attach(plan, policy, cache=None)
    history = train.fit(policy, plan, prefer, {"beta": 0.1}, learning_rate=1e-2, seed=0, checkpoints=folder)
    return history, policy.state_dict(), (folder / "run.json").read_text()


def test_a_tracker_sees_the_steps_of_the_history_and_the_run_stays_the_same(draw, tmp_path, monkeypatch):
    plain = trained(draw, tmp_path / "plain")
    monkeypatch.setenv(trackers.VARIABLE, "tensorboard")
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Recorder)
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["tensorboard"])
    watched = trained(draw, tmp_path / "watched")
    steps = [logs for folder, logs in Recorder.seen if "loss" in logs and folder == str(tmp_path / "watched")]
    assert [step["loss"] for step in steps] == watched[0]["loss"].tolist() and len(steps) == 4
    assert [step["margin"] for step in steps] == watched[0]["margin"].tolist()
    assert watched[0].equals(plain[0]) and watched[2] == plain[2]
    assert all(torch.equal(one, plain[1][name]) for name, one in watched[1].items())


@pytest.mark.parametrize(("value", "names"), [("", []), ("none", []), (" none , none", [])])
def test_without_a_name_nobody_watches(value, names, monkeypatch):
    monkeypatch.setenv(trackers.VARIABLE, value)
    assert trackers.wanted() == names


@pytest.mark.parametrize(("name", "says"), [("tensorbord", "no such tracker; there are azure_ml, "),
                                            ("wandb", "it is not installed here")])  # fmt: skip
def test_a_tracker_that_is_not_there_is_one_line_before_any_work(name, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(trackers.VARIABLE, f"none,{name}")
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", list)
    assert main(["run", "dpo", "--data", "no such file"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: PREFCORE_REPORT_TO={name}: {says}")
