"""Value retrieval: which stored cells may the question mean? MinHash-LSH by spelling, then edit distance and embedding.

CHASE-SQL (arXiv 2410.01943, section 3.2) in the manner of CHESS. Departs from the papers: keywords are spans of the
question, no language model picks them; shingles are lower-cased and padded, so that case does not hide a value and
short values have shingles too; both thresholds are our own.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasketch import MinHash, MinHashLSH
from safetensors.numpy import load_file, save_file

from prefcore.methods.chase_sql.world.forms import Column, Condition

SCHEME = "affine64"  # of datasketch's permutations
PERMUTATIONS = 100
BANDS = (PERMUTATIONS, 1)  # one equal hash makes a candidate: what CHESS's threshold of 0.01 amounts to
EMPTY = MinHash(num_perm=PERMUTATIONS, seed=1, scheme=SCHEME)  # whose permutations all others share
NEAREST = 10  # candidates of a keyword, by estimated Jaccard similarity
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


class Index(NamedTuple):
    """cells[i] is a stored text with its column; signatures [n, PERMUTATIONS] are their MinHashes; lsh finds them."""

    cells: tuple[tuple[Column, str], ...]
    signatures: np.ndarray
    lsh: MinHashLSH


def build_index(contents: Mapping[Column, Iterable], cache: Path | None = None) -> Index:
    """The index of all distinct texts of the columns. `cache` is a folder; signatures there are named by content."""
    cells = tuple(dict.fromkeys(
        (column, value) for column, values in contents.items() if not column.numeric
        for value in values if isinstance(value, str) and value.strip()
    ))  # fmt: skip
    digest = hashlib.sha256(json.dumps([SCHEME, PERMUTATIONS, cells], ensure_ascii=False).encode()).hexdigest()
    path = cache / f"{digest}.safetensors" if cache else None
    if path and path.exists():
        signatures = load_file(path)["signatures"]
    else:
        none = np.zeros((0, PERMUTATIONS), np.uint64)
        signatures = np.stack([signature(value) for _, value in cells]) if cells else none
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".part")
            save_file({"signatures": signatures}, aside)
            aside.rename(path)
    lsh = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
    for i, one in enumerate(signatures):
        lsh.insert(i, _minhash(one))
    return Index(cells, signatures, lsh)


def signature(text: str) -> np.ndarray:
    """The MinHash [PERMUTATIONS] uint64 of the text's shingles."""
    made = EMPTY.copy()
    made.update_batch([shingle.encode() for shingle in shingles(text)])
    return made.hashvalues.astype(np.uint64)


def _minhash(hashes: np.ndarray) -> MinHash:
    return MinHash(scheme=SCHEME, hashvalues=hashes, permutations=EMPTY.permutations)


def shingles(text: str) -> set[str]:
    """Character 3-grams of the lower-cased text, with a space at both ends."""
    padded = f" {normalise(text)} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)} or {padded}


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


def near(keyword: str, index: Index) -> list[int]:
    """Positions of the cells nearest to the keyword by estimated Jaccard similarity, at most NEAREST."""
    wanted = signature(keyword)
    found = np.array(sorted(index.lsh.query(_minhash(wanted))), int)
    if not len(found):
        return []
    jaccard = (index.signatures[found] == wanted).mean(axis=1)
    return found[np.argsort(-jaccard, kind="stable")[:NEAREST]].tolist()


def retrieve(question: str, index: Index, embed: Embed, *, most: int = 6) -> list[Condition]:
    """column = cell for the cells that the question may mean, best first, at most `most`.

    A cell counts where edit similarity and cosine to a keyword reach LEAST_EDIT and LEAST_COSINE, and their sum reaches
    SHARE_OF_BEST of its column's best.
    """
    hits = [(word, i) for word in keywords(question) for i in near(word, index)]
    hits = [(word, i, edit_similarity(word, index.cells[i][1])) for word, i in hits]
    hits = [hit for hit in hits if hit[2] >= LEAST_EDIT]
    texts = list(dict.fromkeys([text for word, i, _ in hits for text in (word, normalise(index.cells[i][1]))]))
    if not texts:
        return []
    vectors = dict(zip(texts, embed(texts), strict=True))
    scored: dict[int, float] = {}
    best: dict[Column, float] = {}
    for word, i, edit in hits:
        cosine = float(vectors[word] @ vectors[normalise(index.cells[i][1])])
        if cosine >= LEAST_COSINE:
            column = index.cells[i][0]
            scored[i] = max(scored.get(i, 0.0), edit + cosine)
            best[column] = max(best.get(column, 0.0), scored[i])
    kept = [i for i, score in scored.items() if score >= SHARE_OF_BEST * best[index.cells[i][0]]]
    order = sorted(kept, key=lambda i: (-scored[i], i))[:most]
    return [Condition(index.cells[i][0], "=", index.cells[i][1]) for i in order]


def spelled_in(question: str, columns: Sequence[Column], *, most: int = 6) -> list[Condition]:
    """What is left without retrieval: keywords as the question spells them, capitalised ones first, in any column."""
    capitals = {word: sum(part[0].isupper() for part in word.split()) for word in keywords(question)}
    words = sorted(capitals, key=lambda word: (-capitals[word], -len(word)))
    texts = [column for column in columns if not column.numeric]
    return [Condition(column, "=", word) for word in words[:2] for column in texts][:most]


def recall(found: Sequence[Condition], meant: Iterable[str]) -> float | None:
    """Share of the texts that a gold query compares with that are among those found; None where it has none."""
    meant = list(meant)
    values = {condition.value for condition in found}
    return sum(text in values for text in meant) / len(meant) if meant else None
