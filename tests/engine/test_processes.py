"""Two processes train what one trains: every loss with statistics of its batch, resumed either way, refused clearly."""

import os
import socket
import traceback
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from prefcore.engine import models, ranks, reference, shards, train
from prefcore.engine.aggregate import scale_to_token_mean
from prefcore.engine.collate import add_mismatches, make_plan, with_column
from prefcore.methods import bco, dpo, kto, odpo, ulma
from prefcore.methods.margin_rm import losses as margin_losses
from prefcore.methods.napo import losses as napo_losses
from prefcore.methods.napo import margins, objectives
from prefcore.methods.osp import loss as osp
from prefcore.scoring import reward_model

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.timeout(600)]
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip


# --- the objectives, as the chapters have them; what they find in a batch goes into the state, and so into the history


def prefer(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


def offset(logps, ref_logps, batch, state, *, beta):
    return odpo.loss(logps, ref_logps, batch["margin"], beta=beta)


def soften(logps, ref_logps, batch, state, *, beta):
    return osp.loss(logps, ref_logps, batch["strength"], beta=beta)


def with_kl(logps, ref_logps, batch, state, *, beta):
    kl = kto.kl_estimate(batch["mismatch_logps"], batch["ref_mismatch_logps"])
    train.update_state(state, kl=kl)
    return kto.loss(logps, ref_logps, batch["label"], kl, beta=beta, desirable_weight=1.3, undesirable_weight=1.0)


def with_shift(logps, ref_logps, batch, state, *, beta):
    rewards, labels = beta * (logps - ref_logps), batch["label"]
    up, down = bco.update_class_means(state["up"], state["down"], rewards, labels, decay=0.9)
    train.update_state(state, up=up, down=down)
    return bco.loss(logps, ref_logps, labels, (up + down) / 2, batch["weight"], beta=beta)


def pooled(logps, ref_logps, batch, state, *, beta):
    total, count = bco.update_cumulative(state["total"], state["count"], beta * (logps - ref_logps))
    train.update_state(state, total=total, count=count)
    return bco.pooled_loss(logps, ref_logps, batch["label"], total / count, batch["weight"], beta=beta)


def imitate(logps, ref_logps, batch, state, *, beta):
    return ulma.loss(logps, ref_logps, batch["label"], beta=beta)


def likelihood(logps, ref_logps, batch, state, *, beta):
    scaled = scale_to_token_mean(-beta * logps[:, 0], batch["lengths"][:, 0])
    return imitate(logps, ref_logps, batch, state, beta=beta)._replace(losses=scaled)


def noisy_pairs(logps, ref_logps, batch, state, *, beta):
    q = margins.adaptive_q(margins.mean_margin(logps, ref_logps, beta=beta), alpha=0.5)
    train.update_state(state, q=q)
    return napo_losses.pair_loss(logps, ref_logps, q, beta=beta)


PICTURES = {"rule": partial(objectives.paper, alphas=(0.5, 0.1)), "weigh": objectives.dynamic}
CASES = {  # branches, loss, what its state starts from, more settings of the loss, more arguments of fit
    "dpo": (2, prefer, {}, {}, {}),
    "dpo, all weights": (2, prefer, {}, {}, {}),
    "dpo, accumulated": (2, prefer, {}, {}, {"accumulation": 2}),
    "odpo": (2, offset, {}, {}, {}),
    "osp": (2, soften, {}, {}, {}),
    "kto": (1, with_kl, {"kl": 0.0}, {}, {}),
    "bco": (1, with_shift, {"up": 0.0, "down": 0.0}, {}, {}),
    "bco, pooled": (1, pooled, {"total": 0.0, "count": 0.0}, {}, {}),
    "ulma": (1, imitate, {}, {}, {}),
    "likelihood": (1, likelihood, {}, {}, {}),
    "napo": (4, objectives.loss, dict.fromkeys(objectives.STATE, 0.0), PICTURES, {}),
    "napo, pairs": (2, noisy_pairs, {"q": 0.0}, {}, {}),
}


ROUGH = {
    "napo": 1e-5,  # its weights divide by a sum of margins that is nearly 0 in the first steps
    "bco, pooled": 1e-5,  # its state is a sum over all rewards so far, and of their last bits
}
SHARDED = ("dpo", "dpo, all weights", "dpo, accumulated", "kto", "bco")


def fit(name, rows, folder):
    """Nine steps with batches of 5, 5 and 1, so that shares are unequal, or one has none; (history, what was trained).

    The epsilon keeps Adam from blowing up what differs in the last bit, by the order of a sum.
    """
    branches, loss, state, more, how = CASES[name]
    torch.manual_seed(0)
    policy = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=3, num_key_value_heads=2)).eval()
    if name != "dpo, all weights":
        policy = models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0)
    plan = make_plan(rows[branches], batch_size=5, epochs=3, seed=0, pad_id=0)
    plan = reference.attach(add_mismatches(plan) if name == "kto" else plan, policy, cache=None)
    history = train.fit(
        policy, plan, loss, {"beta": 0.5} | more, learning_rate=1e-2, seed=0, state=state, save_every=2,
        checkpoints=folder / name, arguments={"adam_epsilon": 1e-3}, **how,
    )  # fmt: skip
    return arrays(history, policy)


