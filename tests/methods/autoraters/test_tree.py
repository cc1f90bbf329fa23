"""The tree of answers against plain forward passes, one an answer."""

import numpy as np
import pytest
import torch

from prefcore.engine import collate, logps, models
from prefcore.methods.autoraters import prompt, training, tree
from prefcore.methods.autoraters.tree import AnswerTree, read_answers, read_states


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


@pytest.fixture
def adapted(model):
    tokenizer, policy = model
    return tokenizer, models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0)


def test_the_tree_gives_the_chances_of_ninety_nine_plain_passes(model, pairs, shown):
    tokenizer, policy = model
    plan = shown(tokenizer, pairs[:3])
    found = read_answers(plan, policy, tokenizer).exp()
    for row, example in zip(found, plan.examples, strict=True):
        np.testing.assert_allclose(row, slow_answers(example, policy, tokenizer), rtol=1e-3, atol=1e-9)


def test_a_model_without_the_branched_path_gets_the_same_chances_and_states(model, monkeypatch, shown, pairs):
    tokenizer, policy = model
    plan = shown(tokenizer, pairs)
    branched, states = read_answers(plan, policy, tokenizer), read_states(plan, policy, tokenizer)
    monkeypatch.setattr(tree, "choose_path", lambda *_: logps.plain_logps)
    np.testing.assert_allclose(read_answers(plan, policy, tokenizer), branched, rtol=1e-3, atol=1e-3)
    for part, other in zip(read_states(plan, policy, tokenizer), states, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-3, atol=1e-3)


def test_ten_tokens_are_read_beyond_the_prompt(model, pairs, shown):
    (example,) = shown(model[0], pairs[:1]).examples
    assert collate.size(example) == len(example.prompt) + 10


def test_the_missing_mass_is_the_chance_of_no_answer(model, shown, pairs):
    tokenizer, policy = model
    found = read_answers(shown(tokenizer, pairs), policy, tokenizer).exp()
    assert found.shape == (12, 99) and (found > 0).all() and (found.sum(1) < 1).all()


def test_states_are_those_of_plain_passes_of_the_text_and_of_the_question(model, pairs, shown):
    """The state of the first text is that of a pass that ends there: it has seen nothing of the second."""
    tokenizer, policy = model
    plan = shown(tokenizer, pairs[:3])
    states = read_states(plan, policy, tokenizer)
    for i, example in enumerate(plan.examples):
        for name, column in (("text", "text_back"), ("question", "question_back")):
            ids = example.prompt[: len(example.prompt) - int(example.columns[column])]
            with torch.no_grad():
                last = policy.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            torch.testing.assert_close(getattr(states, name)[i], last, rtol=0, atol=1e-4)


def test_layers_that_were_kept_give_the_same_answers(adapted, pairs, p, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer, policy = adapted
    for part in (part for part in policy.parameters() if part.requires_grad):
        torch.nn.init.normal_(part, std=0.1)
    kept = training.show(pairs, policy, tokenizer, p)
    assert kept.depth == 1
    anew = kept._replace(depth=0, trunk=[])
    torch.testing.assert_close(
        read_answers(kept, policy, tokenizer), read_answers(anew, policy, tokenizer), rtol=0, atol=1e-4
    )


def test_gradients_of_the_tree_are_those_of_a_plain_pass(adapted, pairs, shown):
    tokenizer, policy = adapted
    (example,) = shown(tokenizer, pairs[:1]).examples
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


def test_a_tokenizer_that_does_not_tell_digits_apart_is_refused(tokenizer, p, pairs):
    with pytest.raises(ValueError, match="no single token for each digit"):
        prompt.encode(pairs, tokenizer, p)
