"""Pictures with questions: easy-VQA (64 x 64, one shape of one colour), a planted prior over them, and your own files.

The planted prior: in the rows to learn from, the shape that a question names goes with one colour ("circle" with red,
say) in a set share of the cases. Test questions are asked of three pictures each: one where the prior holds, one where
it is broken (a colour that no shape suggests) and one where it is reversed (the colour that another shape suggests).
Pictures are the package's own, chosen, never altered; nothing of the package is executed.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from prefcore.data import files
from prefcore.data.rows import DataError, fault, short, usable_rows
from prefcore.data.types import Parameters

ARCHIVE = Path("data/pictures/easy_vqa-1.0-py3-none-any.whl")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # of your own pictures; others are refused before they are decoded
LARGEST = 2**24  # pixels of a picture, and bytes of a packed one
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
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
TOLD = "the image contains a {colour} {shape}. "  # said before a question: the probe of a told picture
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


class Fact(NamedTuple):
    """What a picture of the archive shows."""

    picture: str
    shape: str
    colour: str


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


# --- the archive ----------------------------------------------------------------------------------------------------


def read_facts(archive: Path, split: str) -> list[Fact]:
    """Shape and colour of the pictures of a split ("train", "test") that the package's questions give away wholly.

    "is there a red shape?" with "yes" gives a colour away, "what is the red shape?" with "circle" both. ValueError
    where two answers about one picture disagree.
    """
    with zipfile.ZipFile(archive) as box:
        asked = json.loads(_member(box, f"easy_vqa/data/{split}/questions.json"))
    seen: dict[int, set[str]] = {}
    for question, answer, picture in asked:
        words = question.rstrip("?").split()
        named = {word for word in words if word in SHAPES + COLOURS}
        denied = "not" in words or "no" in words
        if answer in ("yes", "no"):
            true = named if (answer == "yes") != denied else set()
        else:
            true = named | {answer}
        seen.setdefault(picture, set()).update(true)
    facts = []
    for picture, words in sorted(seen.items()):
        shapes, colours = ([w for w in names if w in words] for names in (SHAPES, COLOURS))
        if len(shapes) > 1 or len(colours) > 1:
            raise ValueError(f"{archive}: picture {picture} of {split} is said to be {shapes} and {colours}")
        if shapes and colours:
            facts.append(Fact(f"{split}/{picture}", shapes[0], colours[0]))
    return facts


def load(names: Iterable[str], archive: Path = ARCHIVE) -> dict[str, np.ndarray]:
    """Pictures [H, W, 3] uint8 by name: of the archive, or files where the name is the path of one."""
    album: dict[str, np.ndarray] = {}
    box = None
    try:
        for name in sorted(set(names)):
            if Path(name).is_file():
                album[name] = decode(_bytes(Path(name)), name)
                continue
            box = box or zipfile.ZipFile(archive)
            split, _, number = name.partition("/")
            album[name] = decode(_member(box, f"easy_vqa/data/{split}/images/{number}.png"), name)
    finally:
        if box:
            box.close()
    return album


def _member(box: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = box.getinfo(name)
    except KeyError:
        raise ValueError(f"{Path(box.filename).name} has no {name}: name a file, or a picture of the archive") from None
    if info.file_size > LARGEST:
        raise ValueError(f"{name} in {Path(box.filename).name} has {info.file_size} bytes, more than {LARGEST}")
    return box.read(info)


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}: make the picture smaller")
    return path.read_bytes()


def decode(raw: bytes, where: str) -> np.ndarray:
    """A picture as [H, W, 3] uint8; ValueError with its place where it is none, is broken, or is too large."""
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST:
                raise ValueError(f"{where}: {picture.width} x {picture.height} pixels are more than {LARGEST}")
            return np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        what = f"cannot be read as a picture ({type(error).__name__}: {error})"
        raise ValueError(f"{where}: {what}; give a whole {', '.join(FORMATS)} file") from error


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
        follows, told = planted and rng.random() < strength, kind not in ("blind", "caption") and rng.random() < 0.1
        fact = _pick(facts, shape, [suggested[shape]] if follows else others, rng)
        asked = "colour" if kind == "blind" else kind
        row = _ask(f"{split}:{i}", fact, facts, asked, split, suggested, rng, told=told)
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
        unsaid = [c for c in COLOURS if c not in suggested.values()]
        first = {}
        for split, colours in zip(PLANTED, ([suggested[shape]], unsaid, others), strict=True):
            first[split] = _pick(facts, shape, colours, rng)
        reversed_ = first[PLANTED[2]]
        form = int(rng.integers(len(FORMS["colour"])))
        for split, fact in first.items():
            made.append(_ask(f"q{i}/{split}", fact, facts, "colour", split, suggested, rng, form=form))
        made.append(_ask(f"q{i}/told", reversed_, facts, "colour", "told", suggested, rng, form=form, told=True))
        made.append(_ask(f"q{i}/neutral", reversed_, facts, "neutral", "neutral", suggested, rng))
        kind = ("shape", "presence")[i % 2]
        made.append(_ask(f"q{i}/other", reversed_, facts, kind, "other", suggested, rng))
    return made


def _pick(facts: Sequence[Fact], shape: str, colours: Sequence[str], rng: np.random.Generator) -> Fact:
    inside = [fact for fact in facts if fact.shape == shape and fact.colour in colours]
    if not inside:
        raise ValueError(f"no picture shows a {shape} that is {' or '.join(colours)}: give more pictures")
    return inside[rng.integers(len(inside))]


def _ask(id, fact, facts, kind, split, suggested, rng, *, form: int | None = None, told: bool = False) -> Row:
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
    before = TOLD.format(shape=fact.shape, colour=fact.colour) if told else ""
    hint = suggested[fact.shape] if kind == "colour" else ""
    return Row(id, fact.picture, before + question, chosen, rejected, split, kind, fact.shape, fact.colour, hint)


def right_answer(kind: str, question: str, fact: Fact) -> str:
    """The full sentence that answers the question about this picture."""
    said = {"shape": fact.shape, "colour": fact.colour}
    if kind == "presence":
        named = words_of(question)
        kind = "yes" if named <= set(said.values()) else "no"
    return ANSWERS[kind].format(**said)


def words_of(text: str) -> set[str]:
    """The shapes and colours that a text names."""
    return set(text.lower().replace(".", " ").replace(",", " ").replace("?", " ").split()) & {*SHAPES, *COLOURS}


# --- your own pictures ----------------------------------------------------------------------------------------------


def read_own(source: str) -> list[Row]:
    """Rows of a .jsonl, .json, .csv or .parquet file with the texts image, question, chosen, rejected.

    image is a path, from the file's folder or absolute. Every picture is decoded here. DataError with file, line and
    field for the first bad row: a question without a picture, one that cannot be read, a missing or equal answer.
    """
    found = [_own(row, Path(source).parent) for row in usable_rows(source)]
    if not found:
        raise DataError(f"{source}: no rows; give at least one with image, question, chosen and rejected")
    return found


def _own(row, folder: Path) -> Row:
    for name in ("image", "question", "chosen", "rejected"):
        value = row.values.get(name)
        if not isinstance(value, str) or not value.strip():
            what = "a question without a picture" if name == "image" else "no text"
            raise fault(row, name, f"{what} ({short(value)}); every row needs image, question, chosen and rejected")
    if row.values["chosen"] == row.values["rejected"]:
        raise fault(row, "rejected", "the same as chosen; give two different answers")
    path = folder / row.values["image"]
    if not path.is_file():
        raise fault(row, "image", f"no such file: {row.values['image']}; paths count from the data file's folder")
    try:
        decode(_bytes(path), row.values["image"])
    except ValueError as error:
        raise fault(row, "image", str(error)) from error
    return Row(row.id, str(path), row.values["question"], row.values["chosen"], row.values["rejected"])
