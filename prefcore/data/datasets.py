"""Preference data of a file or a hub dataset as records of one kind, or one clear error with file, line and field.

The columns of the first row say what the data are, and every row must have them:

    prompt, chosen, rejected          Pair    texts, or chat messages [{"role": ..., "content": ...}]
    chosen, rejected                  Pair    whole dialogues that share all but the last turn, as text with
                                              "\\n\\nHuman:" and "\\n\\nAssistant:" turns, or as chat messages
    prompt, completion, label         Unary   label is true or false (or 1 or 0)
    prompt, completion, score         Scored  any finite number, higher is better

Pairs may also have margin, strength (0 to 1), votes (a list of 1 for chosen and 0 for rejected), and chosen_score with
rejected_score (or score_chosen with score_rejected). Other columns are ignored. Texts are never changed.
"""

import math
import os
from collections.abc import Mapping
from itertools import zip_longest

from prefcore.data.rows import DataError, Row, fault, is_unicode, read_text, rows, short, typed
from prefcore.data.types import Pair, Prompt, Scored, Unary

Records = list[Pair] | list[Unary] | list[Scored]

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
IDENTICAL = "identical to 'chosen'; give two different completions"
LAYOUTS = "prompt+chosen+rejected, chosen+rejected (dialogues), prompt+completion+label, or prompt+completion+score"


def read(source: str, *, limit: int | None = None) -> Records:
    """All records (or the first `limit`) of a .jsonl, .json, .csv or .parquet file (also .gz), or of a hub dataset.

    A hub dataset is "owner/name" (its train split) or "owner/name:split". Ids are "<file stem>:<line>", or the row
    number where there are no lines. Raises DataError for the first bad row and says how many there are.
    """
    records, problems = _scan(source, limit)
    if problems:
        count, total = len(problems), len(problems) + len(records)
        raise DataError(
            f"{problems[0]} ({count} of {total} rows {'is' if count == 1 else 'are'} bad; "
            "fix them, or leave them out with --drop-bad)"
        )
    return records


def read_usable(source: str, *, limit: int | None = None) -> tuple[Records, list[DataError]]:
    """The good records (or the first `limit` of them), and what is wrong with each row that was left out.

    Raises DataError where leaving out rows does not help: no such file, unknown columns, or no good row at all.
    """
    records, problems = _scan(source, limit)
    if not records:
        raise DataError(f"{problems[0]} (all {len(problems)} rows are bad)")
    return records, problems


def _scan(source: str, limit: int | None) -> tuple[Records, list[DataError]]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: give a number of records from 1 up, or None for all")
    records, problems, kind = [], [], None
    for row in rows(str(source)):
        if isinstance(row, DataError):
            problems.append(row)
            continue
        kind = kind or _kind(row)
        parse, columns = kind
        try:
            _check_columns(row, columns)
            records.append(parse(row))
        except DataError as problem:
            problems.append(problem)
        if len(records) == limit:
            break
    if not records and not problems:
        raise DataError(f"{source}:1: no rows, the data are empty; give at least one row with {LAYOUTS}")
    return records, problems


# What a row means.


def _kind(row: Row):
    """The function that reads such rows, and the columns that all of them need."""
    names = row.values.keys()
    if "chosen" in names or "rejected" in names:
        parse, columns = _pair, ("chosen", "rejected")
        columns = ("prompt", *columns) if "prompt" in names else columns
    elif "label" in names and "score" in names:
        raise fault(row, "label", "stands beside a 'score', so the kind is unclear; keep one of the two columns")
    elif "label" in names:
        parse, columns = _unary, ("prompt", "completion", "label")
    elif "score" in names:
        parse, columns = _scored, ("prompt", "completion", "score")
    elif "completion" in names:
        raise fault(row, "label", "missing; beside 'completion' give 'label' (true or false) or 'score' (a number)")
    else:
        columns = ", ".join(map(repr, names))
        raise DataError(f"{row.where}: the columns {columns} are no preference data; give {LAYOUTS}")
    for name in columns:
        if name not in names:
            raise fault(row, name, f"missing; the columns must be {LAYOUTS}")
    return parse, columns


def _check_columns(row: Row, columns: tuple[str, ...]) -> None:
    for name in columns:
        if row.values.get(name) is None:
            raise fault(row, name, f"missing; every row needs {', '.join(columns)}, as the first one has them")
    if "prompt" not in columns and row.values.get("prompt") is not None:
        raise fault(row, "prompt", "the first row has none; give a prompt in every row or in none")


def _pair(row: Row) -> Pair:
    if row.values.get("prompt") is None and all(isinstance(row.values[name], str) for name in ("chosen", "rejected")):
        prompt, chosen, rejected = _split_dialogues(row)
    else:
        before, chosen = _completion(row, "chosen")
        others, rejected = _completion(row, "rejected")
        if before != others:
            raise fault(row, "rejected", _difference(before, others, row.values.get("prompt") is None))
        if chosen == rejected:
            raise fault(row, "rejected", IDENTICAL)
        prompt = _prompt(row, before)
    strength = _number(row, "strength")
    if strength is not None and not 0 <= strength <= 1:
        raise fault(row, "strength", f"{strength} is no probability; give P(chosen is better), from 0 to 1")
    return Pair(row.id, prompt, chosen, rejected, *_scores(row), _number(row, "margin"), strength, _votes(row))


