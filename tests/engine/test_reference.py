"""The frozen reference: computed once, found again by content, and the same numbers as computed live."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prefcore.engine import models, reference
from prefcore.engine.collate import add_mismatches, collate, make_plan
from prefcore.engine.logps import branch_logps, plain_logps


@pytest.fixture
def examples(draw):
    def examples(n=9, branches=2, seed=0):
        return draw(n, branches, seed=seed, prompt=(2, 12), completion=(1, 9))

    return examples


def plan_of(rows, **how):
    return make_plan(rows, **{"batch_size": 4, "epochs": 2, "seed": 0, "pad_id": 0} | how)


def live(policy, rows):
    with torch.no_grad():
        return plain_logps(policy, collate(rows, pad_id=0)).numpy()


def adapted(policy, *, top_layers=1):
    """The policy with an adapter that changes it."""
    policy = models.add_lora(policy, rank=2, alpha=4.0, top_layers=top_layers, seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    return policy


@pytest.fixture
def calls(monkeypatch):
    """How often the reference was computed, and not found."""
    made, compute = [], reference.logps
    monkeypatch.setattr(reference, "logps", lambda *a, **k: made.append(1) or compute(*a, **k))
    return made


# --- the numbers ------------------------------------------------------------------------------------------------


def test_precomputed_numbers_are_the_live_ones(examples, tiny_llama):
    rows = examples()
    plan = reference.attach(plan_of(rows), tiny_llama, cache=None)
    assert plan.ref_logps.shape == (9, 2) and plan.ref_logps.dtype == np.float32
    np.testing.assert_allclose(plan.ref_logps, live(tiny_llama, rows), rtol=1e-5, atol=1e-4)


def test_the_reference_of_an_adapted_policy_is_the_policy_without_its_adapter(examples, tiny_llama):
    rows, before = examples(), live(tiny_llama, examples())
    policy = adapted(tiny_llama)
    assert np.abs(reference.score_all(policy, rows, pad_id=0) - before).max() > 0.1
    np.testing.assert_allclose(reference.logps(policy, rows, pad_id=0), before, rtol=1e-5, atol=1e-4)
    plan = reference.attach(plan_of(rows), policy, cache=None)
    np.testing.assert_allclose(plan.ref_logps, before, rtol=1e-5, atol=1e-4)


def test_mismatched_answers_get_their_own_numbers(examples, tiny_llama):
    plan = add_mismatches(plan_of(examples(branches=1)))
    plan = reference.attach(plan, tiny_llama, cache=None)
    for step, found in zip(plan.mismatches, plan.ref_mismatch_logps, strict=True):
        np.testing.assert_allclose(found, live(tiny_llama, step)[:, 0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 40, 10**6])
def test_scoring_in_small_batches_sees_every_example_once(examples, tiny_llama, monkeypatch, tokens):
    rows = examples(13)
    batches = reference.token_batches(rows, tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(13))
    monkeypatch.setattr(reference, "TOKENS", tokens)
    np.testing.assert_allclose(reference.score_all(tiny_llama, rows, pad_id=0), live(tiny_llama, rows), atol=1e-4)


# --- the cache --------------------------------------------------------------------------------------------------


def test_a_second_call_reads_what_the_first_wrote(examples, tiny_llama, tmp_path, calls):
    first = reference.attach(plan_of(examples()), tiny_llama, cache=tmp_path)
    again = reference.attach(plan_of(examples(), seed=3, epochs=1), tiny_llama, cache=tmp_path)
    assert len(calls) == 1 and len(list(tmp_path.iterdir())) == 1
    assert first.ref_logps.tobytes() == again.ref_logps.tobytes()
    (path,) = tmp_path.iterdir()
    save_file({"logps": load_file(path)["logps"] + 1}, path)
    read = reference.attach(plan_of(examples()), tiny_llama, cache=tmp_path)
    np.testing.assert_array_equal(read.ref_logps, first.ref_logps + 1)


@pytest.mark.parametrize("change", ["weights", "dtype", "prompt", "completion"])
def test_whatever_the_numbers_depend_on_names_another_entry(examples, tiny_llama, tmp_path, calls, change):
    rows = examples()
    reference.attach(plan_of(rows), tiny_llama, cache=tmp_path)
    if change == "weights":
        tiny_llama.model.layers[0].mlp.up_proj.weight.data[3, 4] += 1e-4
    elif change == "dtype":
        tiny_llama.to(torch.bfloat16)
    elif change == "prompt":  # as another length limit or tokenizer would
        rows[3] = rows[3]._replace(prompt=rows[3].prompt[1:])
    else:
        rows[3] = rows[3]._replace(completions=(rows[3].completions[0][:-1] + (5,), rows[3].completions[1]))
    reference.attach(plan_of(rows), tiny_llama, cache=tmp_path)
    assert len(calls) == 2 and len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_write_leaves_no_entry(examples, tiny_llama, tmp_path, monkeypatch):
    def cut_off(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reference, "save_file", cut_off)
        with pytest.raises(KeyboardInterrupt):
            reference.attach(plan_of(examples()), tiny_llama, cache=tmp_path)
    plan = reference.attach(plan_of(examples()), tiny_llama, cache=tmp_path)
    np.testing.assert_allclose(plan.ref_logps, live(tiny_llama, examples()), rtol=1e-5, atol=1e-4)


def test_the_weight_hash_sees_values_and_precision_but_no_adapter(tiny_llama):
    plain = reference.weight_hash(tiny_llama)
    other = copy.deepcopy(tiny_llama)
    assert reference.weight_hash(other) == plain
    other.model.norm.weight.data[0] += 1e-6
    assert reference.weight_hash(other) != plain
    assert reference.weight_hash(copy.deepcopy(tiny_llama).to(torch.float16)) != plain
    assert reference.weight_hash(adapted(tiny_llama)) == plain


def test_the_weight_hash_sees_settings_that_are_in_no_weight_but_not_where_a_model_lies(tiny_llama, tmp_path):
    plain = reference.weight_hash(tiny_llama)
    tiny_llama.save_pretrained(tmp_path)
    assert reference.weight_hash(type(tiny_llama).from_pretrained(tmp_path)) == plain
    tiny_llama.config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
    assert reference.weight_hash(tiny_llama) != plain


def test_the_weight_hash_sees_two_matrices_that_change_places(tiny_llama):
    plain, attention = reference.weight_hash(tiny_llama), tiny_llama.model.layers[0].self_attn
    attention.k_proj, attention.v_proj = attention.v_proj, attention.k_proj
    assert reference.weight_hash(tiny_llama) != plain


# --- frozen layers ----------------------------------------------------------------------------------------------


def test_frozen_layers_are_kept_with_the_numbers_of_the_whole_model(examples, tiny_llama, tmp_path):
    rows, expected = examples(), live(tiny_llama, examples())
    policy = adapted(tiny_llama)
    for _ in range(2):  # computed, then read
        plan = reference.attach(add_mismatches(plan_of(rows)), policy, cache=tmp_path)
        assert plan.depth == 1 and [len(states) for states in plan.trunk] == [
            len(e.prompt) + sum(len(c) - 1 for c in e.completions) for e in rows
        ]
        np.testing.assert_allclose(plan.ref_logps, expected, rtol=1e-5, atol=1e-4)
    with torch.no_grad(), policy.disable_adapter():
        batch = collate(rows[:3], pad_id=0)
        states = torch.nn.utils.rnn.pad_sequence(plan.trunk[:3], batch_first=True)
        found = branch_logps(policy, batch | {"trunk": states, "depth": plan.depth})
    np.testing.assert_allclose(found.numpy(), expected[:3], rtol=1e-5, atol=1e-4)
    assert [len(step) for step in plan.mismatch_trunk] == [len(batch) for batch in plan.batches]


def test_frozen_layers_are_not_kept_where_they_take_too_much_memory(examples, tiny_llama, monkeypatch):
    monkeypatch.setattr(reference, "TRUNK_BYTES", 1000)
    plan = reference.attach(plan_of(examples()), adapted(tiny_llama), cache=None)
    assert plan.depth == 0 and plan.trunk == []


def test_nothing_is_kept_where_all_layers_are_trained(examples, tiny_llama):
    assert reference.attach(plan_of(examples()), adapted(tiny_llama, top_layers=2), cache=None).depth == 0
