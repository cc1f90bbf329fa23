"""Where logits become numbers: whatever the path, the batch or the precision, a completion has one log-probability."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
)  # fmt: skip

from prefcore.data.types import Example
from prefcore.engine import logps, models
from prefcore.engine.collate import collate
from prefcore.engine.logps import TokenLogps, branch_logps, choose_path, frozen_depth, plain_logps, run_trunk

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def score(policy, examples, path=branch_logps):
    with torch.no_grad():
        return path(policy, collate(examples, pad_id=0))


def one_by_one(policy, examples):
    """The slow twin: each prompt with each completion as a row of its own, whole log-softmax in float64."""
    out = torch.zeros(len(examples), len(examples[0].completions))
    for b, example in enumerate(examples):
        for k, completion in enumerate(example.completions):
            ids = torch.tensor([[*example.prompt, *completion]])
            with torch.no_grad():
                table = policy(ids).logits[0].double().log_softmax(-1)
            out[b, k] = sum(table[len(example.prompt) - 1 + t, token] for t, token in enumerate(completion))
    return out


def tiny(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # larger than the initial weights, so that a wrong path shows
        parameter.data.mul_(3)
    return model


# --- the forward ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, branches", [(1, 1), (5, 2), (3, 4), (2, 9)])
def test_branches_plain_rows_and_a_slow_loop_agree(draw, tiny_llama, n, branches):
    examples = draw(n, branches)
    expected = one_by_one(tiny_llama, examples)
    torch.testing.assert_close(score(tiny_llama, examples), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(score(tiny_llama, examples, plain_logps), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("path", [branch_logps, plain_logps])
def test_each_prompt_token_reaches_every_branch(tiny_llama, path):
    """Where the mask gets lost, positions that start again look like packed sequences: branches lose the prompt."""
    example = Example("a", (5, 6, 7, 8), ((10, 11, 12), (20, 21), (30,)))
    before = score(tiny_llama, [example], path)
    for place in range(4):
        prompt = tuple(50 if i == place else token for i, token in enumerate(example.prompt))
        assert ((score(tiny_llama, [example._replace(prompt=prompt)], path) - before).abs() > 1e-4).all()


def test_a_branch_does_not_see_its_siblings(tiny_llama):
    example = Example("a", (5, 6, 7), ((10, 11, 12), (20, 21), (30, 31)))
    other = example._replace(completions=((60, 61, 62, 63), (20, 21), (70,)))
    before, after = score(tiny_llama, [example])[0], score(tiny_llama, [other])[0]
    torch.testing.assert_close(before[1], after[1], rtol=0, atol=1e-5)
    assert abs(before[0] - after[0]) > 1e-2 and abs(before[2] - after[2]) > 1e-2


def test_neither_padding_nor_company_changes_a_number(draw, tiny_llama):
    examples = draw(7, 2)
    alone = torch.cat([score(tiny_llama, [example]) for example in examples])
    together = score(tiny_llama, examples)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    torch.testing.assert_close(score(tiny_llama, examples[::-1]).flip(0), together, rtol=0, atol=2e-5)
    wide = [*examples, Example("long", tuple([5] * 60), (tuple([6] * 40), (7,)))]
    torch.testing.assert_close(score(tiny_llama, wide)[:7], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(draw, dtype):
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    examples = draw(4, 2)
    whole, half = score(model, examples), score(model.to(dtype), examples)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=2e-2, atol=0.2)


# --- the gradient -----------------------------------------------------------------------------------------------


def naive(hidden, weight, targets, at):
    return (hidden @ weight.T).float().log_softmax(1)[at, targets]


@pytest.mark.parametrize("kept_bytes", [0, 2**30], ids=["recomputed", "kept"])
@pytest.mark.parametrize("trained", ["hidden", "weight", "both"])
@pytest.mark.parametrize("rows", [1, 5, 7, 8, 9, 16, 33])
def test_token_log_probabilities_and_their_gradient_equal_autograd(monkeypatch, rows, trained, kept_bytes):
    """Blocks of 8 of the 19 words, the last one shorter; some rows predict several tokens, and some none."""
    monkeypatch.setattr(logps, "COLUMNS", 8)
    monkeypatch.setattr(logps, "KEPT_BYTES", kept_bytes)
    generator = torch.Generator().manual_seed(rows)
    hidden, weight = torch.randn(rows, 6, generator=generator), torch.randn(19, 6, generator=generator)
    targets, at = (torch.randint(high, (rows + 2,), generator=generator) for high in (19, rows))
    upstream = torch.randn(rows + 2, generator=generator)
    found, expected = [], []
    for function, out in ((TokenLogps.apply, found), (naive, expected)):
        a = hidden.clone().requires_grad_(trained != "weight")
        b = weight.clone().requires_grad_(trained != "hidden")
        values = function(a, b, targets, at)
        values.backward(upstream)
        out += [values.detach(), *(x.grad for x in (a, b) if x.requires_grad)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [True, False], ids=["whole model trained", "head frozen"])
def test_the_gradient_of_a_model_equals_that_of_the_plain_path(draw, tiny_llama, trained):
    tiny_llama.get_input_embeddings().weight.requires_grad_(trained)  # tied to the head
    examples, gradients = draw(3, 2), []
    for path in (branch_logps, plain_logps):
        tiny_llama.zero_grad()
        out = path(tiny_llama, collate(examples, pad_id=0))
        (out[:, 0] - out[:, 1]).sum().backward()
        gradients.append([p.grad.clone() for p in tiny_llama.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_logits_live_until_the_backward_pass_where_the_head_is_frozen():
    hidden, weight = torch.randn(300, 6, requires_grad=True), torch.randn(50, 6)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        TokenLogps.apply(hidden, weight, torch.zeros(300, dtype=torch.long), torch.arange(300)).sum().backward()
    assert kept and max(tensor.numel() for tensor in kept) <= hidden.numel()


@pytest.mark.parametrize("kept_bytes", [0, 2**30], ids=["recomputed", "kept"])
def test_logits_of_any_size_have_finite_numbers(monkeypatch, kept_bytes):
    """Blocks whose logits lie hundreds of nats apart, the larger ones first and last."""
    monkeypatch.setattr(logps, "COLUMNS", 4)
    monkeypatch.setattr(logps, "KEPT_BYTES", kept_bytes)
    targets, at = torch.tensor([0, 5, 9, 11]), torch.tensor([0, 1, 2, 2])
    for sign in (1, -1):
        weight = sign * torch.linspace(400, -400, 12)[:, None]
        for trained in (True, False):
            hidden = torch.ones(3, 1, requires_grad=True)
            out = TokenLogps.apply(hidden, weight.clone().requires_grad_(trained), targets, at)
            torch.testing.assert_close(out, naive(hidden, weight, targets, at))
            out.sum().backward()
            assert hidden.grad.isfinite().all()


def test_a_large_head_in_half_precision_has_finite_numbers():
    hidden = (200 * torch.randn(9, 6)).to(torch.float16).requires_grad_()
    weight = torch.randn(40, 6).to(torch.float16)
    out = TokenLogps.apply(hidden, weight, torch.arange(9), torch.arange(9))
    out.sum().backward()
    assert out.isfinite().all() and hidden.grad.isfinite().all()


# --- which path -------------------------------------------------------------------------------------------------


def test_a_plain_decoder_takes_the_fast_path(tiny_llama):
    assert choose_path(tiny_llama, longest=200) is branch_logps
    assert choose_path(models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)) is branch_logps
    assert choose_path(tiny(Qwen2Config(**SIZES, tie_word_embeddings=True)), longest=200) is branch_logps


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES, sliding_window=4),
        CohereConfig(**SIZES, logit_scale=0.25),
        Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=1.0, sliding_window=256),
    ],
    ids=["sliding window", "scaled logits", "soft-capped logits"],
)
def test_a_model_that_the_fast_path_gets_wrong_takes_the_plain_one(draw, config):
    model = tiny(config)
    examples = draw(3, 2, prompt=(8, 14), completion=(4, 9))
    assert choose_path(model) is plain_logps
    torch.testing.assert_close(score(model, examples, plain_logps), one_by_one(model, examples), rtol=1e-4, atol=1e-3)


def test_a_window_longer_than_the_comparison_but_shorter_than_the_data_is_seen(draw):
    model = tiny(MistralConfig(**SIZES, sliding_window=20))
    examples = draw(3, 2, prompt=(24, 30))
    assert choose_path(model, longest=20) is branch_logps
    assert choose_path(model, longest=40) is plain_logps
    assert (score(model, examples) - score(model, examples, plain_logps)).abs().max() > 1e-3  # what it is spared
    torch.testing.assert_close(score(model, examples, plain_logps), one_by_one(model, examples), rtol=1e-4, atol=1e-3)


def test_a_model_without_layers_of_the_usual_kind_takes_the_plain_path():
    from transformers import MambaConfig

    config = MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4, pad_token_id=0)
    model = tiny(config)
    assert choose_path(model) is plain_logps and frozen_depth(model) == 0


# --- frozen layers ----------------------------------------------------------------------------------------------


def deep(layers=3):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES | {"num_hidden_layers": layers}, tie_word_embeddings=True)).eval()


def test_layers_below_everything_trained_are_the_frozen_ones():
    assert frozen_depth(deep()) == 0  # the embedding is trained
    assert frozen_depth(models.train_top(deep(), layers=1)) == 2
    assert frozen_depth(models.add_lora(deep(), rank=2, alpha=4.0, top_layers=2, seed=0)) == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_frozen_layers_output_stands_for_the_frozen_layers(draw, depth):
    model, batch = deep(), collate(draw(4, 2), pad_id=0)
    with torch.no_grad():
        lower = run_trunk(model, batch, depth)
        found = branch_logps(model, batch | {"trunk": lower, "depth": depth})
        torch.testing.assert_close(found, branch_logps(model, batch), rtol=0, atol=1e-5)
    assert len(model.model.layers) == 3  # the views left the model whole
