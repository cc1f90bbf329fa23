"""Features of a candidate for the linear judge: what question, query and result have to do with each other. Blocks:

content     the question and the query in MiniLM's embedding, words that they share, operations of the query against
            cues in the question, and the shape of the result: what CHASE-SQL's selector could see too
votes       how many other candidates have the same result (an ablation: the paper's selector does not see it)
systems     which systems have this result (an ablation that presumes the same systems at test time)
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql.execution import Pool, cluster_sizes
from prefcore.methods.chase_sql.sketch import Sketch, sketch, spell

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> unit vectors [n, H]


class Block(NamedTuple):
    """tables: the features [n, d] of each pool's n candidates; names of the d features."""

    tables: list[np.ndarray]
    names: list[str]


NEGATION = "not|without|never|no|neither|except|excluding|don|doesn|didn|other than|nor|exclude"
CUES = (  # operation, and cues in the question that call for it
    ("count", "how many|number of|count of"),
    ("sum", "total|sum"),
    ("average", "average|mean"),
    ("minimum", "minimum|smallest|lowest|least|youngest|shortest|earliest|fewest|minimal"),
    ("maximum", "maximum|largest|highest|most|oldest|longest|biggest|greatest|latest|maximal|top|best"),
    ("distinct", "different|distinct|unique|various|differently"),
    ("group", "each|every|per|for all|by"),
    ("ascending", "alphabetical|order|ordered|sort|sorted|ascending|rank|increasing"),
    ("descending", "descending|decreasing|most|largest|highest|oldest|top|reverse|latest|greatest|longest"),
    ("not", NEGATION),
    ("unequal", NEGATION),
    ("except", NEGATION),
    ("intersect", "both|also|as well as"),
    ("or", "or|either"),
    ("above", "more than|greater|above|over|at least|older|larger|higher|after|exceeds|bigger|longer"),
    ("below", "less than|below|under|fewer|younger|at most|smaller|before|lower|shorter"),
    ("between", "between|from"),
    ("like", "contain|contains|start|starts|begin|begins|end|ends|letter|word|substring|include|includes|like"),
    ("divide", "percentage|percent|ratio|proportion|rate|share"),
    ("subtract", "difference|gap"),
    ("limit", "most|least|fewest|top|first|highest|lowest|oldest|youngest|largest|smallest|longest|shortest"),
    ("having", "at least|more than|fewer than|less than|exactly|only"),
)
ALSO = ("nested", "join", "in", "union", "cast", "case", "null", "equal", "group", "limit", "order")
SINGLE = r"^(?:how many|what is|which \w+ (?:is|has)|who is|find the (?:number|average|total))"
STOP = frozenset(
    """a an the of in on at to for from by with and or is are was were be been do does did have has had what which who
    whose whom where when how many much list show give find return tell me us all each every please that this these
    those their its it they there as than then number name names id ids""".split()
)


def describe_content(pools: Sequence[Pool], embed: Embed) -> Block:
    """The content block."""
    texts: dict[str, int] = {}
    for pool in pools:
        for text in (_question(pool), *(text for pair in _query_words(pool) for text in pair)):
            texts.setdefault(text, len(texts))
    vectors = embed(list(texts)) if texts else np.empty((0, 1))
    tables, names = [], []
    for pool in pools:
        question = vectors[texts[_question(pool)]]
        rows = [_content(pool, i) for i in range(len(pool.sqls))]
        near = np.array([[float(question @ vectors[texts[text]]) for text in pair] for pair in _query_words(pool)])
        names = ["near query", "near selected", *rows[0]]
        tables.append(np.column_stack([near, np.array([list(row.values()) for row in rows], dtype=float)]))
    return Block(tables, names)


def describe_votes(pools: Sequence[Pool]) -> Block:
    """Share of the candidate's cluster, its logarithm, whether it is the largest."""
    out = []
    for pool in pools:
        share = cluster_sizes(pool.clusters) / len(pool.sqls)
        out.append(np.column_stack([share, np.log(share + 0.5 / len(share)), share == share.max()]).astype(float))
    return Block(out, ["share of votes", "log share of votes", "most votes"])


def describe_systems(pools: Sequence[Pool], systems: Sequence[str]) -> Block:
    """Of each named system whether it has the candidate's result."""
    out = []
    for pool in pools:
        table = np.zeros((len(pool.sqls), len(systems)))
        for column, system in enumerate(systems):
            has = {pool.clusters[i] for i, name in enumerate(pool.systems) if name == system}
            table[:, column] = [cluster in has for cluster in pool.clusters]
        out.append(table)
    return Block(out, [f"voted for by {system}" for system in systems])


def join(*blocks: Block) -> Block:
    """Blocks side by side."""
    tables = [np.column_stack(rows) for rows in zip(*(block for block, _ in blocks), strict=True)]
    return Block(tables, [name for _, names in blocks for name in names])


