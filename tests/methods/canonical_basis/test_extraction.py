import json

import numpy as np
import pytest

from prefcore.methods.canonical_basis import extraction
from prefcore.methods.canonical_basis.extraction import Extraction, Shown
from prefcore.scoring import llm

GOOD = '{"topic": "Hotel", "phrases": ["clean rooms", "near the station"]}'
CHOICES = [Shown(str(i), f"first {i}", f"second {i}", i % 3 == 0) for i in range(12)]
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
    for shown, said in ((CHOICES[0], "preferred text A"), (extraction.swap(CHOICES[0]), "preferred text B")):
        roles, contents = zip(*extraction.request(shown, **HOW).messages, strict=True)
        assert roles == ("system", "user", "assistant", "user", "assistant", "user")
        assert shown.first in contents[-1] and shown.second in contents[-1] and said in contents[-1]
        assert all(extraction.parse(contents[i]).phrases for i in (2, 4))
    assert extraction.swap(extraction.swap(CHOICES[1])) == CHOICES[1]
    with pytest.raises(ValueError, match="style is 'loud'; there are quality, reason"):
        extraction.request(CHOICES[0], **HOW | {"style": "loud"})


def test_the_examples_give_no_planted_phrase_away():
    from prefcore.methods.canonical_basis.world import traits as planted_traits

    said = {phrase for line in planted_traits.PHRASES.values() for phrase in line.split("|")}
    assert not {phrase for *_, phrase in extraction.SHOT} & said


def test_an_answer_out_of_form_is_none_and_the_others_stay_in_place():
    def model(requests):
        return [GOOD if i % 2 else "I cannot say" for i in range(len(requests))]

    found = extraction.extract(CHOICES, model, **HOW)
    assert [one is None for one in found] == [i % 2 == 0 for i in range(12)]
    assert found[1].phrases[0] == "clean rooms"


def seer(requests):
    """A judge that finds the text which the phrase quotes."""
    answers = []
    for request in requests:
        body = request.messages[-1][1]
        first, second = (body.split(mark)[1].split("\n")[0] for mark in ("Text A: ", "Text B: "))
        phrase = body.split("shows more of this: ")[1].split("?")[0]
        answers.append("A" if phrase == first else "B." if phrase == second else "both")
    return answers


def test_the_blind_judge_is_never_told_the_winner():
    told = [extraction.blind_request(c, "brevity", seed=0) for c in (CHOICES[0], CHOICES[0]._replace(first_wins=False))]
    assert told[0] == told[1] and "brevity" in told[0].messages[-1][1]


def test_a_phrase_that_points_at_the_winner_scores_1_at_the_loser_0_and_at_neither_a_half():
    winners = [c.first if c.first_wins else c.second for c in CHOICES]
    losers = [c.second if c.first_wins else c.first for c in CHOICES]
    for phrases, score in ((winners, 1.0), (losers, 0.0), (["else"] * 12, 0.5), ([None] * 12, 0.5)):
        assert extraction.blind_check(CHOICES, phrases, seer, seed=0).tolist() == [score] * 12
    with pytest.raises(ValueError, match="12 choices and 3 phrases"):
        extraction.blind_check(CHOICES, winners[:3], seer, seed=0)


def test_a_judge_that_always_says_a_scores_a_half_for_every_choice():
    found = extraction.blind_check(CHOICES, ["brevity"] * 12, lambda requests: ["A"] * len(requests), seed=0)
    assert found.tolist() == [0.5] * 12


@pytest.mark.parametrize(
    "answer, said",
    [
        ("A", "A"), (" b.\n", "B"), ("Text A", "A"), ("text b)", "B"),
        ("A or B", None), ("", None), ("AB", None), ("Both", None),
    ],
)
def test_a_verdict_is_one_letter_and_nothing_else(answer, said):
    assert extraction.verdict(answer) == said


def test_the_control_phrase_is_always_of_another_category():
    category = np.array([0, 0, 1, 2])
    for seed in range(20):
        drawn = extraction.other_phrases(["a0", "b0", "c1", "d2"], category, seed=seed)
        assert all(phrase[1] != str(c) for phrase, c in zip(drawn, category, strict=True))
    with pytest.raises(ValueError, match="all phrases are of one category"):
        extraction.other_phrases(["a", "b"], np.array([3, 3]), seed=0)


def test_worked_precision_and_recall():
    """Right 1 + 0 + 1 = 2; named 2 + 1 + 1 = 4; planted 1 + 2 + 1 = 4 (doubles count once): both 2/4."""
    found = extraction.score([[0, 5], [3], [2, 2]], [[0], [1, 4], [2, 2]], seed=0)
    assert found["precision"].estimate == found["recall"].estimate == 0.5
    assert found["answered"] == 1.0 and found["choices"] == 3


def test_answers_that_do_not_depend_on_the_choice_are_not_above_chance():
    planted = [[i % 4] for i in range(40)]
    blind = extraction.score([[0]] * 40, planted, seed=0)["precision_above_chance"]
    assert blind.low <= 0 <= blind.high and abs(blind.estimate) < 0.02
    seeing = extraction.score(planted, planted, seed=0)
    assert seeing["precision"].estimate == 1 and seeing["precision_above_chance"].low > 0.6


def test_an_extractor_that_never_keeps_to_the_form_has_no_precision_and_no_recall_above_nothing():
    found = extraction.score([[]] * 5, [[1]] * 5, seed=0)
    assert found["answered"] == 0 and found["precision"] is None and found["recall"].estimate == 0


def test_worked_kappa():
    """Agreement 3/4; by chance 1/2 x 3/4 + 1/2 x 1/4 = 1/2; (3/4 - 1/2) / (1 - 1/2) = 1/2."""
    assert extraction.kappa([0, 0, 1, 1], [0, 0, 0, 1]) == 0.5
    assert extraction.kappa([0, 1, 2], [0, 1, 2]) == 1.0
    assert extraction.kappa([0, 0], [0, 0]) is None


def test_a_local_model_goes_through_the_same_protocol(tiny_llama, tokenizer):
    model = llm.local(tiny_llama, tokenizer)
    found = extraction.extract(CHOICES[:2], model, **HOW)
    assert len(found) == 2
    assert set(extraction.blind_check(CHOICES[:2], ["w5", "w6"], model, seed=0).tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_the_answers_of_the_examples_are_json():
    messages = extraction.request(CHOICES[0], **HOW).messages
    assert all(json.loads(content) for role, content in messages if role == "assistant")
