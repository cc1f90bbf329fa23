"""The baseline that can only give names it has seen: a classifier over the training names (in the place of VarBERT).

A variable is the lines that it stands in, with the variable blanked out, as a sentence encoder reads them; logistic
regression chooses among all names of the training functions.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from prefcore.methods.gennm.corpus import Item

LINES = 6  # of those that a variable stands in


def lines_of(item: Item, variable: str) -> str:
    """The first lines in which the variable stands, each occurrence as VAR."""
    found = [line.strip() for line in item.code.splitlines() if re.search(rf"\b{variable}\b", line)]
    return re.sub(rf"\b{variable}\b", "VAR", "\n".join(found[:LINES]))


def fit(items: Sequence[Item], embed: Callable, *, strength: float) -> LogisticRegression:
    """The classifier over all true names in these functions; embed(texts) -> [n, H]; strength is the inverse ridge."""
    rows = [(lines_of(item, variable), name) for item in items for variable, name in item.names.items()]
    if len({name for _, name in rows}) < 2:
        raise ValueError(f"{len(rows)} variables with fewer than two different names: nothing to choose from")
    texts, names = zip(*rows, strict=True)
    return LogisticRegression(C=strength, max_iter=300).fit(embed(texts), names)


def predict(model: LogisticRegression, items: Sequence[Item], embed: Callable) -> list[dict[str, str]]:
    """Placeholder -> likeliest training name, for each function's variables."""
    rows = [(i, variable, lines_of(item, variable)) for i, item in enumerate(items) for variable in item.names]
    out: list[dict[str, str]] = [{} for _ in items]
    if rows:
        chosen = model.predict(np.asarray(embed([text for _, _, text in rows])))
        for (i, variable, _), name in zip(rows, chosen, strict=True):
            out[i][variable] = str(name)
    return out
