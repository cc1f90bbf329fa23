"""Voted pairs of a file: every vote counts once, for the pair and the person that it is of, or the row is named."""

import json

import pytest

from prefcore.data.rows import DataError
from prefcore.scoring import voters

PEOPLE = [{"voter": "ann", "vote": "a"}, {"voter": "bob", "vote": "b"}]


@pytest.fixture
def pairs(tmp_path):
    """Writes n pairs with these other columns, and further rows behind them; gives the path."""

    def write(*rows, n=20, **more):
        more = more or {"votes": [1, 0, 1]}
        made = [{"prompt": f"topic {i}", "a": f"good {i}", "b": f"bad {i}", **more} for i in range(n)]
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in [*made, *rows]))
        return str(path)

    return write


def by_id(found, id):
    return next(pair for pair in found if pair.id == id)


@pytest.mark.parametrize(
    ("more", "cast", "names"),
    [
        ({"votes": ["a", "tie", 0]}, (1, 0.5, 0), ()),
        ({"votes": PEOPLE}, (1, 0), ("ann", "bob")),
        ({"votes": [{"w": "ann", "v": "a1"}, {"w": 7, "v": "equal"}]}, (1, 0.5), ("ann", "7")),
        ({"votes": [{"voter": None, "vote": "a"}, {"vote": "b"}, {"voter": "", "vote": "b"}]}, (1, 0, 0), ()),
        ({"vote": "b", "voter": "ann"}, (0,), ("ann",)),
        ({"votes_a": 2, "votes_b": 1, "votes_tie": 1}, (1, 1, 0, 0.5), ()),
    ],
)
def test_votes_are_read_in_the_forms_that_people_have(pairs, more, cast, names):
    pair = by_id(voters.read(pairs(**more)), "data:1")
    assert pair.votes == cast and pair.voters == names and pair.share == pytest.approx(sum(cast) / len(cast))


def test_rows_of_one_pair_are_joined_in_whichever_order_they_show_it(pairs, capsys):
    more = [{"prompt": "topic 0", "a": "good 0", "b": "bad 0", "votes": [1]},
            {"prompt": "topic 0", "a": "bad 0", "b": "good 0", "votes": [0, 0.5]}]  # fmt: skip
    found = voters.read(pairs(*more, votes=[0]))
    assert len(found) == 20 and by_id(found, "data:1").votes == (0, 1, 1, 0.5)
    assert by_id(found, "data:1").share == 0.625
    assert "22 rows hold votes on 20 pairs; those of a pair are joined" in capsys.readouterr().out


def test_the_id_zero_is_an_id(pairs):
    assert {"0", "data:2"} <= {pair.id for pair in voters.read(pairs({"id": 0, "a": "x", "b": "y", "votes": [1]}))}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"votes": [*PEOPLE, {"voter": None, "vote": "a"}]}, "some votes name their voter and some do not"),
        ({"votes": [2]}, "2 is no vote"),
        ({"votes": []}, "[] has no vote"),
        ({"votes_a": -1, "votes_b": 3}, "field 'votes_a': -1 is no count of votes"),
        ({"rating": 3}, "field 'votes': there is no such column; the row has 'prompt', 'a', 'b', 'rating'"),
        ({"a": '[{"role": "assistant", "content": "x"}]', "votes": [1]}, "holds chat messages"),
    ],
)
def test_a_row_whose_votes_are_unclear_is_named(pairs, row, what):
    with pytest.raises(DataError) as caught:
        voters.read(pairs({"prompt": "t", "a": "x", "b": "y", **row}))
    assert "data.jsonl:21: " in str(caught.value) and what in str(caught.value)


def test_columns_of_another_kind_are_named_as_such(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("item,rater,response\n1,296,Hello\n")
    with pytest.raises(DataError, match="field 'a': there is no such column; the row has 'item', 'rater', 'response'"):
        voters.read(str(path))


def test_too_few_pairs_and_nothing_but_ties_are_refused_at_once(pairs):
    assert len(voters.read_enough(pairs())) == 20
    with pytest.raises(DataError, match="3 pairs in 3 groups that share no text leave none for .*give at least 10"):
        voters.read_enough(pairs(n=3))
    with pytest.raises(DataError, match="all votes on all 20 pairs are ties"):
        voters.read_enough(pairs(votes=[0.5, "tie"]))


def test_what_most_votes_prefer_is_chosen_and_half_against_half_is_left_out(pairs):
    path = pairs({"a": "x", "b": "y", "votes": [0, 0, 0, 1]}, {"a": "u", "b": "v", "votes": [1, 0]}, n=1, votes=[1, 1])
    assert voters.are_voted(path)
    made, ties = voters.preferred(voters.read(path))
    said = {(pair.prompt, pair.chosen, pair.rejected): (pair.strength, pair.margin) for pair in made}
    assert said == {("topic 0", "good 0", "bad 0"): (1.0, 1.0), ("", "y", "x"): (0.75, 0.5)} and ties == 1


def test_preferences_with_votes_and_files_that_cannot_be_read_are_no_voted_pairs(tmp_path):
    path = tmp_path / "own.jsonl"
    for row in ({"prompt": "p", "chosen": "a", "rejected": "b", "votes": [1, 0]}, {"a": "x", "b": "y"}):
        path.write_text(json.dumps(row))
        assert not voters.are_voted(str(path))
    path.write_text("{")
    assert not voters.are_voted(str(path)) and not voters.are_voted(str(tmp_path))
