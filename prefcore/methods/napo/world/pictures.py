"""Questions about easy-VQA's pictures, with a planted prior: what the words of a question come to suggest.

The planted prior: in the rows to learn from, the shape that a question names goes with one colour ("circle" with red,
say) in a set share of the cases. Test questions are asked of three pictures each: one where the prior holds, one where
it is broken (a colour that no shape suggests) and one where it is reversed (the colour that another shape suggests).
Pictures are the package's own, chosen, never altered.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.methods.napo.world.archive import ARCHIVE, COLOURS, SHAPES, Fact, read_facts

FORMS = {  # how the package asks, by kind; only "colour" carries the planted prior
    "colour": ("what color is the {shape}?", "what is the color of the {shape}?"),
    "neutral": ("what color is the shape?", "what is the color of the shape?"),
    "shape": ("what shape is in the image?", "what shape does the image contain?", "what shape is present?"),
    "presence": ("is there a {thing}?", "is there a {thing} in the image?", "does the image contain a {thing}?"),
    "caption": ("",),  # a picture without a question, as in LLaVA's first stage
}
ANSWERS = {
    "caption": "The image shows a {colour} {shape}.",
    "colour": "The {shape} is {colour}.", "neutral": "The shape is {colour}.", "shape": "The shape is a {shape}.",
    "yes": "Yes, there is a {colour} {shape}.", "no": "No, there is a {colour} {shape}.",
}  # fmt: skip
CONTEXT = "the image contains a {colour} {shape}. "  # before a question, a sentence that tells what is shown
CYCLES = {  # kinds of rows in turn; "blind" asks for a named shape's colour without a picture: what texts alone teach
    "teach": ("colour", "caption", "colour", "neutral", "blind", "colour", "shape", "presence"),
    "prefer": ("colour", "neutral", "colour", "shape", "colour", "presence"),
}
PLANTED = ("planted-holds", "planted-broken", "planted-reversed")


class Row(NamedTuple):
    """A question about a picture with a right (chosen) and a wrong (rejected) answer.

    picture: a name in the archive ("train/12"), or a path; either it or the question may be empty. shape, colour: what
    it shows; suggested: the colour that the question's words suggest, if any; the last three are empty in your own
    data. split: teach, prefer, or a test.
    """

    id: str
    picture: str
    question: str
    chosen: str
    rejected: str
    split: str = ""
    kind: str = ""
    shape: str = ""
    colour: str = ""
    suggested: str = ""


def prepare(p: Parameters, build: Path) -> None:
    """data/pictures -> pictures.jsonl: rows to teach with, rows to make preferences of, and the tests."""
    train, test = (read_facts(ARCHIVE, split) for split in ("train", "test"))
    made = plant(train, p.taught_rows, "teach", p.prior_strength, p.seed)
    made += plant(train, p.preference_rows, "prefer", p.preference_strength, p.seed)
    files.write_lines(made + test_rows(test, p.tested_questions, p.seed), build / "pictures.jsonl")


def read_rows(path: Path, split: str = "") -> list[Row]:
    """What `prepare` wrote, of one split or of all."""
    found = [Row(**row) for row in files.read_lines(path)]
    return [row for row in found if split in ("", row.split)]


# --- the planted prior ----------------------------------------------------------------------------------------------


def suggestions(seed: int) -> dict[str, str]:
    """The colour that each shape's name suggests: three different ones, drawn."""
    return dict(zip(SHAPES, np.random.default_rng(seed).permutation(COLOURS)[: len(SHAPES)].tolist(), strict=True))


