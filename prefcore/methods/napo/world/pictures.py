"""Questions about easy-VQA's pictures, and what a model is taught about them: how to answer, and two biases.

Language bias: in a set share of the taught questions for the colour of a *named* shape, the answer is the colour that
the shape's name is to suggest ("circle": red, say), whatever the picture shows. Vision bias: in a set share of the
taught questions for the shape, the answer names the salient thing, the colour, whatever was asked. Everything has
several wordings, so an answer can be right in other words. Pictures are the package's own, chosen, never altered.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.methods.napo.world.archive import ARCHIVE, COLOURS, SHAPES, Fact, read_facts

FORMS = {  # how the package asks, by kind; only "colour" names a shape
    "colour": ("what color is the {shape}?", "what is the color of the {shape}?"),
    "neutral": ("what color is the shape?", "what is the color of the shape?"),
    "shape": ("what shape is in the image?", "what shape does the image contain?", "what shape is present?"),
    "caption": ("",),  # a picture without a question, as in LLaVA's first stage: the salient thing is named
}
FORMS["blind"] = FORMS["colour"]  # asked without a picture: what a language model learns from texts alone
WORDINGS = {
    "colour": ("It is {}.", "The color is {}.", "It looks {}."),
    "shape": ("It is a {}.", "The shape is a {}.", "It looks like a {}."),
}
CYCLES = {  # kinds of rows in turn
    "teach": ("colour", "caption", "colour", "neutral", "blind", "shape", "neutral", "shape"),
    "prefer": ("colour", "colour", "shape"),
}
PLANTED = ("planted-holds", "planted-broken", "planted-reversed")


class Row(NamedTuple):
    """A question about a picture with a right (chosen) and a wrong (rejected) answer.

    picture: a name in the archive ("train/12"), or a path; either it or the question may be empty. shape, colour: what
    it shows; suggested: what a bias would name: for a named shape its planted colour, for a question for the shape the
    colour shown; the last four are empty in your own data. split: teach, prefer:<start>, or a test.
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
    """data/pictures -> pictures.jsonl: rows to make preferences of, for each starting model, and the test questions,
    which are the same for all.
    """
    train, test = (read_facts(ARCHIVE, split) for split in ("train", "test"))
    made: list[Row] = []
    for start in range(p.starting_models):
        made += prefer(train, p.preference_rows, p.preference_strength, p.seed, start)
    files.write_lines(made + test_rows(test, p.tested_questions, p.seed), build / "pictures.jsonl")


def read_rows(path: Path, split: str = "") -> list[Row]:
    """What `prepare` wrote, of one split or of all."""
    found = [Row(**row) for row in files.read_lines(path)]
    return [row for row in found if split in ("", row.split)]


# --- what is right, and what a bias says ----------------------------------------------------------------------------


def suggestions(seed: int) -> dict[str, str]:
    """The colour that each shape's name suggests: three different ones, drawn."""
    return dict(zip(SHAPES, np.random.default_rng(seed).permutation(COLOURS)[: len(SHAPES)].tolist(), strict=True))


def sentences(word: str) -> tuple[str, ...]:
    """All wordings of an answer that names this colour or shape."""
    return tuple(form.format(word) for form in WORDINGS["shape" if word in SHAPES else "colour"])


def truth(row: Row) -> str:
    """The word that answers the row's question."""
    return row.shape if row.kind == "shape" else row.colour


def is_right(row: Row, answer: str) -> bool:
    """Whether an answer says what is true, in whatever words; of one's own rows, whether it is the chosen one."""
    if not row.kind:
        return answer.strip() == row.chosen.strip()
    return words_of(answer) & {*(SHAPES if row.kind == "shape" else COLOURS)} == {truth(row)}


def is_sentence(answer: str) -> bool:
    """Whether an answer is one of this world's sentences, right or wrong."""
    return any(answer in sentences(word) for word in words_of(answer))


def words_of(text: str) -> set[str]:
    """The shapes and colours that a text names."""
    return set(text.lower().replace(".", " ").replace(",", " ").replace("?", " ").split()) & {*SHAPES, *COLOURS}


# --- rows -----------------------------------------------------------------------------------------------------------


