"""Attention along a layout: the dense masked one's numbers and gradients, and no way for what is hidden to be felt."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from prefcore.data.types import Example
from prefcore.engine import attention
from prefcore.engine.attention import NAME, SplitAttention, along, attend, split_plainly
from prefcore.engine.collate import collate
from prefcore.engine.layout import distinct, lay_out, pieces, read_length
from prefcore.engine.logps import branch_logps, choose_path, plain_logps

SPLIT = [SplitAttention.apply, split_plainly]
SCALE = 0.3
BATCHES = {
    "ragged": [(3, (3, 2)), (7, (1, 5, 4)), (1, (6,)), (4, (2, 2, 9, 3))],
    "equal lengths": [(5, (4, 4)), (5, (4, 4)), (5, (4, 4))],
    "equal prompts": [(5, (4, 2)), (5, (3, 6))],
    "equal answers": [(2, (4, 4)), (6, (4, 4))],
    "one prompt": [(6, (5, 3, 4))],
    "one answer each": [(6, (5,)), (2, (7,)), (9, (2,))],
    "some answers of one token": [(3, (1, 4)), (5, (1, 1)), (2, (3, 1)), (4, (1,) * 3)],
    "all answers of one token": [(3, (1, 1)), (5, (1,))],
    "prompts of one token": [(1, (3, 4)), (1, (2, 5))],
}  # fmt: skip


def make(lengths):
    """Examples whose prompts and completions have these lengths and no token in common."""
    some = []
    for i, (prompt, answers) in enumerate(lengths):
        first = (1000 * i,) * prompt
        some.append(Example(str(i), first, tuple((1000 * i + k,) * n for k, n in enumerate(answers, 1))))
    return some


def sees(examples):
    """The slow twin's mask [N, N]: its own past, and all of its prompt for a token of an answer."""
    names = pieces(distinct(examples))
    owner, prompt = owners(examples), [-1 if len(name) == 1 else names.index(name[:1]) for name in names]
    own_past = (owner[:, None] == owner).tril()
    return own_past | (torch.tensor(prompt)[owner][:, None] == owner)


def owners(examples):
    """The number of the prompt or answer that each token [N] of the row belongs to."""
    return torch.tensor([i for i, name in enumerate(pieces(distinct(examples))) for _ in range(read_length(name))])


