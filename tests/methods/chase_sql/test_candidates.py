"""Candidate files and benchmark folders: what is read, and what the messages say of what cannot be."""

import gzip
import json

import pytest

from prefcore.data.rows import DataError
from prefcore.methods.chase_sql import candidates
from prefcore.methods.chase_sql.candidates import Candidate

ROW = {
    "question_id": 7, "db_id": "pets", "question": "How many pets?", "gold": "SELECT count(*) FROM pet",
    "candidates": [{"system": "one", "sql": "SELECT 1"}, {"system": "two", "sql": None}],
}  # fmt: skip


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_a_row_is_a_question_with_its_candidates_in_order(tmp_path):
    (question,), unusable = candidates.read(write(tmp_path / "c.jsonl", ROW))
    assert question[:4] == ("7", "pets", "How many pets?", "SELECT count(*) FROM pet") and unusable == []
    assert question.candidates == (Candidate("one", "SELECT 1"), Candidate("two", ""))  # nothing proposed: empty


def test_a_question_without_a_number_gets_that_of_its_row(tmp_path):
    rows = [ROW | {"question_id": None}, ROW | {"question_id": None}]
    assert [q.id for q in candidates.read(write(tmp_path / "c.jsonl", *rows))[0]] == ["0", "1"]


def test_several_answers_of_a_system_are_its_draws_in_order(tmp_path):
    row = ROW | {"candidates": [{"system": "one", "sql": f"SELECT {i}"} for i in range(3)]}
    (question,), _ = candidates.read(write(tmp_path / "c.jsonl", row))
    assert question.candidates == tuple(Candidate("one", f"SELECT {i}") for i in range(3))


def test_a_question_without_its_right_query_can_be_asked_and_not_evaluated(tmp_path):
    path = write(tmp_path / "c.jsonl", {"db_id": "pets", "question": "How many pets?"})
    (question,), _ = candidates.read(path, gold=False)
    assert (question.gold, question.candidates) == ("", ())
    with pytest.raises(DataError, match="no right query"):
        candidates.read(path)


def test_a_packed_file_and_a_folder_that_holds_it_read_the_same(tmp_path):
    plain = write(tmp_path / "plain.jsonl", ROW)
    with gzip.open(tmp_path / "candidates.jsonl.gz", "wt") as packed:
        packed.write(json.dumps(ROW) + "\n")
    packed_too = candidates.read(str(tmp_path / "candidates.jsonl.gz"))
    assert candidates.read(plain) == candidates.read(str(tmp_path)) == packed_too


def test_what_is_written_is_read_again_with_what_wrote_it_and_equal_rows_give_equal_bytes(tmp_path):
    made = (Candidate("plan", "SELECT 1", "SELEC 1"), Candidate("greedy", ""))
    rows = [candidates.Question("a", "pets", "How many?", "SELECT 1", made, "each counts")]
    for name in ("c.jsonl", "c.jsonl.gz"):
        candidates.write(tmp_path / name, rows, {"model": "m"})
        assert candidates.read(str(tmp_path / name)) == (rows, [])
        assert candidates.read_about(str(tmp_path / name)) == {"model": "m"}
    first = (tmp_path / "c.jsonl.gz").read_bytes()
    candidates.write(tmp_path / "c.jsonl.gz", rows, {"model": "m"})
    assert (tmp_path / "c.jsonl.gz").read_bytes() == first
    assert candidates.read_about(write(tmp_path / "plain.jsonl", ROW)) == {}


def test_spider_and_bird_folders_are_read_as_they_are(tmp_path):
    spider, bird = tmp_path / "spider", tmp_path / "bird"
    for folder in (spider, bird):
        (folder / "predictions").mkdir(parents=True)
    (spider / "dev.json").write_text(json.dumps([
        {"db_id": "pets", "question": "a?", "query": "SELECT 1", "sql": {"select": []}},
        {"db_id": "pets", "question": "b?", "query": "SELECT 2"},
    ]))  # fmt: skip
    (spider / "predictions" / "one.sql").write_text("SELECT 1\nSELECT 3\tpets\n")
    (bird / "dev.json").write_text(json.dumps([
        {"question_id": 4, "db_id": "pets", "question": "a?", "evidence": "hint", "SQL": "SELECT 1"},
    ]))  # fmt: skip
    (bird / "predictions" / "two.json").write_text(json.dumps({"0": "SELECT 5\t----- bird -----\tpets"}))
    questions, _ = candidates.read(str(spider))
    assert [(q.id, q.gold, [c[:2] for c in q.candidates]) for q in questions] == [
        ("0", "SELECT 1", [("one", "SELECT 1")]), ("1", "SELECT 2", [("one", "SELECT 3")]),
    ]  # fmt: skip
    (question,), _ = candidates.read(str(bird))
    assert (question.id, question.evidence, question.candidates) == ("4", "hint", (Candidate("two", "SELECT 5"),))


