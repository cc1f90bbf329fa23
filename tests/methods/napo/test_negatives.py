"""The model's own biased answers, and the pairs made of them, on a small LLaVA of random weights."""

import pytest

from prefcore.data.types import Example
from prefcore.methods.napo import negatives, vision, vqa
from prefcore.methods.napo.world.pictures import Row


def test_a_biased_answer_is_the_models_own_without_the_picture_or_without_the_question(p, rows, album):
    processor, model = vqa.load_model(p, 0)
    language, seen = negatives.biased_answers(rows, album, model, processor, max_new_tokens=4)
    blind, mute = (vision.make_prompts(processor, [shown]) for shown in ((None, rows[0].question), (album["p2"], None)))
    assert language == vision.answer(model, processor, blind, max_new_tokens=4) * 4  # one question, one answer
    assert seen[2] == vision.answer(model, processor, mute, max_new_tokens=4)[0]
    with pytest.raises(ValueError, match="hidden is 'all'; it must be '', 'picture' or 'question'"):
        negatives.make_prompts(rows, album, processor, hidden="all")


def test_an_answer_right_in_other_words_is_noise_and_one_that_is_chosen_or_empty_makes_no_pair(p, album):
    """The old world had one wording an answer, so that an automatic pair was never noise."""
    processor, _ = vqa.load_model(p, 0)
    rows = [Row(f"r{i}", f"p{i}", "what color?", "It is red.", "It is blue.", "", "colour", "circle", "red", "blue")
            for i in range(4)]  # fmt: skip
    prompts = negatives.make_prompts(rows, album, processor)
    language = ["It is red.", "The color is red.", "", "It is blue."]
    made = negatives.encode(rows, (language, ["It looks red."] * 4), prompts, processor.tokenizer, max_completion=40)
    assert [(e.columns["language"], e.columns["language_right"]) for e in made] == [(0, 0), (1, 1), (0, 0), (1, 0)]
    found = {"rows": 4, "language": 2, "language_right": 1, "vision": 4, "vision_right": 4}
    assert negatives.count(made) == found
    words, eos = processor.tokenizer, processor.tokenizer.eos_token_id
    assert [words.decode([t for t in c if t != eos]) for c in made[1].completions] == [
        "It is red.", "It is blue.", "The color is red.", "It looks red.",
    ]  # fmt: skip
    assert all(c[-1] == eos and c.count(eos) == 1 for c in made[1].completions)
    assert made[1].prompt == prompts[1].ids  # the full prompt, also for the biased answers


def test_kinds_of_pairs_are_left_out_and_the_others_stay():
    def examples():
        return [Example(str(i), (1, 2), ((3,),) * 4, {"language": float(i % 2), "vision": 1.0}) for i in range(20)]

    assert all(e.columns["vision"] == 0 for e in negatives.without(examples(), ["vision"]))
    assert [e.columns["language"] for e in negatives.without(examples(), ["vision"])] == [i % 2 for i in range(20)]
    assert negatives.without(examples(), []) == examples()
