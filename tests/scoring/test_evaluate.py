"""What a policy writes, scored prompt by prompt."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefcore.data import ratings
from prefcore.data.types import Example, Pair, Unary, freeze
from prefcore.engine import collate, models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import evaluate, scorers
from prefcore.scoring.evaluate import best_threshold, rated_text, sampled_kl, score_held_out, summarise

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
P = freeze({"max_new_tokens": 4})
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
    how = {"max_prompt": 64, "max_new_tokens": 6, "seed": 3, "arm": "a"}
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
    frame = score_held_out(policy, tokenizer, examples, [], P, arm="a", seed=0)
    gains = reference.score_all(policy, examples, pad_id=0) - reference.logps(policy, examples, pad_id=0)
    np.testing.assert_allclose(frame["margin"], gains[:, 0] - gains[:, 1], atol=1e-5)
    assert frame["accuracy"].tolist() == (gains[:, 0] > gains[:, 1]).astype(float).tolist()
    assert 0 < frame["accuracy"].mean() < 1


def thumbs(tokenizer, places, prefix="t"):
    """One short answer for each place, every other one with a thumbs-up."""
    rows = [Unary(f"{prefix}{i}", f"w{5 + i}", f"w{20 + i} w{30 + i}", i % 2 == 0) for i in places]
    return collate.encode_unary(rows, tokenizer, **LIMITS).examples


def test_a_held_out_labels_accuracy_depends_on_no_other_test_row(tiny_llama, tokenizer):
    """Whether the others are there, or have other answers, changes nothing for those that stay."""
    policy, validation, rows = adapted(tiny_llama), thumbs(tokenizer, range(30, 50), "v"), thumbs(tokenizer, range(16))
    whole = score_held_out(policy, tokenizer, rows, validation, P, arm="a", seed=0)
    others = thumbs(tokenizer, range(40, 56), "o")
    for kept, more in (([0], []), ([3, 4, 9], []), ([0, 1], others), ([15], others[:5])):
        part = score_held_out(policy, tokenizer, [rows[i] for i in kept] + more, validation, P, arm="a", seed=0)
        pd.testing.assert_frame_equal(
            part.iloc[: len(kept)][["id", "accuracy", "label"]],
            whole.iloc[kept][["id", "accuracy", "label"]].reset_index(drop=True),
        )
        np.testing.assert_allclose(part["gain"][: len(kept)], whole["gain"][kept], atol=1e-4)
    assert set(whole["accuracy"]) == {0.0, 1.0}


def test_held_out_labels_are_told_apart_at_the_threshold_that_suits_this_policys_validation_rows(tiny_llama, tokenizer):
    policy, validation, rows = adapted(tiny_llama), thumbs(tokenizer, range(30, 50), "v"), thumbs(tokenizer, range(16))
    frame = score_held_out(policy, tokenizer, rows, validation, P, arm="a", seed=0)
    own, frozen = ([f(policy, some, pad_id=0)[:, 0] for some in (rows, validation)]
                   for f in (reference.score_all, reference.logps))  # fmt: skip
    gains, known = own[0] - frozen[0], own[1] - frozen[1]
    threshold = best_threshold(known, np.array([e.columns["label"] for e in validation]))
    assert threshold != 0 and set(frame["threshold"]) == {threshold}
    np.testing.assert_allclose(frame["gain"], gains, atol=1e-5)
    assert frame["accuracy"].tolist() == [float((g > threshold) == (i % 2 == 0)) for i, g in enumerate(gains)]
    np.testing.assert_allclose(frame["margin"], [g - threshold if i % 2 == 0 else threshold - g
                                                 for i, g in enumerate(gains)], atol=1e-5)  # fmt: skip


def test_without_both_labels_among_the_validation_rows_the_threshold_is_0_and_that_is_said(tiny_llama, tokenizer):
    policy, rows = adapted(tiny_llama), thumbs(tokenizer, range(8))
    for validation in ([], thumbs(tokenizer, (30, 32), "v")):
        with pytest.warns(UserWarning, match=f"^{len(validation)} validation answers without both labels"):
            frame = score_held_out(policy, tokenizer, rows, validation, P, arm="a", seed=0)
        assert set(frame["threshold"]) == {0.0}
        assert frame["accuracy"].tolist() == [float((g > 0) == (i % 2 == 0)) for i, g in enumerate(frame["gain"])]


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_does_better_on_the_rows_that_chose_it(seed):
    """The slow twin looks at a fine grid; ties count half on both sides."""
    rng = np.random.default_rng(seed)
    label = np.append([0, 1], rng.integers(0, 2, size=13))
    score = np.round(rng.normal(size=15) + 0.7 * label, 1)
    found = best_threshold(score, label)
    assert score.min() - 1 <= found <= score.max() + 1

    def share(threshold):
        return np.mean(np.where(score == threshold, 0.5, (score > threshold) == label))

    assert share(found) == max(share(t) for t in np.round(np.arange(-6, 6, 0.05), 2))


@pytest.mark.parametrize(
    ("score", "label", "expected"),
    [
        ([-3, -1, 1, 5], [0, 0, 1, 1], 0),  # half way between the classes
        ([0, 0, 0, 0], [1, 0, 1, 0], 0),  # nothing to tell apart: every threshold is as good, this one says so
        ([0, 0, 0, 0], [1, 1, 1, 0], -1),  # the frequent class is the best guess of a policy that says nothing
        ([1, 2, 3, 4, 5], [0, 1, 0, 1, 0], 3.5),  # 1.5, 3.5 and 6 call three rows right, and the median is 3
        ([1, 2, 3, 4], [0, 1, 0, 1], 1.5),  # so do 1.5 and 3.5, as far from the median: the lower one
    ],
)
def test_the_best_threshold_by_hand(score, label, expected):
    assert best_threshold(np.array(score, float), np.array(label)) == expected


def test_a_policy_that_has_not_moved_has_no_accuracy_but_one_half(tiny_llama, tokenizer):
    pairs = [Pair("1", "w5", "w6", "w7"), Pair("2", "w8", "w9 w10", "w11")]
    examples = collate.encode_pairs(pairs, tokenizer, **LIMITS).examples
    frame = score_held_out(tiny_llama, tokenizer, examples, [], P, arm="reference", seed=0)
    assert frame["accuracy"].tolist() == [0.5, 0.5] and frame["margin"].tolist() == [0, 0]


def test_a_summary_holds_means_and_the_share_of_distinct_word_pairs():
    frame = pd.DataFrame({"id": ["1", "2"], "gold": [1.0, 2.0], "kl": [0.0, 1.0], "text": ["a b c", "a b d"]})
    assert summarise(frame) == {"gold": 1.5, "kl": 0.5, "distinct_2": 0.75, "prompts": 2}


def test_a_summary_of_labels_holds_the_auc_of_each_seed_and_none_where_there_is_one_class():
    """Seed 0 ranks 3 of 4 pairs of an up and a down right; seed 1, whose gains are far larger, 2 of 4: mean 5 / 8."""
    both = pd.DataFrame({
        "id": list("abcd") * 2, "seed": [0] * 4 + [1] * 4, "label": [1.0, 0.0, 1.0, 0.0] * 2, "text": ["x"] * 8,
        "gain": [3.0, 2.0, 1.0, 0.0, 400.0, 300.0, 100.0, 200.0], "accuracy": [1.0] * 8,
    })  # fmt: skip
    assert summarise(both)["auc"] == (3 / 4 + 2 / 4) / 2
    assert summarise(both[both["label"] == 1])["auc"] is None
    assert "auc" not in summarise(both.drop(columns="label"))