def fit_reward(rows):
    """A reward model. Its biases stay: some cancel in all differences, and Adam would follow what rounding leaves."""
    torch.manual_seed(0)
    model = reward_model.MeanPooled(BertModel(BertConfig(**SIZES, num_hidden_layers=1, pad_token_id=0))).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("bias" not in name)
    plan = make_plan([row._replace(prompt=()) for row in rows[2]], batch_size=5, epochs=3, seed=0, pad_id=0)
    how = {"learning_rate": 1e-3, "warmup": 0.1, "max_grad_norm": 1.0, "label": "reward"}
    history = reward_model.fit(model, plan, lambda r, c: margin_losses.loss(r, c["margin"]), **how)
    return arrays(history, model)


def arrays(history, model):
    columns = {name: values.to_numpy() for name, values in history.items()}
    return columns, {name: p.detach().numpy().copy() for name, p in model.named_parameters() if p.requires_grad}


def begin(name, rows, folder):
    """The first five steps of a run, of which a checkpoint keeps four."""
    original = train.Marks.on_step_end

    def stop(self, args, state, *rest, **more):
        if state.global_step == 5:
            raise InterruptedError("stopped")
        original(self, args, state, *rest, **more)

    train.Marks.on_step_end = stop
    with pytest.raises(InterruptedError):
        fit(name, rows, folder)
    train.Marks.on_step_end = original


