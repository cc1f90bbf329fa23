"""Chatbot Arena's votes: which are kept, why the others are left out, and what is no vote at all."""

import json

import pytest

from prefcore.data import datasets
from prefcore.data.rows import DataError
from prefcore.methods.canonical_basis import arena


def talk(question, answer, *more):
    parts = [("user", question), ("assistant", answer), *more]
    return [{"role": role, "content": content} for role, content in parts]


def row(winner="model_a", **changes):
    return {
        "question_id": "q", "model_a": "ant", "model_b": "bee", "winner": winner, "judge": "ann", "language": "English",
        "conversation_a": talk("Why?", "So."), "conversation_b": talk("Why?", "Because."),
    } | changes  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "votes.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_votes_are_read_and_what_is_left_out_is_counted(write):
    longer = talk("Why?", "So.", ("user", "And?"), ("assistant", "No."))
    found = arena.read(write(
        row(), row("model_b"), row("tie"), row("tie (bothbad)"), row(language="German"),
        row(conversation_a=longer), row(conversation_b=talk("Why?", "So.")),
    ))  # fmt: skip
    assert found.left_out == {"ties": 2, "other languages": 1, "several turns": 1, "equal answers": 1}
    first, second = found.votes
    assert first == arena.Vote("q", "ann", "Why?", "So.", "Because.", ("ant", "bee"), True)
    assert second.first_wins is False and second.as_pair() == arena.Chosen("Why?", "Because.", "So.")


def test_a_question_of_its_own_goes_before_that_of_the_conversation_and_the_rest_may_be_missing(write):
    bare = {name: value for name, value in row().items() if name.startswith(("winner", "conversation"))}
    system = [{"role": "system", "content": "Be kind."}]
    found = arena.read(
        write(bare | {"question": "Why, then?"}, bare | {"conversation_a": system + talk("Why?", "So.")})
    )
    assert [vote.prompt for vote in found.votes] == ["Why, then?", "Why?"]
    assert found.votes[0].models == ("model a", "model b") and found.votes[0].id == "votes:1"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"winner": "model_c"}, r"votes.jsonl:2: field 'winner': 'model_c' is none of model_a, a, model_b"),
        ({"conversation_b": "Because."}, "field 'conversation_b': 'Because.' is of type str; give a list of messages"),
        ({"conversation_a": talk("Why?", "So.")[1:]}, "field 'conversation_a': begins with .*; give user, then"),
        ({"conversation_a": talk("Why?", "  ")}, "field 'conversation_a': is empty; give a text"),
        ({"question": ""}, "field 'question': is empty"),
    ],
)
def test_what_is_no_vote_is_named_with_its_place(write, changes, message):
    with pytest.raises(DataError, match=message):
        arena.read(write(row(), row(**changes)))


def test_ties_alone_are_too_little(write):
    with pytest.raises(DataError, match=r"1 usable vote\(s\), left out {'ties': 2}; bring more"):
        arena.read(write(row("tie"), row(), row("tie")))


def test_the_pairs_of_votes_are_rows_that_any_chapter_trains_on(write, tmp_path):
    from prefcore.data import files

    votes = arena.read(write(row(), row("model_b"))).votes
    path = files.write_lines([vote.as_pair() for vote in votes], tmp_path / "pairs.jsonl")
    pairs = datasets.read(str(path))
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        ("Why?", "So.", "Because."), ("Why?", "Because.", "So."),
    ]  # fmt: skip
