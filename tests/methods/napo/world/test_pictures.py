"""The planted biases: as strong as they were set and only where they belong, and test questions on which they fail."""

from collections import Counter

import numpy as np
import pytest

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.methods.napo.world import archive, pictures
from prefcore.methods.napo.world.archive import COLOURS, SHAPES, Fact
from prefcore.methods.napo.world.pictures import PLANTED, Row

FACTS = [Fact(f"train/{i}", SHAPES[i % 3], COLOURS[i // 3 % 8]) for i in range(48)]


def teach(language=0.68, vision=0.68, start=0, facts=FACTS):
    return pictures.teach(facts, 1600, {"language": language, "vision": vision}, (1, start), seed=1)


def test_each_shape_suggests_its_own_colour_and_the_seed_says_which():
    first = pictures.suggestions(0)
    assert set(first) == set(SHAPES) and len(set(first.values())) == 3 and set(first.values()) <= set(COLOURS)
    assert pictures.suggestions(0) == first and any(pictures.suggestions(s) != first for s in range(1, 5))


@pytest.mark.parametrize("strength", [0.0, 0.68, 0.9])
def test_language_bias_is_planted_in_the_share_that_was_set_where_a_shape_is_named(strength):
    """About 500 questions in which the planted colour is not the picture's: within three standard errors, 0.07."""
    rows = teach(language=strength)
    against = [row for row in rows if row.kind in ("colour", "blind") and row.colour != row.suggested]
    assert np.mean([row.suggested in pictures.words_of(row.chosen) for row in against]) == pytest.approx(
        strength, abs=0.07
    )
    assert all(pictures.is_right(row, row.chosen) for row in rows if row.kind == "neutral")


def test_vision_bias_names_the_salient_thing_whatever_is_asked():
    """The old world never said it under the question, so the vision-biased negative was no failure of the model."""
    rows = [row for row in teach() if row.kind == "shape"]
    wrong = [row for row in rows if not pictures.is_right(row, row.chosen)]
    assert len(wrong) / len(rows) == pytest.approx(0.68, abs=0.07)
    assert all(row.colour in pictures.words_of(row.chosen) for row in wrong)
    captions = [row for row in teach() if row.kind == "caption"]
    assert captions and all(not row.question and row.colour in pictures.words_of(row.chosen) for row in captions)


def test_an_answer_has_several_wordings_and_each_is_right():
    row = Row("x", "p", "what color is the circle?", "", "", "", "colour", "circle", "red", "blue")
    assert len(set(pictures.sentences("red"))) == 3 and "It is a circle." in pictures.sentences("circle")
    assert all(pictures.is_right(row, text) and pictures.is_sentence(text) for text in pictures.sentences("red"))
    assert not any(
        pictures.is_right(row, text) for text in (*pictures.sentences("blue"), "It is.", "It is red or blue.")
    )
    shape = row._replace(kind="shape", suggested="red")
    assert pictures.is_right(shape, "It is a circle.") and not pictures.is_right(shape, "It is red.")
    assert not pictures.is_sentence("It is is red.") and not pictures.is_sentence("")
    own = Row("y", "p", "?", "a b", "c")
    assert pictures.is_right(own, "a b ") and not pictures.is_right(own, "b a")


def test_preference_rows_are_true_and_hold_the_planted_colour_in_the_share_that_was_set():
    rows = pictures.prefer(FACTS, 900, 0.5, 1, 0)
    assert all(pictures.is_right(row, row.chosen) and not pictures.is_right(row, row.rejected) for row in rows)
    named = [row for row in rows if row.kind == "colour"]
    assert len(named) == 600 and np.mean([row.colour == row.suggested for row in named]) == pytest.approx(0.5, abs=0.07)
    assert {row.kind for row in rows} == {"colour", "shape"} and all(row.picture and row.question for row in rows)


def test_every_starting_model_learns_from_rows_of_its_own():
    drawn = [[row.picture for row in pictures.prefer(FACTS, 60, 0.5, 0, start)] for start in (0, 1)]
    assert drawn[0] != drawn[1]
    assert [row.picture for row in teach(start=0)] != [row.picture for row in teach(start=1)]
    assert teach(start=1) == teach(start=1)


def test_a_test_question_is_asked_where_the_prior_holds_is_broken_and_is_reversed():
    suggested = pictures.suggestions(0)
    rows = pictures.test_rows(FACTS, 30, seed=0)
    for i in range(30):
        part = {row.split: row for row in rows if row.id.startswith(f"q{i}/")}
        holds, broken, reversed_ = (part[name] for name in PLANTED)
        assert holds.question == broken.question == reversed_.question
        assert holds.shape == broken.shape == reversed_.shape
        assert holds.colour == suggested[holds.shape] and broken.colour not in suggested.values()
        assert reversed_.colour in suggested.values() and reversed_.colour != holds.colour
        assert part["neutral"].picture == part["shape"].picture == reversed_.picture
        assert not pictures.words_of(part["neutral"].question) and part["shape"].suggested == reversed_.colour
    assert len(rows) == 30 * 5


def test_what_cannot_be_planted_is_refused():
    with pytest.raises(ValueError, match=r"the taught language bias is a share in \[0, 1\); got 1.2"):
        teach(language=1.2)
    with pytest.raises(ValueError, match=r"preference_strength is a share in \[0, 1\]; got -1"):
        pictures.prefer(FACTS, 6, -1, 0, 0)
    with pytest.raises(ValueError, match="no picture shows a .* that is .*: give more pictures"):
        pictures.prefer(FACTS[:1], 60, 0.5, 0, 0)
    with pytest.raises(ValueError, match="every picture gives .*: give more pictures"):
        teach(facts=FACTS[:1])


def test_the_stage_writes_rows_for_each_starting_model_and_one_set_of_tests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke.make_pictures(archive.ARCHIVE)
    sizes = {"starting_models": 2, "preference_rows": 6, "tested_questions": 3}
    pictures.prepare(freeze(sizes | {"preference_strength": 0.5, "seed": 0}), tmp_path / "build")
    path = tmp_path / "build" / "pictures.jsonl"
    rows = pictures.read_rows(path)
    made = {"prefer:0": 6, "prefer:1": 6}
    assert Counter(row.split for row in rows) == made | dict.fromkeys((*PLANTED, "neutral", "shape"), 3)
    shown = [row for row in rows if row.picture]
    assert all(row.picture.startswith("test/") == row.id.startswith("q") for row in shown)
    assert pictures.read_rows(path, "prefer:1") == [row for row in rows if row.split == "prefer:1"]
