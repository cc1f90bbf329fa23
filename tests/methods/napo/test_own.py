"""A user's own rows about pictures: read as they are, or refused with file, line and field."""

import io
import json

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
