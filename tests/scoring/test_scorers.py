"""Two scorers and a judge: what they are asked, what they are taught, and that they learn it."""

import numpy as np
import pytest
import torch

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import models, reference
from prefcore.engine.collate import collate
from prefcore.lab import pipeline
from prefcore.scoring import judge, scorers

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
TEXTS = ["The long story is a wonderful great joy for us", "My old phone is an awful terrible pain for us"]


@pytest.fixture
def rater(toy_weights):
    """(tokenizer, model) that were taught nothing."""
    return models.load_policy(str(toy_weights / "policy"))


# --- the gold scorer --------------------------------------------------------------------------------------------


def test_a_histogram_is_the_share_of_raters_from_minus_4_to_plus_4():
    shares = scorers.histogram([-4, -4, 0, 4])
    assert shares.tolist() == [0.5, 0, 0, 0, 0.25, 0, 0, 0, 0.25]


def test_a_text_is_asked_for_one_of_nine_digits(rater):
    tokenizer, _ = rater
    (example,) = scorers.rating_examples(TEXTS[:1], tokenizer, np.array([scorers.histogram([1, 1, 2])]))
    assert tokenizer.decode(list(example.prompt)) == TEXTS[0] + scorers.QUESTION
    assert [tokenizer.decode(list(digit)) for digit in example.completions] == list("012345678")
    assert example.columns["share_5"] == pytest.approx(2 / 3) and example.columns["share_0"] == 0


def test_a_long_text_keeps_its_beginning_and_the_question(rater):
    tokenizer, _ = rater
    (example,) = scorers.rating_examples(["good " * 500], tokenizer)
    assert tokenizer.decode(list(example.prompt)).endswith(scorers.QUESTION)
    assert len(example.prompt) == scorers.MAX_TOKENS + len(tokenizer(scorers.QUESTION)["input_ids"])


def spell(text, **how):
    """A tokenizer to whom everything is two tokens."""
    return {"input_ids": [1, 2]}


def test_a_tokenizer_without_digits_is_refused():
    with pytest.raises(ValueError, match="no single token for each digit 0 to 8"):
        scorers.rating_examples(TEXTS, spell)


def test_the_rating_loss_is_a_cross_entropy_over_the_nine_digits_alone():
    """Shares (1/2, 1/2, 0, ...), logits (1, 0, -9, ...): log(e + 1 + 7 e^-9) - 1/2. A constant changes nothing."""
    shares = {f"share_{k}": torch.tensor([0.5 if k < 2 else 0.0]) for k in range(9)}
    logits = torch.tensor([[1.0, 0.0, *[-9.0] * 7]])
    expected = np.log(np.e + 1 + 7 * np.exp(-9)) - 0.5
    for constant in (0.0, -50.0):
        out = scorers.rating_loss(logits + constant, None, shares, {})
        assert out.losses.tolist() == [pytest.approx(expected, abs=1e-5)]


def test_scores_are_expectations_over_the_digits(rater):
    tokenizer, model = rater
    shares = scorers.rating_shares(TEXTS, model, tokenizer)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(scorers.gold_scores(TEXTS, model, tokenizer), shares @ np.arange(-4, 5))
    ids = torch.tensor([tokenizer(TEXTS[0] + scorers.QUESTION)["input_ids"]])
    digits = [tokenizer(str(d))["input_ids"][0] for d in range(9)]
    with torch.no_grad():
        expected = model(ids).logits[0, -1, digits].softmax(0)
    np.testing.assert_allclose(shares[0], expected, atol=1e-5)


