"""Batched generation: a sample depends on its prompt, the seed and its place, and on nothing else."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import models, reference
from prefcore.engine.sample import sample

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def policy(peaked_llama):
    return peaked_llama


def draw_prompts(n=11, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 97, size=rng.integers(1, 12)).tolist() for _ in range(n)]


def draw(policy, tokenizer, prompts, **how):
    return sample(policy, tokenizer, prompts, **{"max_new_tokens": 8, "seed": 0} | how)


def same(one, other):
    assert [(s.ids, s.text, s.finished) for s in one] == [(s.ids, s.text, s.finished) for s in other]
    np.testing.assert_allclose([s.logp for s in one], [s.logp for s in other], rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 11])
def test_the_batch_size_changes_no_sample(policy, tokenizer, batch_size):
    same(draw(policy, tokenizer, draw_prompts(), batch_size=batch_size), draw(policy, tokenizer, draw_prompts()))


def test_the_other_prompts_change_no_sample(policy, tokenizer):
    prompts, others = draw_prompts(), draw_prompts(seed=1)
    expected = draw(policy, tokenizer, prompts)
    same(draw(policy, tokenizer, prompts + others), expected + draw(policy, tokenizer, prompts + others)[11:])
    same(draw(policy, tokenizer, others[:5] + prompts[5:])[5:], expected[5:])


def test_samples_are_a_function_of_the_seed(policy, tokenizer):
    prompts = draw_prompts()
    torch.manual_seed(1)
    first = draw(policy, tokenizer, prompts)
    torch.manual_seed(2)
    assert draw(policy, tokenizer, prompts) == first
    assert draw(policy, tokenizer, prompts, seed=1) != first


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_the_log_probability_is_the_policys_own_at_any_temperature(policy, tokenizer, temperature):
    prompts = draw_prompts(40)
    drawn = draw(policy, tokenizer, prompts, temperature=temperature)
    ends = [(tokenizer.eos_token_id,) if s.finished else () for s in drawn]
    rows = [Example("", tuple(p), (s.ids + end,)) for p, s, end in zip(prompts, drawn, ends, strict=True)]
    expected = reference.score_all(policy, rows, pad_id=0)[:, 0]
    np.testing.assert_allclose([s.logp for s in drawn], expected, rtol=1e-4, atol=1e-3)


def test_tokens_come_as_often_as_they_are_likely(policy, tokenizer):
    prompt, n = [5, 6, 7], 3000
    drawn = draw(policy, tokenizer, [prompt] * n, max_new_tokens=1)
    counts = np.bincount([s.ids[0] if s.ids else tokenizer.eos_token_id for s in drawn], minlength=97)
    with torch.no_grad():
        shares = policy(torch.tensor([prompt])).logits[0, -1].double().softmax(0).numpy()
    assert shares.max() > 0.05
    spread = np.sqrt(n * shares * (1 - shares))
    assert (np.abs(counts - n * shares) < 5 * spread + 1).all()


def test_a_low_temperature_takes_the_likeliest_token(policy, tokenizer):
    prompts = draw_prompts()
    drawn = draw(policy, tokenizer, prompts, temperature=1e-4, max_new_tokens=1)
    for prompt, found in zip(prompts, drawn, strict=True):
        with torch.no_grad():
            best = policy(torch.tensor([prompt])).logits[0, -1].argmax().item()
        assert found.ids == ((best,) if best != tokenizer.eos_token_id else ())


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_of_0_or_less_is_refused(policy, tokenizer, temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        draw(policy, tokenizer, draw_prompts(), temperature=temperature)


def test_eos_ends_a_sample_and_is_not_part_of_it(policy, tokenizer):
    prompts = draw_prompts(40)
    before = draw(policy, tokenizer, prompts)
    whole = next(s for s in before if not s.finished)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(whole.ids[3])
    after = draw(policy, tokenizer, prompts)
    compared = [(one, other) for one, other in zip(after, before, strict=True) if not other.finished]
    assert {one.finished for one, _ in compared} == {True, False}
    for one, other in compared:
        assert one.ids == other.ids[: len(one.ids)] and tokenizer.eos_token_id not in one.ids
        assert one.finished == (len(one.ids) < 8) and len(other.ids) == 8
        assert one.text == tokenizer.decode(one.ids)


def test_an_adapter_is_part_of_the_policy(policy, tokenizer):
    prompts = draw_prompts()
    before = draw(policy, tokenizer, prompts)
    adapted = models.add_lora(policy, rank=2, alpha=4.0, top_layers=1, seed=0)
    same(draw(adapted, tokenizer, prompts), before)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
    assert draw(adapted, tokenizer, prompts) != before
