"""What an extractor is asked, and the strict reading of its answer."""

import json

import numpy as np
import pytest

from prefcore.methods.canonical_basis import blind_check, extraction
from prefcore.methods.canonical_basis.extraction import Comparison, Extraction
from prefcore.methods.canonical_basis.world import traits
from prefcore.scoring import llm

GOOD = '{"topic": "Hotel", "phrases": ["clean rooms", "near the station"]}'
CHOICES = [Comparison(str(i), f"first {i}", f"second {i}", i % 3 == 0) for i in range(12)]
HOW = {"style": "quality", "seed": 0, "temperature": 0.01, "max_tokens": 24}


def test_both_forms_are_read():
    expected = Extraction("Hotel", ("clean rooms", "near the station"))
    assert extraction.parse(GOOD) == extraction.parse(f"```json\n{GOOD}\n```\n") == expected
    assert extraction.parse("Topic:  Hotel\n- clean  rooms\n* near the station\n") == expected


@pytest.mark.parametrize(
    "answer, problem",
    [
        ("", "neither JSON nor lines"),
        ("The reader liked the clean rooms.", "neither JSON nor lines"),
        (f"Sure! {GOOD}", "neither JSON nor lines"),
        (f"{GOOD} I hope this helps", "Extra data"),
        (GOOD[:-1], "delimiter"),
        ('{"topic": "Hotel"}', r"the keys are \['topic'\]"),
        ('{"topic": "Hotel", "phrases": ["a b"], "winner": "A"}', "the keys are"),
        ('{"topic": "Hotel", "topic": "Inn", "phrases": ["a b"]}', "a key stands twice"),
        ('{"topic": "Hotel", "phrases": "clean"}', "phrases is a str"),
        ('{"topic": "Hotel", "phrases": []}', "0 phrases; one to 3"),
        ('{"topic": "Hotel", "phrases": ["a", "b", "c", "d"]}', "4 phrases"),
        ('{"topic": "Hotel", "phrases": [3]}', "a phrase is a int"),
        ('{"topic": null, "phrases": ["a"]}', "a topic is a NoneType"),
        ('{"topic": "Hotel", "phrases": ["..."]}', "has no letter"),
        ('{"topic": "Hotel", "phrases": ["' + "very " * 11 + '"]}', "more than 10 words"),
        ("topic: Hotel", "0 phrases"),
        ("topic: Hotel\nclean rooms", "neither JSON nor lines"),
        ("{" * 100_000, "nested too deep|Expecting"),
        ("[" + GOOD + "]", "neither JSON nor lines"),
    ],
)
def test_anything_else_is_refused_and_the_message_says_why(answer, problem):
    with pytest.raises(ValueError, match=problem):
        extraction.parse(answer)


def test_no_answer_breaks_the_parser():
    """Random cuts and changes of a good answer: a ValueError or an Extraction of the asked form, nothing else."""
    rng, letters = np.random.default_rng(0), list('{}[]",:\\ \n-ab1\u00e9\u2028') + ["null", "```", "topic"]
    kept = 0
    for _ in range(2000):
        pieces = list(GOOD)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(pieces)))
            pieces[at : at + int(rng.integers(0, 9))] = [letters[rng.integers(len(letters))]]
        try:
            found = extraction.parse("".join(pieces))
        except ValueError:
            continue
        kept += 1
        assert 1 <= len(found.phrases) <= extraction.MOST
        assert all(isinstance(x, str) and x.strip() for x in (found.topic, *found.phrases))
    assert kept > 20


def test_the_question_shows_both_texts_and_who_won_and_its_examples_keep_to_the_form():
    for shown, winner in ((CHOICES[0], "preferred text A"), (extraction.swap(CHOICES[0]), "preferred text B")):
        roles, contents = zip(*extraction.request(shown, **HOW).messages, strict=True)
        assert roles == ("system", "user", "assistant", "user", "assistant", "user")
        assert shown.first in contents[-1] and shown.second in contents[-1] and winner in contents[-1]
        assert all(extraction.parse(contents[i]).phrases for i in (2, 4))
    assert extraction.swap(extraction.swap(CHOICES[1])) == CHOICES[1]
    with pytest.raises(ValueError, match="style is 'loud'; there are quality, reason"):
        extraction.request(CHOICES[0], **HOW | {"style": "loud"})


def test_the_examples_give_no_planted_phrase_away():
    planted = {phrase for line in traits.PHRASES.values() for phrase in line.split("|")}
    assert not {phrase for *_, phrase in extraction.EXAMPLES} & planted


def test_an_answer_out_of_form_is_none_and_the_others_stay_in_place():
    def model(requests):
        return [GOOD if i % 2 else "I cannot say" for i in range(len(requests))]

    found = extraction.extract(CHOICES, model, **HOW)
    assert [one is None for one in found] == [i % 2 == 0 for i in range(12)]
    assert found[1].phrases[0] == "clean rooms"


def test_a_local_model_goes_through_the_same_protocol(tiny_llama, tokenizer):
    model = llm.local(tiny_llama, tokenizer)
    found = extraction.extract(CHOICES[:2], model, **HOW)
    assert len(found) == 2
    checked = blind_check.check(CHOICES[:2], ["w5", "w6"], model, seed=0)
    assert set(checked.tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_the_answers_of_the_examples_are_json():
    messages = extraction.request(CHOICES[0], **HOW).messages
    assert all(json.loads(content) for role, content in messages if role == "assistant")
