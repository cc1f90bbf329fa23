"""Files of every format become records, and each kind of bad input one line with file, line and field."""

import csv
import gzip
import json

import datasets as hub
import pyarrow
import pytest
from pyarrow import parquet

from prefcore.data.datasets import DataError, read, read_usable
from prefcore.data.types import Pair, Scored, Unary

PAIR = {"prompt": "Q", "chosen": " good", "rejected": " bad"}
UNARY = {"prompt": "Q", "completion": " a", "label": True}
SCORED = {"prompt": "Q", "completion": " a", "score": 0.5}
DIALOGUES = {"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"}


def said(*contents):
    """Messages whose last one is the assistant's, roles alternating before it."""
    roles = ("assistant", "user")
    return [{"role": roles[(len(contents) - 1 - i) % 2], "content": content} for i, content in enumerate(contents)]


@pytest.fixture
def lines(tmp_path):
    """Writes rows (objects, or lines as they are) to data.jsonl and gives its path."""

    def write(*rows):
        path = tmp_path / "data.jsonl"
        encoded = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(encoded) + b"\n")
        return str(path)

    return write


# What is read.


def test_the_columns_of_the_first_row_give_the_kind(lines):
    assert read(lines(PAIR)) == [Pair("data:1", "Q", " good", " bad")]
    assert read(lines(UNARY)) == [Unary("data:1", "Q", " a", True)]
    assert read(lines(SCORED)) == [Scored("data:1", "Q", " a", 0.5)]


def test_ids_are_stem_and_line_and_blank_lines_count(lines):
    assert [record.id for record in read(lines(PAIR, b"", PAIR))] == ["data:1", "data:3"]


def test_optional_columns_of_pairs_are_kept_and_null_is_none(lines):
    full = PAIR | {"margin": 2, "strength": 0.75, "votes": [1, 0, 1], "chosen_score": 3, "rejected_score": -1.5}
    null = PAIR | dict.fromkeys(("margin", "strength", "votes", "chosen_score", "rejected_score"))
    first, second = read(lines(full, null))
    assert (first.margin, first.strength, first.votes) == (2.0, 0.75, (1, 0, 1))
    assert (first.chosen_score, first.rejected_score) == (3.0, -1.5)
    assert second == Pair("data:2", "Q", " good", " bad")


def test_scores_may_have_the_names_of_hub_sets(lines):
    (pair,) = read(lines(PAIR | {"score_chosen": 8.0, "score_rejected": 2.0}))
    assert (pair.chosen_score, pair.rejected_score) == (8.0, 2.0)


def test_labels_may_be_numbers_zero_and_one(lines):
    records = read(lines(*[UNARY | {"label": label} for label in (True, False, 1, 0, 1.0)]))
    assert [record.label for record in records] == [True, False, True, False, True]
    assert all(isinstance(record.label, bool) for record in records)


def test_text_dialogues_are_cut_behind_the_last_common_assistant_mark(lines):
    start = "\n\nHuman: Q\n\nAssistant: A\n\nHuman: more\n\nAssistant:"
    (pair,) = read(lines({"chosen": start + " go on", "rejected": start + " go away"}))
    assert pair == Pair("data:1", start, " go on", " go away")


def test_an_assistant_mark_inside_one_answer_stays_text(lines):
    (pair,) = read(lines(DIALOGUES | {"chosen": DIALOGUES["chosen"] + "\n\nAssistant: twice"}))
    assert pair.chosen == " good\n\nAssistant: twice"


