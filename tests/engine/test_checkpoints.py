"""How a killed run goes on, which run a checkpoint belongs to, and what is in it."""

import os
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore.data.types import LossOutput
from prefcore.engine import content, models, reference, train
from prefcore.engine.collate import make_plan, with_column
from prefcore.methods import bco, dpo

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def pair_loss(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


def counted_loss(logps, ref_logps, batch, state, *, beta):
    train.update_state(state, shift=state["shift"] + 1)
    return dpo.loss(logps, ref_logps, beta=beta)


def shifted_loss(logps, ref_logps, batch, state, *, beta):
    """BCO with its running shift, which checkpoints must hold."""
    shift = bco.class_mean_shift(beta * (logps - ref_logps), batch["label"])
    train.update_state(state, shift=bco.update_ema(state["shift"], shift, decay=0.9))
    return bco.loss(logps, ref_logps, batch["label"], state["shift"], torch.ones(len(logps)), beta=beta)


def make_policy(*, alpha=8.0, theta=10000.0):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )  # fmt: skip
    return models.add_lora(LlamaForCausalLM(config).eval(), rank=4, alpha=alpha, top_layers=1, seed=0)


def fit(policy, rows, loss, folder, *, seed=0, settings=None, **how):
    """Twelve steps, and every two of them a checkpoint; returns the history."""
    plan = reference.attach(make_plan(rows, batch_size=4, epochs=2, seed=seed, pad_id=0), policy, cache=None)
    how = {"learning_rate": 1e-2, "seed": 0, "checkpoints": folder, "save_every": 2} | how
    return train.fit(policy, plan, loss, settings or {"beta": 0.5}, **how)


def trained(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}


@pytest.fixture
def rows(draw):
    """24 pairs."""
    return draw(24, 2, prompt=(2, 9), completion=(1, 7))


# --- killed processes -------------------------------------------------------------------------------------------
# A process is killed for good (SIGKILL), a second one goes on.


def run_process(folder, rows, moment):
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
    fit(policy, rows, shifted_loss, folder / "checkpoints", state={"shift": 0.0}).to_csv(folder / "history.csv")
    torch.save(trained(policy), folder / "weights")


@pytest.fixture(scope="module")
def start(processes, draw):
    """Starts one such process and returns its exit code."""
    thumbs = with_column(draw(24, 1, prompt=(2, 9), completion=(1, 7)), "label", [i % 2 for i in range(24)])

    def start(folder, moment=None):
        process = processes.Process(target=run_process, args=(folder, thumbs, moment))
        process.start()
        process.join(240)
        return process.exitcode

    return start


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(folder) == 0
    return folder


@pytest.mark.parametrize(
    "moment",
    ["before the first checkpoint", "after a checkpoint", "inside a checkpoint", "after the weights of a checkpoint"],
)
def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(start, uninterrupted, tmp_path, moment):
    assert start(tmp_path, moment) == -signal.SIGKILL
    assert not (tmp_path / "history.csv").exists()
    assert start(tmp_path) == 0
    for name in ("history.csv", "weights"):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert "state_shift" in (tmp_path / "history.csv").read_text()


# --- which run --------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def interrupted(monkeypatch, folder, rows, *, at=7, loss=pair_loss, **how):
    """A run of 12 steps that stops in step `at`."""
    step, original = [0], train.PlanTrainer.training_step

    def stop(self, *args, **kwargs):
        step[0] += 1
        if step[0] == at:
            raise Stop
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train.PlanTrainer, "training_step", stop)
        fit(make_policy(), rows, loss, folder, **how)


@pytest.fixture
def steps(monkeypatch):
    """A list that grows with each step that is really taken."""
    taken, original = [], train.PlanTrainer.training_step
    monkeypatch.setattr(train.PlanTrainer, "training_step", lambda *a, **k: taken.append(1) or original(*a, **k))
    return taken


def go_on(folder, rows, *, loss=pair_loss, model=None, **how):
    policy = make_policy(**model or {})
    return fit(policy, rows, loss, folder, **how).to_csv(), {k: v.tolist() for k, v in trained(policy).items()}