def _unary(row: Row) -> Unary:
    before, completion = _completion(row, "completion")
    label = row.values["label"]
    # Text is refused: "false" is truthy, and no two data sets mean the same by "good". True == 1 and False == 0.
    if not isinstance(label, bool | int | float) or label not in (0, 1):
        raise fault(row, "label", f"{short(label)} is neither true nor false; write true or false, or 1 or 0")
    return Unary(row.id, _prompt(row, before), completion, bool(label))


def _scored(row: Row) -> Scored:
    before, completion = _completion(row, "completion")
    return Scored(row.id, _prompt(row, before), completion, _number(row, "score"))


# Prompts and completions.


def _split_dialogues(row: Row) -> tuple[str, str, str]:
    """Two text dialogues cut behind the last assistant mark that they share."""
    chosen, rejected = read_text(row, "chosen"), read_text(row, "rejected")
    if chosen == rejected:
        raise fault(row, "rejected", IDENTICAL)
    common = os.path.commonprefix([chosen, rejected])
    at = common.rfind(ASSISTANT)
    if not common[: max(at, 0)].strip():
        raise fault(
            row, "rejected",
            f"no common prompt with 'chosen', as both would need the same start up to {ASSISTANT!r}; "
            "add a column 'prompt', or write whole dialogues",
        )  # fmt: skip
    at += len(ASSISTANT)
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue[at:].strip():
            raise fault(row, name, "the last assistant turn is empty; give it a text")
        if HUMAN in dialogue[at:]:
            raise fault(row, name, "the dialogues part before the last turn; only the last assistant turn may differ")
    return chosen[:at], chosen[at:], rejected[at:]


def _completion(row: Row, field: str) -> tuple[list[dict] | None, str]:
    """The messages before the completion (None where it is plain text), and the completion."""
    if isinstance(row.values[field], str):
        return None, read_text(row, field)
    messages = _messages(row, field)
    if messages[-1]["role"] != "assistant":
        raise fault(row, field, f"the last message is of role {messages[-1]['role']!r}; end with the assistant's")
    if not messages[-1]["content"].strip():
        raise fault(row, field, "the last message is empty; give it a text")
    return messages[:-1], messages[-1]["content"]


def _prompt(row: Row, before: list[dict] | None) -> Prompt:
    """The prompt column joined with the messages before the completion, which may repeat it."""
    value = row.values.get("prompt")
    if value is None:
        prompt = before or []
    elif isinstance(value, str):
        prompt = read_text(row, "prompt")
        if before is None:
            return prompt
        said = [message["content"].strip() for message in before]
        if before and prompt.strip() not in said:
            raise fault(row, "prompt", "is not among the messages before the completion; drop the column or mend it")
        prompt = before or [{"role": "user", "content": prompt}]
    else:
        prompt = _messages(row, "prompt")
        if before:
            prompt = before if before[: len(prompt)] == prompt else prompt + before
    if not any(message["content"].strip() for message in prompt):
        raise fault(row, "prompt", "no common prompt: no message comes before the completion; give one")
    if prompt[-1]["role"] == "assistant":
        raise fault(row, "prompt", "ends with an assistant message, as the completion does; end with the user's")
    return prompt


def _difference(chosen: list[dict] | None, rejected: list[dict] | None, implicit: bool) -> str:
    if chosen is None or rejected is None:
        return "one of 'chosen' and 'rejected' is a text and the other has messages; write both the same way"
    at = next(i for i, (a, b) in enumerate(zip_longest(chosen, rejected)) if a != b)
    if at == 0 and implicit:
        return "no common prompt: its first message is not that of 'chosen'; give both the same messages but the last"
    return f"differs from 'chosen' at message {at + 1} already; only the last one, the assistant's, may differ"


# Single fields.


def _messages(row: Row, field: str) -> list[dict[str, str]]:
    """Chat messages with role and content only: hub datasets fill up other keys with nulls."""
    value = row.values[field]
    if not isinstance(value, list):
        raise fault(row, field, f"{typed(value)}; give a text or a list of messages")
    if not value:
        raise fault(row, field, "is an empty list; give at least one message")
    messages = []
    for i, message in enumerate(value, start=1):
        role, content = (message.get(k) if isinstance(message, Mapping) else None for k in ("role", "content"))
        if not isinstance(role, str) or not isinstance(content, str) or not role:
            raise fault(row, field, f"message {i} is {short(message)}; give each a text as 'role' and as 'content'")
        if not is_unicode(role + content):
            raise fault(row, field, f"invalid UTF-8 in message {i}; save the file as UTF-8")
        messages.append({"role": role, "content": content})
    return messages


def _number(row: Row, field: str) -> float | None:
    value = row.values.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fault(row, field, f"{typed(value)}; give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise fault(row, field, f"{number} is not finite; give a finite number")
    return number


def _scores(row: Row) -> tuple[float | None, float | None]:
    for names in (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected")):
        chosen, rejected = (_number(row, name) for name in names)
        if (chosen is None) != (rejected is None):
            absent, present = names if chosen is None else reversed(names)
            raise fault(row, absent, f"missing beside '{present}'; give both or none")
        if chosen is not None:
            return chosen, rejected
    return None, None


def _votes(row: Row) -> tuple[int, ...] | None:
    votes = row.values.get("votes")
    if votes is None:
        return None
    if not isinstance(votes, list) or not votes or not all(vote in (0, 1) for vote in votes):
        raise fault(row, "votes", f"{short(votes)}; give a list of 1 (for chosen) and 0 (for rejected)")
    return tuple(int(vote) for vote in votes)
