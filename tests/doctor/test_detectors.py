"""Each detector sees a defect that was planted at known strength, and cries wolf on at most 5 % of 200 clean draws."""

import json

import numpy as np
import pytest

from prefcore.data.types import Pair, Ranked, Unary
from prefcore.doctor import preferences, report, texts, votes

WORDS = [f"word{i}" for i in range(400)]


def text(rng, low=4, high=12):
    return " ".join(rng.choice(WORDS, rng.integers(low, high)))


def pairs(rng, n=200, longer=0.5):
    """Pairs whose longer answer is chosen with this probability."""
    out = []
    for i in range(n):
        short, long = text(rng, 4, 8), text(rng, 9, 14)
        first, second = (long, short) if rng.random() < longer else (short, long)
        out.append(Pair(str(i), text(rng), first, second))
    return out


def thumbs(rng, n=200, shift=0.0):
    """Single answers; with probability `shift` the prompt has a word of its thumb."""
    out = []
    for i in range(n):
        up = bool(rng.random() < 0.5)
        mark = f" {'alpha' if up else 'beta'}" if rng.random() < shift else ""
        out.append(Unary(str(i), text(rng) + mark, text(rng), up))
    return out


def judged_twice(rng, noise, n=150):
    """Each pair twice, by raters who take one answer for the other with this probability."""
    out = []
    for i in range(n):
        prompt, good, bad = text(rng), text(rng), text(rng)
        for k in range(2):
            sides = (bad, good) if rng.random() < noise else (good, bad)
            out.append(Pair(f"{i}/{k}", prompt, *sides))
    return out


def camps(rng, apart, n=120, crowd=12):
    """Votes of two camps of people: with probability `apart` a pair is one on which the camps disagree."""
    cast, names = [], []
    for _ in range(n):
        who = rng.choice(crowd, 6, replace=False)
        share, against = rng.choice([0.2, 0.8]), rng.random() < apart
        cast.append([float(rng.random() < (1 - share if against and person % 2 else share)) for person in who])
        names.append([f"p{person}" for person in who])
    return cast, names