def test_resuming_skips_the_steps_that_are_done(monkeypatch, tmp_path, rows, steps):
    interrupted(monkeypatch, tmp_path, rows)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    steps.clear()
    history, _ = go_on(tmp_path, rows)
    assert len(steps) == 6 and history.count("\n") == 1 + 12
    assert go_on(tmp_path, rows)[0] == history and len(steps) == 6  # a finished run has nothing left to do


def twice_the_loss(logps, ref_logps, batch, state, *, beta):
    out = dpo.loss(logps, ref_logps, beta=beta)
    return LossOutput(2 * out.losses, out.rewards)


def ruled_loss(logps, ref_logps, batch, state, *, rule, beta):
    return LossOutput(rule(dpo.loss(logps, ref_logps, beta=beta).losses), logps.detach())


def weighed_loss(logps, ref_logps, batch, state, *, weights):
    out = dpo.loss(logps, ref_logps, beta=0.5)
    return LossOutput(out.losses * torch.as_tensor(weights).sum(), out.rewards)


ONES = torch.ones(3, dtype=torch.float64)
CHANGES = {
    "learning rate": ({}, {"learning_rate": 2e-2}),
    "seed": ({}, {"seed": 1}),
    "loss": ({}, {"loss": twice_the_loss}),
    "number in the settings": ({}, {"settings": {"beta": 0.25}}),
    "state": ({}, {"state": {"shift": 1.0}}),
    "precision": ({}, {"precision": "bfloat16"}),
    "adapter's scale, which is in no weight": ({}, {"model": {"alpha": 64.0}}),
    "rotary base, which is in no weight": ({}, {"model": {"theta": 500.0}}),
    "function in the settings": (
        {"loss": ruled_loss, "settings": {"rule": torch.square, "beta": 0.5}},
        {"loss": ruled_loss, "settings": {"rule": torch.sqrt, "beta": 0.5}},
    ),
    "tensor in the settings": (
        {"loss": weighed_loss, "settings": {"weights": ONES}},
        {"loss": weighed_loss, "settings": {"weights": torch.nextafter(ONES, 2 * ONES)}},
    ),
    "array in the settings": (
        {"loss": weighed_loss, "settings": {"weights": ONES.numpy()}},
        {"loss": weighed_loss, "settings": {"weights": 2 * ONES.numpy()}},
    ),
}


@pytest.mark.parametrize("before, after", CHANGES.values(), ids=CHANGES)
def test_a_changed_run_starts_anew(monkeypatch, tmp_path, rows, steps, before, after):
    """Also where the other run is finished, and would have nothing left to do."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # emulated if it is not
    go_on(tmp_path, rows, **before)
    go_on(tmp_path, rows, **before)
    assert len(steps) == 12
    go_on(tmp_path, rows, **after)
    assert len(steps) == 24


def test_a_run_that_starts_anew_has_nothing_of_the_other_one(monkeypatch, tmp_path, rows):
    interrupted(monkeypatch, tmp_path / "a", rows)
    changed, fresh = (go_on(tmp_path / name, rows, settings={"beta": 0.25}) for name in "ab")
    assert changed == fresh


def test_other_data_start_anew(tmp_path, rows, steps, draw):
    go_on(tmp_path, rows)
    steps.clear()
    for other in (
        [rows[0]._replace(prompt=(5, 5)), *rows[1:]],
        with_column(rows, "margin", range(24)),
        rows[::-1],
    ):
        go_on(tmp_path, other)
    assert len(steps) == 36


# --- which code -------------------------------------------------------------------------------------------------


@pytest.fixture
def edit(monkeypatch, tmp_path):
    """Changes the source of prefcore as the next run will read it."""
    root = tmp_path / "source"
    shutil.copytree(content.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(content, "ROOT", root)

    def edit(name, old, new):
        source = (root / name).read_text(encoding="utf-8")
        assert old in source
        (root / name).write_text(source.replace(old, new, 1), encoding="utf-8")

    return edit


def test_a_changed_comment_or_docstring_and_code_that_the_loss_does_not_reach_keep_a_half_done_run(
    monkeypatch, tmp_path, rows, steps, edit
):
    interrupted(monkeypatch, tmp_path / "run", rows)
    steps.clear()
    edit("methods/kto.py", '"""', '# A remark.\n"""Another title. ')
    edit("methods/kto.py", "def loss(", "def another_name(")
    edit("methods/dpo.py", '"""', '"""Another title. ')
    edit("engine/logps.py", "import torch\n", "import torch  # as t\n\n")
    edit("engine/train.py", '    """Train the policy in place', '    """Move the policy in place')
    go_on(tmp_path / "run", rows)
    assert len(steps) == 6


