"""The tree of answers against plain forward passes, one an answer."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import collate, logps, models
from prefcore.methods.autoraters import tree
from prefcore.methods.autoraters.tree import AnswerTree, answer_chances


def slow_answers(example, policy, tokenizer):
    """Each of the 99 answers as a row of its own through the plain model."""
    ids = [tokenizer(str(d), add_special_tokens=False)["input_ids"][0] for d in range(10)]
    out = []
    for k in range(1, 100):
        answer = (ids[k // 10], ids[k % 10])
        with torch.no_grad():
            rows = policy(input_ids=torch.tensor([[*example.prompt, *answer]])).logits[0].double().log_softmax(1)
        start = len(example.prompt) - 1
        out.append((rows[start, answer[0]] + rows[start + 1, answer[1]]).exp().item())
    return out


def test_the_tree_gives_the_chances_of_ninety_nine_plain_passes(model, pairs, encode):
    tokenizer, policy = model
    examples = encode(tokenizer, pairs[:3])
    found = answer_chances(examples, policy, tokenizer)
    for row, example in zip(found, examples, strict=True):
        np.testing.assert_allclose(row, slow_answers(example, policy, tokenizer), rtol=1e-3, atol=1e-9)


def test_a_model_without_the_branched_path_gets_the_same_chances(model, monkeypatch, encode, pairs):
    tokenizer, policy = model
    examples = encode(tokenizer, pairs)
    branched = answer_chances(examples, policy, tokenizer)
    monkeypatch.setattr(tree, "choose_path", lambda *_: logps.plain_logps)
    np.testing.assert_allclose(answer_chances(examples, policy, tokenizer), branched, rtol=1e-3, atol=1e-9)


def test_ten_tokens_are_read_beyond_the_prompt(model, pairs, encode):
    (example,) = encode(model[0], pairs[:1])
    assert collate.size(example) == len(example.prompt) + 10


def test_the_missing_mass_is_the_chance_of_no_answer(model, encode, pairs):
    tokenizer, policy = model
    found = answer_chances(encode(tokenizer, pairs), policy, tokenizer)
    assert found.shape == (12, 99) and np.all(found > 0) and np.all(found.sum(1) < 1)


@pytest.fixture
def adapted(model):
    tokenizer, policy = model
    return tokenizer, models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0)


def test_gradients_of_the_tree_are_those_of_a_plain_pass(adapted, pairs, encode):
    tokenizer, policy = adapted
    (example,) = encode(tokenizer, pairs[:1])
    batch = collate.collate([example], pad_id=tokenizer.pad_token_id)
    answers = AnswerTree(policy, tokenizer)
    trained = [q for q in policy.parameters() if q.requires_grad]
    for q in trained:
        torch.nn.init.normal_(q, std=0.1)  # a new adapter's second factor is 0, and so would half of the slopes be
    ours = answers.read(logps.branch_logps(policy, batch), batch)[0, 84]
    found = torch.autograd.grad(ours, trained)
    ids = [tokenizer(d, add_special_tokens=False)["input_ids"][0] for d in "85"]
    rows = policy(input_ids=torch.tensor([[*example.prompt, *ids]])).logits[0].log_softmax(1)
    plain = rows[-3, ids[0]] + rows[-2, ids[1]]
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4)
    for one, other in zip(found, torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_model_whose_logits_are_scaled_or_shifted_is_refused(model):
    tokenizer, policy = model
    policy.lm_head.register_forward_hook(lambda module, inputs, output: output * 0.5)
    with pytest.raises(ValueError, match="not just hidden state times output embedding"):
        AnswerTree(policy, tokenizer)


def test_a_tokenizer_that_does_not_tell_digits_apart_is_refused(tokenizer, encode, pairs):
    with pytest.raises(ValueError, match="no single token for each digit"):
        encode(tokenizer, pairs)


def test_examples_are_ordinary_examples_of_the_engine(model, pairs, encode):
    assert all(isinstance(e, Example) and len(e.completions) == 11 for e in encode(model[0], pairs))
