"""Value retrieval: which stored cells may the question mean? Shared letters, then edit distance and embedding.

CHASE-SQL (arXiv 2410.01943, section 3.2) in the manner of CHESS: keywords, the cells nearest in spelling, a second look
by edit similarity and embedding. Departs from the papers: spans of the question are keywords beside those that a model
names; the Jaccard similarity of 3-grams is exact, by a sparse product, where they estimate it by MinHash; both
thresholds are our own.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from prefcore.methods.chase_sql import database
from prefcore.methods.chase_sql.schema import Schema

NEAREST = 10  # cells of a keyword, by Jaccard similarity
LONGEST = 200  # letters of a cell that a question may quote; longer ones are texts, and are not indexed
# CHESS has 0.3 and, for another encoder, 0.6. On training questions of the embedded world, edit similarity 0.7 keeps
# 47 of 48 meant cells and 81 of 2,955 others; MiniLM knows little of abbreviations.
LEAST_EDIT, LEAST_COSINE = 0.7, 0.15
SHARE_OF_BEST = 0.85  # of a column's best match, edit similarity and cosine added
STOP = frozenset(
    """a all also among an and any are as at average be belong below above by common compared connected count
    different distinct each either else equals every exactly find for from gap give greater has have having
    high highest how i in is it its largest least less list looking lowest many me mean more most much name
    no number of on one or over show smallest tell than that the their them there these those to together
    total under unique up want we what where which whose with without you your maximum minimum""".split()
)
Embed = Callable[[Sequence[str]], np.ndarray]


class Value(NamedTuple):
    """A text that is stored in a column."""

    table: str
    column: str
    text: str


class Index(NamedTuple):
    """cells[i] is a stored text with its column; grams [n, G] which 3-grams of letters it has; `left_out` says which
    cells are not in it, and why."""

    cells: tuple[Value, ...]
    grams: csr_matrix
    count: Callable[[Sequence[str]], csr_matrix]
    left_out: tuple[str, ...]


def read_cells(schema: Schema, connection) -> tuple[list[Value], list[str]]:
    """(all distinct texts of all columns, what could not be read or is too long to be quoted, in words)."""
    cells, left_out = [], []
    for table, columns in schema.items():
        for column in columns:
            name, place = (part.replace('"', '""') for part in (column.name, table))
            found = database.execute(
                connection, f"""SELECT DISTINCT "{name}" FROM "{place}" WHERE typeof("{name}") = 'text'"""
            )
            texts = [text for (text,) in found.rows if text.strip()]
            cells += [Value(table, column.name, text) for text in texts if len(text) <= LONGEST]
            if found.error:
                left_out.append(f"{table}.{column.name}: all cells ({found.error}: {found.detail})")
            elif many := sum(len(text) > LONGEST for text in texts):
                left_out.append(f"{table}.{column.name}: {many} texts of more than {LONGEST} letters")
    return cells, left_out


def build_index(cells: Sequence[Value], left_out: Sequence[str] = ()) -> Index:
    """The index of these cells."""
    reader = CountVectorizer(analyzer=shingles, dtype=np.float32)
    if not cells:
        return Index((), csr_matrix((0, 1), dtype=np.float32), lambda texts: csr_matrix((len(texts), 1)), (*left_out,))
    grams = reader.fit_transform([cell.text for cell in cells])
    return Index(tuple(cells), grams, partial(_count, reader), tuple(left_out))


def _count(reader: CountVectorizer, texts: Sequence[str]) -> csr_matrix:
    return reader.transform(texts)


def shingles(text: str) -> set[str]:
    """Character 3-grams of the lower-cased text, with a space at both ends."""
    padded = f" {normalise(text)} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def normalise(text: str) -> str:
    """Lower case, underscores and repeated spaces as one space."""
    return re.sub(r"[\s_]+", " ", text.lower()).strip()


def keywords(question: str, longest: int = 3) -> list[str]:
    """Quoted texts, and spans of up to `longest` words that neither begin nor end with a stop word."""
    words = re.findall(r"[^\W_]+(?:['.-][^\W_]+)*", question)
    spans = [words[i : i + size] for size in range(longest, 0, -1) for i in range(len(words) - size + 1)]
    kept = [" ".join(s) for s in spans if not {s[0].lower(), s[-1].lower()} & STOP and not s[0].isdigit()]
    return list(dict.fromkeys([*re.findall(r"[\"“']([^\"”']+)[\"”']", question), *kept]))


def edit_similarity(a: str, b: str) -> float:
    """Ratcliff and Obershelp's ratio in [0, 1] of the two texts, case and spacing aside."""
    return SequenceMatcher(None, normalise(a), normalise(b)).ratio()


def nearest(words: Sequence[str], index: Index) -> list[list[int]]:
    """For each word the positions of at most NEAREST cells that share 3-grams with it, by Jaccard similarity."""
    shared = index.grams @ index.count(words).T
    sizes = np.asarray(index.grams.sum(1)).ravel()
    out = []
    for i, word in enumerate(words):
        both = shared[:, [i]].tocoo()
        jaccard = both.data / (sizes[both.row] + len(shingles(word)) - both.data)
        out.append(both.row[np.lexsort((both.row, -jaccard))[:NEAREST]].tolist())
    return out


def retrieve(question: str, index: Index, embed: Embed, *, named: Iterable[str] = (), most: int = 6) -> list[Value]:
    """The cells that the question may mean, best first, at most `most`; `named`: keywords that somebody else found.

    A cell counts where edit similarity and cosine to a keyword reach LEAST_EDIT and LEAST_COSINE, and their sum reaches
    SHARE_OF_BEST of its column's best.
    """
    words = list(dict.fromkeys([*named, *keywords(question)]))
    if not words or not index.cells:
        return []
    hits = [(word, i) for word, found in zip(words, nearest(words, index), strict=True) for i in found]
    hits = [(word, i, edit_similarity(word, index.cells[i].text)) for word, i in hits]
    hits = [hit for hit in hits if hit[2] >= LEAST_EDIT]
    texts = list(dict.fromkeys(text for word, i, _ in hits for text in (word, normalise(index.cells[i].text))))
    if not texts:
        return []
    vectors = dict(zip(texts, embed(texts), strict=True))
    scored: dict[int, float] = {}
    best: dict[tuple[str, str], float] = {}
    for word, i, edit in hits:
        cell = index.cells[i]
        cosine = float(vectors[word] @ vectors[normalise(cell.text)])
        if cosine >= LEAST_COSINE:
            scored[i] = max(scored.get(i, 0.0), edit + cosine)
            best[cell[:2]] = max(best.get(cell[:2], 0.0), scored[i])
    kept = [i for i, score in scored.items() if score >= SHARE_OF_BEST * best[index.cells[i][:2]]]
    return [index.cells[i] for i in sorted(kept, key=lambda i: (-scored[i], i))[:most]]
