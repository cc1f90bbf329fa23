"""Names without a network: the most frequent one of a slot, and a classifier over the text around a variable."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.naive_bayes import MultinomialNB

from prefcore.methods.gennm.corpus import Item

FEATURES = 2**12  # places for n-grams; two may share one
REACH = 3  # tokens on each side of a variable


def slot(item: Item, id: str) -> tuple[str, str]:
    """What kind of place an identifier has: which parameter it is (or "v"), and its declared type ("" if none)."""
    declared = re.search(rf"([A-Za-z_][\w ]*?[\s*]+)\b{id}\b", item.code)
    return id if id[0] == "a" else "v", re.sub(r"\s+", "", declared[1]) if declared else ""


def most_frequent(train: Sequence[Item], items: Sequence[Item]) -> list[dict[str, str]]:
    """For each true-named variable of `items` the most frequent training name of its slot; else of its place, of all.

    Of equally frequent names the first by letter.
    """
    counts: dict[tuple, Counter] = {}
    for item in train:
        for id, name in item.names.items():
            place, kind = slot(item, id)
            for key in ((place, kind), (place,), ()):
                counts.setdefault(key, Counter())[name] += 1
    best = {key: min(count, key=lambda name, count=count: (-count[name], name)) for key, count in counts.items()}

    def name_of(place: str, kind: str) -> str:
        return next((best[key] for key in ((place, kind), (place,), ()) if key in best), "")

    return [{id: name_of(*slot(item, id)) for id in item.names} for item in items]


def around(item: Item, id: str) -> str:
    """The n-grams of tokens that end or begin at each place of the identifier, as words; others lose their numbers."""
    tokens = re.findall(r"\"(?:\\.|[^\"\\\n])*\"|\w+|[^\w\s]", item.code)
    told = ["ID" if t == id else re.sub(r"^([avfgL])\d+$", r"\1", t) for t in tokens]
    words = []
    for i in np.flatnonzero([t == id for t in tokens]):
        left, right = told[max(0, i - REACH) : i], told[i + 1 : i + 1 + REACH]
        words += ["L~" + "~".join(left[-n:]) for n in range(1, len(left) + 1)]
        words += ["R~" + "~".join(right[:n]) for n in range(1, len(right) + 1)]
        words.append(f"B~{'~'.join(left[-1:])}~{'~'.join(right[:1])}")
    return "\n".join(words)


def from_ngrams(train: Sequence[Item], items: Sequence[Item]) -> list[dict[str, str]]:
    """For each true-named variable of `items` the likeliest training name by naive Bayes over `around`."""
    vectorise = HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm=None, tokenizer=str.splitlines,
                                  token_pattern=None, lowercase=False).transform  # fmt: skip
    taught = [(around(item, id), name) for item in train for id, name in item.names.items()]
    asked = [(place, id, around(item, id)) for place, item in enumerate(items) for id in item.names]
    out: list[dict[str, str]] = [{} for _ in items]
    if not taught or not asked:
        return out
    texts, names = zip(*taught, strict=True)
    model = MultinomialNB(alpha=0.1).fit(vectorise(texts), names)
    for (place, id, _), name in zip(asked, model.predict(vectorise([text for *_, text in asked])), strict=True):
        out[place][id] = str(name)
    return out


def by_key(items: Sequence[Item], names: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Key of a function -> its names."""
    return dict(zip((item.key for item in items), names, strict=True))
