"""Chatbot Arena's votes: a person's question, the answers of two models, and which of them the person chose.

Rows of `conversation_a`, `conversation_b` (lists of messages with role and content), `winner` (model_a, model_b, tie,
or tie (bothbad)), and where they have them `question` (else the first user message), `model_a`, `model_b`, `judge`,
`language` and `question_id`. As third parties tell of arXiv 2503.24150, kept are the English votes on a single turn
without ties; how many are left out, and why, is counted.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from prefcore.data.rows import DataError, Row, fault, read_text, refuse_weight, short, typed, usable_rows

WINNERS = {"model_a": True, "a": True, "model_b": False, "b": False}
TIES = {"tie", "tie (bothbad)", "both_bad", "bothbad"}
MARK = "conversation_a"  # the column by which such a file is known


class Vote(NamedTuple):
    """One choice: answers `first` and `second` of two models to a prompt, by a person ("" where nobody is named)."""

    id: str
    person: str
    prompt: str
    first: str
    second: str
    models: tuple[str, str]
    first_wins: bool

    def as_pair(self) -> "Chosen":
        """The vote as a row to train on."""
        won, lost = (self.first, self.second) if self.first_wins else (self.second, self.first)
        return Chosen(self.prompt, won, lost)


class Chosen(NamedTuple):
    """A prompt with the answer that was chosen and the one that was not."""

    prompt: str
    chosen: str
    rejected: str


class Arena(NamedTuple):
    """votes that can be used, and why -> how many of the others there were."""

    votes: list[Vote]
    left_out: Mapping[str, int]


def is_arena(row: Row) -> bool:
    """Whether a file's row is one of Chatbot Arena's."""
    return MARK in row.values


def read(source: str) -> Arena:
    """All votes of a file; DataError for a row that is none, and where fewer than two can be used."""
    votes, left_out = [], Counter()
    for row in usable_rows(source):
        why, vote = _vote(row)
        if vote is None:
            left_out[why] += 1
        else:
            votes.append(vote)
    if len(votes) < 2:
        raise DataError(f"{source}: {len(votes)} usable vote(s), left out {dict(left_out)}; bring more")
    return Arena(votes, dict(left_out))


def _vote(row: Row) -> tuple[str, Vote | None]:
    """("", the vote) or (why it is left out, None)."""
    refuse_weight(row)
    winner = row.values.get("winner")
    if winner not in WINNERS and winner not in TIES:
        raise fault(row, "winner", f"{short(winner)} is none of {', '.join([*WINNERS, *sorted(TIES)])}")
    (asked, first), (_, second) = (_turn(row, f"conversation_{side}") for side in "ab")
    language = row.values.get("language") or "English"
    if winner in TIES:
        return "ties", None
    if str(language).lower() not in ("english", "en"):
        return "other languages", None
    if first is None or second is None:
        return "several turns", None
    if first == second:
        return "equal answers", None
    prompt = read_text(row, "question") if row.values.get("question") is not None else asked
    models = tuple(str(row.values.get(f"model_{side}") or f"model {side}") for side in "ab")
    name = str(row.values.get("question_id") or row.id)
    return "", Vote(name, str(row.values.get("judge") or ""), prompt, first, second, models, WINNERS[winner])


def _turn(row: Row, field: str) -> tuple[str, str | None]:
    """(first user message, the answer to it; None where the conversation goes on)."""
    talk = row.values.get(field)
    if not isinstance(talk, list) or not all(isinstance(message, Mapping) for message in talk):
        raise fault(row, field, f"{typed(talk)}; give a list of messages with role and content")
    parts = [(message.get("role"), message.get("content")) for message in talk if message.get("role") != "system"]
    if [role for role, _ in parts[:2]] != ["user", "assistant"]:
        raise fault(row, field, f"begins with {short([role for role, _ in parts[:2]])}; give user, then assistant")
    said = [read_text(Row(row.where, row.id, {field: content}), field) for _, content in parts[:2]]
    return said[0], said[1] if len(parts) == 2 else None
