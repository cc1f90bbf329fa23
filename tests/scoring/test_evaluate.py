"""What a policy writes, scored prompt by prompt."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefcore.data import ratings
from prefcore.data.types import Example, Pair, Unary
from prefcore.engine import collate, models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import evaluate, scorers
from prefcore.scoring.evaluate import rated_text, sampled_kl, score_held_out, summarise

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
P = {"max_new_tokens": 4}
LIMITS = {"max_prompt": 32, "max_completion": 32}


def adapted(policy, scale=0.3):
    policy = models.add_lora(policy, rank=2, alpha=4.0, top_layers=1, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, scale)
    return policy


def test_the_domain_tag_is_not_part_of_what_is_rated():
    assert rated_text("Movie review: The film: part", " two is good ") == "The film: part two is good"


def test_scores_are_those_of_prompt_and_continuation(toy_world):
    build = Path("build/smoke")
    loaded = evaluate.load_scorers(build, toy_world["common"]["encoder"], device="cpu")
    tokenizer, policy = models.load_policy(str(build / "reference"))
    prompts = ratings.choose_prompts(ratings.read_texts(build / "texts.jsonl"), 5, 0, split="test")
    how = {"max_new_tokens": 6, "seed": 3, "arm": "a"}
    frame = evaluate.score_policy(policy, tokenizer, prompts, loaded, **how)
    assert frame["id"].tolist() == [t.id for t in prompts] and set(frame["seed"]) == {3} and set(frame["arm"]) == {"a"}
    whole = [rated_text(t.prompt, text) for t, text in zip(prompts, frame["text"], strict=True)]
    np.testing.assert_allclose(frame["gold"], scorers.gold_scores(whole, loaded.gold, loaded.gold_tokenizer), atol=1e-6)
    assert (frame["length"] <= 6).all() and frame["kl"].abs().max() < 1e-4
    again = evaluate.score_policy(policy, tokenizer, prompts, loaded, **how)
    pd.testing.assert_frame_equal(frame, again)


def test_the_sampled_distance_is_policy_minus_reference_of_the_sample_with_its_end(tiny_llama, tokenizer):
    prompts = [[5, 6], [7, 8, 9], [10]] * 10
    policy = adapted(tiny_llama, scale=2.0)
    drawn = sample(policy, tokenizer, prompts, max_new_tokens=4, seed=0)
    found = sampled_kl(policy, tokenizer, prompts, drawn)
    ends = [s.ids + ((2,) if s.finished else ()) for s in drawn]
    rows = [Example("", tuple(prompt), (ids,)) for prompt, ids in zip(prompts, ends, strict=True)]
    own, frozen = (f(policy, rows, pad_id=0)[:, 0] for f in (reference.score_all, reference.logps))
    np.testing.assert_allclose(found, own - frozen, atol=1e-4)
    assert found.mean() > 0.1


def test_held_out_pairs_count_which_answer_gained_more(tiny_llama, tokenizer):
    pairs = [Pair(f"{i}", f"w{5 + i}", f"w{20 + i} w{30 + i}", f"w{40 + i}") for i in range(8)]
    examples = collate.encode_pairs(pairs, tokenizer, **LIMITS).examples
    policy = adapted(tiny_llama)
    frame = score_held_out(policy, tokenizer, examples, P, arm="a", seed=0)
    gains = reference.score_all(policy, examples, pad_id=0) - reference.logps(policy, examples, pad_id=0)
    np.testing.assert_allclose(frame["margin"], gains[:, 0] - gains[:, 1], atol=1e-5)
    assert frame["accuracy"].tolist() == (gains[:, 0] > gains[:, 1]).astype(float).tolist()
    assert 0 < frame["accuracy"].mean() < 1


def test_held_out_labels_are_compared_with_the_mean_gain(tiny_llama, tokenizer):
    rows = [Unary(f"{i}", f"w{5 + i}", f"w{20 + i} w{30 + i}", i % 2 == 0) for i in range(8)]
    examples = collate.encode_unary(rows, tokenizer, **LIMITS).examples
    policy = adapted(tiny_llama)
    frame = score_held_out(policy, tokenizer, examples, P, arm="a", seed=0)
    gains = (reference.score_all(policy, examples, pad_id=0) - reference.logps(policy, examples, pad_id=0))[:, 0]
    above = gains > gains.mean()
    assert frame["accuracy"].tolist() == [float(above[i] == row.label) for i, row in enumerate(rows)]


def test_a_policy_that_has_not_moved_has_no_accuracy_but_one_half(tiny_llama, tokenizer):
    pairs = [Pair("1", "w5", "w6", "w7"), Pair("2", "w8", "w9 w10", "w11")]
    examples = collate.encode_pairs(pairs, tokenizer, **LIMITS).examples
    frame = score_held_out(tiny_llama, tokenizer, examples, P, arm="reference", seed=0)
    assert frame["accuracy"].tolist() == [0.5, 0.5] and frame["margin"].tolist() == [0, 0]


def test_a_summary_holds_means_and_the_share_of_distinct_word_pairs():
    frame = pd.DataFrame({"id": ["1", "2"], "gold": [1.0, 2.0], "kl": [0.0, 1.0], "text": ["a b c", "a b d"]})
    assert summarise(frame) == {"gold": 1.5, "kl": 0.5, "distinct_2": 0.75, "prompts": 2}