def work(rank, port, folder, rows, queue):
    """What each of two processes does, under the environment that `accelerate launch` gives it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1}  # fmt: skip
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    try:
        found = find(rank, folder, rows)
        torch.distributed.barrier()  # the last shards may still be on their way to the other process
        queue.put((rank, found))
    except Exception:
        queue.put((rank, traceback.format_exc()))
        raise
    torch.distributed.destroy_process_group()


def find(rank, folder, rows):
    found = {name: fit(name, rows, folder / "both") for name in CASES} | {"reward model": fit_reward(rows)}
    assert ranks.world() == 2
    found["begun by one"] = fit("bco", rows, folder / "begun by one")
    begin("kto", rows, folder / "begun by two")
    with pytest.raises(RuntimeError) as error:
        fit("dpo", {2: rows[2][rank:]}, folder / "other data")
    found["refused"], found["shares"], original = str(error.value), [], shards.shard

    def shard(objective, *rest):
        total = sum(p.numel() for p in objective.parameters() if p.requires_grad)
        original(objective, *rest)
        mine = sum(p.to_local().numel() for p in objective.parameters() if p.requires_grad)
        found["shares"].append(mine / total)

    os.environ[shards.ASKED], shards.shard = "true", shard
    found |= {f"{name}, sharded": fit(name, rows, folder / "sharded") for name in SHARDED}
    found["begun by one, sharded"] = fit("bco", rows, folder / "begun by one, sharded")
    begin("kto", rows, folder / "begun by two shards")
    return found


@pytest.fixture(scope="module")
def rows(draw):
    """Eleven examples by their number of branches, with all columns that a loss here reads.

    An answer has at most three tokens: then the last bit of its log-probability (above -16 nats) is below 1e-6.
    """
    rng = np.random.default_rng(0)
    columns = {"margin": rng.uniform(0, 1, 11), "strength": rng.uniform(0.5, 1, 11),
               "language": [1, -1, 0, 1] * 2 + [1, 0, -1], "vision": [0, 1, 1, -1] * 2 + [0, 1, 1]}  # fmt: skip
    thumbs = {"label": [1, 0, 0, 1, 0] * 2 + [1], "weight": rng.uniform(0.2, 2, 11)}
    found = {}
    for branches in (1, 2, 4):
        found[branches] = draw(11, branches, prompt=(2, 9), completion=(1, 4))
        for name, values in (thumbs if branches == 1 else columns).items():
            found[branches] = with_column(found[branches], name, values)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def of_two(processes, rows, folder):
    """What both processes found, by rank."""
    torch.set_num_threads(1)
    for place in ("begun by one", "begun by one, sharded"):
        begin("bco", rows, folder / place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = processes.Queue()
    both = [processes.Process(target=work, args=(rank, port, folder, rows, queue)) for rank in range(2)]
    for process in both:
        process.start()
    found = {}
    while len(found) < len(both):
        rank, said = queue.get(timeout=500)
        if isinstance(said, str):  # it failed, and the other one would wait for it
            for process in both:
                process.kill()
            pytest.fail(f"process {rank}: {said}")
        found[rank] = said
    for process in both:
        process.join(60)
    return found


def assert_near(one, other, *, at_most):
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys() and mine
        for name in mine:
            np.testing.assert_allclose(mine[name], theirs[name], atol=at_most, rtol=at_most, err_msg=name)


@pytest.mark.parametrize("name", [*CASES, "reward model"])
def test_two_processes_take_the_steps_of_one(of_two, rows, tmp_path, name):
    alone = fit_reward(rows) if name == "reward model" else fit(name, rows, tmp_path)
    assert_near(of_two[0][name], of_two[1][name], at_most=0)
    assert_near(of_two[0][name], alone, at_most=ROUGH.get(name, 1e-6))


@pytest.mark.parametrize("name", SHARDED)
def test_two_processes_with_half_the_weights_each_take_the_steps_of_one(of_two, rows, tmp_path, name):
    """The loss reads the head's weight as a tensor; reference and frozen layers ran before, on the whole model."""
    assert all(0.4 < share < 0.6 for share in of_two[0]["shares"])
    assert_near(of_two[0][f"{name}, sharded"], of_two[1][f"{name}, sharded"], at_most=0)
    assert_near(of_two[0][f"{name}, sharded"], fit(name, rows, tmp_path), at_most=2e-6)


def test_what_one_process_began_two_finish_and_the_other_way_round(of_two, rows, folder, tmp_path):
    alone = {name: fit(name, rows, tmp_path) for name in ("bco", "kto")}
    for kind in ("begun by one", "begun by one, sharded"):
        assert_near(of_two[0][kind], alone["bco"], at_most=1e-6)
    for place in ("begun by two", "begun by two shards"):
        assert (folder / place / "kto" / "checkpoint-4" / "complete").exists()
        assert_near(fit("kto", rows, folder / place), alone["kto"], at_most=1e-6)


def test_a_policy_that_somebody_listens_to_is_not_sharded():
    policy = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=1))
    policy.get_decoder().register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="a hook listens to model, and not to its sharded copy"):
        shards.shard(SimpleNamespace(policy=policy), torch.device("cpu"), 0)


def test_processes_that_would_learn_from_other_data_are_refused(of_two):
    said = {found["refused"].split(":")[0] for found in of_two.values()}
    assert said == {"processes [1] have another run than process 0"}
