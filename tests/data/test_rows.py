"""Every file that people have: the same two rows come out of it, or one line says what it is."""

import bz2
import gzip
import json
import lzma
import zipfile
from datetime import datetime

import datasets as hub
import pyarrow
import pytest
from pyarrow import parquet

from prefcore.data.rows import DataError, rows, usable_rows

TWO = [{"prompt": "Q", "chosen": "good", "rejected": "bad"}, {"prompt": "R", "chosen": "fine", "rejected": "poor"}]
LINES = "".join(json.dumps(row) + "\n" for row in TWO)
TABLE = "prompt,chosen,rejected\nQ,good,bad\nR,fine,poor\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
FILES = {
    "a.ndjson": LINES.encode(),
    "A.JSONL": LINES.encode(),
    "a.jsonl.bz2": bz2.compress(LINES.encode()),
    "a.jsonl.xz": lzma.compress(LINES.encode()),
    "a.csv.gz": gzip.compress(TABLE.encode()),
    "marked_twice.jsonl": "".join("\ufeff" + line for line in LINES.splitlines(keepends=True)).encode(),
    "array.json": json.dumps(TWO).encode(),
    "over_lines.jsonl": "\n".join(json.dumps(row, indent=1) for row in TWO).encode(),
    "under_a_key.json": json.dumps({"version": 1, "data": TWO}, indent=1).encode(),
    "of_a_server.json": json.dumps({"rows": [{"row_idx": i, "row": row} for i, row in enumerate(TWO)]}).encode(),
    "by_column.json": json.dumps({name: {str(i): row[name] for i, row in enumerate(TWO)} for name in TWO[0]}).encode(),
    "in_lists.json": json.dumps({name: [row[name] for row in TWO] for name in TWO[0]}).encode(),
    "split.json": json.dumps(
        {"columns": [*TWO[0]], "index": [0, 1], "data": [[*row.values()] for row in TWO]}
    ).encode(),
    "semicolons.csv": TABLE.replace(",", ";").encode(),
    "tabs.tsv": TABLE.replace(",", "\t").encode(),
    "told.csv": b"sep=;\r\n" + TABLE.replace(",", ";").encode(),
    "spaces.csv": TABLE.replace(",chosen,", ", chosen ,").encode(),
    "utf16.csv": TABLE.encode("utf-16"),
    "utf16.jsonl": LINES.encode("utf-16"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_its_rows_whatever_its_form(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert [row.values for row in rows(str(path))] == TWO


@pytest.mark.parametrize("text", [json.dumps(TWO[:1]), json.dumps(TWO[0]), f"\n{json.dumps(TWO[0])}\n"])
def test_one_row_is_a_row_in_an_array_and_alone(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert [row.values for row in rows(str(tmp_path / "a.json"))] == TWO[:1]


def test_a_packed_file_is_unpacked_by_its_suffix(tmp_path):
    with pyarrow.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as out:
        out.write(LINES.encode())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as box:
        box.writestr("rows.jsonl", LINES)
    for name in ("a.jsonl.zst", "a.zip"):
        assert [row.values for row in rows(str(tmp_path / name))] == TWO
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as box:
        box.writestr("rows.jsonl", LINES)
        box.writestr("read.me", "")
    with pytest.raises(DataError, match="holds 2 files .* unpack it and name one"):
        list(rows(str(tmp_path / "b.zip")))


def test_a_cell_may_hold_a_whole_book(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TABLE + f"S,{'long ' * 50_000},short\n", encoding="utf-8")
    assert len([*rows(str(path))][2].values["chosen"]) == 250_000


REFUSED = {
    "pointer.jsonl": (POINTER, "is a pointer of Git LFS"),
    "pointer.parquet": (POINTER, "is a pointer of Git LFS"),
    "page.jsonl": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", ":1: is a web page"),
    "twice.jsonl": (b'{"prompt": "Q", "chosen": "a", "chosen": "b"}\n', "the key 'chosen' stands twice"),
    "book.xlsx": (b"PK", "neither a .jsonl"),
    "torn.jsonl.zst": (b"no zstd", "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_looks_like_data_is_one_line_with_the_file(tmp_path, name):
    content, what = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(usable_rows(str(path)))
    assert str(caught.value).startswith(str(path)) and what in str(caught.value) and "\n" not in str(caught.value)


# --- several files --------------------------------------------------------------------------------------------------


def test_parts_of_one_set_are_read_in_order_and_a_missing_part_is_noticed(tmp_path):
    for i, row in enumerate(TWO):
        (tmp_path / f"train-0000{i}-of-00002.jsonl").write_text(json.dumps(row))
    assert [row.values for row in rows(str(tmp_path))] == TWO
    assert [row.values for row in rows(str(tmp_path / "train-*"))] == TWO
    (tmp_path / "train-00000-of-00002.jsonl").unlink()
    with pytest.raises(DataError, match="1 of 2 parts are here; fetch the others"):
        list(rows(str(tmp_path)))


def test_a_folder_of_several_sets_is_not_mixed(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(LINES)
    with pytest.raises(DataError, match=r"holds several data sets \(test, train\); name one file, or a pattern"):
        list(rows(str(tmp_path)))


def test_a_folder_that_the_library_has_saved_is_read(tmp_path):
    hub.DatasetDict({"train_prefs": hub.Dataset.from_list(TWO)}).save_to_disk(tmp_path / "one")
    assert [row.values for row in rows(str(tmp_path / "one"))] == TWO
    assert [row.values for row in rows(str(tmp_path / "one/train_prefs"))] == TWO
    hub.DatasetDict({name: hub.Dataset.from_list(TWO) for name in ("a", "b")}).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match="holds the splits a, b; name one, as .*/two/a"):
        list(rows(str(tmp_path / "two")))
    hub.Dataset.from_list(TWO).select([1]).save_to_disk(tmp_path / "chosen")
    assert [row.values for row in rows(str(tmp_path / "chosen"))] == TWO[1:]
    state = tmp_path / "chosen/state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(DataError, match="flatten_indices"):
        list(rows(str(tmp_path / "chosen")))


def test_a_hub_set_has_configurations_splits_and_folders(monkeypatch, tmp_path):
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        if "folder" in args:
            raise ValueError("BuilderConfig 'folder' not found")
        return hub.Dataset.from_list(TWO)

    monkeypatch.setattr(hub, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    assert [row.values for row in rows("owner/name@axis:test")] == TWO
    assert [row.values for row in rows("owner/name@folder")] == TWO
    assert calls == [(("owner/name", "axis"), {"split": "test"}), (("owner/name", "folder"), {"split": "train"}),
                     (("owner/name",), {"data_dir": "folder", "split": "train"})]  # fmt: skip


def test_a_date_beyond_pythons_stops_only_those_who_read_it(tmp_path):
    parquet.write_table(pyarrow.table({"prompt": ["Q"], "when": pyarrow.array([2**55], pyarrow.timestamp("ms"))}),
                        tmp_path / "a.parquet")  # fmt: skip
    (row,) = rows(str(tmp_path / "a.parquet"))
    assert row.values["prompt"] == "Q" and not isinstance(row.values["when"], datetime)
