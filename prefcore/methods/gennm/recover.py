"""Functions in, names out: training examples, a model as a predictor, and how sure it is of each name."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prefcore.data.types import Example, LossOutput, Parameters
from prefcore.engine import collate
from prefcore.methods.gennm import continuations, prompt
from prefcore.methods.gennm.continuations import Continuation
from prefcore.methods.gennm.corpus import Item
from prefcore.methods.gennm.sympo import Query


class Answer(NamedTuple):
    """One function's names, placeholder -> name, and the probability of each under the model."""

    names: dict[str, str]
    confidence: dict[str, float]


def examples(items: Sequence[Item], hints: Sequence[Sequence[str]], tokenizer, p: Parameters) -> list[Example]:
    """Questions with the true answer as their one completion; the loss is over the answer.

    Departs from the paper, which trains on the question's tokens too: `whole_examples` does.
    """
    out = []
    for item, told in zip(items, hints, strict=True):
        ids = prompt.wanted(item, p.most_ids)
        text = prompt.fit(item, ids, told, tokenizer, p.max_prompt)
        truth = prompt.answer(prompt.true_names(item), ids)
        limits = {"max_prompt": p.max_prompt, "max_completion": p.max_completion}
        out.append(collate.encode(item.key, text, (truth,), (True,), tokenizer, **limits))
    return [example for example in out if example]


def whole_examples(items: Sequence[Item], hints: Sequence[Sequence[str]], tokenizer, p: Parameters) -> list[Example]:
    """The same with all tokens but the first to be learnt, as in the paper."""
    return [Example(e.id, e.prompt[:1], (e.prompt[1:] + e.completions[0],))
            for e in examples(items, hints, tokenizer, p)]  # fmt: skip


def token_loss(logps, ref_logps, batch, state) -> LossOutput:
    """Negative log-likelihood per token of the batch: the mean over rows is the mean over tokens."""
    return LossOutput(-logps[:, 0] * len(logps) / batch["lengths"].sum(), logps.detach())


def questions(items: Sequence[Item], hints: Sequence, tokenizer, p: Parameters) -> list[tuple[str, list[str]]]:
    """(text, identifiers asked for) of each function."""
    asked = [prompt.wanted(item, p.most_ids) for item in items]
    return [(prompt.fit(item, ids, told, tokenizer, p.max_prompt), ids)
            for item, ids, told in zip(items, asked, hints, strict=True)]  # fmt: skip


def predict(policy, tokenizer, items: Sequence[Item], hints: Sequence[Sequence[str]], p: Parameters) -> list[Answer]:
    """The likeliest answer to each question, as far as it keeps to the form."""
    asked = questions(items, hints, tokenizer, p)
    ids = [collate.encode_prompt(text, tokenizer)[-p.max_prompt :] for text, _ in asked]
    drawn = continuations.greedy(policy, tokenizer, ids, max_new_tokens=p.max_completion, rows=p.rows)
    return [read(one, wanted) for one, (_, wanted) in zip(drawn, asked, strict=True)]


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


def ask(policy, tokenizer, items: Sequence[Item], hints, p: Parameters, *, seed: int) -> list[Query]:
    """`samples` answers to each question, drawn at `temperature` from the `top_k` likeliest tokens."""
    asked = questions(items, hints, tokenizer, p)
    ids = [collate.encode_prompt(text, tokenizer)[-p.max_prompt :] for text, _ in asked]
    drawn = continuations.draw(
        policy, tokenizer, ids, each=p.samples, max_new_tokens=p.max_completion, temperature=p.temperature,
        top_k=p.top_k, seed=seed, rows=p.rows,
    )  # fmt: skip
    return [
        Query(item.key, text, tuple(wanted), prompt.true_names(item),
              tuple(prompt.parse(one.text, wanted) for one in many if one.finished))
        for item, (text, wanted), many in zip(items, asked, drawn, strict=True)
    ]  # fmt: skip
