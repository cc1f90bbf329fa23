"""One trainer for every method: what a step does, and what it refuses."""

import copy
from itertools import combinations
from math import log

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, LlamaForCausalLM

from prefcore.data.types import Example, LossOutput
from prefcore.engine import models, reference, train
from prefcore.engine.collate import Plan, add_mismatches, make_plan, with_column
from prefcore.methods import bco, dpo, kto

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


def pair_loss(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


def shifted_loss(logps, ref_logps, batch, state, *, beta):
    """BCO with its running shift."""
    shift = bco.class_mean_shift(beta * (logps - ref_logps), batch["label"])
    train.update_state(state, shift=bco.update_ema(state["shift"], shift, decay=0.9))
    return bco.loss(logps, ref_logps, batch["label"], state["shift"], torch.ones(len(logps)), beta=beta)


@pytest.fixture
def examples(draw):
    """Makes n examples, every second one with a thumb up."""

    def examples(n=16, branches=2, seed=0):
        rows = draw(n, branches, seed=seed, prompt=(2, 9), completion=(1, 7))
        return with_column(rows, "label", [i % 2 for i in range(n)])

    return examples


def make_policy(layers=3, adapter=True):
    torch.manual_seed(0)
    policy = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=layers)).eval()
    return models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0) if adapter else policy


def planned(policy, rows, *, batch_size=4, epochs=1, seed=0):
    plan = make_plan(rows, batch_size=batch_size, epochs=epochs, seed=seed, pad_id=0)
    return reference.attach(plan, policy, cache=None)


def fit(policy, plan, loss, folder, *, settings=None, **how):
    how = {"learning_rate": 1e-2, "seed": 0, "checkpoints": folder} | how
    return train.fit(policy, plan, loss, settings or {"beta": 0.5}, **how)


def trained(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}


def largest_gap(one, other):
    assert one.keys() == other.keys() and one
    return max((one[name] - other[name]).abs().max().item() for name in one)


# --- a step -----------------------------------------------------------------------------------------------------


