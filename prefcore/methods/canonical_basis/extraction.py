"""Why did this reader prefer that text? A language model reads both, sees the winner, and names phrases and a topic.

A model asked for a reason always gives one, so each phrase is put to a *blind* check: shown the phrase and both texts
but not the winner, which text has more of it? A phrase that explains a choice names the winner more often than the
phrase of another pair does. Everything goes through llm.py's protocol: any endpoint, any local model.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from prefcore.methods.canonical_basis import people
from prefcore.methods.canonical_basis.people import Share
from prefcore.scoring.llm import LanguageModel, Request

MOST, WORDS = 3, 10  # phrases of one answer, words of one phrase
ASK = {  # style -> what is asked; two, so that two extractors can be compared
    "quality": "Name in a few words the quality that made the preferred text better, and the topic of both.",
    "reason": "Say in a few words why the reader chose it, and the topic of both.",
}
FORM = 'Answer with one line of JSON: {"topic": "...", "phrases": ["...", "..."]}'
SHOT = (
    ("Quiet, clean and close to the station. We slept well.", "A room.", "A", "Hotel stay", "useful practical facts"),
    ("The soup was served.", "Soup so good that my grandmother laughed.", "B", "Restaurant", "warm humour"),
)


class Shown(NamedTuple):
    """A choice as the model sees it: two texts, and whether the first one won."""

    id: str
    first: str
    second: str
    first_wins: bool


class Extraction(NamedTuple):
    """topic and one to three phrases, as the model wrote them."""

    topic: str
    phrases: tuple[str, ...]


def request(shown: Shown, *, style: str, seed: int, temperature: float, max_tokens: int) -> Request:
    """What the model is asked, with two examples of the form; style is a key of ASK."""
    if style not in ASK:
        raise ValueError(f"style is {style!r}; there are {', '.join(ASK)}")
    messages = [("system", f"You explain what readers prefer. {ASK[style]} {FORM}")]
    for first, second, winner, topic, phrase in SHOT:
        messages += [("user", _choice(first, second, winner)),
                     ("assistant", json.dumps({"topic": topic, "phrases": [phrase]}))]  # fmt: skip
    messages.append(("user", _choice(shown.first, shown.second, "A" if shown.first_wins else "B")))
    return Request(tuple(messages), temperature, max_tokens, seed)


def _choice(first: str, second: str, winner: str) -> str:
    return f"Text A: {first}\nText B: {second}\nThe reader preferred text {winner}."


def swap(shown: Shown) -> Shown:
    """The same choice with the texts in the other order."""
    return shown._replace(first=shown.second, second=shown.first, first_wins=not shown.first_wins)


def extract(choices: Sequence[Shown], model: LanguageModel, *, style: str, seed: int, temperature: float,
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


def both_orders(choices: Sequence[Shown], model: LanguageModel, styles: Sequence[str], **how) -> dict[tuple, list]:
    """(style, "as shown" or "swapped") -> answers; `how` as `extract` takes it."""
    orders = {"as shown": choices, "swapped": [swap(choice) for choice in choices]}
    return {(style, name): extract(orders[name], model, style=style, **how) for style in styles for name in orders}


def tell(choices: Sequence[Shown], answers: Sequence[Extraction | None]) -> str:
    """Some answers, for a person to read."""
    lines = []
    for choice, found in zip(choices, answers, strict=True):
        won, lost = (choice.first, choice.second) if choice.first_wins else (choice.second, choice.first)
        said = ", ".join(found.phrases) if found else "(no answer of the form asked for)"
        lines.append(f"won   {won[:110]}\nlost  {lost[:110]}\n  {said}")
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


def blind_request(shown: Shown, phrase: str, *, seed: int) -> Request:
    """Which of the two has more of it? The winner is not said, and not asked for."""
    asked = f"Text A: {shown.first}\nText B: {shown.second}\nWhich text shows more of this: {phrase}? Answer A or B."
    return Request((("system", "You compare two texts. Answer with one letter."), ("user", asked)), 0.0, 2, seed)


def blind_check(choices: Sequence[Shown], phrases: Sequence[str | None], model: LanguageModel, *,
                seed: int) -> np.ndarray:  # fmt: skip
    """[n] for each choice: 1 the phrase names the winner, 0 the loser, 0.5 neither; mean of both orders.

    A phrase that is None (nothing was extracted) and an answer that is neither A nor B count 0.5: a coin.
    """
    if len(choices) != len(phrases):
        raise ValueError(f"{len(choices)} choices and {len(phrases)} phrases; give one phrase for each choice")
    asked = [(i, order) for i, phrase in enumerate(phrases) if phrase is not None for order in (0, 1)]
    shown = [swap(choices[i]) if order else choices[i] for i, order in asked]
    requests = [blind_request(s, phrases[i], seed=seed) for (i, _), s in zip(asked, shown, strict=True)]
    out = np.full((len(choices), 2), 0.5)
    for (i, order), s, answer in zip(asked, shown, model(requests) if requests else [], strict=True):
        said = verdict(answer)
        out[i, order] = 0.5 if said is None else float((said == "A") == s.first_wins)
    return out.mean(1)


def verdict(answer: str) -> str | None:
    """ "A" or "B" where the answer is just that letter (or "Text A", with a full stop), else None."""
    found = re.fullmatch(r"(?:text )?([ab])[.)]?", answer.strip(), flags=re.IGNORECASE)
    return found[1].upper() if found else None


def other_phrases(phrases: Sequence[str], category: np.ndarray, *, seed: int) -> list[str]:
    """For each phrase one of another category, drawn at random from the same list: the control of the blind check."""
    rng, category = np.random.default_rng(seed), np.asarray(category)
    out = []
    for own in category:
        pool = np.flatnonzero(category != own)
        if not len(pool):
            raise ValueError("all phrases are of one category: there is no other one to compare with")
        out.append(phrases[rng.choice(pool)])
    return out


def score(named: Sequence[Sequence[int]], planted: Sequence[Sequence[int]], *, seed: int) -> dict:
    """How well the categories named for each choice are those planted in it, with 95 % intervals over choices.

    answered: share of choices for which anything was named. precision: right ones among the named; recall: right ones
    among the planted. *_above_chance: less what the same answers reach when each is held against another choice. None
    where fewer than two choices count.
    """
    size = len(planted)
    own, chance = _tally(named, planted), [_tally(named, [*planted[s:], *planted[:s]]) for s in range(1, size)]
    out: dict = {"choices": size, "answered": float(np.mean(own[1] > 0))}
    for name, total in (("precision", 1), ("recall", 2)):
        share, luck = Share(own[0], own[total]), people.average([Share(c[0], c[total]) for c in chance])
        enough = np.count_nonzero(share.total) > 1
        out[name] = people.interval(share, seed=seed) if enough else None
        out[f"{name}_above_chance"] = people.difference(share, luck, seed=seed) if enough else None
    return out


def nearest(answers: Sequence[Extraction | None], embed: Callable, vectors: np.ndarray, category: np.ndarray) -> list:
    """Categories of each answer: those of the planted phrases [n, H] whose embeddings are nearest to what was said."""
    said = [phrase for one in answers if one for phrase in one.phrases]
    near = iter(category[(embed(said) @ vectors.T).argmax(1)].tolist() if said else [])
    return [[next(near) for _ in one.phrases] if one else [] for one in answers]


def report(named: dict[tuple, list], planted: Sequence[Sequence[int]], *, seed: int) -> dict:
    """`score` of each (style, order); and for each style the share of choices whose two orders name one in common."""
    out = {f"{style}, {order}": score(found, planted, seed=seed) for (style, order), found in named.items()}
    for style in dict.fromkeys(style for style, _ in named):
        both = zip(named[style, "as shown"], named[style, "swapped"], strict=True)
        same = float(np.mean([bool(set(a) & set(b)) for a, b in both]))
        for order in ("as shown", "swapped"):
            out[f"{style}, {order}"]["same_in_both_orders"] = same
    return out


def agreement(named: dict[tuple, list]) -> dict[str, float | None]:
    """kappa of the first category named, for each pair of styles; an answer that names none is a category too."""
    firsts = {style: [found[0] if found else -1 for found in lists] for (style, order), lists in named.items()
              if order == "as shown"}  # fmt: skip
    return {f"{a}, {b}": kappa(firsts[a], firsts[b]) for a, b in combinations(firsts, 2)}


def _tally(named, planted) -> np.ndarray:
    """[3, n] numbers of categories: right, named, planted."""
    sets = [(set(a), set(b)) for a, b in zip(named, planted, strict=True)]
    return np.array([(len(a & b), len(a), len(b)) for a, b in sets], dtype=float).T


def kappa(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Cohen's kappa of two extractors' categories [n] (-1: none): agreement beyond chance; None where all are one.

    Cohen 1960, Educational and Psychological Measurement 20. 1 is full agreement, 0 what chance gives.
    """
    a, b = np.asarray(a), np.asarray(b)
    kinds = np.union1d(a, b)
    expected = sum(np.mean(a == k) * np.mean(b == k) for k in kinds)
    return None if expected == 1 else float((np.mean(a == b) - expected) / (1 - expected))
