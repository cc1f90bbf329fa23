"""Branches of a prompt that go on after given tokens: written ones as a slow twin writes them, or one token chosen."""

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine import reference
from prefcore.methods.gennm import continuations

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
HOW = {"words": 97, "each": 3, "max_new_tokens": 6, "temperature": 0.8, "top_k": 20, "seed": 0, "rows": 64}
GREEDY = HOW | {"each": 1, "top_k": 1, "temperature": 1.0}


@pytest.fixture
def policy(peaked_llama):
    return peaked_llama


def branches(n=7, seed=0):
    """Two branches of each of n prompts, with beginnings of 1 to 3 tokens."""
    rng = np.random.default_rng(seed)
    prompts = [tuple(rng.integers(4, 97, size=rng.integers(1, 12)).tolist()) for _ in range(n)]
    return [(prompt, tuple(rng.integers(4, 97, size=rng.integers(1, 4)).tolist())) for prompt in prompts for _ in "ab"]


def after(policy, ids):
    """Log-probabilities of the next token, the whole text read again: no cache, no padding."""
    with torch.no_grad():
        return policy(input_ids=torch.tensor([list(ids)])).logits[0, -1].float()


def slow_greedy(policy, branch, steps, words, eos):
    ids, logp, start = [*branch[0], *branch[1]], 0.0, len(branch[0]) + len(branch[1])
    for _ in range(steps):
        row = after(policy, ids)[:words].log_softmax(0)
        token = int(row.argmax())
        logp += float(row[token])
        if token == eos:
            return ids[start:], True, logp
        ids.append(token)
    return ids[start:], False, logp


@pytest.mark.parametrize("words", [97, 60])
def test_a_branch_goes_on_with_the_likeliest_words_as_a_slow_plain_twin_does(policy, tokenizer, words):
    found = continuations.draw(policy, tokenizer, branches(), **(GREEDY | {"words": words, "rows": 5}))
    for branch, (one,) in zip(branches(), found, strict=True):
        ids, finished, logp = slow_greedy(policy, branch, 6, words, tokenizer.eos_token_id)
        assert one.text == tokenizer.decode(ids) and one.finished == finished
        assert one.logp == pytest.approx(logp, abs=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_the_batch_size_changes_nothing(policy, tokenizer, rows):
    expected = continuations.draw(policy, tokenizer, branches(), **HOW)
    found = continuations.draw(policy, tokenizer, branches(), **(HOW | {"rows": rows}))
    assert [[one.text for one in many] for many in found] == [[one.text for one in many] for many in expected]


def test_the_same_seed_gives_the_same_and_another_seed_gives_others(policy, tokenizer):
    draw = lambda seed: continuations.draw(policy, tokenizer, branches(), **(HOW | {"seed": seed}))  # noqa: E731
    assert draw(0) == draw(0) and draw(0) != draw(1)
    assert all(len(many) == 3 for many in draw(0))
    assert any(len({one.text for one in many}) > 1 for many in draw(0))


def test_log_probabilities_are_those_of_the_policy_whatever_the_temperature(policy, tokenizer):
    """That of the whole branch, as training has it, less that of its beginning."""
    for (prompt, given), many in zip(branches(), continuations.draw(policy, tokenizer, branches(), **HOW), strict=True):
        for one in many:
            ids = tuple(tokenizer(one.text)["input_ids"]) + ((tokenizer.eos_token_id,) if one.finished else ())
            rows = [Example("x", prompt, (given + ids,)), Example("y", prompt, (given,))]
            whole, beginning = reference.score_all(policy, rows, pad_id=0)[:, 0]
            assert one.logp == pytest.approx(whole - beginning, abs=1e-3)


def test_shares_follow_the_tempered_distribution_of_the_likeliest_tokens(policy, tokenizer):
    """One step, 4000 draws, the three likeliest: within three standard errors of softmax(logp / 0.7)."""
    how = HOW | {"each": 4000, "max_new_tokens": 1, "temperature": 0.7, "top_k": 3, "seed": 1, "rows": 4000}
    drawn = continuations.draw(policy, tokenizer, [((5, 6), (7,))], **how)[0]
    best, places = after(policy, [5, 6, 7]).topk(3)
    expected = (best / 0.7).softmax(0).numpy()
    shares = np.array([np.mean([one.text == tokenizer.decode([place]) for one in drawn]) for place in places.tolist()])
    assert shares.sum() == pytest.approx(1)
    assert (np.abs(shares - expected) < 3 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all()


def test_of_the_tokens_behind_the_words_the_likeliest_is_chosen_with_its_share_of_them(policy, tokenizer):
    found = continuations.choose(policy, tokenizer, branches(), words=60, rows=5)
    for (prompt, given), (place, sure) in zip(branches(), found, strict=True):
        shares = after(policy, [*prompt, *given])[60:].softmax(0)
        assert place == int(shares.argmax()) and sure == pytest.approx(float(shares.max()), abs=1e-4)


def test_a_name_that_is_cut_is_not_finished(policy, tokenizer):
    found = continuations.draw(policy, tokenizer, branches(20), **(GREEDY | {"max_new_tokens": 2}))
    assert all(one.finished or len(one.text.split()) == 2 for (one,) in found)
    assert continuations.draw(policy, tokenizer, [], **GREEDY) == []


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"top_k": 0}, {"each": 0}])
def test_settings_that_mean_nothing_are_refused(policy, tokenizer, bad):
    with pytest.raises(ValueError, match="must be above 0"):
        continuations.draw(policy, tokenizer, branches(), **(HOW | bad))
