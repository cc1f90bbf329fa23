"""Functions in, names out: training examples, and a namer that spells, chooses or samples names of identifiers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate
from prefcore.methods.gennm import continuations, prompt
from prefcore.methods.gennm.corpus import Item
from prefcore.methods.gennm.namer import Namer, branch
from prefcore.methods.gennm.preferences import Query

Hints = Sequence[Sequence[str]]


class Question(NamedTuple):
    """An identifier of a function: the prompt that it is a branch of, and the tokens with which the branch begins."""

    key: str
    id: str
    prompt: tuple[int, ...]
    given: tuple[int, ...]


class Answer(NamedTuple):
    """One function's names, placeholder -> name, and the probability of each under the model."""

    names: dict[str, str]
    confidence: dict[str, float]


def questions(
    items: Sequence[Item], hints: Hints, ids: Sequence[Sequence[str]], tokenizer, most: int
) -> list[Question]:
    """One for each of these identifiers; those of a function share its prompt of at most `most` tokens.

    Where the function is longer, a few of them share what of it is about them.
    """
    out = []
    for item, context, wanted in zip(items, hints, ids, strict=True):
        for some in prompt.parts(item, wanted, tokenizer, most):
            text = prompt.fit(item, some, context, tokenizer, most)
            tokens = tuple(collate.cut_prompt(text, tokenizer, max_prompt=most))
            out += [Question(item.key, id, tokens, begin(id, tokenizer)) for id in some]
    return out


def begin(id: str, tokenizer) -> tuple[int, ...]:
    """The tokens with which the branch of an identifier begins."""
    return tuple(collate.encode_text(prompt.opening(id), tokenizer))


def examples(items: Sequence[Item], hints: Hints, namer: Namer, p: Parameters) -> list[Example]:
    """One for each true name: the branch that spells it and, where the namer knows names, that which chooses it.

    A function's own name is chosen as the name that is none: hardly any function is called like another. Raises
    KeyError for a name that the namer should know and does not. A name is cut at `max_name` tokens.
    """
    truth = {item.key: prompt.true_names(item) for item in items}
    asked = questions(items, hints, [list(truth[item.key]) for item in items], namer.tokenizer, p.max_prompt)
    places, out = {name: namer.words + i for i, name in enumerate(namer.names)}, []
    for question in asked:
        name = truth[question.key][question.id]
        spelled = branch(question.given, name, namer.tokenizer, p.max_name)
        known = ((*question.given, places["" if question.id == "f0" else name]),) if places else ()
        out.append(Example(f"{question.key}|{question.id}", question.prompt, (spelled, *known)))
    return out


def all_ids(items: Sequence[Item]) -> list[list[str]]:
    """All that can be named, of each function."""
    return [prompt.nameable(item) for item in items]


def predict(namer: Namer, items: Sequence[Item], hints: Hints, p: Parameters) -> list[Answer]:
    """The likeliest spelling of a name for every identifier of each function, token by token."""
    asked = questions(items, hints, all_ids(items), namer.tokenizer, p.max_prompt)
    how = {"each": 1, "max_new_tokens": p.max_name, "temperature": 1.0, "top_k": 1, "seed": 0, "rows": p.rows}
    drawn = continuations.draw(namer.policy, namer.tokenizer, branches(asked), words=namer.words, **how)
    found = [(prompt.read(one.text) if one.finished else "", math.exp(one.logp)) for (one,) in drawn]
    return gather(items, asked, found)


def choose(namer: Namer, items: Sequence[Item], hints: Hints, p: Parameters) -> list[Answer]:
    """The likeliest known name for every identifier of each function; ValueError where the namer knows none."""
    if not namer.names:
        raise ValueError("this model knows no names to choose from: it only writes")
    asked = questions(items, hints, all_ids(items), namer.tokenizer, p.max_prompt)
    found = continuations.choose(namer.policy, namer.tokenizer, branches(asked), words=namer.words, rows=p.rows)
    return gather(items, asked, [(namer.names[place], sure) for place, sure in found])


def sample(namer: Namer, items: Sequence[Item], hints: Hints, p: Parameters, *, seed: int) -> list[Query]:
    """`samples` names for every identifier that has a true one, at `temperature` from the `top_k` likeliest tokens.

    What spells no name is left out.
    """
    truth = {item.key: prompt.true_names(item) for item in items}
    asked = questions(items, hints, [list(truth[item.key]) for item in items], namer.tokenizer, p.max_prompt)
    how = {"each": p.samples, "max_new_tokens": p.max_name, "temperature": p.temperature, "top_k": p.top_k}
    drawn = continuations.draw(
        namer.policy, namer.tokenizer, branches(asked), words=namer.words, **how, seed=seed, rows=p.rows
    )
    return [
        Query(f"{question.key}|{question.id}", question.prompt, question.given, truth[question.key][question.id],
              tuple(name for one in many if one.finished and (name := prompt.read(one.text))))
        for question, many in zip(asked, drawn, strict=True)
    ]  # fmt: skip


def branches(asked: Sequence[Question]) -> list[continuations.Branch]:
    """The questions as continuations.py reads them."""
    return [(question.prompt, question.given) for question in asked]


def gather(items: Sequence[Item], asked: Sequence[Question], found: Sequence[tuple[str, float]]) -> list[Answer]:
    """Names with probabilities, one for each question, as one answer for each function; "" is no name."""
    out = {item.key: Answer({}, {}) for item in items}
    for question, (name, sure) in zip(asked, found, strict=True):
        if name:
            out[question.key].names[question.id] = name
            out[question.key].confidence[question.id] = sure
    return [out[item.key] for item in items]


def predictor(namer: Namer, p: Parameters) -> Callable:
    """predict(items, hints) -> names, as callgraph.propagate asks for it."""
    return lambda items, hints: names_of(predict(namer, items, hints, p))


def names_of(answers: Sequence[Answer]) -> list[Mapping[str, str]]:
    """The names alone."""
    return [answer.names for answer in answers]