def test_the_first_step_has_loss_ln_2_as_policy_and_reference_agree(examples, tmp_path):
    policy = make_policy()
    history = fit(policy, planned(policy, examples()), pair_loss, tmp_path)
    assert history["loss"][0] == pytest.approx(log(2), abs=1e-5) and history["margin"][0] == pytest.approx(0, abs=1e-5)
    assert history["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "all weights"])
def test_training_moves_rewards_and_only_what_requires_a_gradient(examples, tmp_path, adapter):
    policy = make_policy(adapter=adapter)
    plan = planned(policy, examples(), epochs=6)
    before, frozen = trained(policy), {n: p.clone() for n, p in policy.named_parameters() if not p.requires_grad}
    history = fit(policy, plan, pair_loss, tmp_path)
    assert history["margin"].iloc[-4:].mean() > 0.1 and history["loss"].iloc[-4:].mean() < log(2) - 0.05
    assert all((p != before[name]).any() for name, p in trained(policy).items())
    assert all(torch.equal(p, frozen[name]) for name, p in policy.named_parameters() if name in frozen)


def test_a_batch_of_8_takes_the_step_of_2_accumulated_batches_of_4(examples, tmp_path):
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


def test_frozen_layers_kept_aside_train_the_same_weights(examples, tmp_path, monkeypatch):
    found = []
    for limit in (reference.TRUNK_BYTES, 0):
        monkeypatch.setattr(reference, "TRUNK_BYTES", limit)
        policy = make_policy()
        plan = planned(policy, examples(), epochs=2)
        assert plan.depth == (2 if limit else 0)
        found.append((fit(policy, plan, pair_loss, tmp_path / str(limit))["loss"], trained(policy)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    assert largest_gap(found[0][1], found[1][1]) < 1e-3


def test_two_equal_runs_end_with_equal_bytes(examples, tmp_path):
    found = []
    for name in ("a", "b"):
        policy = make_policy()
        history = fit(policy, planned(policy, examples(), epochs=2), pair_loss, tmp_path / name)
        found.append((history.to_csv(), {k: v.numpy().tobytes() for k, v in trained(policy).items()}))
    assert found[0] == found[1]


def test_a_loss_sees_columns_lengths_and_mismatches_without_gradient(examples, tmp_path):
    policy, rows, seen = make_policy(), examples(7, branches=1), []
    plan = make_plan(rows, batch_size=3, epochs=2, seed=0, pad_id=0)
    plan = reference.attach(add_mismatches(plan), policy, cache=None)

    def thumbs(logps, ref_logps, batch, state, *, seen, **numbers):
        seen.append(batch)
        kl = kto.kl_estimate(batch["mismatch_logps"], batch["ref_mismatch_logps"])
        return kto.loss(logps, ref_logps, batch["label"], kl, **numbers)

    numbers = {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    history = fit(policy, plan, thumbs, tmp_path, settings={"seen": seen, **numbers})
    assert [batch["ids"] for batch in seen] == [[rows[i].id for i in batch] for batch in plan.batches]
    for batch, chosen in zip(seen, plan.batches, strict=True):
        assert batch["label"].tolist() == [rows[i].columns["label"] for i in chosen]
        assert batch["lengths"].tolist() == [[len(rows[i].completions[0])] for i in chosen]
        assert not batch["mismatch_logps"].requires_grad and batch["mismatch_logps"].shape == (len(chosen),)
    assert history["loss"][0] == pytest.approx(0.5, abs=1e-5)
    assert history["mismatch_logratio"][0] == pytest.approx(0, abs=1e-4) and history["mismatch_logratio"].iloc[-1] != 0


def test_a_batch_of_one_trains(examples, tmp_path):
    policy = make_policy()
    plan = planned(policy, examples(3, branches=1), batch_size=1)
    history = fit(policy, plan, shifted_loss, tmp_path, state={"shift": 0.0})
    assert len(history) == 3 and history["loss"].notna().all() and (history["state_shift"] == 0).all()


def test_pairs_that_share_answers_take_the_step_of_pairs_apart(tmp_path):
    """Six pairs of one prompt in a batch against the same pairs accumulated one by one, as TRL would read them."""
    pool = ((5, 6, 2), (7, 8, 9, 2), (10,), (11, 12, 13, 14))
    rows = [Example(f"e{i}", (20 + i // 6, 4, 5), pair) for i, pair in enumerate([*combinations(pool, 2)] * 2)]
    found = []
    for size, adapter in ((6, True), (1, True), (6, False), (1, False)):
        policy, batches = make_policy(adapter=adapter), [list(range(k, k + size)) for k in range(0, 12, size)]
        plan = reference.attach(Plan(rows, batches, pad_id=0), policy, cache=None)
        how = {"accumulation": 6 // size, "warmup": 0.0, "schedule": "constant"}
        history = fit(policy, plan, pair_loss, tmp_path / f"{size} {adapter}", **how)
        found.append((history[["loss", "grad_norm"]].to_numpy(), trained(policy)))
    for (one, weights), (two, others) in (found[:2], found[2:]):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
        assert largest_gap(weights, others) < 1e-3


def test_a_run_that_is_to_leave_no_checkpoint_leaves_none(examples, tmp_path):
    one, two = make_policy(), make_policy()
    history = fit(one, planned(one, examples()), pair_loss, tmp_path, save_every=None)
    assert not list(tmp_path.rglob("*")) and fit(two, planned(two, examples()), pair_loss, tmp_path).equals(history)
    assert largest_gap(trained(one), trained(two)) == 0


# --- precision --------------------------------------------------------------------------------------------------


@pytest.fixture
def wide_policy():
    """Makes a policy with large weights, so that rounding shows."""

    def wide_policy(adapter):
        policy = make_policy(adapter=False)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(6)
        return models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0) if adapter else policy

    return wide_policy


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="needs a processor with bfloat16 products")
@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "all weights"])
def test_in_bfloat16_policy_and_reference_agree_at_step_0_if_both_are(examples, tmp_path, wide_policy, adapter):
    first = {}
    for precision in ("bfloat16", "float32"):
        policy = wide_policy(adapter)
        plan = make_plan(examples(), batch_size=4, epochs=1, seed=0, pad_id=0)
        plan = reference.attach(plan, policy, cache=None, precision=precision)
        assert plan.ref_logps.dtype == np.float32 and plan.depth == 2 * adapter
        first[precision] = fit(policy, plan, pair_loss, tmp_path / precision, precision="bfloat16")["loss"][0]
    assert abs(first["bfloat16"] - log(2)) < 1e-3 < abs(first["float32"] - log(2))


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="needs a processor with bfloat16 products")
@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "all weights"])
def test_a_training_in_bfloat16_is_near_the_float32_one_and_keeps_float32_weights(examples, tmp_path, adapter):
    found, start = {}, trained(make_policy(adapter=adapter))
    for precision in ("float32", "bfloat16"):
        policy, dtypes = make_policy(adapter=adapter), set()
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient, dtypes=dtypes: dtypes.add(gradient.dtype))
        plan = make_plan(examples(), batch_size=4, epochs=3, seed=0, pad_id=0)
        plan = reference.attach(plan, policy, cache=None, precision=precision)
        history = fit(policy, plan, pair_loss, tmp_path / precision, precision=precision, learning_rate=3e-3)
        assert dtypes == {torch.float32} == {parameter.dtype for parameter in policy.parameters()}
        found[precision] = history, trained(policy)
    (exact, weights), (rounded, others) = found.values()
    gap = np.abs(exact["loss"] - rounded["loss"]).max()
    assert 0 < gap < 0.02 < np.ptp(exact["loss"])
    moved, apart = (torch.cat([(one[n] - two[n]).flatten() for n in one]).norm()
                    for one, two in ((weights, start), (weights, others)))  # fmt: skip
    assert apart < 0.2 * moved


