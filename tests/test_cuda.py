"""On a GPU: the CPU's numbers, gradients and training within rounding, and every notebook to its last cell."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from math import log

import pytest
import torch
import yaml

from prefcore import smoke
from prefcore.data.types import Example
from prefcore.engine import models, reference, train
from prefcore.engine.attention import SplitAttention, split_plainly
from prefcore.engine.collate import collate, make_plan
from prefcore.engine.layout import count_tokens, distinct, lay_out
from prefcore.engine.logps import branch_logps, run_trunk, to_device
from prefcore.engine.sample import sample
from prefcore.methods import dpo

METHODS = list(yaml.safe_load((smoke.ROOT / "params.yaml").read_text())["methods"])
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.timeout(900),
]  # fmt: skip


@pytest.fixture
def policy(tiny_llama):
    """A Llama with an adapter that already does something."""
    adapted = models.add_lora(tiny_llama, rank=4, alpha=8.0, top_layers=1, seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def score(policy, examples, device, depth=0):
    batch = to_device(collate(examples, pad_id=0), device)
    if depth:
        batch |= {"trunk": run_trunk(policy, batch, depth).detach(), "depth": depth}
    return branch_logps(policy, batch)


@pytest.mark.parametrize("shared", [False, True], ids=["prompts apart", "shared prompts and answers"])
@pytest.mark.parametrize("depth", [0, 1])
def test_numbers_and_gradients_are_the_cpus_within_rounding(draw, policy, depth, shared):
    examples, found = draw(8, 3), {}
    if shared:
        pairs = [pair for e in draw(4, 4) for pair in combinations(e.completions, 2)]
        examples = [Example(f"{i}", (5 + i // 6,) * (1 + i // 6), pair) for i, pair in enumerate(pairs)]
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(policy).to(device)
        logps = score(model, examples, device, depth)
        logps.square().mean().backward()
        found[device] = [logps.detach().cpu()] + [p.grad.cpu() for p in model.parameters() if p.grad is not None]
    assert len(found["cpu"]) > 1
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_training_ends_where_the_cpus_does(draw, policy, tmp_path):
    plan, ends = make_plan(draw(16, 2), batch_size=4, epochs=2, seed=0, pad_id=0), {}

    def loss(logps, ref_logps, batch, state, *, beta):
        return dpo.loss(logps, ref_logps, beta=beta)

    for device in ("cpu", "cuda"):
        model = copy.deepcopy(policy).to(device)
        ready = reference.attach(plan, model, cache=tmp_path / device)
        how = {"learning_rate": 1e-2, "seed": 0, "checkpoints": tmp_path / f"{device}-run"}
        history = train.fit(model, ready, loss, {"beta": 0.5}, **how)
        ends[device] = history["loss"].to_numpy(), [p.detach().cpu() for p in model.parameters() if p.requires_grad]
    assert abs(ends["cpu"][0] - ends["cuda"][0]).max() < 1e-3
    starts = [p for p in policy.parameters() if p.requires_grad]
    assert max((one - start).abs().max() for one, start in zip(ends["cpu"][1], starts, strict=True)) > 0.02
    for one, other in zip(ends["cpu"][1], ends["cuda"][1], strict=True):
        assert (one - other).abs().max() < 5e-3


@pytest.mark.parametrize("lengths", [[(3, (1, 4, 2)), (9, (7,)), (5, (1, 1))], [(4, (6, 6)), (4, (6, 6))]], ids=str)
def test_attention_along_a_layout_is_the_cpus(lengths):
    some = [Example(f"{i}", (i,) * n, tuple((k,) * m for k, m in enumerate(answers)))
            for i, (n, answers) in enumerate(lengths)]  # fmt: skip
    layout, n = lay_out(distinct(some)), count_tokens(some)
    operands, found = [torch.randn(n, heads, 16) for heads in (4, 2, 2)], []
    for device, split in (("cpu", SplitAttention.apply), ("cuda", split_plainly)):
        leaves = [x.to(device).requires_grad_() for x in operands]
        out = split(*leaves, to_device(layout, device), 0.25)
        out.square().sum().backward()
        found.append([out.detach().cpu(), *(x.grad.cpu() for x in leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_in_bfloat16_policy_and_reference_agree_at_step_0(draw, policy, tmp_path):
    def loss(logps, ref_logps, batch, state, *, beta):
        return dpo.loss(logps, ref_logps, beta=beta)

    model = models.add_lora(policy.merge_and_unload(), rank=4, alpha=8.0, top_layers=1, seed=0).to("cuda")
    plan = make_plan(draw(16, 2), batch_size=4, epochs=2, seed=0, pad_id=0)
    plan = reference.attach(plan, model, cache=None, precision="bfloat16")
    how = {"learning_rate": 1e-2, "seed": 0, "checkpoints": tmp_path, "precision": "bfloat16"}
    history = train.fit(model, plan, loss, {"beta": 0.5}, **how)
    assert abs(history["loss"][0] - log(2)) < 1e-3 and history["loss"].iloc[-1] < log(2) - 1e-3
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_same_seed_draws_the_cpus_tokens(peaked_llama, tokenizer):
    prompts, samples = [(4, 5, 6), (7, 8), (9, 10, 11, 12)], []
    for device in ("cpu", "cuda"):
        found = sample(copy.deepcopy(peaked_llama).to(device), tokenizer, prompts, max_new_tokens=8, seed=3)
        samples.append([one.ids for one in found])
    assert samples[0] == samples[1]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """What each notebook's command said, and its exit status; the comparison comes after the others."""
    folder = tmp_path_factory.mktemp("cuda")
    smoke.workspace(folder, device="cuda")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(smoke.ROOT), os.environ.get("PYTHONPATH")]))}

    def run(method):
        command = [sys.executable, "-m", "prefcore", "notebook", method]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        return done.returncode, done.stderr[-2000:]

    with ThreadPoolExecutor(4) as four:
        others = [m for m in METHODS if m != "overview"]
        said = dict(zip(others, four.map(run, others), strict=True))
    return said | {"overview": run("overview")}


@pytest.mark.parametrize("method", METHODS)
def test_every_notebook_runs_on_the_gpu(executed, method):
    status, said = executed[method]
    assert status == 0, said