@pytest.mark.parametrize("name", [
    "methods/dpo.py", "engine/shapes.py", "engine/logps.py", "engine/attention.py", "engine/layout.py",
    "engine/machine.py", "engine/train.py",
])  # fmt: skip
def test_a_changed_line_of_code_that_the_run_reaches_discards_it(monkeypatch, tmp_path, rows, steps, edit, name):
    interrupted(monkeypatch, tmp_path / "run", rows)
    steps.clear()
    edit(name, "    if ", "    if not ")
    go_on(tmp_path / "run", rows)
    assert len(steps) == 12


CELL = """
BETA = {}

def margin(logps, ref_logps):
    return dpo.loss(logps, ref_logps, beta=BETA)

def objective(logps, ref_logps, batch, state):
    return margin(logps, ref_logps)
"""
HANDED = """
def objective(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)
"""


def run_cell(monkeypatch, source):
    """The function `objective` as a notebook's cell defines it: in __main__, which has no file."""
    notebook = ModuleType("__main__")
    notebook.dpo = dpo
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec(source, vars(notebook))
    return notebook.objective


def test_a_cell_whose_loss_reads_a_notebooks_name_is_refused_and_one_that_is_handed_it_runs(
    monkeypatch, tmp_path, rows, steps
):
    for beta in (0.1, 0.9):  # run again with another number
        with pytest.raises(ValueError, match=r"margin reads BETA \(a float\) .*hand it over in the settings"):
            fit(make_policy(), rows, run_cell(monkeypatch, CELL.format(beta)), tmp_path)
    assert not steps
    for count, beta in ((12, 0.1), (12, 0.1), (24, 0.9)):  # the second is finished already
        fit(make_policy(), rows, run_cell(monkeypatch, HANDED), tmp_path, settings={"beta": beta})
        assert len(steps) == count


def two_down(beta):
    """A loss whose number lies two closures down, as NaPO's once did."""

    def step(logps, ref_logps):
        return dpo.loss(logps, ref_logps, beta=beta)

    def loss(logps, ref_logps, batch, state):
        return step(logps, ref_logps)

    return loss


def handed_down(logps, ref_logps, batch, state, *, step, beta):
    return step(logps, ref_logps, beta=beta)


def test_a_number_two_functions_down_is_no_hidden_part_of_a_finished_run(tmp_path, rows, steps):
    with pytest.raises(ValueError, match=r"step reads beta \(a float\)"):
        fit(make_policy(), rows, two_down(0.1), tmp_path)
    found = []
    for beta in (0.1, 0.9):
        found.append(fit(make_policy(), rows, handed_down, tmp_path, settings={"step": dpo.loss, "beta": beta}))
    assert len(steps) == 24 and found[0]["loss"].iloc[-1] != found[1]["loss"].iloc[-1]


# --- what is in it ----------------------------------------------------------------------------------------------


def test_a_checkpoint_without_its_mark_does_not_count(monkeypatch, tmp_path, rows, steps):
    interrupted(monkeypatch, tmp_path, rows)
    shutil.copytree(tmp_path / "checkpoint-6", tmp_path / "checkpoint-8")
    for number in (6, 8):
        (tmp_path / f"checkpoint-{number}" / train.DONE).unlink()
    steps.clear()
    go_on(tmp_path, rows)
    assert len(steps) == 8  # from checkpoint-4


def test_a_checkpoint_holds_what_is_trained_and_no_base_weights(monkeypatch, tmp_path, rows):
    interrupted(monkeypatch, tmp_path, rows, loss=counted_loss, state={"shift": 3.0})
    kept = load_file(tmp_path / "checkpoint-6" / "trained.safetensors")
    assert kept["state.shift"].item() == pytest.approx(3.0 + 6)
    assert all("lora_" in name for name in kept if name != "state.shift") and len(kept) == 1 + 7 * 2
