"""Batched generation: a sample depends on its prompt, the seed and its place, and on nothing else."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import models, reference
from prefcore.engine import sample as sampling
from prefcore.engine.sample import invert, rescore, round_weights, sample
from prefcore.engine.shared_prompts import Rows

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
bfloat16 = pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="a processor without bfloat16 products")


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


@pytest.mark.parametrize("padding", [0, 10**9])
def test_reading_prompts_of_unlike_lengths_apart_or_padded_changes_no_sample(policy, tokenizer, monkeypatch, padding):
    prompts = draw_prompts(30)
    expected = draw(policy, tokenizer, prompts)
    monkeypatch.setattr(sampling, "PADDING", padding)
    sizes = watch(policy)
    same(draw(policy, tokenizer, prompts), expected)
    passes = sum(width > 1 for _, width in sizes)
    assert passes == (1 if padding else len({len(prompt) for prompt in prompts} - {1}))


def watch(policy):
    """The shapes of token ids [B, t] that the policy reads from now on."""
    sizes: list[tuple] = []
    policy.register_forward_pre_hook(lambda _, __, how: sizes.append(tuple(how["input_ids"].shape)), with_kwargs=True)
    return sizes


def test_a_prompt_is_read_once_however_often_it_is_asked(policy, tokenizer):
    prompts = [[5, 6, 7], [8, 9, 10], [5, 6, 7], [5, 6, 7]] * 3
    apart = draw(policy, tokenizer, prompts, batch_size=1)
    sizes = watch(policy)
    same(draw(policy, tokenizer, prompts), apart)
    assert sizes[:2] == [(2, 3), (12, 1)]


def test_a_long_common_beginning_is_read_once_and_changes_no_sample(policy, tokenizer, monkeypatch):
    """Two beginnings of nine tokens, each with endings of one, two and two tokens, and a prompt by itself."""
    ends = [[20], [21, 22], [23, 24]]
    prompts = [[*range(start, start + 9), *end] for start in (5, 40) for end in ends] + [[90, 91, 92]]
    expected = draw(policy, tokenizer, [*prompts, prompts[1]])
    monkeypatch.setattr(sampling, "SHARED", 9)
    sizes = watch(policy)
    same(draw(policy, tokenizer, [*prompts, prompts[1]]), expected)
    assert sum(rows * width for rows, width in sizes[:7]) == 3 + 2 * 9 + 2 * (1 + 2 * 2)
    assert sizes[7] == (8, 1)  # then all rows go on together


def test_a_prompt_that_another_one_begins_with_keeps_a_token_to_itself(policy, tokenizer, monkeypatch):
    prompts = [[5, 6, 7, 8], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 10]]
    expected = draw(policy, tokenizer, prompts)
    monkeypatch.setattr(sampling, "SHARED", 2)
    same(draw(policy, tokenizer, prompts), expected)


def test_keeping_a_repeated_prompt_once_changes_no_sample(policy, tokenizer, monkeypatch):
    """Rows end one after the other, so that prompts and memory are left behind."""
    order = np.random.default_rng(3).integers(0, 20, 60)
    prompts, sizes, keep = [draw_prompts(20)[i] for i in order], [], Rows.keep

    def watch_keep(rows, going):
        keep(rows, going)
        sizes.append((len(rows.seen), rows.size))

    expected = draw(policy, tokenizer, prompts, max_new_tokens=90)
    monkeypatch.setattr(Rows, "keep", watch_keep)
    monkeypatch.setattr(sampling, "REPEATED", 0)
    found = draw(policy, tokenizer, prompts, max_new_tokens=90)
    same(found, expected)
    assert sizes[-1][0] < sizes[0][0] and sizes[-1][1] <= 30, sizes


def test_a_row_leaves_its_batch_when_it_has_ended(policy, tokenizer):
    prompts = draw_prompts(40)
    sizes = watch(policy)
    drawn = draw(policy, tokenizer, prompts, max_new_tokens=30)
    going = [sum(len(one.ids) > step for one in drawn) for step in range(29)]
    assert [rows for rows, width in sizes if width == 1][-29:] == going and 0 < going[-1] < going[0] <= 40


def test_the_head_reads_states_that_lie_one_after_the_other(policy, tokenizer):
    """Of a strided state [B, 1, H] PyTorch makes B products with the head, each of which reads all of it."""
    strides = []
    policy.lm_head.register_forward_pre_hook(lambda _, given: strides.append(given[0].is_contiguous()))
    draw(policy, tokenizer, [[5, 6, 7], [8, 9, 10]])
    assert strides and all(strides)


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


@pytest.mark.parametrize("words", [97, 1009, 1000, 49152])
def test_a_draw_inverts_the_distribution_function_as_a_slow_plain_twin_does(words):
    """The twin adds up all words in float64; a draw may differ from it only where float32 rounds."""
    logits, uniforms = 3 * torch.randn(200, words), torch.rand(200)
    uniforms[:2] = torch.tensor([0.0, 1.0])
    ends = logits.double().softmax(1).cumsum(1)
    expected = torch.searchsorted(ends, uniforms[:, None].double()).clamp(max=words - 1).squeeze(1)
    tokens, logps = invert(logits.clone(), uniforms)
    found = tokens[:, None]
    before = ends.gather(1, (found - 1).clamp(min=0)) * (found > 0)
    assert (before.squeeze(1) <= uniforms + 1e-5).all() and (ends.gather(1, found).squeeze(1) >= uniforms - 1e-5).all()
    assert (tokens == expected).double().mean() > 0.97
    torch.testing.assert_close(logps, logits.log_softmax(1).gather(1, found).squeeze(1), rtol=0, atol=2e-5)


def test_a_word_that_cannot_come_is_never_drawn():
    logits = torch.full((500, 1024), -torch.inf)
    logits[:, [3, 600, 700]] = torch.tensor([0.0, 1.0, -1.0])
    tokens, _ = invert(logits, torch.linspace(1e-6, 1, 500))
    assert tokens.unique().tolist() == [3, 600, 700] and tokens.tolist() == sorted(tokens.tolist())


@bfloat16
def test_bfloat16_draws_nearly_the_policys_own_shares_and_leaves_its_log_probabilities_open(policy, tokenizer):
    prompts, n = [[5, 6, 7]] * 3000, 3000
    drawn = draw(policy, tokenizer, prompts, max_new_tokens=1, precision="bfloat16")
    assert np.isnan([one.logp for one in drawn]).all()
    counts = np.bincount([s.ids[0] if s.ids else tokenizer.eos_token_id for s in drawn], minlength=97)
    with torch.no_grad():
        shares = policy(torch.tensor(prompts[:1])).logits[0, -1].double().softmax(0).numpy()
    assert (np.abs(counts - n * shares) < 5 * np.sqrt(n * shares * (1 - shares)) + 0.01 * n).all()


@bfloat16
def test_samples_in_bfloat16_get_the_policys_own_log_probabilities_afterwards(policy, tokenizer):
    prompts = draw_prompts(40)
    drawn = rescore(policy, tokenizer, prompts, draw(policy, tokenizer, prompts, precision="bfloat16"))
    exact = draw(policy, tokenizer, prompts)
    alike = [(one.logp, other.logp) for one, other in zip(drawn, exact, strict=True) if one.ids == other.ids]
    assert 10 < len(alike) < 40 and {one.finished for one in drawn} == {True, False}
    np.testing.assert_allclose(*np.array(alike).T, rtol=0, atol=1e-3)


@bfloat16
def test_a_policy_that_was_sampled_in_bfloat16_is_as_it_was(policy, tokenizer):
    adapted = models.add_lora(policy, rank=2, alpha=4.0, top_layers=1, seed=0)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    draw(adapted, tokenizer, draw_prompts(), precision="bfloat16")
    after = adapted.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert {p.dtype for p in adapted.parameters()} == {torch.float32}


def test_rounded_weights_stay_tied_and_buffers_stay_exact(policy):
    rounded = round_weights(policy)
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    assert rounded.lm_head.weight is rounded.get_input_embeddings().weight is not policy.lm_head.weight
    exact = dict(policy.named_buffers())
    assert exact and all(torch.equal(exact[name], buffer) for name, buffer in rounded.named_buffers())


@pytest.mark.parametrize("precision, supported", [("bfloat16", False), ("float8", True)])
def test_a_precision_that_the_processor_does_not_have_is_refused(policy, tokenizer, monkeypatch, precision, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    with pytest.raises(ValueError, match="float32"):
        draw(policy, tokenizer, draw_prompts(), precision=precision)


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
