"""Continuations that share their prompt: the same numbers as without sharing, greedy ones, and their probabilities."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import reference
from prefcore.methods.gennm import continuations

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
HOW = {"each": 3, "max_new_tokens": 6, "temperature": 0.8, "top_k": 20, "seed": 0, "rows": 64}


@pytest.fixture
def policy(peaked_llama):
    return peaked_llama


def prompts(n=7, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 97, size=rng.integers(1, 12)).tolist() for _ in range(n)]


def slow_greedy(policy, prompt, steps, eos):
    """Token by token, the whole text read again each time, no cache and no padding."""
    ids, logps = list(prompt), []
    for _ in range(steps):
        with torch.no_grad():
            row = policy(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(0)
        token = int(row.argmax())
        if token == eos:
            break
        ids.append(token)
        logps.append(float(row[token]))
    return ids[len(prompt) :], logps


def test_greedy_takes_the_likeliest_token_each_time_as_a_slow_plain_twin_does(policy, tokenizer):
    found = continuations.greedy(policy, tokenizer, prompts(), max_new_tokens=6, rows=4)
    for prompt, one in zip(prompts(), found, strict=True):
        ids, logps = slow_greedy(policy, prompt, 6, tokenizer.eos_token_id)
        assert one.text == tokenizer.decode(ids) and len(one.tokens) == len(ids)
        np.testing.assert_allclose(one.logps, logps, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_the_batch_size_changes_nothing(policy, tokenizer, rows):
    expected = continuations.draw(policy, tokenizer, prompts(), **HOW)
    found = continuations.draw(policy, tokenizer, prompts(), **(HOW | {"rows": rows}))
    assert [[one.text for one in many] for many in found] == [[one.text for one in many] for many in expected]


def test_the_same_seed_gives_the_same_and_another_seed_gives_others(policy, tokenizer):
    draw = lambda seed: continuations.draw(policy, tokenizer, prompts(), **(HOW | {"seed": seed}))  # noqa: E731
    assert draw(0) == draw(0) and draw(0) != draw(1)
    assert all(len(many) == 3 for many in draw(0))
    assert any(len({one.text for one in many}) > 1 for many in draw(0))


def test_log_probabilities_are_those_of_the_policy_whatever_the_temperature(policy, tokenizer):
    for many, prompt in zip(continuations.draw(policy, tokenizer, prompts(), **HOW), prompts(), strict=True):
        for one in many:
            ids = tuple(tokenizer(one.text)["input_ids"])
            if ids:
                (expected,) = reference.score_all(policy, [Example("x", tuple(prompt), (ids,))], pad_id=0)
                assert sum(one.logps) == pytest.approx(expected[0], abs=1e-3)


def test_shares_follow_the_tempered_distribution_of_the_likeliest_tokens(policy, tokenizer):
    """One step, 4000 draws, the three likeliest: within three standard errors of softmax(logp / 0.7)."""
    drawn = continuations.draw(policy, tokenizer, [[5, 6, 7]], each=4000, max_new_tokens=1, temperature=0.7, top_k=3,
                               seed=1, rows=4000)[0]  # fmt: skip
    with torch.no_grad():
        best, places = policy(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].topk(3)
    expected = (best / 0.7).softmax(0).numpy()
    shares = np.array([np.mean([one.text == tokenizer.decode([place]) for one in drawn]) for place in places.tolist()])
    assert shares.sum() == pytest.approx(1)
    assert (np.abs(shares - expected) < 3 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all()


def test_an_answer_that_ends_is_finished_and_one_that_is_cut_is_not(policy, tokenizer):
    long = continuations.greedy(policy, tokenizer, prompts(40), max_new_tokens=8, rows=64)
    assert all(one.finished or len(one.tokens) == 8 for one in long)
    assert tokenizer.eos_token not in "".join(one.text for one in long)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"top_k": 0}, {"each": 0}])
def test_settings_that_mean_nothing_are_refused(policy, tokenizer, bad):
    with pytest.raises(ValueError, match="must be above 0"):
        continuations.draw(policy, tokenizer, prompts(), **(HOW | bad))