def test_message_dialogues_share_the_leading_messages(lines):
    (pair,) = read(lines({"chosen": said("Q", "A", "more", "good"), "rejected": said("Q", "A", "more", "bad")}))
    assert pair == Pair("data:1", said("Q", "A", "more", "x")[:-1], "good", "bad")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "expected"),
    [
        (said("Q", "")[:1], "good", "bad", said("Q", "")[:1]),
        (said("Q", "")[:1], said("good"), said("bad"), said("Q", "")[:1]),
        (said("Q", "")[:1], said("Q", "good"), said("Q", "bad"), said("Q", "")[:1]),  # the prompt is repeated
        ([{"role": "system", "content": "S"}], said("Q", "good"), said("Q", "bad"),
         [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]),
        ("Q", said("good"), said("bad"), [{"role": "user", "content": "Q"}]),
        ("Q", said("Q", "good"), said("Q", "bad"), [{"role": "user", "content": "Q"}]),
    ],
)  # fmt: skip
def test_prompt_column_and_messages_join_to_one_prompt(lines, prompt, chosen, rejected, expected):
    (pair,) = read(lines({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    assert pair == Pair("data:1", expected, "good", "bad")


def test_unary_and_scored_rows_may_be_chats(lines):
    prompt = said("Q", "")[:1]
    (record,) = read(lines({"prompt": prompt, "completion": said("a"), "label": 0}))
    assert record == Unary("data:1", prompt, "a", False)
    (record,) = read(lines({"prompt": prompt, "completion": "a", "score": 1}))
    assert record == Scored("data:1", prompt, "a", 1.0)


def test_messages_keep_role_and_content_only(lines):
    message = {"role": "user", "content": "Q", "name": None, "tool_calls": None}
    assert read(lines(PAIR | {"prompt": [message]}))[0].prompt == [{"role": "user", "content": "Q"}]


@pytest.mark.parametrize("text", ["<|im_end|>\n<|im_start|>system", "</s><s>", " \t two\r\nlines\u2028 \U0001f600\n"])
def test_texts_are_unchanged(lines, text):
    (pair,) = read(lines({"prompt": text, "chosen": text + "a", "rejected": text}))
    assert (pair.prompt, pair.chosen, pair.rejected) == (text, text + "a", text)
    (pair,) = read(lines(PAIR | {"prompt": [{"role": "user", "content": text}]}))
    assert pair.prompt[0]["content"] == text


def test_other_columns_are_ignored(lines):
    assert read(lines(PAIR | {"source": 3, "messages": [], "label": "?"})) == read(lines(PAIR))


def test_limit_reads_no_further(lines):
    path = lines(PAIR, PAIR, b"broken")
    assert len(read(path, limit=2)) == 2
    with pytest.raises(DataError, match="data.jsonl:3: "):
        read(path, limit=3)
    with pytest.raises(ValueError, match="limit is 0"):
        read(path, limit=0)


# File formats.


def test_json_array_and_lines_under_any_json_suffix_give_the_same_records(tmp_path):
    for name, text in [("data.json", json.dumps([PAIR, PAIR], indent=1)), ("data.jsonl", json.dumps([PAIR, PAIR])),
                       ("data.json", f"{json.dumps(PAIR)}\n{json.dumps(PAIR)}")]:  # fmt: skip
        path = tmp_path / name
        path.write_text(text)
        assert read(str(path)) == [Pair("data:1", "Q", " good", " bad"), Pair("data:2", "Q", " good", " bad")]


def test_gzip_and_a_byte_order_mark_change_nothing(tmp_path):
    path = tmp_path / "data.part1.jsonl.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(PAIR).encode()))
    assert read(str(path)) == [Pair("data.part1:1", "Q", " good", " bad")]


def test_csv_cells_get_the_type_of_their_column(tmp_path):
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["prompt", "chosen", "rejected", "margin", "votes", "chosen_score", "rejected_score"])
        rows.writerow(["Q\nsecond line", ' "good", 1', "2", "0.5", "[1, 0]", "1", ""])
        rows.writerow(["3", "[4]", "bad", "", "", "1", "0"])
    (second,), (problem,) = read_usable(str(path))
    assert second == Pair("data:4", "3", "[4]", "bad", 1.0, 0.0)
    assert str(problem).startswith(f"{path}:2: field 'rejected_score': missing")


def test_csv_line_ends_inside_a_text_stay(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b'prompt,completion,score\r\n"Q\r\n2",a,1\r\nR,a,2\r\n')
    assert read(str(path)) == [Scored("data:2", "Q\r\n2", "a", 1.0), Scored("data:4", "R", "a", 2.0)]


def test_csv_labels_are_words_or_digits(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("prompt,completion,label\nQ,a,True\nQ,a,false\nQ,a,1\nQ,a,0\n")
    assert [record.label for record in read(str(path))] == [True, False, True, False]


def test_parquet_rows_are_numbered(tmp_path):
    path = tmp_path / "data.parquet"
    chats = [{"prompt": said("Q", "")[:1], "chosen": said("good"), "rejected": said("bad"), "votes": votes}
             for votes in ([1, 0], None)]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(chats), path)
    pair = Pair("data:1", said("Q", "")[:1], "good", "bad", votes=(1, 0))
    assert read(str(path)) == [pair, pair._replace(id="data:2", votes=None)]


def test_hub_dataset_is_loaded_by_name_and_split_without_remote_code(monkeypatch, tmp_path):
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return hub.Dataset.from_list([{"chosen": said("Q", "good"), "rejected": said("Q", "bad")}] * 2)

    monkeypatch.setattr(hub, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    pair = Pair("owner/name:1", said("Q", "")[:1], "good", "bad")
    assert read("owner/name") == [pair, pair._replace(id="owner/name:2")]
    assert read("owner/name:test[:5%]", limit=1)[0].id == "owner/name:test[:5%]:1"
    assert calls == [(("owner/name",), {"split": "train"}), (("owner/name",), {"split": "test[:5%]"})]


def test_hub_failure_is_one_line_with_the_name(monkeypatch, tmp_path):

    def load(*args, **options):
        raise ConnectionError("first\n second")

    monkeypatch.setattr(hub, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^owner/name: cannot be loaded from the hub \(first second\); give a file"):
        read("owner/name")


# Bad input: the second of three rows, or the first where that gives the kind.

BAD_ROWS = [
    # good rows around, bad row, field, what the message says
    (PAIR, {"prompt": "Q", "chosen": "a"}, "rejected", "missing"),
    (PAIR, PAIR | {"chosen": None}, "chosen", "missing"),
    (PAIR, {"chosen": "a", "rejected": "b"}, "prompt", "missing"),
    (PAIR, UNARY, "chosen", "missing"),
    (UNARY, PAIR, "completion", "missing"),
    (SCORED, UNARY, "score", "missing"),
    (DIALOGUES, DIALOGUES | {"prompt": "R"}, "prompt", "is not in the dialogues"),
    (PAIR, PAIR | {"prompt": ""}, "prompt", "is empty"),
    (PAIR, PAIR | {"chosen": " \n"}, "chosen", "is empty"),
    (UNARY, UNARY | {"completion": ""}, "completion", "is empty"),
    (PAIR, PAIR | {"prompt": []}, "prompt", "is an empty list"),
    (PAIR, PAIR | {"prompt": [{"role": "user", "content": " "}]}, "prompt", "no message"),
    (PAIR, PAIR | {"chosen": said(""), "rejected": said("b")}, "chosen", "last message is empty"),
    (DIALOGUES, DIALOGUES | {"rejected": "\n\nHuman: Q\n\nAssistant: "}, "rejected", "last assistant turn is empty"),
    (PAIR, PAIR | {"rejected": " good"}, "rejected", "identical to 'chosen'"),
    (PAIR, PAIR | {"chosen": said("a"), "rejected": said("a")}, "rejected", "identical to 'chosen'"),
    (DIALOGUES, DIALOGUES | {"rejected": DIALOGUES["chosen"]}, "rejected", "identical to 'chosen'"),
    (PAIR, PAIR | {"prompt": 3}, "prompt", "3 is of type int"),
    (PAIR, PAIR | {"chosen": {"role": "assistant"}}, "chosen", "message 1 is"),
    (UNARY, UNARY | {"completion": 1.5}, "completion", "1.5 is of type float"),
    (PAIR, PAIR | {"prompt": ["Q"]}, "prompt", "message 1 is 'Q'"),
    (PAIR, PAIR | {"prompt": [{"role": "user", "content": None}]}, "prompt", "message 1 is"),
    (PAIR, PAIR | {"margin": "wide"}, "margin", "'wide' is of type str"),
    (PAIR, PAIR | {"margin": True}, "margin", "True is of type bool"),
    (PAIR, PAIR | {"strength": 1.01}, "strength", "1.01 is no probability"),
    (PAIR, PAIR | {"votes": 3}, "votes", "give a list of 1"),
    (PAIR, PAIR | {"votes": [1, 0.5]}, "votes", "give a list of 1"),
    (PAIR, PAIR | {"votes": []}, "votes", "give a list of 1"),
    (PAIR, PAIR | {"chosen_score": 1.0}, "rejected_score", "missing beside 'chosen_score'"),
    (PAIR, PAIR | {"score_rejected": 1.0}, "score_chosen", "missing beside 'score_rejected'"),
    (SCORED, SCORED | {"score": "0.5"}, "score", "'0.5' is of type str"),
    (SCORED, SCORED | {"score": float("nan")}, "score", "nan is not finite"),
    (SCORED, SCORED | {"score": float("-inf")}, "score", "-inf is not finite"),
    (SCORED, SCORED | {"score": 10**400}, "score", "inf is not finite"),
    (PAIR, PAIR | {"chosen_score": 1, "rejected_score": float("nan")}, "rejected_score", "nan is not finite"),
    (PAIR, PAIR | {"margin": float("inf")}, "margin", "inf is not finite"),
    (UNARY, UNARY | {"label": 2}, "label", "2 is neither true nor false"),
    (UNARY, UNARY | {"label": "false"}, "label", "'false' is neither true nor false"),
    (UNARY, UNARY | {"label": float("nan")}, "label", "nan is neither true nor false"),
    (UNARY, UNARY | {"label": None}, "label", "missing"),
    (DIALOGUES, {"chosen": "a", "rejected": "b"}, "rejected", "no common prompt"),
    (DIALOGUES, {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}, "rejected", "no common prompt"),
    (DIALOGUES, {"chosen": said("Q", "a"), "rejected": said("R", "b")}, "rejected", "no common prompt"),
    (DIALOGUES, {"chosen": said("a"), "rejected": said("b")}, "prompt", "no common prompt"),
    (DIALOGUES, {"chosen": "a", "rejected": said("Q", "b")}, "rejected", "one of 'chosen' and 'rejected' is a text"),
    (DIALOGUES, {"chosen": said("Q", "A", "R", "b"), "rejected": said("Q", "B", "R", "c")}, "rejected", "at message 2"),
    (DIALOGUES, {"chosen": said("Q", "b"), "rejected": said("Q", "b", "R", "c")}, "rejected", "at message 2"),
    (DIALOGUES, DIALOGUES | {"chosen": DIALOGUES["chosen"] + "\n\nHuman: more"}, "chosen", "part before the last turn"),
    (PAIR, PAIR | {"chosen": said("a", "b")[:1]}, "chosen", "of role 'user'"),
    (PAIR, PAIR | {"prompt": said("Q", "A")}, "prompt", "ends with an assistant message"),
    (PAIR, PAIR | {"chosen": said("Q", "a"), "rejected": said("R", "b")}, "rejected", "at message 1 already"),
    (PAIR, PAIR | {"chosen": said("R", "a"), "rejected": said("R", "b")}, "prompt", "not among the messages"),
    (PAIR, b'{"prompt": "Q", "chosen": "caf\xe9", "rejected": "b"}', "chosen", "invalid UTF-8"),
    (PAIR, rb'{"prompt": "Q", "chosen": "a", "rejected": "\ud800"}', "rejected", "invalid UTF-8"),
    (PAIR, b'{"prompt": [{"role": "user", "content": "\xff"}], "chosen": "a", "rejected": "b"}', "prompt", "message 1"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "field", "what"), BAD_ROWS)
def test_a_bad_row_is_one_line_with_file_line_and_field(lines, good, bad, field, what):
    path = lines(good, bad, good)
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: field '{field}': ") and what in message and "\n" not in message
    assert message.endswith("(1 of 3 rows is bad; fix them, or leave them out with --drop-bad)")


BAD_LINES = [
    (b'{"prompt": "Q", ', "not valid JSON"),
    (b"[1, 2]", "is of type list"),
    (b'"text"', "'text' is of type str"),
    (b"\xff\xfe{\x00", "invalid UTF-8"),
    (b"[" * 100_000, "not valid JSON"),
]


@pytest.mark.parametrize(("bad", "what"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_line_that_is_no_object_is_named(lines, bad, what):
    path = lines(PAIR, bad)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2: ") and what in str(caught.value)
    assert "(1 of 2 rows is bad" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "start"),
    [
        ({"prompt": "Q", "chosen": "a"}, "field 'rejected': missing"),
        ({"prompt": "Q", "completion": "a"}, "field 'label': missing"),
        ({"completion": "a", "label": True}, "field 'prompt': missing"),
        ({"prompt": "Q", "score": 1}, "field 'completion': missing"),
        (UNARY | SCORED, "field 'label': stands beside a 'score'"),
        ({"text": "a", "id": 1}, "the columns 'text', 'id' are no preference data"),
    ],
)
def test_columns_that_are_no_kind_of_data_cannot_be_dropped(lines, row, start):
    path = lines(row, PAIR)
    for reader in (read, read_usable):
        with pytest.raises(DataError) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}:1: {start}") and "--drop-bad" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b""), ("a.json", b" \n"), ("a.json", b"[]"), ("a.csv", b""), ("a.csv", b"prompt,chosen,rejected\n"),
     ("a.jsonl.gz", gzip.compress(b"", mtime=0))],
)  # fmt: skip
def test_an_empty_file_is_said_to_be_empty(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}:1: no rows, the data are empty"):
        read(str(path))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.json", b'[{"prompt": 1},\n {"prompt" 2}]', "a.json:2: not valid JSON"),
        ("a.json", json.dumps([PAIR, PAIR | {"chosen": ""}]).encode(), "a.json:row 2: field 'chosen': is empty"),
        ("a.csv", b"prompt,completion,score\nQ,a,1\nQ,a,much\n", "a.csv:3: field 'score': 'much' is of type str"),
        ("a.csv", b"prompt,completion,score\nQ,a,nan\n", "a.csv:2: field 'score': nan is not finite"),
        ("a.csv", b"prompt,completion,score\nQ,a,\n", "a.csv:2: field 'score': missing"),
        ("a.csv", b"prompt,completion,label\nQ,a,good\n", "a.csv:2: field 'label': 'good' is neither"),
        ("a.csv", b'prompt,completion,label\n"Q\n2",a,1\nQ,,1\n', "a.csv:4: field 'completion': is empty"),
        ("a.csv", b"prompt,completion,label\nQ,caf\xe9,1\n", "a.csv:2: field 'completion': invalid UTF-8"),
        ("a.csv", b"prompt,completion,label\nQ,a, and more,1\n", "a.csv:2: 4 cells under 3 column names"),
        ("a.csv", b'prompt,completion,label\nQ,a,1\nQ,"a,1\nQ,b,0\n', "a.csv:3: not valid CSV"),
        ("a.csv", b"prompt,prompt,label\nQ,a,1\n", "a.csv:1: a column name stands twice"),
        ("a.csv", b"prompt,completion,label\n\"[{'role': 'user'}]\",a,1\n", "a.csv:2: field 'prompt': message 1 is"),
        ("a.jsonl.gz", gzip.compress(json.dumps(PAIR).encode(), mtime=0)[:-9], "a.jsonl.gz: cannot be read"),
        ("a.jsonl.gz", b"{}", "a.jsonl.gz: cannot be read"),
        ("a.txt", b"text", "a.txt: neither a .jsonl"),
    ],
)
def test_each_file_format_names_the_place_of_the_fault(tmp_path, name, content, what):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(str(path))
    assert str(caught.value).startswith(f"{tmp_path}/{what}") and "\n" not in str(caught.value)


