"""Votes of people from files: two layouts, what stays missing, and what is refused."""

import gzip

import numpy as np
import pytest

from prefcore.data.rows import DataError
from prefcore.methods.canonical_basis import people

HEAD = "participant,group-id,n-comments,n-votes,n-agree,n-disagree,0,1,7"


def write(path, *lines):
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode())) if path.suffix == ".gz" else path.write_text(text)
    return path


@pytest.fixture
def polis(tmp_path):
    """Two conversations, one of them gzipped and with its comments."""
    write(tmp_path / "tea.participants-votes.csv.gz", HEAD, "0,1,3,2,1,1,1,,-1", "4,,0,3,1,1,0,1,-1")
    head = "timestamp,datetime,comment-id,author-id,agrees,disagrees,moderated,comment-body"
    write(tmp_path / "tea.comments.csv.gz", head,
          '1,Mon,7,0,0,2,1,"Tea, always"', "1,Mon,0,0,1,0,1,Milk first")  # fmt: skip
    write(tmp_path / "dog.participants-votes.csv", HEAD, "a,0,0,1,1,0,1,,", "b,0,0,1,0,1,,-1,")
    return tmp_path


def test_a_folder_of_polis_exports_gives_every_conversation_with_its_statements_in_words(polis):
    dog, tea = people.read(str(polis))
    assert (dog.name, tea.name) == ("dog", "tea")
    np.testing.assert_array_equal(tea.values, [[1, np.nan, -1], [0, 1, -1]])
    assert tea.people == ("0", "4") and tea.statements == ("0", "1", "7")
    assert tea.texts == ("Milk first", "", "Tea, always") and dog.texts == ("", "", "")


def test_polis_newer_names_are_read_with_their_words_and_what_has_none_is_told(tmp_path, capsys):
    write(tmp_path / "1-r9-participant-votes.csv", HEAD, "0,1,3,2,1,1,1,,-1", "4,,0,3,1,1,0,1,-1")
    write(tmp_path / "1-r9-comments.csv", "comment-id,comment-body", "0,Milk first", "7,Tea")
    write(tmp_path / "1-r9-votes.csv", "timestamp,datetime,comment-id,voter-id,vote", "1,Mon,0,0,1")
    (votes,) = people.read(str(tmp_path))
    assert votes.name == "1-r9" and votes.texts == ("Milk first", "", "Tea")
    assert "1 statements without words in the comments: 1" in capsys.readouterr().out


def test_votes_stand_under_their_statement_in_whatever_order_a_row_has_them(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"who": "ann", "tea": 1, "milk": -1}', '{"milk": 0, "who": "bob", "tea": 1}')
    (votes,) = people.read(str(path))
    assert votes.statements == ("tea", "milk") and votes.people == ("ann", "bob")
    np.testing.assert_array_equal(votes.values, [[1, -1], [1, 0]])
    with pytest.raises(DataError, match=":2: field 'milk': missing; every row needs the columns of the first"):
        people.read(str(write(tmp_path / "b.jsonl", '{"who": "ann", "milk": -1}', '{"who": "bob", "tea": 1}')))


def test_a_statement_may_be_called_like_a_count_of_polis(tmp_path):
    (votes,) = people.read(str(write(tmp_path / "own.csv", "participant,n-votes,tea", "ann,1,1", "bob,-1,0")))
    assert votes.statements == ("n-votes", "tea")


def test_a_plain_table_names_people_in_its_first_column_and_statements_in_its_head(tmp_path):
    path = write(tmp_path / "mine.csv", "who,Tea is good,label", "ann,1,0", "bob,,-1", "cyd,-1.0,1")
    (votes,) = people.read(str(path))
    assert votes.name == "mine" and votes.texts == ("Tea is good", "label")
    np.testing.assert_array_equal(votes.values, [[1, 0], [np.nan, -1], [-1, 1]])


@pytest.mark.parametrize(
    "rows, where, what",
    [
        (["ann,1,0", "bob,2,0"], ":3: field 'tea'", "'2' is no vote; give 1"),
        (["ann,1,0", "bob,1,yes"], ":3: field 'milk'", "'yes' is no vote"),
        (["ann,1,0", "bob,nan,0"], ":3: field 'tea'", "'nan' is no vote"),
        (["ann,1,0", "bob,0.5,0"], ":3: field 'tea'", "'0.5' is no vote"),
        (["ann,1,0", "ann,1,0"], ":3: field 'who'", "'ann' has a row already"),
        (["ann,1,0", ",1,0"], ":3: field 'who'", "nobody is named"),
        (["ann,1,0"], ":2: field 'participant'", "1 person; variation needs at least two"),
        (["ann,1,0", "bob,1"], ":3:", "2 cells under 3 column names"),
        ([], ":2:", "0 person"),
    ],
)
def test_a_matrix_that_cannot_be_used_is_refused_with_row_and_field(tmp_path, rows, where, what):
    path = write(tmp_path / "v.csv", "who,tea,milk", *rows)
    with pytest.raises(DataError) as error:
        people.read(str(path))
    assert f"{path}{where}" in str(error.value) and what in str(error.value)


def test_a_table_without_statements_and_a_folder_without_votes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \*participants-votes.csv"):
        people.read(str(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        people.read(str(tmp_path / "none.csv"))
    path = write(tmp_path / "x.participants-votes.csv", HEAD.removesuffix(",0,1,7"), "0,1,3,2,1,1", "1,1,3,2,1,1")
    with pytest.raises(DataError, match=":2: field 'participant': no column of votes"):
        people.read(str(path))


def matrix(rows):
    values = np.array(rows, float)
    sizes = (len(values), values.shape[1], values.shape[1])
    return people.Votes("m", values, *(tuple(map(str, range(n))) for n in sizes))


def test_people_and_statements_with_few_votes_go_until_none_is_left_and_missing_votes_stay_missing():
    """Without person 2 (one vote) statement 2 has one vote left, so it goes too."""
    n = np.nan
    votes = people.active(matrix([[1, 0, n], [0, -1, n], [n, n, 1], [-1, n, 1], [1, 1, n]]), least=2)
    assert votes.people == ("0", "1", "4") and votes.statements == ("0", "1")
    np.testing.assert_array_equal(votes.values, [[1, 0], [0, -1], [1, 1]])
    assert np.isnan(people.active(matrix([[1, 0], [n, -1], [0, 1]]), least=1).values[1, 0])


def test_a_statement_on_which_all_agree_carries_no_variation_and_goes():
    assert people.active(matrix([[1, 1, -1], [1, 0, 0], [1, -1, 1]]), least=1).statements == ("1", "2")


def test_a_matrix_of_which_nothing_is_left_is_refused_by_name():
    with pytest.raises(DataError, match="m: fewer than two people and two statements have 9 votes: lower least_votes"):
        people.active(matrix([[1, 0], [0, 1]]), least=9)
