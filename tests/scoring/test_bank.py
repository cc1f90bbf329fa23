"""A bank of rated answers: what a policy makes likelier, and the distance at which policies are compared."""

from pathlib import Path

import numpy as np
import pytest

from prefcore.data import files
from prefcore.engine import models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import bank, evaluate


def drawn_bank(policy, tokenizer, n=12, k=3):
    """The reference's own answers to made-up prompts, with ratings."""
    prompts = [[4 + i, 5 + i] for i in range(n) for _ in range(k)]
    drawn = sample(policy, tokenizer, prompts, max_new_tokens=5, seed=0)
    rows = []
    for i in range(n):
        some = drawn[i * k : i * k + k]
        texts, marks, ids = zip(*((s.text, s.finished, s.ids) for s in some), strict=True)
        rated = {"gold": tuple(float(i + j) for j in range(k))}
        rows.append(bank.Rated(f"r{i}", "", "test", f"w{4 + i} w{5 + i}", texts, marks, ids, rated))
    return rows


@pytest.fixture
def rows(tiny_llama, tokenizer):
    return drawn_bank(tiny_llama, tokenizer)


def test_the_tokens_are_those_that_were_sampled_and_only_a_finished_answer_has_an_end(rows, tokenizer, tmp_path):
    found = bank.encode(rows, tokenizer, max_prompt=8)
    for row, example in zip(rows, found.examples, strict=True):
        ends = [(*ids, 2) if ended else tuple(ids) for ids, ended in zip(row.tokens, row.finished, strict=True)]
        assert list(example.completions) == ends and example.prompt == tuple(tokenizer(row.prompt)["input_ids"])
    assert found.ratings["gold"].shape == (12, 3)
    files.write_lines(rows, tmp_path / "bank.jsonl")
    again = bank.encode(bank.read(tmp_path / "bank.jsonl", "test"), tokenizer, max_prompt=8)
    assert again.examples == found.examples and bank.read(tmp_path / "bank.jsonl", "validation") == []


def test_another_tokenizers_bank_and_a_missing_one_are_refused(rows, tokenizer, tmp_path):
    rows[1] = rows[1]._replace(completions=("w9 w9", *rows[1].completions[1:]))
    with pytest.raises(ValueError, match="r1: .* another tokenizer"):
        bank.encode(rows, tokenizer, max_prompt=8)
    with pytest.raises(FileNotFoundError, match="dvc repro bank"):
        bank.read(tmp_path / "none.jsonl", "test")


def test_a_rater_who_left_answers_out_is_left_out(rows):
    rated = [row.ratings | ({"proxy": (0.0, 1.0, 2.0)} if i else {}) for i, row in enumerate(rows)]
    assert set(bank.stack(rated)) == {"gold"}


def test_log_ratios_are_policy_minus_reference_and_zero_before_training(rows, tiny_llama, tokenizer):
    some = bank.encode(rows, tokenizer, max_prompt=8)
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    plan = bank.attach(some, policy, pad_id=0, cache=None)
    assert plan.depth == 1 and np.abs(bank.log_ratios(policy, plan)).max() < 1e-4
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 1)
    found = bank.log_ratios(policy, plan)
    own, theirs = (f(policy, some.examples, pad_id=0) for f in (reference.score_all, reference.logps))
    np.testing.assert_allclose(found, own - theirs, atol=1e-4)
    assert np.abs(found).max() > 0.1


def test_kept_log_ratios_belong_to_one_adapter_at_one_scale(
    adapted, rows, tiny_llama, tokenizer, tmp_path, monkeypatch
):
    policy = adapted(tiny_llama, 1.0)
    plan = bank.attach(bank.encode(rows, tokenizer, max_prompt=8), policy, pad_id=0, cache=None)
    first = bank.log_ratios(policy, plan, cache=tmp_path)
    with models.scaled(policy, 0.5):
        assert np.abs(bank.log_ratios(policy, plan, cache=tmp_path) - first).max() > 0.01
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(2)
    assert np.abs(bank.log_ratios(policy, plan, cache=tmp_path) - first).max() > 0.01
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.div_(2)
    monkeypatch.setattr(bank.reference, "score_attached", None)
    np.testing.assert_array_equal(bank.log_ratios(policy, plan, cache=tmp_path), first)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_policy_with_all_weights_trained_is_measured_too(rows, tiny_llama, tokenizer):
    plan = bank.attach(bank.encode(rows, tokenizer, max_prompt=8), tiny_llama, pad_id=0, cache=None)
    for parameter in tiny_llama.model.layers.parameters():
        parameter.data.mul_(1.1)
    assert plan.depth == 0 and np.abs(bank.log_ratios(tiny_llama, plan)).max() > 0.01


@pytest.mark.parametrize("scale, nats", [(3.0, 0.02), (0.3, 0.05)])
def test_an_adapter_is_scaled_to_a_distance_and_left_as_it_was(adapted, tiny_llama, tokenizer, scale, nats):
    some = bank.encode(drawn_bank(tiny_llama, tokenizer, n=40), tokenizer, max_prompt=8)
    policy = adapted(tiny_llama, scale)
    plan = bank.attach(some, policy, pad_id=0, cache=None)
    before = bank.log_ratios(policy, plan)
    factor = bank.factor_at(policy, plan, nats)
    np.testing.assert_array_equal(bank.log_ratios(policy, plan), before)
    with models.scaled(policy, factor):
        assert bank.distance(bank.log_ratios(policy, plan)) == pytest.approx(nats, rel=bank.NEAR)
    with models.scaled(policy, 0.0):
        assert np.abs(bank.log_ratios(policy, plan)).max() < 1e-4
    assert (factor < 1) == (bank.distance(before) > nats)


def test_a_policy_that_has_learnt_nothing_reaches_no_distance(rows, tiny_llama, tokenizer):
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    plan = bank.attach(bank.encode(rows, tokenizer, max_prompt=8), policy, pad_id=0, cache=None)
    with pytest.raises(ValueError, match="0 nats away|e-.* nats away"):
        bank.factor_at(policy, plan, 2.0)
    with pytest.raises(ValueError, match="no adapter"), models.scaled(policy.get_base_model().model.norm, 2.0):
        pass


def test_the_stage_rates_its_answers_as_the_scorers_do(toy_world):
    """Gold and proxy of test answers, proxy alone where settings are chosen, and none of it from prompts in use."""
    loaded = evaluate.load_scorers(Path("build/smoke"), toy_world["common"]["encoder"], device="cpu")
    test, validation = (bank.read(Path("banks/smoke.jsonl"), split) for split in ("test", "validation"))
    assert [set(row.ratings) for row in test] == [{"gold", "proxy"}] * 6
    assert [set(row.ratings) for row in validation] == [{"proxy"}] * 4
    for row in test[:2]:
        frame = evaluate.score_texts([row.prompt] * 4, row.completions, loaded)
        np.testing.assert_allclose(frame["gold"], row.ratings["gold"], atol=1e-4)
        np.testing.assert_allclose(frame["proxy"], row.ratings["proxy"], atol=1e-5)
