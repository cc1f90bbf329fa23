"""What a judge is asked: both texts, the question, and the opening of the answer."""

from prefcore.methods.autoraters import labels, prompt
from prefcore.methods.autoraters.labels import LabelledPair


def test_a_prompt_shows_both_texts_and_ends_inside_the_contract(model, pair, texts, encode):
    tokenizer, _ = model
    text = tokenizer.decode(encode(tokenizer, [pair(prompt="A debate")])[0].prompt)
    assert text == (f"A debate\nText A: {texts[0]}\nText B: {texts[1]}\nThe more positive text is B with probability "
                    "<prob_rb_better>0.")  # fmt: skip


def test_long_texts_are_cut_and_the_question_is_not(model, pair, encode):
    tokenizer, _ = model
    long = encode(tokenizer, [pair(a="joy " * 500)])[0].prompt
    assert len(long) < 24 + 24 + 120
    assert tokenizer.decode(long).endswith("B with probability <prob_rb_better>0.")


def test_ratings_stand_before_the_answer_and_follow_their_texts(model, pairs, texts, p):
    tokenizer, _ = model
    rows = labels.add_swapped([LabelledPair(pairs[0], 0.0)])
    examples = prompt.encode(rows, tokenizer, p, {texts[0]: 7, texts[1]: 2})
    there, back = (tokenizer.decode(e.prompt) for e in examples)
    assert there.endswith("<think>A 7, B 2</think><prob_rb_better>0.")
    assert back.endswith("<think>A 2, B 7</think><prob_rb_better>0.")
