"""A notebook on two processes, started by `accelerate launch`: killed, gone on with, and read by one; files refused."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from prefcore.lab import launch, notebooks

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
CODE = """
import os, signal
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from prefcore.data.types import Example
from prefcore.engine import models, ranks, reference, train
from prefcore.engine.collate import make_plan
from prefcore.methods import dpo

def loss(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)

device, steps, original = models.choose_device("cpu", 1), [], train.Marks.on_step_end

def count(self, args, state, control, **more):
    steps.append(state.global_step)
    if kill and ranks.rank() == 1 and state.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, args, state, control, **more)

train.Marks.on_step_end = count
torch.manual_seed(0)
sizes = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
policy = models.add_lora(LlamaForCausalLM(LlamaConfig(**sizes)).eval(), rank=2, alpha=4.0, top_layers=1, seed=0)
rows = [Example(f"e{i}", (5 + i, 6), ((7, 8 + i, 2), (9 + i,))) for i in range(16)]
plan = reference.attach(make_plan(rows, batch_size=4, epochs=2, seed=0, pad_id=0), policy, cache=None)
how = {"learning_rate": 1e-2, "seed": 0, "save_every": 2, "checkpoints": Path("checkpoints")}
history = train.fit(policy, plan, loss, {"beta": 0.5}, **how)
if ranks.is_first():
    history.assign(first_step=min(steps, default=0), processes=ranks.world()).to_csv("history.csv", index=False)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a notebook that trains for eight steps, and a configuration for two processes."""
    monkeypatch.chdir(tmp_path)
    cells = [new_code_cell("kill = False", metadata={"tags": ["parameters"]}), new_code_cell(CODE)]
    nbformat.write(new_notebook(cells=cells), "chapter.ipynb")
    configure()
    return tmp_path


def configure(**changes):
    said = {"distributed_type": "MULTI_GPU", "num_machines": 1, "num_processes": 2, "main_process_port": 0}
    said |= {"compute_environment": "LOCAL_MACHINE", "mixed_precision": "no"}
    with open("two.yaml", "w") as out:
        yaml.safe_dump(said | changes, out)


@pytest.mark.timeout(600)  # five kernels, one after the other
def test_a_killed_process_ends_both_and_the_next_start_goes_on_and_one_process_reads_the_result(place):
    with pytest.raises(RuntimeError, match=r"(?s)process 1: .*the kernel died.*goes on from the last checkpoint"):
        launch.execute("chapter.ipynb", "out/chapter.ipynb", {"kill": True}, "two.yaml")
    assert (place / "checkpoints" / "checkpoint-4" / "complete").exists() and not (place / "history.csv").exists()
    assert launch.execute("chapter.ipynb", "out/chapter.ipynb", {"kill": False}, "two.yaml")
    both = pd.read_csv("history.csv")
    assert both["step"].tolist() == list(range(1, 9)) and set(both["processes"]) == {2}
    assert set(both["first_step"]) == {5}
    assert launch.execute("chapter.ipynb", "out/alone.ipynb", {"kill": False})
    alone = pd.read_csv("history.csv")
    assert set(alone["processes"]) == {1} and set(alone["first_step"]) == {0}  # none was taken again
    assert alone["loss"].equals(both["loss"])
    first, second = (notebooks.read(path).cells for path in ("out/chapter.ipynb", "out/alone.ipynb"))
    assert [cell.get("outputs") for cell in first] == [cell.get("outputs") for cell in second]


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_that_are_shipped_can_be_kept_to(path):
    said = launch.check(path)
    assert ("machines" in path.stem) == (said["num_machines"] > 1) and said["num_processes"] % said["num_machines"] == 0
    assert ("fsdp" in path.stem) == (said["distributed_type"] == "FSDP")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"distributed_type": "DEEPSPEED"}, "distributed_type is DEEPSPEED: write MULTI_GPU, or FSDP"),
        ({"distributed_type": "FSDP"}, "fsdp_config needs fsdp_version: 2"),
        (
            {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": True}},
            "fsdp_config has {'fsdp_offload_params': True}; there is no other way",
        ),
        ({"mixed_precision": "bf16"}, "mixed_precision is bf16: write 'no', and round by the parameter precision"),
    ],
)
def test_a_configuration_that_cannot_be_kept_to_is_refused_before_anything_starts(place, changes, said):
    configure(**changes)
    with pytest.raises(ValueError, match=said):
        launch.execute("chapter.ipynb", "out/chapter.ipynb", {"kill": False}, "two.yaml")
    with pytest.raises(FileNotFoundError, match="there is no such file; the folder launch/"):
        launch.execute("chapter.ipynb", "out/chapter.ipynb", {"kill": False}, "none.yaml")
    assert not (place / "out").exists()
