"""easy-VQA's pictures, 64 x 64 with one shape of one colour, read from the package's archive; and any picture file.

Nothing of the package is executed or unpacked: its questions say what a picture shows, and pictures are decoded whole,
of a known format and a limited size, or refused.
"""

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ARCHIVE = Path("data/pictures/easy_vqa-1.0-py3-none-any.whl")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # of your own pictures; others are refused before they are decoded
LARGEST = 2**24  # pixels of a picture, and bytes of a packed one
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


class Fact(NamedTuple):
    """What a picture of the archive shows."""

    picture: str
    shape: str
    colour: str


def read_facts(archive: Path, split: str) -> list[Fact]:
    """Shape and colour of the pictures of a split ("train", "test") that the package's questions give away wholly.

    "is there a red shape?" with "yes" gives a colour away, "what is the red shape?" with "circle" both. ValueError
    where two answers about one picture disagree.
    """
    with zipfile.ZipFile(archive) as box:
        questions = json.loads(_member(box, f"easy_vqa/data/{split}/questions.json"))
    shown: dict[int, set[str]] = {}
    for question, answer, picture in questions:
        words = question.rstrip("?").split()
        named = {word for word in words if word in SHAPES + COLOURS}
        denied = "not" in words or "no" in words
        if answer in ("yes", "no"):
            true = named if (answer == "yes") != denied else set()
        else:
            true = named | {answer}
        shown.setdefault(picture, set()).update(true)
    facts = []
    for picture, words in sorted(shown.items()):
        shapes, colours = ([w for w in names if w in words] for names in (SHAPES, COLOURS))
        if len(shapes) > 1 or len(colours) > 1:
            raise ValueError(f"{archive}: picture {picture} of {split} is said to be {shapes} and {colours}")
        if shapes and colours:
            facts.append(Fact(f"{split}/{picture}", shapes[0], colours[0]))
    return facts


def load_pictures(names: Iterable[str], archive: Path = ARCHIVE) -> dict[str, np.ndarray]:
    """Pictures [H, W, 3] uint8 by name: of the archive, or files where the name is the path of one."""
    album: dict[str, np.ndarray] = {}
    box = None
    try:
        for name in sorted(set(names)):
            if Path(name).is_file():
                album[name] = read_picture(Path(name), name)
                continue
            box = box or zipfile.ZipFile(archive)
            split, _, number = name.partition("/")
            album[name] = decode(_member(box, f"easy_vqa/data/{split}/images/{number}.png"), name)
    finally:
        if box:
            box.close()
    return album


def read_picture(path: Path, where: str) -> np.ndarray:
    """One file as [H, W, 3] uint8; ValueError with its place (`where`) if it is none, is broken, or is too large."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}: make the picture smaller")
    return decode(path.read_bytes(), where)


def decode(raw: bytes, where: str) -> np.ndarray:
    """A picture as [H, W, 3] uint8, as a viewer shows it: turned as its camera says, on white where it is transparent.

    ValueError with its place where it is none, is broken, moves, or is too large.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST:
                raise ValueError(f"{where}: {picture.width} x {picture.height} pixels are more than {LARGEST}")
            if (frames := getattr(picture, "n_frames", 1)) > 1:
                raise ValueError(f"{where}: holds {frames} pictures one after another; give one")
            return np.array(_flat(_eight_bit(ImageOps.exif_transpose(picture))))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        seen = "no bytes" if not raw else "none of their marks" if isinstance(error, UnidentifiedImageError) else error
        what = f"cannot be read as a picture ({seen})"
        raise ValueError(f"{where}: {what}; give a whole {', '.join(FORMATS)} file") from error


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8: Pillow itself would cut every value at 255."""
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64)
    return Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))


def _flat(picture: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent shows white."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _member(box: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = box.getinfo(name)
    except KeyError:
        raise ValueError(f"{Path(box.filename).name} has no {name}: name a file, or a picture of the archive") from None
    if info.file_size > LARGEST:
        raise ValueError(f"{name} in {Path(box.filename).name} has {info.file_size} bytes, more than {LARGEST}")
    return box.read(info)
