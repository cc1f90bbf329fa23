"""The planted prior: as strong as it was set, only where a shape is named, and test questions that break it."""

from collections import Counter

import numpy as np
import pytest

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.methods.napo.world import archive, pictures
from prefcore.methods.napo.world.archive import COLOURS, SHAPES, Fact
from prefcore.methods.napo.world.pictures import PLANTED

FACTS = [Fact(f"train/{i}", SHAPES[i % 3], COLOURS[i // 3 % 8]) for i in range(48)]


def test_each_shape_suggests_its_own_colour_and_the_seed_says_which():
    first = pictures.suggestions(0)
    assert set(first) == set(SHAPES) and len(set(first.values())) == 3 and set(first.values()) <= set(COLOURS)
    assert pictures.suggestions(0) == first and any(pictures.suggestions(s) != first for s in range(1, 5))


@pytest.mark.parametrize("strength", [0.0, 0.8, 1.0])
def test_the_prior_has_the_strength_that_was_set_and_only_where_a_shape_is_named(strength):
    """600 of 1,200 rows ask for the colour of a named shape: the share is within three standard errors (0.05)."""
    rows = pictures.plant(FACTS, 1200, "teach", strength, seed=1)
    named = [row for row in rows if row.kind in ("colour", "blind")]
    assert len(named) == 600 and all(row.suggested == pictures.suggestions(1)[row.shape] for row in named)
    assert np.mean([row.colour == row.suggested for row in named]) == pytest.approx(strength, abs=0.05)
    assert not any(row.suggested for row in rows if row.kind not in ("colour", "blind"))
    free = [row for row in rows if row.kind == "neutral"]
    like = np.mean([row.colour == pictures.suggestions(1)[row.shape] for row in free])
    assert like == pytest.approx(1 / 8, abs=0.08)


def test_some_rows_to_teach_with_lack_the_picture_or_the_question_and_none_to_prefer():
    rows = pictures.plant(FACTS, 80, "teach", 0.9, seed=0)
    blind, captions = ([row for row in rows if row.kind == kind] for kind in ("blind", "caption"))
    assert len(blind) == len(captions) == 10
    assert all(not row.picture and row.question and row.suggested in COLOURS for row in blind)
    assert all(row.picture and not row.question for row in captions)
    assert {row.chosen for row in captions} <= {f"The image shows a {f.colour} {f.shape}." for f in FACTS}
    assert all(row.picture and row.question for row in pictures.plant(FACTS, 80, "prefer", 0.9, seed=0))


def test_answers_are_whole_sentences_that_are_right_and_wrong_ones_are_right_of_another_picture():
    for row in pictures.plant(FACTS, 300, "prefer", 0.8, seed=0):
        fact = Fact("", row.shape, row.colour)
        assert row.chosen == pictures.right_answer(row.kind, row.question.split(". ")[-1], fact)
        assert row.chosen.endswith(".") and len(row.chosen.split()) > 3
        assert row.rejected != row.chosen
        others = {pictures.right_answer(row.kind, row.question.split(". ")[-1], other) for other in FACTS}
        kept = {pictures.right_answer(row.kind, row.question, f._replace(shape=row.shape)) for f in FACTS}
        assert row.rejected in (kept if row.kind == "colour" else others)


@pytest.mark.parametrize(
    "kind, question, answer",
    [
        ("colour", "what color is the circle?", "The circle is red."),
        ("neutral", "what color is the shape?", "The shape is red."),
        ("shape", "what shape is present?", "The shape is a circle."),
        ("presence", "is there a red shape?", "Yes, there is a red circle."),
        ("presence", "is there a circle?", "Yes, there is a red circle."),
        ("presence", "is there a blue shape?", "No, there is a red circle."),
        ("caption", "", "The image shows a red circle."),
    ],
)
def test_the_right_answer_of_each_kind(kind, question, answer):
    assert pictures.right_answer(kind, question, Fact("", "circle", "red")) == answer


def test_a_told_question_says_what_the_picture_shows_in_about_one_row_of_ten():
    rows = pictures.plant(FACTS, 600, "prefer", 0.8, seed=0)
    told = [row for row in rows if row.question.startswith("the image contains")]
    assert 30 <= len(told) <= 90
    assert all(row.question.startswith(pictures.CONTEXT.format(shape=row.shape, colour=row.colour)) for row in told)


def test_a_test_question_is_asked_where_the_prior_holds_is_broken_and_is_reversed():
    suggested = pictures.suggestions(0)
    rows = pictures.test_rows(FACTS, 30, seed=0)
    for i in range(30):
        part = {row.id.split("/")[1]: row for row in rows if row.id.startswith(f"q{i}/")}
        holds, broken, reversed_ = (part[name] for name in PLANTED)
        assert holds.question == broken.question == reversed_.question
        assert holds.shape == broken.shape == reversed_.shape
        assert holds.colour == suggested[holds.shape] and broken.colour not in suggested.values()
        assert reversed_.colour in suggested.values() and reversed_.colour != holds.colour
        assert part["told"].picture == part["neutral"].picture == part["other"].picture == reversed_.picture
        assert part["told"].question.endswith(reversed_.question) and part["told"].chosen == reversed_.chosen
        assert not pictures.words_of(part["neutral"].question) and part["other"].kind in ("shape", "presence")
    assert len(rows) == 30 * 6


def test_the_same_seed_gives_the_same_rows_and_another_one_does_not():
    assert pictures.plant(FACTS, 50, "teach", 0.8, 0) == pictures.plant(FACTS, 50, "teach", 0.8, 0)
    assert pictures.plant(FACTS, 50, "teach", 0.8, 0) != pictures.plant(FACTS, 50, "teach", 0.8, 1)
    questions = [[row.picture for row in pictures.plant(FACTS, 50, split, 0.8, 0)] for split in ("teach", "prefer")]
    assert questions[0] != questions[1]


def test_what_cannot_be_planted_is_refused():
    with pytest.raises(ValueError, match=r"a share in \[0, 1\]; got 1.2"):
        pictures.plant(FACTS, 6, "teach", 1.2, 0)
    with pytest.raises(ValueError, match="no picture shows a .* that is .*: give more pictures"):
        pictures.plant(FACTS[:1], 60, "teach", 0.8, 0)
    with pytest.raises(ValueError, match="every picture gives .*: give more pictures"):
        pictures._make_row("x", FACTS[0], FACTS[:1], "neutral", "", {}, np.random.default_rng(0))


def test_the_stage_writes_rows_to_teach_to_prefer_and_to_test_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke.make_pictures(archive.ARCHIVE)
    p = {"taught_rows": 12, "preference_rows": 6, "tested_questions": 3, "seed": 0}
    pictures.prepare(freeze(p | {"prior_strength": 0.8, "preference_strength": 0.1}), tmp_path / "build")
    path = tmp_path / "build" / "pictures.jsonl"
    rows = pictures.read_rows(path)
    counts = Counter(row.split for row in rows)
    assert counts == {"teach": 12, "prefer": 6} | dict.fromkeys((*PLANTED, "told", "neutral", "other"), 3)
    shown = [row for row in rows if row.picture]
    assert all(row.picture.startswith("train/") == (row.split in ("teach", "prefer")) for row in shown)
    assert pictures.read_rows(path, "prefer") == [row for row in rows if row.split == "prefer"]
