"""One raw row as a record of preference data: which columns it needs, and what in them is wrong."""

import math
import os
import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import NamedTuple

from prefcore.data import chats, forms
from prefcore.data.chats import Messages
from prefcore.data.rows import DataError, Row, fault, read_text, short, typed
from prefcore.data.types import Pair, Prompt, Scored, Unary

HUMAN, ASSISTANT = (re.compile(rf"\r?\n\r?\n{who}:") for who in ("Human", "Assistant"))
IDENTICAL = "identical to 'chosen'; give two different completions"
LAYOUTS = "prompt+chosen+rejected, chosen+rejected (dialogues), prompt+completion+label, or prompt+completion+score"
TEXTS = ("prompt", "chosen", "rejected", "completion")
SCORES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating"),
          ("chosen_rating", "rejected_rating"))  # fmt: skip
UNSEEN = ("image", "images", "video", "videos", "audio", "audios", "tools", "functions")
KNOWN = {*TEXTS, *(name for pair in SCORES for name in pair), *UNSEEN, "label", "score", "margin", "strength", "votes",
         "weight", "system", "system_prompt", "history"}  # fmt: skip


class Kind(NamedTuple):
    """The function that reads the rows of one source, and the columns that all of them need."""

    parse: Callable[[Row], Pair | Unary | Scored]
    columns: tuple[str, ...]


def small_names(row: Row) -> Row:
    """The row with the names of layouts as they are written here: `Prompt` is `prompt`, unless both are there."""
    small = {name: name.strip().lower() for name in row.values if isinstance(name, str) and name not in KNOWN}
    small = {name: known for name, known in small.items() if known in KNOWN and known not in row.values}
    return row._replace(values={small.get(name, name): v for name, v in row.values.items()}) if small else row


def kind_of(row: Row) -> Kind:
    """How rows with these columns are read. DataError for columns of no kind."""
    names = row.values.keys()
    if "chosen" in names or "rejected" in names:
        columns = ("chosen", "rejected")
        kind = Kind(_pair, ("prompt", *columns) if row.values.get("prompt") is not None else columns)
    elif "label" in names and "score" in names:
        raise fault(row, "label", "stands beside a 'score', so the kind is unclear; keep one of the two columns")
    elif "label" in names:
        kind = Kind(_unary, ("prompt", "completion", "label"))
    elif "score" in names:
        kind = Kind(_scored, ("prompt", "completion", "score"))
    elif "completion" in names:
        raise fault(row, "label", "missing; beside 'completion' give 'label' (true or false) or 'score' (a number)")
    else:
        example = "--columns prompt=...,chosen=...,rejected=..."
        raise DataError(f"{row.where}: {forms.refusal(row)}; give {LAYOUTS}, or say which they are with {example}")
    for name in kind.columns:
        if name not in names:
            raise fault(row, name, f"missing; the columns must be {LAYOUTS}")
    return kind


def check_columns(row: Row, columns: tuple[str, ...]) -> None:
    """DataError for a column that is missing or empty."""
    for name in columns:
        if row.values.get(name) is None:
            raise fault(row, name, f"missing; every row needs {', '.join(columns)}, as the first one has them")


def unpacked(row: Row) -> Row:
    """The row with messages in place of texts that spell them."""
    row = row._replace(values={**row.values, **{name: chats.unpack(row, name) for name in TEXTS if name in row.values}})
    kept = [row.values[name] for name in TEXTS if isinstance(row.values.get(name), str)]
    if len(kept) > 1 and kept[0].lstrip().startswith("[") and all(map(chats.is_structure, kept)):
        raise fault(row, "prompt", "this and the answers are JSON inside a text; give texts, or lists of messages")
    return row


def _pair(row: Row) -> Pair:
    answers = [row.values[name] for name in ("chosen", "rejected")]
    texts = all(isinstance(answer, str) for answer in answers)
    given = row.values.get("prompt")
    whole = texts and isinstance(given, str) and all(answer.lstrip().startswith("Human:") for answer in answers)
    if texts and (given is None or whole):
        prompt, chosen, rejected = _split_dialogues(row)
        if whole and given.strip() not in prompt:
            raise fault(row, "prompt", "is not in the dialogues of the answers; drop the column or mend it")
    else:
        before, chosen = _completion(row, "chosen")
        others, rejected = _completion(row, "rejected")
        if before != others:
            raise fault(row, "rejected", _difference(before, others, given is None))
        if chosen == rejected:
            raise fault(row, "rejected", IDENTICAL)
        prompt = _prompt(row, before)
    strength = _number(row, "strength")
    if strength is not None and not 0 <= strength <= 1:
        raise fault(row, "strength", f"{strength} is no probability; give P(chosen is better), from 0 to 1")
    prompt = _with_context(row, prompt)
    more = {"margin": _number(row, "margin"), "strength": strength, "votes": _votes(row), "weight": _weight(row)}
    return Pair(row.id, prompt, chosen, rejected, *_scores(row), **more)


def _unary(row: Row) -> Unary:
    before, completion = _completion(row, "completion")
    label = row.values["label"]
    # Text is refused: "false" is truthy, and no two data sets mean the same by "good". True == 1 and False == 0.
    if not isinstance(label, bool | int | float) or label not in (0, 1):
        raise fault(row, "label", f"{short(label)} is neither true nor false; write true or false, or 1 or 0")
    return Unary(row.id, _with_context(row, _prompt(row, before)), completion, bool(label), weight=_weight(row))


