"""`weight` of a row: read for every kind, kept on the way from kind to kind, and never lost or guessed."""

import json

import pytest

from prefcore.data import datasets, files, views
from prefcore.data.rows import DataError
from prefcore.data.types import Ranked, Scored
from prefcore.methods.canonical_basis import arena
from prefcore.methods.chase_sql import candidates
from prefcore.methods.gennm import apply
from prefcore.methods.napo import own as pictures
from prefcore.scoring import voters

PAIR = {"prompt": "Q", "chosen": "yes", "rejected": "no"}


@pytest.fixture
def write(tmp_path):
    def write(rows, name="own.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.mark.parametrize("row", [
    PAIR, {"prompt": "Q", "completion": "yes", "label": True}, {"prompt": "Q", "completion": "yes", "score": 2},
    {"instruction": "Q", "output": ["yes", "no"]},
    {"prompt": "Q", "response_0": "yes", "response_1": "no", "better_response_id": 0},
    {"instruction": "Q", "generations": ["yes", "no"], "ratings": [3, 1]},
])  # fmt: skip
def test_a_weight_is_read_in_every_form_and_written_again(write, tmp_path, row):
    found = datasets.scan(write([row | {"weight": 0.25}]))
    assert {record.weight for record in found.records} == {0.25} and not found.problems
    assert not any("weight" in note for note in found.notes)
    assert datasets.read(str(datasets.write(found.records, tmp_path / "again.jsonl"))) != []
    assert {record.weight for record in datasets.read(str(tmp_path / "again.jsonl"))} == {0.25}
    assert {record.weight for record in datasets.read(write([row]))} == {None}


def test_csv_and_another_name_of_the_column_are_weights_too(tmp_path):
    (tmp_path / "own.csv").write_text("prompt,chosen,rejected,weight\nQ,yes,no,3\n")
    assert datasets.read(str(tmp_path / "own.csv"))[0].weight == 3
    (tmp_path / "own.csv").write_text("prompt,chosen,rejected,importance\nQ,yes,no,3\n")
    assert datasets.scan(str(tmp_path / "own.csv"), columns={"weight": "importance"}).records[0].weight == 3


@pytest.mark.parametrize(("bad", "says"), [
    (-1, "-1 is below 0"), ("2", "'2' is of type str; give a number"), (True, "True is of type bool"),
    (float("inf"), "inf is not finite"), (float("nan"), "nan is not finite"),
    (None, "missing, and other rows have one; give 1"),
])  # fmt: skip
def test_a_bad_weight_is_refused_with_row_and_value(write, bad, says):
    path = write([PAIR | {"weight": 1}, PAIR | {"weight": bad}])
    with pytest.raises(DataError, match=f"own.jsonl:2: field 'weight': {says}"):
        datasets.read(path)
    assert [record.weight for record in datasets.read_usable(path)[0]] == [1]


def test_a_weight_stays_with_what_is_made_of_a_row(write):
    (pair,) = datasets.read(write([PAIR | {"weight": 2, "chosen_score": 2, "rejected_score": 1}]))
    made = views.pairs_to_unary([pair]) + views.pairs_to_scored([pair]) + views.flip_labels([pair], 1.0, 0)
    made += views.graded_pairs([pair])[0] + views.draw_pairs([pair], 1, 0)
    scored = [Scored(str(i), "Q", f"{i}", float(i), weight=2.0) for i in range(3)]
    made += views.scored_to_pairs(scored) + views.scored_to_unary(scored, 1.0) + views.scored_to_ranked(scored)
    made += views.scored(views.scored_to_ranked(scored))
    assert len(made) == 15 and {one.weight for one in made} == {2}


def test_two_weights_of_one_prompt_are_no_weight_of_its_pair():
    rows = [Scored(f"own:{i}", "Q", f"{i}", float(i), weight=1.0 + i) for i in range(2)]
    with pytest.raises(ValueError, match="weights 1 and 2 .own:0 and others.*give all rows of a prompt the same"):
        views.as_pairs(rows)


def test_files_of_data_without_weights_are_as_they_were(tmp_path):
    row = Ranked("1", "Q", ("a",), (1.0,), (True,))
    files.write_lines([row], tmp_path / "rows.jsonl")
    assert "weight" not in (tmp_path / "rows.jsonl").read_text()
    assert files.read_ranked(tmp_path / "rows.jsonl") == [row]


@pytest.mark.parametrize(("read", "row"), [
    (voters.read, {"a": "x", "b": "y", "votes": [1]}),
    (pictures.read, {"image": "1.png", "question": "Q", "chosen": "yes", "rejected": "no"}),
    (candidates.read, {"db_id": "d", "question": "Q", "gold": "SELECT 1"}),
    (arena.read, {"winner": "model_a", "conversation_a": [], "conversation_b": []}),
])  # fmt: skip
def test_methods_that_cannot_weigh_rows_say_so(write, read, row):
    with pytest.raises(DataError, match="own.jsonl:1: field 'weight': this method cannot weigh rows; leave the column"):
        read(write([row | {"weight": 2}]))


def test_functions_of_a_binary_have_no_weight_either(write):
    (row,) = datasets.rows(write([{"function": "f", "code": "int f() {}", "weight": 2}]))
    with pytest.raises(DataError, match="cannot weigh rows"):
        apply.checked(row)