def dense(query, key, value, mask):
    """The slow twin: every product, those that are hidden at minus infinity, keys copied for the grouped heads."""
    copies = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(copies, 1) for x in (key, value))
    scores = torch.einsum("nhd,mhd->hnm", query, key) * SCALE
    return torch.einsum("hnm,mhd->nhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), value)


def run(function, operands, upstream):
    """[output, gradients of query, key and value]."""
    leaves = [x.clone().requires_grad_() for x in operands]
    out = function(*leaves)
    out.backward(upstream)
    return [out.detach(), *(x.grad for x in leaves)]


def drawn(n, heads=4, shared=2, width=8, seed=0):
    """(query, key, value), upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value, upstream = (
        torch.randn(n, count, width, generator=generator) for count in (heads, shared, shared, heads)
    )
    return (query, key, value), upstream


# --- the numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLIT)
@pytest.mark.parametrize("heads, shared", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
def test_split_attention_is_dense_masked_attention_forward_and_backward(lengths, heads, shared, split):
    examples = make(lengths)
    layout, mask = lay_out(distinct(examples)), sees(examples)
    operands, upstream = drawn(len(mask), heads, shared, seed=heads)
    found = run(lambda *x: split(*x, layout, SCALE), operands, upstream)
    expected = run(lambda *x: dense(*x, mask), operands, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("split", SPLIT)
def test_stretches_longer_than_a_block_of_the_kernel_have_the_same_numbers(split):
    """Flash attention works on blocks of 32 to 512 tokens; here several of them are partly hidden."""
    examples = make([(700, (90, 530)), (40, (3, 600)), (513, (33,))])
    layout, mask = lay_out(distinct(examples)), sees(examples)
    operands, upstream = drawn(len(mask), heads=2, shared=1)
    found = run(lambda *x: split(*x, layout, SCALE), operands, upstream)
    for one, other in zip(found, run(lambda *x: dense(*x, mask), operands, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_scores_of_any_size_have_finite_numbers():
    """An answer whose prompt weighs e^200 times its own tokens, or the other way round."""
    examples = make([(3, (4, 4)), (6, (3, 2))])
    layout, mask = lay_out(distinct(examples)), sees(examples)
    (query, key, value), upstream = drawn(len(mask))
    for tokens in (slice(0, layout.size), slice(layout.size, None)):
        larger = key.clone()
        larger[tokens] *= 300
        found = run(lambda *x: SplitAttention.apply(*x, layout, SCALE), (query, larger, value), upstream)
        for one, other in zip(found, run(lambda *x: dense(*x, mask), (query, larger, value), upstream), strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("split", SPLIT)
def test_half_precision_is_close(split):
    examples = make(BATCHES["ragged"])
    layout, mask = lay_out(distinct(examples)), sees(examples)
    operands, upstream = drawn(len(mask))
    half = run(lambda *x: split(*x, layout, SCALE), [x.bfloat16() for x in operands], upstream.bfloat16())
    for one, other in zip(half, run(lambda *x: dense(*x, mask), operands, upstream), strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=3e-2, atol=6e-2)


@pytest.mark.parametrize("split", SPLIT)
def test_a_token_sees_its_prompt_and_the_past_of_its_own_answer(split):
    """Prompts of 2 and 1 tokens; two answers of 2 and 1, and one of 1, of which the last token is only predicted."""
    examples = make([(2, (3, 2)), (1, (2,))])
    (query, key, value), _ = drawn(7)
    upon = torch.autograd.functional.jacobian(lambda v: split(query, key, v, lay_out(distinct(examples)), SCALE), value)
    assert (upon.abs().amax((1, 2, 4, 5)) > 0).int().tolist() == sees(examples).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1],
    ]  # fmt: skip


# --- what is hidden ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1e18, float("inf"), float("nan")])
@pytest.mark.parametrize("split", SPLIT)
@pytest.mark.parametrize("name", ["ragged", "equal lengths", "one answer each", "one prompt"])
def test_what_a_token_may_not_see_does_not_reach_it_however_large_or_broken(name, split, bad):
    """Each token in turn gets a broken query, key, value and upstream gradient; every other stretch keeps its bytes.

    Whoever may see the token or shares its own stretch may feel it: 0 times infinity is no number in any attention.
    """
    examples = make(BATCHES[name])
    layout, mask = lay_out(distinct(examples)), sees(examples)
    owner = owners(examples)
    operands, upstream = drawn(len(owner))
    before = run(lambda *x: split(*x, layout, SCALE), operands, upstream)
    hidden = 0
    for broken in range(len(owner)):
        other = [x.clone() for x in (*operands, upstream)]
        for x in other:
            x[broken] = bad * x[broken].sign()
        after = run(lambda *x: split(*x, layout, SCALE), other[:3], other[3])
        own = owner == owner[broken]
        reached = own | mask[:, broken]  # whose output and query's gradient may feel it
        pulled = own | mask[reached].any(0)  # whose key and value are seen by one of them
        for one, two, felt in zip(after, before, (reached, reached, pulled, pulled), strict=True):
            assert torch.equal(one[~felt], two[~felt])
            hidden += int((~felt).sum())
    assert hidden > 0


def test_a_broken_answer_or_prompt_breaks_no_number_of_another_one(draw, tiny_llama):
    """Through the whole model: the others' log-probabilities keep their bytes, so that an error can name its rows."""
    token, twin = 96, 95
    model = copy.deepcopy(tiny_llama)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # no longer the embedding
    model.get_input_embeddings().weight.data[token] = float("nan")
    drawn = draw(4, 2, prompt=(3, 9), completion=(4, 9))
    examples = [Example(e.id, *(_lower(part) for part in (e.prompt, e.completions))) for e in drawn]
    for place, example in enumerate(examples):
        for k in (None, 0, 1):
            broken, whole = (_score_with(model, examples, place, k, used) for used in (token, twin))
            hurt = torch.zeros(4, 2, dtype=torch.bool)
            hurt[place, slice(None) if k is None else k] = True
            assert torch.equal(broken.isnan(), hurt) and torch.equal(broken[~hurt], whole[~hurt]), (example.id, k)


def _lower(ids):
    """Token ids, or several of them, with none above 94."""
    return tuple(min(x, 94) if isinstance(x, int) else _lower(x) for x in ids)


def _score_with(model, examples, place, k, token):
    """Log-probabilities where the token begins completion k of one example, or its prompt where k is None."""
    own = examples[place]
    if k is None:
        own = own._replace(prompt=(token, *own.prompt[1:]))
    else:
        changed = (token, *own.completions[k][1:])
        own = own._replace(completions=(*own.completions[:k], changed, *own.completions[k + 1 :]))
    with torch.no_grad():
        return branch_logps(model, collate([*examples[:place], own, *examples[place + 1 :]], pad_id=0))


# --- around a model ---------------------------------------------------------------------------------------------


def layouts():
    return [lay_out(distinct(make(lengths))) for lengths in BATCHES.values()]


def test_a_models_own_attention_is_back_afterwards_also_after_an_exception_and_in_each_other(tiny_llama):
    config, (first, second, *_) = tiny_llama.config, layouts()
    before = config._attn_implementation
    assert before != NAME
    with along(tiny_llama, first):
        assert config._attn_implementation == NAME and attention._current[-1] is first
        with pytest.raises(KeyError), along(tiny_llama, second):
            assert attention._current[-1] is second
            raise KeyError
        assert config._attn_implementation == NAME and attention._current == [first]
    assert config._attn_implementation == before and attention._current == []


def test_scoring_leaves_a_model_as_it_was(draw, tiny_llama):
    """Also a second model that is scored while the first one is, as a live reference is."""
    ids, examples = torch.tensor([[5, 6, 7, 8]]), draw(3, 2)
    batch = collate(examples, pad_id=0)
    with torch.no_grad():
        logits, numbers = tiny_llama(ids).logits, branch_logps(tiny_llama, batch)
        assert torch.equal(tiny_llama(ids).logits, logits)
        other, seen = copy.deepcopy(tiny_llama), []

        def score_in_between(*_):
            seen.append(branch_logps(other, collate(examples[:1], pad_id=0)))

        hook = tiny_llama.model.layers[1].register_forward_pre_hook(score_in_between)
        assert torch.equal(branch_logps(tiny_llama, batch), numbers)
        hook.remove()
        torch.testing.assert_close(seen[0], numbers[:1], rtol=0, atol=2e-5)
        with pytest.raises(IndexError):
            branch_logps(tiny_llama, batch | {"input_ids": batch["input_ids"] + 1000})
        assert torch.equal(tiny_llama(ids).logits, logits)


def call(layout, n, **how):
    """One call as transformers makes it, with n tokens in one row, or `keys` keys or several `rows`."""
    keys, rows = how.pop("keys", n), how.pop("rows", 1)
    query, key, value = torch.randn(rows, 4, n, 8), torch.randn(rows, 2, keys, 8), torch.randn(rows, 2, keys, 8)
    with along(SimpleNamespace(config=transformers.LlamaConfig()), layout):
        return attend(None, query, key, value, None, **how), (query, key, value)


def test_the_scale_of_attention_is_the_models_own_or_the_usual_one():
    layout, mask = lay_out(distinct(make([(4, (1,))]))), torch.ones(4, 4, dtype=torch.bool).tril()
    for scaling, scale in ((0.7, 0.7), (None, 8**-0.5)):
        (out, weights), (query, key, value) = call(layout, 4, scaling=scaling)
        expected = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
        torch.testing.assert_close(out, expected.transpose(1, 2), rtol=1e-5, atol=1e-5)
        assert weights is None


@pytest.mark.parametrize("name, how", [
    ("softcap", {"softcap": 50.0}), ("s_aux", {"s_aux": torch.zeros(4)}), ("position_bias", {"position_bias": 1}),
    ("dropout", {"dropout": 0.1}), ("another shape", {"keys": 9}), ("another shape", {"rows": 2}),
], ids=["capped", "with sinks", "with a bias", "with dropout", "with cached keys", "of two rows"])  # fmt: skip
def test_attention_that_is_more_than_a_softmax_of_products_is_refused_by_name(name, how):
    layout = lay_out(distinct(make([(4, (1,))])))
    call(layout, 4, softcap=None, sliding_window=None)  # what is named and absent is fine
    with pytest.raises(ValueError, match=rf"cannot be split along a layout \({name}\)"):
        call(layout, 4, **how)


SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": 0,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "sliding_window": 200}


@pytest.mark.parametrize("name, why, settings", [
    ("Gemma2Config", "softcap", GROUPED | {"final_logit_softcapping": None, "attn_logit_softcapping": 5.0}),
    ("GptOssConfig", "s_aux", GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1}),
    ("FalconConfig", None, {name: SIZES[name] for name in SIZES if name != "intermediate_size"}),
])  # fmt: skip
def test_a_model_whose_attention_cannot_follow_a_layout_takes_the_plain_path(draw, name, why, settings):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    if why:
        with pytest.raises(ValueError, match=why):
            branch_logps(model, collate(draw(2, 2), pad_id=0))
    assert choose_path(model) is plain_logps and attention._current == []


def test_a_model_in_training_mode_with_dropout_is_not_scored_along_a_layout(draw):
    config = transformers.LlamaConfig(**SIZES, attention_dropout=0.5)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="dropout"):
        branch_logps(model.train(), collate(draw(2, 2), pad_id=0))
    assert choose_path(model.eval()) is branch_logps
