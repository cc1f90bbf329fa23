"""The frozen reference: computed once, found again by content, and the same numbers as computed live."""

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prefcore.data.types import Example
from prefcore.engine import reference
from prefcore.engine.collate import add_mismatches, collate, make_plan
from prefcore.engine.layout import count_tokens, join
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


@pytest.fixture
def calls(monkeypatch):
    """How often the reference was computed, and not found."""
    made, order = [], reference.token_batches
    monkeypatch.setattr(reference, "token_batches", lambda *a: made.append(1) or order(*a))
    return made


# --- the numbers ------------------------------------------------------------------------------------------------


def test_precomputed_numbers_are_the_live_ones(examples, tiny_llama):
    rows = examples()
    plan = reference.attach(plan_of(rows), tiny_llama, cache=None)
    assert plan.ref_logps.shape == (9, 2) and plan.ref_logps.dtype == np.float32
    np.testing.assert_allclose(plan.ref_logps, live(tiny_llama, rows), rtol=1e-5, atol=1e-4)


def test_the_reference_of_an_adapted_policy_is_the_policy_without_its_adapter(adapted, examples, tiny_llama):
    rows, before = examples(), live(tiny_llama, examples())
    policy = adapted(tiny_llama)
    assert np.abs(reference.score_all(policy, rows, pad_id=0) - before).max() > 0.1
    np.testing.assert_allclose(reference.logps(policy, rows, pad_id=0), before, rtol=1e-5, atol=1e-4)
    plan = reference.attach(plan_of(rows), policy, cache=None)
    np.testing.assert_allclose(plan.ref_logps, before, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n, batch_size", [(9, 4), (5, 1), (8, 3)])
@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "layers kept"])
def test_mismatched_answers_get_their_own_numbers(adapted, examples, tiny_llama, n, batch_size, adapter):
    """Each prompt is read once with its own answer and with all those that some step pairs it with."""
    policy, rows = adapted(tiny_llama) if adapter else tiny_llama, examples(n, branches=1)
    plan = add_mismatches(plan_of(rows, batch_size=batch_size))
    plan = reference.attach(plan, policy, cache=None)
    assert plan.depth == int(adapter) and [*map(len, plan.ref_mismatch_logps)] == [*map(len, plan.batches)]
    with reference.without_adapter(policy):
        np.testing.assert_allclose(plan.ref_logps, reference.score_all(policy, rows, pad_id=0), rtol=1e-5, atol=1e-4)
        for step, found in zip(plan.mismatches, plan.ref_mismatch_logps, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, live(policy, step)[:, 0], rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(found, reference.score_all(policy, step, pad_id=0)[:, 0], rtol=1e-5, atol=1e-4)


def pools(rng, prompts=7):
    """Pairs of up to five answers of each prompt, in a mixed order; some prompts are shown with two pictures."""
    rows = []
    for i in range(prompts):
        prompt = tuple(rng.integers(4, 97, size=rng.integers(2, 20)).tolist())
        answers = [tuple(rng.integers(4, 97, size=rng.integers(1, 12)).tolist()) for _ in range(rng.integers(2, 6))]
        shown = ("", "a picture") if i % 3 == 0 else ("",)
        rows += [Example(f"{i}", prompt, pair, shown=name) for pair in combinations(answers, 2) for name in shown]
    return [rows[i] for i in rng.permutation(len(rows))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tokens", [1, 20, 60, 200, 10**6])
def test_a_batch_holds_at_most_so_many_tokens_and_a_prompts_examples_together(tokens, seed):
    rows = pools(np.random.default_rng(seed))
    batches = reference.token_batches(rows, tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    homes = {}
    for number, batch in enumerate(batches):
        assert count_tokens([rows[i] for i in batch]) <= tokens or len({rows[i].completions for i in batch}) == 1
        for i in batch:
            homes.setdefault((rows[i].prompt, rows[i].shown), set()).add(number)
    for (prompt, shown), found in homes.items():
        whole = count_tokens([row for row in rows if (row.prompt, row.shown) == (prompt, shown)])
        assert len(found) == 1 or whole > tokens
    read = sum(count_tokens([rows[i] for i in batch]) for batch in batches)
    assert (read == count_tokens(rows)) == all(len(found) == 1 for found in homes.values())
    assert len(batches) > 1 or tokens >= count_tokens(rows)


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


@pytest.mark.parametrize("change", ["weights", "dtype", "prompt", "completion", "picture"])
def test_whatever_the_numbers_depend_on_names_another_entry(examples, tiny_llama, tmp_path, calls, change):
    rows = examples()
    reference.attach(plan_of(rows), tiny_llama, cache=tmp_path)
    if change == "weights":
        tiny_llama.model.layers[0].mlp.up_proj.weight.data[3, 4] += 1e-4
    elif change == "dtype":
        tiny_llama.to(torch.bfloat16)
    elif change == "prompt":  # as another length limit or tokenizer would
        rows[3] = rows[3]._replace(prompt=rows[3].prompt[1:])
    elif change == "picture":
        rows[3] = rows[3]._replace(shown="a picture")
    else:
        rows[3] = rows[3]._replace(completions=(rows[3].completions[0][:-1] + (5,), rows[3].completions[1]))
    reference.attach(plan_of(rows), tiny_llama, cache=tmp_path)
    assert len(calls) == 2 and len(list(tmp_path.iterdir())) == 2


def test_numbers_of_another_precision_are_another_entry(examples, tiny_llama):
    names = {reference.fingerprint(tiny_llama, examples(), *how) for how in ((), ("float32",), ("bfloat16",))}
    assert len(names) == 2


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


def test_the_weight_hash_sees_values_and_precision_but_no_adapter(adapted, tiny_llama):
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


@pytest.mark.parametrize("branches", [1, 2])
def test_frozen_layers_are_kept_with_the_numbers_of_the_whole_model(adapted, examples, tiny_llama, tmp_path, branches):
    rows, expected = examples(branches=branches), live(tiny_llama, examples(branches=branches))
    policy, plan = adapted(tiny_llama), plan_of(examples(branches=branches))
    for _ in range(2):  # computed, then read
        found = reference.attach(add_mismatches(plan) if branches == 1 else plan, policy, cache=tmp_path)
        assert found.depth == 1 and [list(map(len, states)) for states in found.trunk] == [
            [len(e.prompt), *(len(c) - 1 for c in e.completions)] for e in rows
        ]
        np.testing.assert_allclose(found.ref_logps, expected, rtol=1e-5, atol=1e-4)
        with torch.no_grad(), policy.disable_adapter():
            for batch in ([0, 1, 2], [7], [8, 3, 3]):
                some = [rows[i] for i in batch]
                kept = {"trunk": join(some, [found.trunk[i] for i in batch]), "depth": found.depth}
                logps = branch_logps(policy, collate(some, pad_id=0) | kept)
                np.testing.assert_allclose(logps.numpy(), expected[batch], rtol=1e-5, atol=1e-4)
            for step, states, logps in zip(
                found.mismatches, found.mismatch_trunk, found.ref_mismatch_logps, strict=True
            ):
                kept = {"trunk": join(step, states), "depth": found.depth}
                again = branch_logps(policy, collate(step, pad_id=0) | kept)[:, 0]
                np.testing.assert_allclose(again.numpy(), logps, rtol=1e-5, atol=1e-4)
        assert [len(step) for step in found.mismatch_trunk] == [len(b) for b in plan.batches if branches == 1]


def test_weights_in_bfloat16_are_scored_with_the_float32_adapter_that_was_trained_on_them(adapted, draw, tiny_llama):
    """Merged into them, most of so small a change would be rounded away."""
    examples, policy = draw(4, 2), adapted(tiny_llama.to(torch.bfloat16), scale=1e-3)
    assert {p.dtype for p in policy.parameters() if p.requires_grad} == {torch.float32}
    with torch.no_grad():
        plain = branch_logps(policy, collate(examples, pad_id=0)).numpy()
    np.testing.assert_array_equal(reference.score_all(policy, examples, pad_id=0), plain)


def test_kept_states_of_a_prompt_and_an_answer_lie_in_memory_once(adapted, tiny_llama, tmp_path):
    """Computed batch by batch, and read from the cache."""
    policy, rows = adapted(tiny_llama), pools(np.random.default_rng(0))
    rows = [row._replace(shown="") for row in rows]
    for _ in range(2):
        states = reference.attach(plan_of(rows), policy, cache=tmp_path).trunk
        memory = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for some in states for x in some}
        assert sum(memory.values()) == count_tokens(rows) * policy.config.hidden_size * 4


def test_frozen_layers_are_not_kept_where_they_take_too_much_memory(adapted, examples, tiny_llama, monkeypatch):
    monkeypatch.setattr(reference, "TRUNK_BYTES", 1000)
    plan = reference.attach(plan_of(examples()), adapted(tiny_llama), cache=None)
    assert plan.depth == 0 and plan.trunk == []


def test_nothing_is_kept_where_all_layers_are_trained(adapted, examples, tiny_llama):
    assert reference.attach(plan_of(examples()), adapted(tiny_llama, top_layers=2), cache=None).depth == 0
