"""Chat messages as people store them, made into role and content: OpenAI's, ShareGPT's, and those inside a text.

A message that holds more than a text is refused with what it holds: a method that reads texts alone would train on an
answer whose cause (a picture, a tool's result, a chain of thought) it never sees.
"""

import ast
import json
import re
import unicodedata
from collections.abc import Mapping

from prefcore.data.rows import Row, fault, is_unicode, short, typed

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TEXT_PARTS = ("text", "input_text", "output_text")
UNREAD = {  # keys of a message beside role and content that change what is said
    "tool_calls": "tool calls, which are not supported",
    "function_call": "a function call, which is not supported",
    "reasoning_content": "reasoning, which is not read beside the content",
    "reasoning": "reasoning, which is not read beside the content",
    "thinking": "reasoning, which is not read beside the content",
    "images": "pictures, which a text method cannot see",
    "audio": "sound, which a text method cannot hear",
    "refusal": "a refusal, which is not read beside the content",
}
_LIKE_CHAT = re.compile(r"\s*[\[{].{0,200}?['\"](role|from|messages|content)['\"]\s*:", re.DOTALL)

Messages = list[dict[str, str]]


def unpack(row: Row, field: str):
    """The value of a field; where it is a text that spells chat messages (JSON, or Python's way to write them), those.

    Any other text stays as it is. A text that looks like messages but cannot be read raises DataError: nobody wants to
    train on brackets.
    """
    value = row.values[field]
    if not isinstance(value, str) or not _LIKE_CHAT.match(value):
        return value
    found = spelled(value)
    if isinstance(found, Mapping) and isinstance(found.get("messages"), list):
        if held := {name for name in ("tools", "functions") if found.get(name)}:
            raise fault(row, field, f"its JSON holds {min(held)}, which are not supported; leave out such rows")
        found = found["messages"]
    if isinstance(found, Mapping) and {"role", "content"} <= found.keys():
        found = [found]
    if isinstance(found, list) and found and all(_is_message(item) for item in found):
        return found
    if isinstance(found, Mapping | list):
        return value  # an answer may well be JSON
    raise fault(row, field, "looks like chat messages in a text, but is no JSON; write lists of messages in .jsonl")


def spelled(text: str):
    """What a text spells, or None."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def is_structure(text: str) -> bool:
    """Whether a text is a JSON list or object, as a whole."""
    return text.lstrip()[:1] in ("[", "{") and isinstance(spelled(text), Mapping | list)


def _is_message(item) -> bool:
    return isinstance(item, Mapping) and ("role" in item or {"from", "value"} <= item.keys())


def messages(row: Row, field: str, value) -> Messages:
    """Messages with role and content alone: hub datasets fill up other keys with nulls. One message may stand alone."""
    value = [value] if isinstance(value, Mapping) and _is_message(value) else value
    if not isinstance(value, list | tuple):
        raise fault(row, field, f"{typed(value)}; give a text or a list of messages")
    if not value:
        raise fault(row, field, "is an empty list; give at least one message")
    return [_message(row, field, i, item) for i, item in enumerate(value, start=1)]


def _message(row: Row, field: str, i: int, item) -> dict[str, str]:
    if isinstance(item, Mapping) and {"from", "value"} <= item.keys():
        role, content = SHAREGPT.get(item["from"], item["from"]), item["value"]
    else:
        role, content = (item.get(k) if isinstance(item, Mapping) else None for k in ("role", "content"))
    for name, what in UNREAD.items():
        if isinstance(item, Mapping) and item.get(name):
            raise fault(row, field, f"message {i} has '{name}': {what}; leave out such rows, or put it into 'content'")
    if isinstance(content, list):
        content = _joined(row, field, i, content)
    if not isinstance(role, str) or not isinstance(content, str) or not role:
        raise fault(row, field, f"message {i} is {short(item)}; give each a text as 'role' and as 'content'")
    if not is_unicode(role + content):
        raise fault(row, field, f"invalid UTF-8 in message {i}; save the file as UTF-8")
    if role not in ROLES:
        raise fault(row, field, f"message {i} is of role {role!r}; the roles are {', '.join(ROLES)}, so rename it")
    return {"role": role, "content": content}


def _joined(row: Row, field: str, i: int, parts: list) -> str | None:
    """OpenAI's content in parts, where all of them are texts; None where they are no such parts."""
    if not all(isinstance(part, Mapping) and "type" in part for part in parts):
        return None
    for part in parts:
        if part["type"] not in TEXT_PARTS or not isinstance(part.get("text"), str):
            what = f"message {i} has a part of type {short(part['type'])}, and only texts are read"
            raise fault(row, field, f"{what}; leave out such rows")
    return "".join(part["text"] for part in parts)


def same(first: str, second: str) -> bool:
    """Whether two texts say the same: in one normal form of Unicode, without the space around them."""
    return unicodedata.normalize("NFC", first).strip() == unicodedata.normalize("NFC", second).strip()


def _alike(first: Messages, second: Messages) -> bool:
    return len(first) == len(second) and all(
        a["role"] == b["role"] and same(a["content"], b["content"]) for a, b in zip(first, second, strict=True)
    )


def join(row: Row, prompt: Messages, before: Messages) -> Messages:
    """The prompt followed by the messages before the completion, what both have said only once.

    What `before` begins with may be the whole prompt, its end, or nothing of it; or `before` ends with the prompt.
    DataError where the two contradict.
    """
    for shared in range(min(len(prompt), len(before)), 0, -1):
        if _alike(prompt[-shared:], before[:shared]):
            return prompt + before[shared:]
    if before and _alike(prompt, before[-len(prompt) :]):
        return before
    if prompt and before and (before[0]["role"] == "system" or prompt[-1]["role"] == before[0]["role"] == "user"):
        what = f"ends with {short(prompt[-1]['content'])}, and the messages before the completion begin with"
        raise fault(row, "prompt", f"{what} {short(before[0]['content'])}; give the question once, or the same way")
    return prompt + before
