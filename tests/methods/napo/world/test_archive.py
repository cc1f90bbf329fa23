"""easy-VQA's archive, here a toy one: what its questions say of a picture, and which pictures are refused."""

import io
import json
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from prefcore import smoke
from prefcore.methods.napo.world import archive
from prefcore.methods.napo.world.archive import SHAPES, Fact


@pytest.fixture
def toy_archive(tmp_path):
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


def test_facts_come_from_questions_and_answers_also_from_denied_ones(tmp_path):
    asked = [
        ["what is the blue shape?", "circle", 0],
        ["is there a red shape?", "yes", 1], ["what shape is present?", "triangle", 1],
        ["is there not a green shape?", "no", 2], ["is no rectangle present?", "no", 2],
        ["is there a teal shape?", "no", 3], ["what shape is present?", "circle", 3],
    ]  # fmt: skip
    facts = archive.read_facts(pack(tmp_path / "a.whl", asked), "train")
    assert facts == [
        Fact("train/0", "circle", "blue"), Fact("train/1", "triangle", "red"), Fact("train/2", "rectangle", "green"),
    ]  # fmt: skip  # of picture 3 the colour is not known, so it is left out


def test_answers_that_disagree_are_an_error_with_the_picture(tmp_path):
    asked = [["what is the blue shape?", "circle", 7], ["what shape is present?", "triangle", 7]]
    with pytest.raises(ValueError, match=r"picture 7 of train is said to be \['circle', 'triangle'\]"):
        archive.read_facts(pack(tmp_path / "a.whl", asked), "train")


def test_pictures_are_read_by_name_and_nothing_of_the_archive_is_unpacked(toy_archive):
    facts = archive.read_facts(toy_archive, "test")
    assert len(facts) == 48 and Counter(f.shape for f in facts) == dict.fromkeys(SHAPES, 16)
    album = archive.load_pictures(["test/0", "train/1", "test/0"], toy_archive)
    assert sorted(album) == ["test/0", "train/1"]
    assert album["test/0"].shape == (64, 64, 3) and album["test/0"].dtype == np.uint8
    assert (album["test/0"] == 0).all()  # the first one is black
    assert [path.name for path in toy_archive.parent.iterdir()] == [toy_archive.name]


def test_a_picture_that_is_not_there_is_named(toy_archive):
    for name in ("test/999", "nothing.png"):
        with pytest.raises(ValueError, match="has no .*: name a file, or a picture of the archive"):
            archive.load_pictures([name], toy_archive)


@pytest.mark.parametrize("raw", [b"", b"not a picture", png()[:45], b"GIF89a" + bytes(40)])
def test_what_is_no_whole_picture_is_refused_with_its_place(raw):
    with pytest.raises(ValueError, match="row 3: cannot be read as a picture .*; give a whole PNG"):
        archive.decode(raw, "row 3")


def test_a_picture_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 5)
    with pytest.raises(ValueError, match="here: 3 x 2 pixels are more than 5"):
        archive.decode(png(), "here")


def test_a_member_too_large_is_refused_before_it_is_read(toy_archive, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 10)
    with pytest.raises(ValueError, match=r"images/0.png .* bytes, more than 10"):
        archive.load_pictures(["test/0"], toy_archive)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_a_picture_is_height_width_and_three_bytes_whatever_its_mode(form):
    assert archive.decode(png((3, 2), "red", form), "x").tolist() == [[[255, 0, 0]] * 3] * 2
    raw = io.BytesIO()
    Image.new("L", (4, 1), 7).save(raw, "PNG")
    assert archive.decode(raw.getvalue(), "x").tolist() == [[[7, 7, 7]] * 4]