TWO = [{"db_id": "pets", "question": f"{i}?", "query": "SELECT 1"} for i in range(2)]
PREDICTED = {  # file -> the two queries in it
    "tabs inside.json": (
        '{"0": "SELECT\\n\\t1\\t----- bird -----\\tpets", "1": "SELECT\\t2"}', ("SELECT\n\t1", "SELECT\t2")),
    "null.json": ('{"0": null, "1": "SELECT 2"}', ("", "SELECT 2")),
    "mark.json": ('\ufeff{"0": "SELECT 1", "1": "SELECT 2"}', ("SELECT 1", "SELECT 2")),
    "mark.sql": ("\ufeffSELECT 1\nSELECT 2\n", ("SELECT 1", "SELECT 2")),
    "empty end.txt": ("SELECT 1\nSELECT 2\n\n\n", ("SELECT 1", "SELECT 2")),
    "no answer.txt": ("SELECT 1\n\n", ("SELECT 1", "")),
    "separator.sql": ("SELECT '\u2028'\nSELECT 2", ("SELECT '\u2028'", "SELECT 2")),
    "tab.sql": ("SELECT\t1\nSELECT\t2\tpets\n", ("SELECT\t1", "SELECT\t2")),
    "CAPITALS.SQL": ("SELECT 1\r\nSELECT 2\r\n", ("SELECT 1", "SELECT 2")),
}  # fmt: skip


@pytest.mark.parametrize("name", PREDICTED)
def test_a_query_is_read_whole_and_for_its_question(tmp_path, name):
    text, queries = PREDICTED[name]
    (tmp_path / "dev.json").write_text(json.dumps(TWO))
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / name).write_bytes(text.encode())
    questions, _ = candidates.read(str(tmp_path))
    assert tuple(question.candidates[0].sql for question in questions) == queries


@pytest.mark.parametrize(("text", "what"), [("{no", "not valid JSON"), ('{"0": 3, "1": ""}', "0, 3, is no text")])
def test_predictions_that_cannot_be_read_name_their_file(tmp_path, text, what):
    (tmp_path / "dev.json").write_text(json.dumps(TWO))
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "one.json").write_text(text)
    with pytest.raises(DataError, match=rf"one\.json: .*{what}"):
        candidates.read(str(tmp_path))


def test_a_benchmark_without_predictions_has_questions_without_candidates(tmp_path):
    (tmp_path / "dev.json").write_text(json.dumps([{"db_id": "a", "question": "a?", "query": "SELECT 1"}]))
    (question,), unusable = candidates.read(str(tmp_path))
    assert question.candidates == () and unusable == []


BAD = {
    "no question": ({"question": ""}, "field 'question'"),
    "no gold": ({"gold": None}, "field 'gold': no right query, which is called gold, query or SQL; the row has"),
    "draft is no text": ({"candidates": [{"system": "a", "sql": "SELECT 1", "draft": 1}]}, "the draft of a, 1"),
    "database is no text": ({"db_id": 3}, "field 'db_id'"),
    "candidates are no list": ({"candidates": "SELECT 1"}, "field 'candidates'"),
    "no system": ({"candidates": [{"sql": "SELECT 1"}]}, "does not say which system"),
    "SQL is no text": ({"candidates": [{"system": "a", "sql": 4}]}, "the SQL of a, 4, is no text"),
    "id is a list": ({"question_id": []}, "field 'question_id'"),
    "twice": ({}, "'7' stands twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_with_its_place_and_the_rest_is_read(tmp_path, name):
    change, message = BAD[name]
    questions, (bad,) = candidates.read(write(tmp_path / "c.jsonl", ROW, ROW | change, ROW | {"question_id": 8}))
    assert [q.id for q in questions] == ["7", "8"]
    assert bad.what == "unreadable row" and "c.jsonl:2" in bad.detail and message in bad.detail


def test_a_line_that_is_no_json_is_named(tmp_path):
    questions, (bad,) = candidates.read(write(tmp_path / "c.jsonl", ROW, "{no"))
    assert len(questions) == 1 and "c.jsonl:2: not valid JSON" in bad.detail


def test_without_any_question_reading_stops(tmp_path):
    with pytest.raises(DataError, match=r"c\.jsonl: no question that can be read \(.*c\.jsonl:1"):
        candidates.read(write(tmp_path / "c.jsonl", {"a": 1}))
    with pytest.raises(DataError, match="holds neither"):
        candidates.read(str(tmp_path))


def test_predictions_of_another_length_are_refused(tmp_path):
    (tmp_path / "dev.json").write_text(json.dumps([{"db_id": "a", "question": "a?", "query": "SELECT 1"}]))
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "one.sql").write_text("SELECT 1\nSELECT 2\n")
    with pytest.raises(DataError, match="one has 2 queries for 1 questions"):
        candidates.read(str(tmp_path))


def test_databases_lie_beside_the_rows_or_where_they_are_named(tmp_path):
    source = write(tmp_path / "c.jsonl", ROW)
    with pytest.raises(DataError, match="database: no such folder of databases"):
        candidates.find_databases(source)
    (tmp_path / "database").mkdir()
    assert candidates.find_databases(source) == candidates.find_databases(str(tmp_path)) == tmp_path / "database"
    with pytest.raises(DataError, match="elsewhere: no such folder"):
        candidates.find_databases(source, str(tmp_path / "elsewhere"))


def test_a_database_is_found_by_its_plain_name_only(tmp_path):
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "pets.sqlite").touch()
    (tmp_path / "secret.sqlite").touch()
    assert candidates.database_path(tmp_path, "pets").name == "pets.sqlite"
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "BIG.SQLITE").touch()
    assert candidates.database_path(tmp_path, "big").name == "BIG.SQLITE"
    with pytest.raises(FileNotFoundError, match="none.sqlite: there is no such"):
        candidates.database_path(tmp_path, "none")
    for name in ("../secret", "pets/../../secret", "/etc/passwd", "", ".."):
        with pytest.raises(ValueError, match="is no name of a database"):
            candidates.database_path(tmp_path / "pets", name)
