"""What a judge is asked: both texts, the question, and the opening of the answer."""

from prefcore.methods.autoraters import prompt
from prefcore.scoring import judge


def test_a_prompt_shows_both_texts_and_ends_inside_the_contract(model, pair, texts, p):
    tokenizer, _ = model
    text = tokenizer.decode(prompt.encode([pair(prompt="A debate")], tokenizer, p)[0].prompt)
    assert text == (f"A debate\nText A: {texts[0]}\nText B: {texts[1]}\nThe more positive text is B with probability "
                    "<prob_rb_better>0.")  # fmt: skip


def test_long_texts_are_cut_and_the_question_is_not(model, pair, p):
    tokenizer, _ = model
    long = prompt.encode([pair(a="joy " * 500)], tokenizer, p)[0].prompt
    assert len(long) < 24 + 24 + 120
    assert tokenizer.decode(long).endswith("B with probability <prob_rb_better>0.")


def test_two_places_are_marked_where_the_first_text_ends_and_where_the_shared_judge_says_its_verdict(model, pair, p):
    tokenizer, _ = model
    (example,) = prompt.encode([pair()], tokenizer, p)
    ends = {name: len(example.prompt) - int(example.columns[name]) for name in ("text_back", "question_back")}
    (asked,) = judge.verdict_examples([(pair().a, pair().b)], tokenizer, question=p.question)
    assert example.prompt[: ends["question_back"]] == asked.prompt
    assert tokenizer.decode(example.prompt[: ends["text_back"]]) == f"Text A: {pair().a}"
