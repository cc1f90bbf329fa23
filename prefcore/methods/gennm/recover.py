"""Functions in, names out: training examples, a model as a predictor, and how sure it is of each name.

`predict` asks one question of each function, as training does; `predict_all` asks until nothing is left to name.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate
from prefcore.methods.gennm import continuations, prompt
from prefcore.methods.gennm.continuations import Continuation
from prefcore.methods.gennm.corpus import Item
from prefcore.methods.gennm.preferences import Query


class Question(NamedTuple):
    """What a model reads of one function, and the identifiers that it is asked for."""

    text: str
    ids: list[str]


class Answer(NamedTuple):
    """One function's names, placeholder -> name, and the probability of each under the model."""

    names: dict[str, str]
    confidence: dict[str, float]


def examples(items: Sequence[Item], hints: Sequence[Sequence[str]], tokenizer, p: Parameters) -> list[Example]:
    """Questions with the true answer as their one completion; the loss is over the answer.

    Departs from the paper, which trains on the question's tokens too.
    """
    out = []
    limits = {"max_prompt": p.max_prompt, "max_completion": p.max_completion}
    for item, (text, ids) in zip(items, questions(items, hints, tokenizer, p), strict=True):
        truth = prompt.write_answer(prompt.true_names(item), ids)
        out.append(collate.encode(item.key, text, (truth,), (True,), tokenizer, **limits))
    return [example for example in out if example]


def questions(items: Sequence[Item], hints: Sequence, tokenizer, p: Parameters) -> list[Question]:
    """The one question of training and test for each function."""
    return [write(item, prompt.wanted(item, p.most_ids), context, tokenizer, p)
            for item, context in zip(items, hints, strict=True)]  # fmt: skip


def write(item: Item, ids: list[str], context: Sequence[str], tokenizer, p: Parameters) -> Question:
    """A question on these identifiers of a function, within the limit of its tokens."""
    return Question(prompt.fit(item, ids, context, tokenizer, p.max_prompt), ids)


def predict(policy, tokenizer, items: Sequence[Item], hints: Sequence[Sequence[str]], p: Parameters) -> list[Answer]:
    """The answer to one question of each function, which names its first `most_ids` - 1 variables at most."""
    return answers(policy, tokenizer, questions(items, hints, tokenizer, p), p)


def predict_all(policy, tokenizer, items: Sequence[Item], hints: Sequence, p: Parameters) -> list[Answer]:
    """Names for all variables of each function, in as many questions of `most_ids` as that takes, each with all hints.

    The function's own name is asked in each of them: the surest one counts.
    """
    parts = [prompt.parts(item, p.most_ids) for item in items]
    asked = [write(item, ids, context, tokenizer, p)
             for item, all_ids, context in zip(items, parts, hints, strict=True) for ids in all_ids]  # fmt: skip
    found = iter(answers(policy, tokenizer, asked, p))
    return [merge([next(found) for _ in all_ids]) for all_ids in parts]


def answers(policy, tokenizer, asked: Sequence[Question], p: Parameters) -> list[Answer]:
    """The likeliest answer to each question, as far as it keeps to the form."""
    ids = encode(asked, tokenizer, p)
    drawn = continuations.greedy(policy, tokenizer, ids, max_new_tokens=p.max_completion, rows=p.rows)
    return [read(one, question.ids) for one, question in zip(drawn, asked, strict=True)]


def encode(asked: Sequence[Question], tokenizer, p: Parameters) -> list[list[int]]:
    """Token ids of each question, as training cuts them."""
    return [collate.cut_prompt(question.text, tokenizer, max_prompt=p.max_prompt) for question in asked]


def merge(found: Sequence[Answer]) -> Answer:
    """The answers to a function's questions as one; of two names for an identifier the surer, of equals the first."""
    best: dict[str, tuple[float, str]] = {}
    for answer in found:
        for id, name in answer.names.items():
            if id not in best or answer.confidence[id] > best[id][0]:
                best[id] = answer.confidence[id], name
    return Answer({id: name for id, (_, name) in best.items()}, {id: sure for id, (sure, _) in best.items()})


def predictor(policy, tokenizer, p: Parameters) -> Callable:
    """predict(items, hints) -> names, as callgraph.propagate asks for it."""
    return lambda items, hints: [found.names for found in predict(policy, tokenizer, items, hints, p)]


def read(drawn: Continuation, ids: Sequence[str]) -> Answer:
    """Names in the text, with the product of their tokens' probabilities. An answer cut in a name loses that name."""
    text = drawn.text if drawn.finished else drawn.text.rpartition(", ")[0]
    names = prompt.parse(text, ids)
    return Answer(names, {id: probability(drawn, f"{id}: {name}", len(id) + 2) for id, name in names.items()})


def probability(drawn: Continuation, phrase: str, skip: int) -> float:
    """Of the tokens that write `phrase` in the text, less its first `skip` letters."""
    text, total, end = "".join(drawn.tokens), 0.0, 0
    start = text.find(phrase) + skip
    for token, logp in zip(drawn.tokens, drawn.logps, strict=True):
        begin, end = end, end + len(token)
        if begin < start - skip + len(phrase) and end > start:
            total += logp
    return math.exp(total)


def sample(policy, tokenizer, items: Sequence[Item], hints, p: Parameters, *, seed: int) -> list[Query]:
    """`samples` answers to one question of each function, drawn at `temperature` from the `top_k` likeliest tokens."""
    asked = questions(items, hints, tokenizer, p)
    drawn = continuations.draw(
        policy, tokenizer, encode(asked, tokenizer, p), each=p.samples, max_new_tokens=p.max_completion,
        temperature=p.temperature, top_k=p.top_k, seed=seed, rows=p.rows,
    )  # fmt: skip
    return [
        Query(item.key, text, tuple(ids), prompt.true_names(item),
              tuple(prompt.parse(one.text, ids) for one in many if one.finished))
        for item, (text, ids), many in zip(items, asked, drawn, strict=True)
    ]  # fmt: skip
