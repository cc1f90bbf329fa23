"""The default data: 23,703 short texts with 15 to 98 independent human ratings each (Hutto and Gilbert, ICWSM 2014).

A rating is a whole number from -4 (very negative) to +4 (very positive). Raters are not linked across texts and the
position in a list carries information, so the lists are permuted (seeded) before anything is halved; there are no
people here.
"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefcore.data import files
from prefcore.data.types import Parameters

DOMAINS = {  # file stem -> the domain in words, which is also the prompt's tag
    "movieReviewSnippets": "Movie review",
    "amazonReviewSnippets": "Product review",
    "nytEditorialSnippets": "Editorial",
    "tweets": "Tweet",
}
COUNTS = {"Movie review": 10605, "Product review": 3708, "Editorial": 5190, "Tweet": 4200}
SPLITS = (("train", 0.8), ("validation", 0.1), ("test", 0.1))


class Text(NamedTuple):
    """One rated text. half is "proxy" or "gold" for training texts and "" elsewhere; mean is in rating points."""

    id: str
    domain: str
    text: str
    ratings: tuple[int, ...]
    mean: float
    split: str
    half: str
    prompt: str
    completion: str


def read_raw(folder: Path, seed: int) -> list[Text]:
    """All texts with their split, half and prompt; the same for the same seed."""
    rows = [row for stem, domain in DOMAINS.items() for row in _read_domain(folder, stem, domain)]
    rng = np.random.default_rng(seed)
    places = _place(rows, rng)
    out = []
    for (id, domain, text, ratings), (split, half) in zip(rows, places, strict=True):
        words = int(rng.integers(2, 5))
        prompt, completion = cut(text, words)
        ratings = tuple(int(r) for r in rng.permutation(ratings))
        out.append(
            Text(id, domain, text, ratings, float(np.mean(ratings)), split, half, f"{domain}: {prompt}", completion)
        )
    return out


def cut(text: str, words: int) -> tuple[str, str]:
    """The first words, and the rest with the space before it."""
    pieces = text.split(" ")
    return " ".join(pieces[:words]), "".join(f" {piece}" for piece in pieces[words:])


def _read_domain(folder: Path, stem: str, domain: str) -> list[tuple[str, str, str, list[int]]]:
    truth = _read_table(folder / f"{stem}_GroundTruth.txt", 3)
    votes = {row[0]: json.loads(row[3]) for row in _read_table(folder / f"{stem}_anonDataRatings.txt", 4)}
    missing = [row[0] for row in truth if row[0] not in votes]
    if missing:
        raise ValueError(f"{stem}: no ratings for the texts {missing[:5]}: run `make data` again")
    rows = [(f"{stem}:{id}", domain, " ".join(html.unescape(text).split()), votes[id]) for id, _, text in truth]
    if len(rows) != COUNTS[domain]:
        raise ValueError(f"{stem}: {len(rows)} texts, expected {COUNTS[domain]}: run `make data` again")
    return rows


def _read_table(path: Path, fields: int) -> list[list[str]]:
    """Tab-separated lines; the files open with a byte-order mark and hold some bytes of an old Windows code page."""
    rows = []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("cp1252", errors="replace")
        row = text.split("\t", fields - 1)
        if len(row) != fields:
            raise ValueError(f"{path.name}:{number}: expected {fields} tab-separated fields, found {len(row)}")
        rows.append(row)
    return rows


def _place(rows, rng) -> list[tuple[str, str]]:
    """(split, half) of each row, by distinct text within its domain, so that no text is on two sides."""
    placed: dict[tuple[str, str], tuple[str, str]] = {}
    for domain in DOMAINS.values():
        texts = sorted({text.lower() for _, d, text, _ in rows if d == domain})
        edges = np.cumsum([round(share * len(texts)) for _, share in SPLITS[:-1]])
        for position, i in enumerate(rng.permutation(len(texts))):
            split = SPLITS[int(np.searchsorted(edges, position, side="right"))][0]
            half = ("proxy", "gold")[position % 2] if split == "train" else ""
            placed[domain, texts[i]] = split, half
    return [placed[domain, text.lower()] for _, domain, text, _ in rows]


def choose(
    texts: Sequence[Text], size: int, seed: int, *, split: str, half: str | None = None, max_words: int = 1000
) -> list[Text]:
    """`size` texts of a split (and half) of at most `max_words` words, seeded; the domains keep their shares."""
    pool = [t for t in texts if t.split == split and half in (None, t.half) and len(t.text.split()) <= max_words]
    if size > len(pool):
        raise ValueError(f"asked for {size} texts of {split}/{half}, there are {len(pool)}")
    return [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))[:size]]


def choose_prompts(texts: Sequence[Text], size: int, seed: int, *, split: str) -> list[Text]:
    """Texts whose prompts the policies go on from: distinct prompts with at least four words left to write."""
    seen, out = set(), []
    for text in choose(texts, sum(t.split == split for t in texts), seed, split=split):
        if text.prompt not in seen and len(text.completion.split()) >= 4:
            seen.add(text.prompt)
            out.append(text)
            if len(out) == size:
                return out
    raise ValueError(f"asked for {size} prompts of {split}, there are {len(out)}")


def read_texts(path: Path) -> list[Text]:
    """What files.write_lines wrote of texts."""
    return [Text(**row | {"ratings": tuple(row["ratings"])}) for row in files.read_lines(path)]


def good_texts(texts: Sequence[Text], least: float, seed: int) -> list[Text]:
    """Human-written training texts rated `least` or better, in a seeded order; none of the gold scorer's half."""
    pool = [t for t in texts if (t.split, t.half) == ("train", "proxy") and t.mean >= least and t.completion]
    return [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))]


def prepare(p: Parameters, build: Path) -> None:
    """Stage: data/ratings -> texts.jsonl, cleaned texts with split, half and prompt."""
    files.write_lines(read_raw(Path("data/ratings"), p.seed), build / "texts.jsonl")