def subset(block: Block, inside: np.ndarray) -> Block:
    """The block of the pools where `inside` [n] is true."""
    return Block([block.tables[i] for i in np.flatnonzero(inside)], block.names)


def _question(pool: Pool) -> str:
    return f"{pool.question} {pool.evidence}".strip()


def _query_words(pool: Pool) -> list[tuple[str, str]]:
    """Of each candidate the whole query in words, and what it returns."""
    drawn = [sketch(sql) for sql in pool.sqls]
    return [(one.words or "nothing", " and ".join(one.selected) or "nothing") for one in drawn]


def _content(pool: Pool, i: int) -> dict[str, float]:
    one, question = sketch(pool.sqls[i]), _question(pool)
    return _words(one, question) | _selected(one, question) | _operations(one, question) | _shape(pool, i, one)


def _stems(text: str) -> set[str]:
    """Content words without endings, so that `singers` and `singer` are one."""
    return {_stem(word) for word in spell(text).split() if word not in STOP}


def _stem(word: str) -> str:
    return re.sub(r"(ies|es|s|ed|ing|er|est|y|e)$", "", word) if len(word) > 3 else word


def _words(one: Sketch, question: str) -> dict[str, float]:
    """Shares of words and literals that question and query have in common."""
    wanted, low = _stems(question), question.lower()
    given = _stems(" ".join((one.words, *one.literals)))
    named = _stems(" ".join(one.columns)) | _stems(" ".join(one.tables))
    texts = [text.strip("%").lower() for text in one.literals if text.strip("%")]
    known = [text in low for text in texts]
    numbers = set(re.findall(r"\d+(?:\.\d+)?", question))
    names = set(re.findall(r"(?<=\w )[A-Z][\w-]+|'[^']+'|\"[^\"]+\"", question))
    missing = [name for name in names if name.strip("'\"").lower() not in " ".join(texts)]
    return {
        "question words in query": len(wanted & given) / max(len(wanted), 1),
        "query words in question": len(wanted & given) / max(len(given), 1),
        "names in question": len(wanted & named) / max(len(named), 1),
        "strange literals": float(len(known) - sum(known)),
        "numbers left out": float(len(numbers - set(texts))),
        "names left out": float(len(missing)),
    }


def _selected(one: Sketch, question: str) -> dict[str, float]:
    """Whether what the query returns is what the question names, and in its order."""
    words = [_stem(word) for word in spell(question).split()]
    places = []
    for column in one.selected:
        stems = {_stem(word) for word in column.split() if word not in ("of", "number", "distinct")}
        places.append(min((words.index(stem) for stem in stems if stem in words), default=-1))
    found = [place for place in places if place >= 0]
    turned = sum(a > b for k, a in enumerate(found) for b in found[k + 1 :])
    strange = len(places) - len(found)
    return {"returned but not named": float(min(strange, 4)), "returned in another order": float(min(turned, 4))}


def _operations(one: Sketch, question: str) -> dict[str, float]:
    """Each operation where its cue is in the question, and where it is not."""
    low, out = question.lower(), {}
    for operation, words in CUES:
        called = bool(re.search(rf"\b(?:{words})\b", low))
        does = min(one.operations.get(operation, 0), 2)
        out[f"{operation}, called for"] = float(does * called)
        out[f"{operation}, not called for"] = float(does * (not called))
    counts: Mapping[str, int] = one.operations | {
        "order": one.operations.get("ascending", 0) + one.operations.get("descending", 0)
    }
    return out | {f"{name}, how often": float(min(counts.get(name, 0), 3)) for name in ALSO}


def _shape(pool: Pool, i: int, one: Sketch) -> dict[str, float]:
    """Length of the query and form of its result."""
    result = pool.results[i]
    rows, width = result.rows, len(result.columns)
    low = pool.question.lower()
    wanted = 1 + len(re.findall(r",|\band\b", re.split(r"\b(?:of|for|whose|who|that|with|where|in|from)\b", low)[0]))
    single = bool(re.search(SINGLE, low))
    cells = [cell for row in rows[:100] for cell in row]
    return {
        "log length": math.log(1 + len(pool.sqls[i])),
        "tables": float(len(one.tables)),
        "idle tables": float(min(one.idle, 3)),
        "texts in no cell": float(min(pool.absent[i], 3)),
        "unreadable": float(not one.readable),
        "columns": float(min(width, 6)),
        "columns off": float(min(abs(width - wanted), 4)),
        "no rows": float(not rows),
        "one row": float(len(rows) == 1),
        "rows where one is wanted": float(single and len(rows) != 1),
        "log rows": math.log(1 + len(rows)),
        "repeated rows": float(len(set(rows)) < len(rows)),
        "missing cells": sum(cell is None for cell in cells) / max(len(cells), 1),
        "only zero or nothing": float(bool(cells) and all(cell in (None, 0, "") for cell in cells)),
    }
