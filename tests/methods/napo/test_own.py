"""A user's own rows about pictures: read as they are, or refused with file, line and field."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from prefcore.data.rows import DataError
from prefcore.methods.napo import own
from prefcore.methods.napo.world import archive

GOOD = {"image": "a.png", "question": "what <image> is it?", "chosen": "It is red.", "rejected": "It is blue."}


def png(size=(3, 2), colour="red", form="PNG"):
    raw = io.BytesIO()
    Image.new("RGB", size, colour).save(raw, form)
    return raw.getvalue()


def write_own(folder, *changes):
    (folder / "a.png").write_bytes(png())
    (folder / "broken.png").write_bytes(png()[:45])
    lines = [json.dumps({k: v for k, v in (GOOD | change).items() if v is not None}) for change in ({}, *changes)]
    (folder / "own.jsonl").write_text("\n".join(lines))
    return str(folder / "own.jsonl")


def test_own_rows_keep_their_texts_and_find_pictures_from_the_files_folder(tmp_path):
    rows = own.read(write_own(tmp_path, {"image": str(tmp_path / "a.png")}))
    assert [row.picture for row in rows] == [str(tmp_path / "a.png")] * 2
    assert (rows[0].question, rows[0].chosen, rows[0].rejected) == (GOOD["question"], GOOD["chosen"], GOOD["rejected"])
    assert rows[0].id == "own:1" and archive.load_pictures([rows[0].picture])[rows[0].picture].shape == (2, 3, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": None}, "own.jsonl:2: field 'image': a question without a picture (None)"),
        ({"image": ""}, "own.jsonl:2: field 'image': a question without a picture ('')"),
        ({"image": "gone.png"}, "own.jsonl:2: field 'image': no such file: gone.png"),
        ({"image": "broken.png"}, "own.jsonl:2: field 'image': broken.png: cannot be read as a picture"),
        ({"image": "own.jsonl"}, "own.jsonl:2: field 'image': own.jsonl: cannot be read as a picture"),
        ({"image": ["a.png", "b.png"]}, "own.jsonl:2: field 'image': 2 pictures; a question is about one here"),
        ({"image": "https://example.org/a.png"}, "is an address, and none is fetched; save the picture, give its path"),
        ({"image": {"bytes": "x"}}, "own.jsonl:2: field 'image': holds the picture itself; save it as a file"),
        ({"image": "a\\b.png"}, "paths count from the data file's folder (and \\ is no / here)"),
        ({"question": " "}, "own.jsonl:2: field 'question': no text (' ')"),
        ({"chosen": 3}, "own.jsonl:2: field 'chosen': no text (3)"),
        ({"rejected": "It is red."}, "own.jsonl:2: field 'rejected': the same as chosen"),
    ],
)
def test_a_bad_own_row_is_an_error_with_file_line_and_field(tmp_path, change, message):
    with pytest.raises(DataError) as error:
        own.read(write_own(tmp_path, change))
    assert message in str(error.value)


def test_a_file_without_rows_or_with_a_broken_line_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows; give at least one with image"):
        own.read(str(tmp_path / "empty.jsonl"))
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match="bad.jsonl:1"):
        own.read(str(tmp_path / "bad.jsonl"))


def test_one_picture_in_a_list_is_that_picture(tmp_path):
    path = write_own(tmp_path, {"image": ["a.png"]}, {"image": None, "images": ["a.png"]})
    assert [row.picture for row in own.read(path)] == [str(tmp_path / "a.png")] * 3


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "no bytes"), (b"GIF89a", "none of their marks"),
     (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS")],
)  # fmt: skip
def test_a_file_that_is_no_picture_is_named_without_an_address_of_memory(tmp_path, content, what):
    path = write_own(tmp_path, {"image": "c.png"})
    (tmp_path / "c.png").write_bytes(content)
    with pytest.raises(DataError) as caught:
        own.read(path)
    said = str(caught.value)
    assert what in said and "own.jsonl:2: field 'image': " in said and "0x" not in said


def saved(picture, **how):
    raw = io.BytesIO()
    picture.save(raw, "PNG", **how)
    return archive.decode(raw.getvalue(), "a.png")


def test_a_picture_is_seen_as_a_viewer_shows_it():
    grey = np.full((2, 3), 257 * 100, dtype=np.uint16)
    np.testing.assert_array_equal(saved(Image.fromarray(grey)), np.full((2, 3, 3), 100))
    clear = Image.new("RGBA", (3, 2), (0, 0, 0, 0))
    clear.putpixel((0, 0), (200, 0, 0, 255))
    seen = saved(clear)
    assert seen[0, 0].tolist() == [200, 0, 0] and seen[1, 2].tolist() == [255, 255, 255]
    turned = Image.new("RGB", (3, 2), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright
    assert saved(turned, exif=exif).shape == (3, 2, 3)
    with pytest.raises(ValueError, match="holds 2 pictures one after another"):
        saved(Image.new("RGB", (3, 2)), save_all=True, append_images=[Image.new("RGB", (3, 2), "red")])