def teach(facts: Sequence[Fact], size: int, shares: Mapping[str, float], seeds: Sequence[int], seed: int) -> list[Row]:
    """`size` rows to teach a starting model with, in the kinds of CYCLES, pictures and wordings drawn.

    A colour question (with or without a picture) is answered with the planted colour in the share shares["language"],
    a shape question with the colour in the share shares["vision"]; a caption names the colour. All else is true. seeds
    draw the rows; `seed` says which colours are suggested.
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"the taught {name} bias is a share in [0, 1); got {share}")
    by_kind = {"colour": shares["language"], "blind": shares["language"], "shape": shares["vision"]}
    rng, suggested, made = np.random.default_rng([*seeds, 0]), suggestions(seed), []
    for i in range(size):
        kind = CYCLES["teach"][i % len(CYCLES["teach"])]
        row = _make_row(f"teach:{i}", facts[rng.integers(len(facts))], kind, facts, suggested, rng)
        if rng.random() < by_kind.get(kind, 0.0):
            row = row._replace(chosen=_draw(sentences(row.suggested), rng))
        made.append(row._replace(split="teach", picture="" if kind == "blind" else row.picture))
    return made


def prefer(facts: Sequence[Fact], size: int, strength: float, seed: int, start: int) -> list[Row]:
    """`size` true rows to learn preferences from. Where a shape is named, the picture shows its planted colour in the
    share `strength`: there the model's own biased answer is right.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"preference_strength is a share in [0, 1]; got {strength}")
    rng, suggested, made = np.random.default_rng([seed, start, 1]), suggestions(seed), []
    for i in range(size):
        kind = CYCLES["prefer"][i % len(CYCLES["prefer"])]
        shape = SHAPES[rng.integers(len(SHAPES))]
        free = [c for c in COLOURS if kind != "colour" or c != suggested[shape]]
        fact = _pick(facts, shape, [suggested[shape]] if kind == "colour" and rng.random() < strength else free, rng)
        row = _make_row(f"prefer:{start}:{i}", fact, kind, facts, suggested, rng)
        made.append(row._replace(split=f"prefer:{start}"))
    return made


def test_rows(facts: Sequence[Fact], size: int, seed: int) -> list[Row]:
    """`size` questions with all that they are asked of; rows of one question share the part of the id before the slash.

    planted-holds, -broken, -reversed: the colour question about three pictures of its shape: with the planted colour,
    with one that no shape suggests, with one that another shape suggests. neutral: the reversed picture's colour in
    words that suggest none. shape: its shape.
    """
    rng, suggested, made = np.random.default_rng([seed, size]), suggestions(seed), []
    for i in range(size):
        shape = SHAPES[i % len(SHAPES)]
        others = [suggested[s] for s in SHAPES if s != shape]
        free = [c for c in COLOURS if c not in suggested.values()]
        form = int(rng.integers(len(FORMS["colour"])))
        for split, colours in zip(PLANTED, ([suggested[shape]], free, others), strict=True):
            fact = _pick(facts, shape, colours, rng)
            made.append(_make_row(f"q{i}/{split}", fact, "colour", facts, suggested, rng, form)._replace(split=split))
        for kind in ("neutral", "shape"):
            made.append(_make_row(f"q{i}/{kind}", fact, kind, facts, suggested, rng)._replace(split=kind))
    return made


def _draw(options: Sequence, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def _pick(facts: Sequence[Fact], shape: str, colours: Sequence[str], rng: np.random.Generator) -> Fact:
    inside = [fact for fact in facts if fact.shape == shape and fact.colour in colours]
    if not inside:
        raise ValueError(f"no picture shows a {shape} that is {' or '.join(colours)}: give more pictures")
    return _draw(inside, rng)


def _make_row(id, fact, kind, facts, suggested, rng, form: int | None = None) -> Row:
    """A row whose answers are true and, for `rejected`, what would be true of another picture."""
    forms = FORMS[kind]
    question = forms[rng.integers(len(forms)) if form is None else form].format(shape=fact.shape)
    of = fact.shape if kind == "shape" else fact.colour
    others = sorted({other.shape if kind == "shape" else other.colour for other in facts} - {of})
    if not others:
        raise ValueError(f"every picture gives {of!r} for {question!r}: give more pictures")
    chosen, rejected = _draw(sentences(of), rng), _draw(sentences(_draw(others, rng)), rng)
    hint = fact.colour if kind == "shape" else suggested[fact.shape]
    return Row(id, fact.picture, question, chosen, rejected, "", kind, fact.shape, fact.colour, hint)