def test_a_precision_that_is_not_there_is_refused_before_anything_is_trained(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    policy = make_policy()
    plan = planned(policy, examples())
    for precision, said in (("bfloat16", "no bfloat16 products"), ("half", "precision is 'half': choose one of")):
        with pytest.raises(ValueError, match=said):
            fit(policy, plan, pair_loss, tmp_path, precision=precision)
        with pytest.raises(ValueError, match=said):
            reference.attach(plan, policy, cache=None, precision=precision)
    assert not list(tmp_path.rglob("*.safetensors"))


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_rows(examples, tmp_path):
    policy = make_policy()

    def spoilt(logps, ref_logps, batch, state, *, beta):
        bad = torch.tensor([id in ("e3", "e5") for id in batch["ids"]])
        out = dpo.loss(logps, ref_logps, beta=beta)
        return LossOutput(torch.where(bad, float("nan"), out.losses), out.rewards)

    with pytest.raises(FloatingPointError, match=r"not finite for \['e3', 'e5'\]"):
        fit(policy, reference.attach(Plan(examples(), [list(range(8))]), policy, cache=None), spoilt, tmp_path)


def test_a_policy_without_anything_to_train_is_refused(examples, tmp_path):
    policy = make_policy(adapter=False).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        fit(policy, planned(policy, examples()), pair_loss, tmp_path)


def test_a_loss_that_is_not_handed_its_numbers_is_refused_before_anything_is_trained(examples, tmp_path):
    policy, beta = make_policy(), 0.5

    def closed(logps, ref_logps, batch, state):
        return dpo.loss(logps, ref_logps, beta=beta)

    with pytest.raises(ValueError, match=r"closed reads beta \(a float\) from around it.*hand it over in the settings"):
        fit(policy, planned(policy, examples()), closed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_callers_plan_and_state_stay_as_they_were(examples, tmp_path):
    policy, state = make_policy(), {"shift": 0.0}
    plan = planned(policy, examples(24, branches=1))
    before = copy.deepcopy(plan.batches), plan.ref_logps.copy()
    history = fit(policy, plan, shifted_loss, tmp_path, state=state)
    assert history["state_shift"].iloc[-1] != 0
    assert state == {"shift": 0.0} and plan.batches == before[0] and (plan.ref_logps == before[1]).all()


# --- dropout ----------------------------------------------------------------------------------------------------


def gpt2(share):
    sizes = {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
    return GPT2Config(**sizes, resid_pdrop=share, attn_pdrop=share, embd_pdrop=share)


def llama(share):
    return LlamaConfig(**SIZES, num_hidden_layers=3, attention_dropout=share)


@pytest.mark.parametrize("make_config", [gpt2, llama])
def test_policy_and_reference_are_one_function_at_step_0_whatever_the_models_dropout(examples, tmp_path, make_config):
    """All weights are trained, so that no layer's output is kept from the reference's pass."""
    found = {}
    for share in (0.0, 0.5):
        torch.manual_seed(0)
        policy = AutoModelForCausalLM.from_config(make_config(share)).eval()
        plan = planned(policy, examples())
        history = fit(policy, plan, pair_loss, tmp_path / str(share))
        assert history["loss"][0] == pytest.approx(log(2), abs=1e-5)
        assert history["margin"][0] == pytest.approx(0, abs=1e-5) and not policy.training
        found[share] = history.to_csv(), {name: p.numpy().tobytes() for name, p in trained(policy).items()}
    assert found[0.0] == found[0.5]
    ids = torch.tensor([[5, 6, 7]])
    policy.train()  # what the Trainer asks for: this model would have dropped half of what it knows
    assert (policy(ids).logits - policy.eval()(ids).logits).abs().max() > 1e-2