def test_parquet_faults_name_row_and_field(tmp_path):
    path = tmp_path / "a.parquet"
    bad = pyarrow.Array.from_buffers(pyarrow.string(), 2, pyarrow.array([b"a", b"\xff"], pyarrow.binary()).buffers())
    parquet.write_table(pyarrow.table({"prompt": ["Q", "Q"], "completion": bad, "score": [1.0, 2.0]}), path)
    with pytest.raises(DataError, match="a.parquet:row 2: field 'completion': invalid UTF-8"):
        read(str(path))
    parquet.write_table(pyarrow.table({"prompt": ["Q"], "completion": ["a"], "score": [float("nan")]}), path)
    with pytest.raises(DataError, match="a.parquet:row 1: field 'score': nan is not finite"):
        read(str(path))
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="a.parquet: not valid parquet"):
        read(str(path))


def test_a_missing_file_or_a_folder_is_no_hub_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(DataError, match="^data/none.jsonl: no such file"):
        read("data/none.jsonl")
    with pytest.raises(DataError, match="^owner/name: is a folder"):
        read("owner/name")
    with pytest.raises(DataError, match="^nothing: neither a"):
        read("nothing")


# Leaving bad rows out.


def test_read_usable_gives_the_good_rows_and_every_problem(lines):
    path = lines(b"broken", PAIR, PAIR | {"rejected": " good"}, PAIR | {"chosen": ""}, PAIR)
    records, problems = read_usable(path)
    assert [record.id for record in records] == ["data:2", "data:5"]
    assert [str(problem).split(": ")[0] for problem in problems] == [f"{path}:{n}" for n in (1, 3, 4)]
    with pytest.raises(DataError, match=r"data.jsonl:1: .* \(3 of 5 rows are bad; fix them, or .* --drop-bad\)$"):
        read(path)


def test_read_usable_counts_the_limit_in_good_rows(lines):
    records, problems = read_usable(lines(PAIR, b"broken", PAIR, PAIR), limit=2)
    assert ([record.id for record in records], len(problems)) == (["data:1", "data:3"], 1)


def test_a_file_without_a_good_row_cannot_be_used(lines):
    with pytest.raises(DataError, match=r"data.jsonl:1: .*\(all 2 rows are bad\)$"):
        read_usable(lines(b"broken", b"broken"))
