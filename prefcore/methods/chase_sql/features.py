"""Features of a candidate for the linear judge, the control: what question, query and result have in common, and
nothing that has read both together."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from sqlglot import exp

from prefcore.methods.chase_sql.execution import Pool
from prefcore.methods.chase_sql.schema import parse

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> unit vectors [n, H]
NEGATION = "not|without|never|no|neither|except|excluding|other than"
CUES = {  # kinds of nodes of a query -> words in a question that call for them
    (exp.Count,): "how many|number of|count",
    (exp.Sum,): "total|sum|combined",
    (exp.Avg,): "average|mean|typical",
    (exp.Min,): "minimum|smallest|lowest|least|youngest|shortest|earliest|fewest",
    (exp.Max,): "maximum|largest|highest|most|oldest|longest|latest|greatest|top",
    (exp.Distinct,): "different|distinct|unique",
    (exp.Group,): "each|every|per|by",
    (exp.Order,): "order|sort|most|least|highest|lowest|largest|smallest|top|oldest|youngest",
    (exp.Not, exp.NEQ, exp.Except): NEGATION,
    (exp.GT, exp.GTE): "more|greater|above|over|at least|older|larger|higher|after",
    (exp.LT, exp.LTE): "less|below|under|fewer|younger|at most|smaller|before|lower",
    (exp.Having,): "at least|more than|fewer than|less than",
    (exp.Join,): "of|with|whose|by",
}
NAMES = (
    "near query", "question words in query", "query words in question", "strange literals", "numbers left out",
    "called for", "not called for", "columns", "tables", "nested", "no rows", "one row", "log rows", "log length",
    "missing cells", "unreadable",
)  # fmt: skip


def describe(pools: Sequence[Pool], embed: Embed) -> list[np.ndarray]:
    """Features [n, d] of each pool's n candidates, named by NAMES."""
    texts = dict.fromkeys(text for pool in pools for text in (pool.question, *map(_words, pool.sqls)))
    vectors = dict(zip(texts, embed(list(texts)), strict=True)) if texts else {}
    return [np.array([[float(vectors[pool.question] @ vectors[_words(sql)]), *_features(pool, i)]
                      for i, sql in enumerate(pool.sqls)], dtype=float) for pool in pools]  # fmt: skip


def _words(sql: str) -> str:
    """A query as lower-case words, names split."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", sql)
    return " ".join(re.findall(r"[^\W_]+", split)).lower() or "nothing"


def _stems(text: str) -> set[str]:
    return {re.sub(r"(ies|es|s|ed|ing|y|e)$", "", word) for word in text.split() if len(word) > 2}


def _features(pool: Pool, i: int) -> list[float]:
    sql, result, tree = pool.sqls[i], pool.results[i], parse(pool.sqls[i])
    question = f"{pool.question} {pool.evidence}".lower()
    asked, given = _stems(_words(question)), _stems(_words(sql))
    nodes = list(tree.walk()) if tree else []
    literals = [node.name.lower() for node in nodes if isinstance(node, exp.Literal)]
    numbers = set(re.findall(r"\d+(?:\.\d+)?", question)) - set(literals)
    called = {words: bool(re.search(rf"\b(?:{words})\b", question)) for words in CUES.values()}
    there = {words: any(isinstance(node, kinds) for node in nodes) for kinds, words in CUES.items()}
    cells = [cell for row in result.rows[:100] for cell in row]
    return [
        len(asked & given) / max(len(asked), 1),
        len(asked & given) / max(len(given), 1),
        float(sum(text.strip("%") not in question for text in literals)),
        float(len(numbers)),
        float(sum(there[words] and called[words] for words in called)),
        float(sum(there[words] and not called[words] for words in called)),
        float(min(len(result.columns), 6)),
        float(sum(isinstance(node, exp.Table) for node in nodes)),
        float(sum(isinstance(node, exp.Select) for node in nodes) - 1),
        float(not result.rows),
        float(len(result.rows) == 1),
        math.log(1 + len(result.rows)),
        math.log(1 + len(sql)),
        sum(cell is None for cell in cells) / max(len(cells), 1),
        float(tree is None),
    ]