def test_a_rater_learns_what_raters_said(rater, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer, model = rater
    texts = [t for t in smoke.make_texts() if t.split == "train"]
    p = freeze({"profile": "t", "seed": 0, "precision": "float32", "rater_layers": 2, "rater_learning_rate": 1e-2})
    for _ in range(3):  # copies of a text would come in one batch, and teach less
        pipeline.fit_rater(model, tokenizer, texts, tmp_path / "gold", p)
    pipeline.save(model, tokenizer, tmp_path / "gold", p)
    scores = scorers.gold_scores([t.text for t in texts], model, tokenizer)
    assert np.corrcoef(scores, [t.mean for t in texts])[0, 1] > 0.8
    saved = scorers.gold_scores(TEXTS, *models.load_policy(str(tmp_path / "gold"))[::-1])
    np.testing.assert_allclose(saved, scorers.gold_scores(TEXTS, model, tokenizer), atol=1e-4)
    assert saved[0] > saved[1] + 1


# --- the proxy --------------------------------------------------------------------------------------------------


def test_the_proxy_learns_a_linear_function_of_the_embedding(toy_weights, tmp_path):
    tokenizer, encoder = models.load_encoder(str(toy_weights / "encoder"))
    texts = [t.text for t in smoke.make_texts()]
    embeddings = models.embed(texts, encoder, tokenizer)
    target = 40 * embeddings @ np.random.default_rng(0).normal(size=embeddings.shape[1]) + 3
    scorers.fit_proxy(embeddings[:80], target[:80], tmp_path / "deep" / "proxy.safetensors")
    found = scorers.proxy_scores(texts[80:], tmp_path / "deep" / "proxy.safetensors", encoder, tokenizer)
    assert np.corrcoef(found, target[80:])[0, 1] > 0.95
    np.testing.assert_allclose(found, target[80:], atol=2 * target.std())


# --- the judge --------------------------------------------------------------------------------------------------


def test_a_judge_sees_both_texts_and_answers_a_or_b(rater):
    tokenizer, _ = rater
    (example,) = judge.verdict_examples([("good", "bad")], tokenizer, [0.75])
    assert tokenizer.decode(list(example.prompt)) == f"Text A: good\nText B: bad\n{judge.QUESTION}"
    assert [tokenizer.decode(list(c)) for c in example.completions] == [" A", " B"]
    assert example.columns == {"share_0": 0.75}
    (other,) = judge.verdict_examples([("good", "bad")], tokenizer, question="Which is shorter?")
    assert tokenizer.decode(list(other.prompt)).endswith("\nWhich is shorter?")


def test_a_tokenizer_without_verdict_tokens_is_refused():
    with pytest.raises(ValueError, match="no single token for each of"):
        judge.verdict_examples([("good", "bad")], spell)


def test_a_verdict_is_the_share_of_the_first_token_among_the_two(rater):
    tokenizer, model = rater
    found = judge.verdicts([tuple(TEXTS)], model, tokenizer)
    ids = torch.tensor([judge.verdict_examples([tuple(TEXTS)], tokenizer)[0].prompt])
    letters = [tokenizer(letter)["input_ids"][0] for letter in judge.VERDICTS]
    with torch.no_grad():
        expected = model(ids).logits[0, -1, letters].softmax(0)[0].item()
    assert found.tolist() == [pytest.approx(expected, abs=1e-5)]


def test_both_orders_show_each_text_first_once(rater):
    tokenizer, model = rater
    p_ab, p_ba = judge.both_orders([tuple(TEXTS)], model, tokenizer)
    swapped = judge.both_orders([tuple(TEXTS[::-1])], model, tokenizer)
    np.testing.assert_allclose([p_ab, p_ba], swapped[::-1])
    assert p_ab != p_ba


def test_an_adapted_judge_is_asked_with_its_adapter(rater):
    tokenizer, model = rater
    before = judge.verdicts([tuple(TEXTS)], model, tokenizer)
    policy = models.add_lora(model, rank=2, alpha=4.0, top_layers=1, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    assert abs(judge.verdicts([tuple(TEXTS)], policy, tokenizer) - before) > 1e-4


@pytest.mark.parametrize(
    "a, b, share", [([1], [0], 1.0), ([0], [1], 0.0), ([2], [2], 0.5), ([1, 3], [2], 0.5), ([1, 2], [1, 0], 7 / 8)]
)
def test_the_share_that_prefers_a_is_over_all_pairs_of_raters_a_tie_half(a, b, share):
    assert judge.share_preferring(a, b) == pytest.approx(share)
    assert judge.share_preferring(b, a) == pytest.approx(1 - share)


def test_the_verdict_loss_is_least_at_the_share():
    batch = {"share_0": torch.tensor([0.7])}
    logits = torch.linspace(-3, 3, 601)
    losses = [judge.verdict_loss(torch.tensor([[z, 0.0]]), None, batch, {}).losses.item() for z in logits]
    assert logits[int(np.argmin(losses))].sigmoid().item() == pytest.approx(0.7, abs=0.01)


def test_rows_of_a_rater_fit_into_one_batch(rater):
    """Nine branches of one token each: the prompt is read once and none of the digits is read at all."""
    tokenizer, model = rater
    batch = collate(scorers.rating_examples(TEXTS, tokenizer), pad_id=tokenizer.pad_token_id)
    assert batch["answer"].shape == (2, 9)
    prompts = [example.prompt for example in scorers.rating_examples(TEXTS, tokenizer)]
    assert batch["input_ids"].shape[1] == sum(map(len, prompts)) and len(batch["rows"]) == len(prompts) == 2
    assert reference.logps(model, scorers.rating_examples(TEXTS, tokenizer), pad_id=0).shape == (2, 9)