CLEAN = {
    "length bias": lambda rng: preferences.length_bias(pairs(rng)),
    "prompt shift between thumbs": lambda rng: preferences.prompt_shift(thumbs(rng)),
    "label noise": lambda rng: preferences.contradictions(judged_twice(rng, 0.0)),
    "people": lambda rng: votes.people(*camps(rng, 0.0)),
    "near-duplicates across the split": lambda rng: texts.near_duplicates(pairs(rng, 60)),
    "repeated rows": lambda rng: texts.repeated(pairs(rng, 60)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_draw_gives_a_false_alarm_in_at_most_one_of_twenty(name):
    found = [CLEAN[name](np.random.default_rng(seed)) for seed in range(200)]
    assert {one.name for one in found} == {name} and np.mean([one.warns for one in found]) <= 0.05


@pytest.mark.parametrize("longer", [0.35, 0.7])
def test_a_planted_length_bias_is_seen_and_its_size_is_in_the_interval(longer):
    found = [preferences.length_bias(pairs(np.random.default_rng(seed), 400, longer)) for seed in range(20)]
    assert np.mean([one.warns for one in found]) >= 0.9
    assert np.mean([one.low <= longer <= one.high for one in found]) >= 0.85


def test_prompts_that_tell_the_thumb_are_seen_and_bco_is_named():
    found = [preferences.prompt_shift(thumbs(np.random.default_rng(seed), 300, 0.6)) for seed in range(10)]
    assert all(one.warns and "bco" in one.do for one in found)


def test_many_answers_to_one_prompt_are_one_unit():
    """Two prompts with a hundred answers each say next to nothing about what prompts tell."""
    rng = np.random.default_rng(0)
    rows = [Unary(str(i), "first" if i % 2 else "second", text(rng), bool(i % 2)) for i in range(200)]
    assert not preferences.prompt_shift(rows).warns


@pytest.mark.parametrize("noise", [0.1, 0.2, 0.3])
def test_label_noise_is_read_off_pairs_that_were_judged_twice(noise):
    found = [preferences.contradictions(judged_twice(np.random.default_rng(seed), noise)) for seed in range(20)]
    assert np.mean([one.value for one in found]) == pytest.approx(noise, abs=0.02)
    assert np.mean([one.low <= noise <= one.high for one in found]) >= 0.85
    assert np.mean([one.warns for one in found]) >= 0.5


def test_two_camps_of_people_are_seen():
    found = [votes.people(*camps(np.random.default_rng(seed), 0.8, 300)) for seed in range(10)]
    assert all(one.warns and "micro" in one.do for one in found)


def test_disputed_pairs_are_counted():
    """Ten pairs at 5 of 10, ten at 10 of 10, and one with too few votes."""
    cast = [[1.0] * 5 + [0.0] * 5] * 10 + [[1.0] * 10] * 10 + [[1.0, 0.0]]
    found = votes.disagreement(cast)
    assert found.value == 0.5 and "margin_rm" in found.do


def test_repeats_and_near_duplicates_are_counted():
    rng = np.random.default_rng(1)
    rows = pairs(rng, 60)
    assert texts.repeated([*rows, rows[0]._replace(id="again")]).value == 1
    long = [row._replace(prompt=text(rng, 30, 31)) for row in rows]
    twins = [row._replace(id=f"{row.id}b", prompt=f"{row.prompt} indeed") for row in long]
    assert texts.near_duplicates([*long, *twins]).warns and not texts.near_duplicates(long).warns


def test_control_tokens_speaker_marks_refusals_and_empty_answers_are_found():
    rows = [
        Pair("1", "<|im_start|>user\nHi", "Hello", "I'm sorry, but I cannot help with that."),
        Pair("2", "Human: Hi", "a", " "),
        Pair("3", "The </sad> story of Human kind", "b", "c"),
    ]
    marks = texts.control_tokens(rows)
    assert marks.value == 2 and marks.warns and "'<|im_start|>'" in marks.says
    empty = texts.empty_or_refused(rows)
    assert empty.value == 2 and "0 are chosen and 1 rejected" in empty.says and empty.warns


def test_weights_of_rare_thumbs_and_a_missing_class():
    rows = thumbs(np.random.default_rng(2), 100)
    rare = [row._replace(label=i < 8) for i, row in enumerate(rows)]
    found = preferences.balance(rare)
    assert found.warns and "11.5" in found.do and not preferences.balance(rows).warns
    assert "one class" in preferences.balance([row._replace(label=True) for row in rows]).do


def test_unequal_weights_are_told_by_the_equal_rows_that_they_are_worth():
    equal, one_rules = preferences.weights([2.0] * 50), preferences.weights([1.0] * 99 + [99.0])
    assert equal.value == 50 and not equal.warns
    assert one_rules.value == round(198**2 / (99 + 99**2)) == 4 and one_rules.warns
    assert preferences.weights([0.0, 0.0]).warns and "1 have the weight 0" in preferences.weights([0.0, 1.0]).says


def test_weights_are_looked_at_where_there_are_any(tokenizer):
    rows = [Unary(str(i), f"prompt {i}", f"answer {i}", i % 2 == 0, weight=1.0 + i) for i in range(30)]
    found = [one.name for one in report.examine(rows, tokenizer, max_prompt=64, max_completion=64)]
    assert "weights" in found
    bare = [row._replace(weight=None) for row in rows]
    names = [one.name for one in report.examine(bare, tokenizer, max_prompt=64, max_completion=64)]
    assert names == [name for name in found if name != "weights"]


def test_gaps_say_odpo_where_they_differ_and_dpo_where_they_do_not():
    alike = [Pair(str(i), f"p{i}", "a", "b", margin=1.0) for i in range(50)]
    unlike = [pair._replace(margin=float(i + 1)) for i, pair in enumerate(alike)]
    assert "dpo" in preferences.gaps(alike).do and "run odpo: a gap of 32.9" in preferences.gaps(unlike).do
    assert preferences.gaps([pair._replace(margin=0.0) for pair in alike]).warns


def test_a_report_says_the_same_in_three_forms_and_escapes_what_texts_hold(tokenizer):
    rows = [Ranked("1", "w5 <script>", ("w6", "w7 w8"), (1.0, 0.0), (True, True))] * 3 + [
        Ranked("2", "w9", ("w6 w6 w6", "w7"), (0.5, 2.0), (True, True))]  # fmt: skip
    found = report.examine(rows, tokenizer, max_prompt=1, max_completion=2)
    said = "\n".join(report.lines(found))
    assert "! repeated rows: 2 of 4 rows" in said and "--set max_prompt=" in said
    parsed = json.loads(report.as_json(found))
    assert [row["name"] for row in parsed] == [one.name for one in found] and parsed[0]["low"] is None
    whole = report.page(found, "<b>.jsonl")
    assert "<b>" not in whole and all(one.name in whole for one in found)
