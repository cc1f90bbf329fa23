"""Pictures with questions, the planted prior over them, and what is refused; the archive is a toy one made here."""

import io
import json
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from prefcore import smoke
from prefcore.data.rows import DataError
from prefcore.methods.napo.world import pictures
from prefcore.methods.napo.world.pictures import COLOURS, PLANTED, SHAPES, Fact

FACTS = [Fact(f"train/{i}", SHAPES[i % 3], COLOURS[i // 3 % 8]) for i in range(48)]


@pytest.fixture
def archive(tmp_path):
    smoke.make_pictures(tmp_path / "pictures.whl")
    return tmp_path / "pictures.whl"


def png(size=(3, 2), colour="red", form="PNG"):
    raw = io.BytesIO()
    Image.new("RGB", size, colour).save(raw, form)
    return raw.getvalue()


def pack(path, asked, images=()):
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("easy_vqa/data/train/questions.json", json.dumps(asked))
        for name, raw in images:
            box.writestr(f"easy_vqa/data/train/images/{name}.png", raw)
    return path


# --- the archive ------------------------------------------------------------------------------------------------


def test_facts_come_from_questions_and_answers_also_from_denied_ones(tmp_path):
    asked = [
        ["what is the blue shape?", "circle", 0],
        ["is there a red shape?", "yes", 1], ["what shape is present?", "triangle", 1],
        ["is there not a green shape?", "no", 2], ["is no rectangle present?", "no", 2],
        ["is there a teal shape?", "no", 3], ["what shape is present?", "circle", 3],
    ]  # fmt: skip
    facts = pictures.read_facts(pack(tmp_path / "a.whl", asked), "train")
    assert facts == [
        Fact("train/0", "circle", "blue"), Fact("train/1", "triangle", "red"), Fact("train/2", "rectangle", "green"),
    ]  # fmt: skip  # of picture 3 the colour is not known, so it is left out


def test_answers_that_disagree_are_an_error_with_the_picture(tmp_path):
    asked = [["what is the blue shape?", "circle", 7], ["what shape is present?", "triangle", 7]]
    with pytest.raises(ValueError, match=r"picture 7 of train is said to be \['circle', 'triangle'\]"):
        pictures.read_facts(pack(tmp_path / "a.whl", asked), "train")


def test_pictures_are_read_by_name_and_nothing_of_the_archive_is_unpacked(archive):
    facts = pictures.read_facts(archive, "test")
    assert len(facts) == 48 and Counter(f.shape for f in facts) == dict.fromkeys(SHAPES, 16)
    album = pictures.load(["test/0", "train/1", "test/0"], archive)
    assert sorted(album) == ["test/0", "train/1"]
    assert album["test/0"].shape == (64, 64, 3) and album["test/0"].dtype == np.uint8
    assert (album["test/0"] == 0).all()  # the first one is black
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_a_picture_that_is_not_there_is_named(archive):
    for name in ("test/999", "nothing.png"):
        with pytest.raises(ValueError, match="has no .*: name a file, or a picture of the archive"):
            pictures.load([name], archive)


@pytest.mark.parametrize("raw", [b"", b"not a picture", png()[:45], b"GIF89a" + bytes(40)])
def test_what_is_no_whole_picture_is_refused_with_its_place(raw):
    with pytest.raises(ValueError, match="row 3: cannot be read as a picture .*; give a whole PNG"):
        pictures.decode(raw, "row 3")


def test_a_picture_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 5)
    with pytest.raises(ValueError, match="here: 3 x 2 pixels are more than 5"):
        pictures.decode(png(), "here")


def test_a_member_too_large_is_refused_before_it_is_read(archive, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 10)
    with pytest.raises(ValueError, match=r"images/0.png .* bytes, more than 10"):
        pictures.load(["test/0"], archive)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_a_picture_is_height_width_and_three_bytes_whatever_its_mode(form):
    assert pictures.decode(png((3, 2), "red", form), "x").tolist() == [[[255, 0, 0]] * 3] * 2
    raw = io.BytesIO()
    Image.new("L", (4, 1), 7).save(raw, "PNG")
    assert pictures.decode(raw.getvalue(), "x").tolist() == [[[7, 7, 7]] * 4]


# --- the planted prior --------------------------------------------------------------------------------------------


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
    assert all(row.question.startswith(pictures.TOLD.format(shape=row.shape, colour=row.colour)) for row in told)


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
        pictures._ask("x", FACTS[0], FACTS[:1], "neutral", "", {}, np.random.default_rng(0))


def test_the_stage_writes_rows_to_teach_to_prefer_and_to_test_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke.make_pictures(pictures.ARCHIVE)
    p = {"taught_rows": 12, "preference_rows": 6, "tested_questions": 3, "seed": 0}
    pictures.prepare(p | {"prior_strength": 0.8, "preference_strength": 0.1}, tmp_path / "build")
    path = tmp_path / "build" / "pictures.jsonl"
    rows = pictures.read_rows(path)
    counts = Counter(row.split for row in rows)
    assert counts == {"teach": 12, "prefer": 6} | dict.fromkeys((*PLANTED, "told", "neutral", "other"), 3)
    shown = [row for row in rows if row.picture]
    assert all(row.picture.startswith("train/") == (row.split in ("teach", "prefer")) for row in shown)
    assert pictures.read_rows(path, "prefer") == [row for row in rows if row.split == "prefer"]


# --- your own pictures ----------------------------------------------------------------------------------------------

GOOD = {"image": "a.png", "question": "what <image> is it?", "chosen": "It is red.", "rejected": "It is blue."}


def own(folder, *changes):
    (folder / "a.png").write_bytes(png())
    (folder / "broken.png").write_bytes(png()[:45])
    lines = [json.dumps({k: v for k, v in (GOOD | change).items() if v is not None}) for change in ({}, *changes)]
    (folder / "own.jsonl").write_text("\n".join(lines))
    return str(folder / "own.jsonl")


def test_own_rows_keep_their_texts_and_find_pictures_from_the_files_folder(tmp_path):
    rows = pictures.read_own(own(tmp_path, {"image": str(tmp_path / "a.png")}))
    assert [row.picture for row in rows] == [str(tmp_path / "a.png")] * 2
    assert (rows[0].question, rows[0].chosen, rows[0].rejected) == (GOOD["question"], GOOD["chosen"], GOOD["rejected"])
    assert rows[0].id == "own:1" and pictures.load([rows[0].picture])[rows[0].picture].shape == (2, 3, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": None}, "own.jsonl:2: field 'image': a question without a picture (None)"),
        ({"image": ""}, "own.jsonl:2: field 'image': a question without a picture ('')"),
        ({"image": "gone.png"}, "own.jsonl:2: field 'image': no such file: gone.png"),
        ({"image": "broken.png"}, "own.jsonl:2: field 'image': broken.png: cannot be read as a picture"),
        ({"image": "own.jsonl"}, "own.jsonl:2: field 'image': own.jsonl: cannot be read as a picture"),
        ({"question": " "}, "own.jsonl:2: field 'question': no text (' ')"),
        ({"chosen": 3}, "own.jsonl:2: field 'chosen': no text (3)"),
        ({"rejected": "It is red."}, "own.jsonl:2: field 'rejected': the same as chosen"),
    ],
)
def test_a_bad_own_row_is_an_error_with_file_line_and_field(tmp_path, change, message):
    with pytest.raises(DataError) as error:
        pictures.read_own(own(tmp_path, change))
    assert message in str(error.value)


def test_a_file_without_rows_or_with_a_broken_line_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows; give at least one with image"):
        pictures.read_own(str(tmp_path / "empty.jsonl"))
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match="bad.jsonl:1"):
        pictures.read_own(str(tmp_path / "bad.jsonl"))