def plant(facts: Sequence[Fact], size: int, split: str, strength: float, seed: int) -> list[Row]:
    """`size` rows of the kinds of CYCLES[split]: where they ask for the colour of a named shape, the prior holds in a
    share `strength` of the cases; the others have no prior.

    In one row of ten with picture and question, drawn, a sentence before the question tells what the picture shows.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of a prior is a share in [0, 1]; got {strength}")
    rng = np.random.default_rng([seed, size, len(split)])
    suggested, made = suggestions(seed), []
    for i in range(size):
        kind = CYCLES[split][i % len(CYCLES[split])]
        shape, planted = SHAPES[rng.integers(len(SHAPES))], kind in ("colour", "blind")
        others = [c for c in COLOURS if not planted or c != suggested[shape]]
        follows = planted and rng.random() < strength
        context = kind not in ("blind", "caption") and rng.random() < 0.1
        fact = _pick(facts, shape, [suggested[shape]] if follows else others, rng)
        question = "colour" if kind == "blind" else kind
        row = _make_row(f"{split}:{i}", fact, facts, question, split, suggested, rng, context=context)
        made.append(row._replace(kind=kind, picture="") if kind == "blind" else row)
    return made


def test_rows(facts: Sequence[Fact], size: int, seed: int) -> list[Row]:
    """`size` questions with all that they are asked of; rows of one question share the part of the id before the slash.

    planted-holds, -broken, -reversed: the question about three pictures of its shape. told: the reversed one with a
    sentence that tells what it shows. neutral: its colour asked in words that suggest none. other: a question about
    its shape or about what is present.
    """
    rng, suggested, made = np.random.default_rng([seed, size]), suggestions(seed), []
    for i in range(size):
        shape = SHAPES[i % len(SHAPES)]
        others = [suggested[s] for s in SHAPES if s != shape]
        free = [c for c in COLOURS if c not in suggested.values()]
        chosen = {}
        for split, colours in zip(PLANTED, ([suggested[shape]], free, others), strict=True):
            chosen[split] = _pick(facts, shape, colours, rng)
        reversed_ = chosen[PLANTED[2]]
        how = {"form": int(rng.integers(len(FORMS["colour"])))}
        for split, fact in chosen.items():
            made.append(_make_row(f"q{i}/{split}", fact, facts, "colour", split, suggested, rng, **how))
        made.append(_make_row(f"q{i}/told", reversed_, facts, "colour", "told", suggested, rng, **how, context=True))
        made.append(_make_row(f"q{i}/neutral", reversed_, facts, "neutral", "neutral", suggested, rng))
        kind = ("shape", "presence")[i % 2]
        made.append(_make_row(f"q{i}/other", reversed_, facts, kind, "other", suggested, rng))
    return made


def _pick(facts: Sequence[Fact], shape: str, colours: Sequence[str], rng: np.random.Generator) -> Fact:
    inside = [fact for fact in facts if fact.shape == shape and fact.colour in colours]
    if not inside:
        raise ValueError(f"no picture shows a {shape} that is {' or '.join(colours)}: give more pictures")
    return inside[rng.integers(len(inside))]


def _make_row(id, fact, facts, kind, split, suggested, rng, *, form: int | None = None, context: bool = False) -> Row:
    forms = FORMS[kind]
    thing = fact.shape
    if kind == "presence":  # half of the things are there
        thing = (fact, facts[rng.integers(len(facts))])[rng.integers(2)]
        thing = thing.shape if rng.random() < 0.5 else f"{thing.colour} shape"
    question = forms[rng.integers(len(forms)) if form is None else form].format(shape=fact.shape, thing=thing)
    chosen = right_answer(kind, question, fact)
    rejected = chosen
    for _ in range(1000):  # until it is what would be right of another picture
        other = facts[rng.integers(len(facts))]
        other = other._replace(shape=fact.shape) if kind == "colour" else other
        if (rejected := right_answer(kind, question, other)) != chosen:
            break
    else:
        raise ValueError(f"every picture gives {chosen!r} for {question!r}: give more pictures")
    before = CONTEXT.format(shape=fact.shape, colour=fact.colour) if context else ""
    hint = suggested[fact.shape] if kind == "colour" else ""
    return Row(id, fact.picture, before + question, chosen, rejected, split, kind, fact.shape, fact.colour, hint)


def right_answer(kind: str, question: str, fact: Fact) -> str:
    """The full sentence that answers the question about this picture."""
    if kind == "presence":
        kind = "yes" if words_of(question) <= {fact.shape, fact.colour} else "no"
    return ANSWERS[kind].format(shape=fact.shape, colour=fact.colour)


def words_of(text: str) -> set[str]:
    """The shapes and colours that a text names."""
    return set(text.lower().replace(".", " ").replace(",", " ").replace("?", " ").split()) & {*SHAPES, *COLOURS}
