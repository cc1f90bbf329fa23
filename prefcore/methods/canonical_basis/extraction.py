"""Why did this reader prefer that text? A language model reads both, sees the winner, and names phrases and a topic.

Its answer must keep to a form, which a strict parser reads; anything else counts as no answer. What the phrases are
worth is the matter of blind_check.py and agreement.py. Everything goes through scoring/llm.py's protocol: any endpoint,
any local model.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from prefcore.scoring.llm import LanguageModel, Request

MOST, WORDS = 3, 10  # phrases of one answer, words of one phrase
QUESTIONS = {  # style -> what is asked; two, so that two extractors can be compared
    "quality": "Name in a few words the quality that made the preferred text better, and the topic of both.",
    "reason": "Say in a few words why the reader chose it, and the topic of both.",
}
FORM = 'Answer with one line of JSON: {"topic": "...", "phrases": ["...", "..."]}'
EXAMPLES = (
    ("Quiet, clean and close to the station. We slept well.", "A room.", "A", "Hotel stay", "useful practical facts"),
    ("The soup was served.", "Soup so good that my grandmother laughed.", "B", "Restaurant", "warm humour"),
)


class Comparison(NamedTuple):
    """A choice as a model sees it: two texts, whether the first one won, and what both answer ("": nothing)."""

    id: str
    first: str
    second: str
    first_wins: bool
    prompt: str = ""


class Extraction(NamedTuple):
    """topic and one to three phrases, as the model wrote them."""

    topic: str
    phrases: tuple[str, ...]


def request(comparison: Comparison, *, style: str, seed: int, temperature: float, max_tokens: int) -> Request:
    """What the model is asked, with two examples of the form; style is a key of QUESTIONS."""
    if style not in QUESTIONS:
        raise ValueError(f"style is {style!r}; there are {', '.join(QUESTIONS)}")
    messages = [("system", f"You explain what readers prefer. {QUESTIONS[style]} {FORM}")]
    for first, second, winner, topic, phrase in EXAMPLES:
        messages += [("user", _choice(first, second, winner)),
                     ("assistant", json.dumps({"topic": topic, "phrases": [phrase]}))]  # fmt: skip
    winner = "A" if comparison.first_wins else "B"
    messages.append(("user", show_prompt(comparison) + _choice(comparison.first, comparison.second, winner)))
    return Request(tuple(messages), temperature, max_tokens, seed)


def show_prompt(comparison: Comparison) -> str:
    """The line with the question that both texts answer; empty where there is none."""
    return f"Question: {comparison.prompt}\n" if comparison.prompt else ""


def _choice(first: str, second: str, winner: str) -> str:
    return f"Text A: {first}\nText B: {second}\nThe reader preferred text {winner}."


def swap(comparison: Comparison) -> Comparison:
    """The same choice with the texts in the other order."""
    first, second = comparison.second, comparison.first
    return comparison._replace(first=first, second=second, first_wins=not comparison.first_wins)


def extract(choices: Sequence[Comparison], model: LanguageModel, *, style: str, seed: int, temperature: float,
            max_tokens: int) -> list[Extraction | None]:  # fmt: skip
    """One answer for each choice; None where the answer does not keep to the form."""
    how = {"style": style, "seed": seed, "temperature": temperature, "max_tokens": max_tokens}
    out: list[Extraction | None] = []
    for answer in model([request(choice, **how) for choice in choices]):
        try:
            out.append(parse(answer))
        except ValueError:
            out.append(None)
    return out


def both_orders(choices: Sequence[Comparison], model: LanguageModel, styles: Sequence[str], **how) -> dict[tuple, list]:
    """(style, "as shown" or "swapped") -> answers; `how` as `extract` takes it."""
    orders = {"as shown": choices, "swapped": [swap(choice) for choice in choices]}
    return {(style, name): extract(orders[name], model, style=style, **how) for style in styles for name in orders}


def describe(choices: Sequence[Comparison], answers: Sequence[Extraction | None]) -> str:
    """Some answers, for a person to read."""
    lines = []
    for choice, found in zip(choices, answers, strict=True):
        won, lost = (choice.first, choice.second) if choice.first_wins else (choice.second, choice.first)
        named = ", ".join(found.phrases) if found else "(no answer of the form asked for)"
        lines.append(f"won   {won[:110]}\nlost  {lost[:110]}\n  {named}")
    return "\n".join(lines)


def parse(answer: str) -> Extraction:
    """The answer as Extraction; ValueError that says what is wrong.

    Either one JSON object with "topic" (text) and "phrases" (one to three texts), which may stand in a code fence, or
    lines: "topic: ..." and then one to three of "- phrase". Nothing else may stand around it. A phrase has at most ten
    words and at least one letter.
    """
    text = re.sub(r"^```(?:json)?\s*\n(.*)\n```$", r"\1", answer.strip(), flags=re.DOTALL)
    topic, phrases = _json(text) if text.startswith("{") else _lines(text)
    if not 1 <= len(phrases) <= MOST:
        raise ValueError(f"{len(phrases)} phrases; one to {MOST} are asked for")
    return Extraction(_clean(topic, "topic"), tuple(_clean(phrase, "phrase") for phrase in phrases))


def _json(text: str) -> tuple[str, list]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if set(found) != {"topic", "phrases"}:
        raise ValueError(f"the keys are {sorted(found)}; they must be topic and phrases")
    if not isinstance(found["phrases"], list):
        raise ValueError(f"phrases is a {type(found['phrases']).__name__}; it must be a list")
    return found["topic"], found["phrases"]


def _once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _lines(text: str) -> tuple[str, list]:
    first, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    head = re.fullmatch(r"topic: *(.+)", first, flags=re.IGNORECASE)
    if not head or not all(re.match(r"[-*] ", line) for line in rest):
        raise ValueError(f"neither JSON nor lines of the form asked for: {first[:40]!r}")
    return head[1], [line[2:] for line in rest]


def _clean(value, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {name} is a {type(value).__name__}; it must be text")
    text = " ".join(value.split())
    if not re.search(r"[^\W\d_]", text):
        raise ValueError(f"the {name} {text!r} has no letter")
    if len(text.split()) > WORDS:
        raise ValueError(f"the {name} {text[:40]!r} ... has more than {WORDS} words")
    return text