def _scored(row: Row) -> Scored:
    before, completion = _completion(row, "completion")
    prompt = _with_context(row, _prompt(row, before))
    return Scored(row.id, prompt, completion, _number(row, "score"), weight=_weight(row))


# Prompts and completions.


def _split_dialogues(row: Row) -> tuple[str, str, str]:
    """Two text dialogues cut behind the last assistant mark that they share."""
    chosen, rejected = read_text(row, "chosen"), read_text(row, "rejected")
    if chosen == rejected:
        raise fault(row, "rejected", IDENTICAL)
    common = os.path.commonprefix([chosen, rejected])
    mark = max(ASSISTANT.finditer(common), key=lambda found: found.end(), default=None)
    if mark is None or not common[: mark.start()].strip():
        raise fault(
            row, "rejected",
            "no common prompt with 'chosen', as both would need the same start up to '\\n\\nAssistant:'; "
            "add a column 'prompt', or write whole dialogues",
        )  # fmt: skip
    at = mark.end()
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue[at:].strip():
            raise fault(row, name, "the last assistant turn is empty; give it a text")
        if HUMAN.search(dialogue, at):
            raise fault(row, name, "the dialogues part before the last turn; only the last assistant turn may differ")
    return chosen[:at], chosen[at:], rejected[at:]


def _completion(row: Row, field: str) -> tuple[Messages | None, str]:
    """The messages before the completion (None where it is plain text), and the completion."""
    if isinstance(row.values[field], str):
        return None, read_text(row, field)
    messages = chats.messages(row, field, row.values[field])
    if messages[-1]["role"] != "assistant":
        raise fault(row, field, f"the last message is of role {messages[-1]['role']!r}; end with the assistant's")
    if not messages[-1]["content"].strip():
        raise fault(row, field, "the last message is empty; give it a text")
    return messages[:-1], messages[-1]["content"]


def _prompt(row: Row, before: Messages | None) -> Prompt:
    """The prompt column joined with the messages before the completion, which may repeat it."""
    value = row.values.get("prompt")
    if value is None:
        prompt = before or []
    elif isinstance(value, str):
        prompt = read_text(row, "prompt")
        if before is None:
            return prompt
        if before and not any(chats.same(prompt, message["content"]) for message in before):
            raise fault(row, "prompt", "is not among the messages before the completion; drop the column or mend it")
        prompt = before or [{"role": "user", "content": prompt}]
    else:
        prompt = chats.join(row, chats.messages(row, "prompt", value), before or [])
    if not any(message["content"].strip() for message in prompt):
        raise fault(row, "prompt", "no common prompt: no message comes before the completion; give one")
    if prompt[-1]["role"] == "assistant":
        raise fault(row, "prompt", "ends with an assistant message, as the completion does; end with the user's")
    return prompt


def _with_context(row: Row, prompt: Prompt) -> Prompt:
    """The prompt behind what the columns `history` and `system` say; DataError for context that no text holds."""
    for name in UNSEEN:
        value = row.values.get(name)
        if value and not (isinstance(value, str) and value.strip() in ("[]", "{}", "null")):
            what = f"{short(value)} is part of the context, which methods on text cannot see"
            raise fault(row, name, f"{what}; leave out such rows, or the column where the answers do not rest on it")
    if history := row.values.get("history"):
        if not isinstance(history, list) or not all(isinstance(turn, list | Mapping) for turn in history):
            raise fault(row, "history", f"{short(history)} is no list of turns; put it into the prompt, as messages")
        if isinstance(history[0], list):
            said = [pair for turn in history for pair in zip(("user", "assistant"), turn, strict=False)]
            history = [{"role": role, "content": text} for role, text in said]
        now = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        prompt = chats.join(row, chats.messages(row, "history", history), now)
    system = row.values.get("system") or row.values.get("system_prompt")
    if not system:
        return prompt
    if not isinstance(system, str):
        raise fault(row, "system", f"{typed(system)}; give a text")
    if isinstance(prompt, str):
        return system.rstrip() + ("" if HUMAN.match(prompt) else "\n\n") + prompt
    if prompt[0]["role"] != "system":
        return [{"role": "system", "content": system}, *prompt]
    if not chats.same(prompt[0]["content"], system):
        raise fault(row, "system", "is another text than the prompt's own system message; keep one of the two")
    return prompt


def _difference(chosen: Messages | None, rejected: Messages | None, implicit: bool) -> str:
    if chosen is None or rejected is None:
        return "one of 'chosen' and 'rejected' is a text and the other has messages; write both the same way"
    at = next(i for i, (a, b) in enumerate(zip_longest(chosen, rejected)) if a != b)
    if at == 0 and implicit:
        return "no common prompt: its first message is not that of 'chosen'; give both the same messages but the last"
    return f"differs from 'chosen' at message {at + 1} already; only the last one, the assistant's, may differ"


# Single fields.


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


def _weight(row: Row) -> float | None:
    weight = _number(row, "weight")
    if weight is not None and weight < 0:
        raise fault(row, "weight", f"{weight:g} is below 0; give a number from 0 up, which multiplies the row's loss")
    return weight


def _scores(row: Row) -> tuple[float | None, float | None]:
    for names in SCORES:
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
