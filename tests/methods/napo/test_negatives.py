"""The model's own biased answers, and the pairs made of them, on a small LLaVA of random weights."""

import pytest

from prefcore.data.types import Example
from prefcore.methods.napo import negatives, vision, vqa


def test_a_biased_answer_is_the_models_own_without_the_picture_or_without_the_question(p, rows, album):
    processor, model = vqa.load_model(p)
    language, seen = negatives.biased_answers(rows, album, model, processor, max_new_tokens=4)
    blind, mute = (vision.make_prompts(processor, [shown]) for shown in ((None, rows[0].question), (album["p2"], None)))
    assert language == vision.answer(model, processor, blind, max_new_tokens=4) * 4  # one question, one answer
    assert seen[2] == vision.answer(model, processor, mute, max_new_tokens=4)[0]
    with pytest.raises(ValueError, match="hidden is 'all'; it must be '', 'picture' or 'question'"):
        negatives.make_prompts(rows, album, processor, hidden="all")


def test_a_biased_answer_that_is_right_or_empty_makes_no_pair_and_is_counted(p, rows, album):
    processor, _ = vqa.load_model(p)
    prompts = negatives.make_prompts(rows, album, processor)
    language = ["is a wonderful great joy", "other", "", "other"]
    examples, counts = negatives.encode(rows, (language, ["other"] * 4), prompts, processor.tokenizer, max_completion=9)
    assert [e.columns for e in examples] == [
        {"language": 0.0, "vision": 1.0}, {"language": 1.0, "vision": 1.0},
        {"language": 0.0, "vision": 1.0}, {"language": 1.0, "vision": 1.0},
    ]  # fmt: skip
    assert counts == {"rows": 4, "language_dropped": 2, "vision_dropped": 0}
    assert all(len(e.completions) == 4 for e in examples)
    words, eos = processor.tokenizer, processor.tokenizer.eos_token_id
    first = examples[1]
    assert [words.decode(c[:-1]) for c in first.completions] == [rows[1].chosen, rows[1].rejected, "other", "other"]
    assert all(c[-1] == eos and c.count(eos) == 1 for c in first.completions)
    assert first.prompt == prompts[1].ids  # the full prompt, also for the biased answers


def test_kinds_of_pairs_are_left_out_and_the_others_stay():
    def examples():
        return [Example(str(i), (1, 2), ((3,),) * 4, {"language": float(i % 2), "vision": 1.0}) for i in range(20)]

    assert all(e.columns["vision"] == 0 for e in negatives.without(examples(), ["vision"]))
    assert [e.columns["language"] for e in negatives.without(examples(), ["vision"])] == [i % 2 for i in range(20)]
    assert negatives.without(examples(), []) == examples()
