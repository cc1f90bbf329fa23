"""A bank of rated answers: a policy is measured by what it makes likelier among the reference's own answers.

The reference's K answers to each of n prompts are drawn once and rated once. One teacher-forced pass of a policy over
them, without any sampling, gives its log-ratios log policy - log reference; effects.py makes of them rho, their
correlation with the ratings within a prompt. To first order the gain at distance D from the reference is
rho x sd(rating within a prompt) x sqrt(2 D): rho is the slope of the reward-distance curve near the reference, however
far a policy went. It is local: beyond 3 to 5 nats only samples tell, and for those `factor_at` brings policies to one
distance.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from prefcore.data import files
from prefcore.data.types import Example, Tokens
from prefcore.engine import collate, models, reference
from prefcore.engine.collate import Plan

NEAR = 0.05  # a distance is reached within this share of it
FURTHEST = 8.0  # the largest factor at which an adapter is tried
TRIES = 12


class Rated(NamedTuple):
    """A prompt with the reference's own answers and their ratings: a line of the bank's file.

    tokens: the ids that were sampled, without EOS, which follows where an answer has finished by itself. ratings: by
    the rater's name, rating points of prompt and answer together, one for each answer.
    """

    id: str
    domain: str
    split: str
    prompt: str
    completions: tuple[str, ...]
    finished: tuple[bool, ...]
    tokens: tuple[Tokens, ...]
    ratings: Mapping[str, tuple[float, ...]]


class Bank(NamedTuple):
    """examples: n prompts with K answers each. ratings: by the rater's name, [n, K]."""

    examples: list[Example]
    ratings: dict[str, np.ndarray]


def read(path: Path, split: str) -> list[Rated]:
    """The lines of one split; FileNotFoundError where the stage `bank` has not run."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro bank`, which draws and rates it")
    return [Rated(**row) for row in files.read_lines(path) if row["split"] == split]


def encode(rows: Sequence[Rated], tokenizer, *, max_prompt: int) -> Bank:
    """Token ids as they were sampled. ValueError where another tokenizer has sampled them."""
    examples = []
    for row in rows:
        for ids, text in zip(row.tokens, row.completions, strict=True):
            collate.check_spelling(row.id, ids, text, tokenizer)
        answers = zip(row.tokens, row.finished, strict=True)
        branches = tuple(collate.as_branch(ids, finished, tokenizer) for ids, finished in answers)
        prompt = collate.cut_prompt(row.prompt, tokenizer, max_prompt=max_prompt)
        examples.append(Example(row.id, tuple(prompt), branches))
    return Bank(examples, stack(row.ratings for row in rows))


def stack(ratings: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    """Ratings by name, [n, K]; only raters who have rated every answer."""
    ratings = list(ratings)
    names = [name for name in ratings[0] if all(name in one for one in ratings)]
    return {name: np.array([one[name] for one in ratings], float) for name in names}


def attach(bank: Bank, policy, *, pad_id: int, cache: Path | None) -> Plan:
    """The bank as a plan with the reference's log-probabilities and frozen layers' output, alike for all arms."""
    return reference.attach(Plan(bank.examples, [], pad_id=pad_id), policy, cache=cache)


def log_ratios(policy, plan: Plan, *, cache: Path | None = None) -> np.ndarray:
    """log policy - log reference [n, K] of each answer of an attached bank, nats; from the cache if they are there."""
    path = cache / f"{fingerprint(policy, plan)}.safetensors" if cache else None
    if path and path.exists():
        return load_file(path)["ratios"]
    ratios = reference.score_attached(policy, plan) - plan.ref_logps
    if path:
        with files.whole(path) as aside:
            save_file({"ratios": ratios}, aside)
    return ratios


def fingerprint(policy, plan: Plan) -> str:
    """sha256 over all that decides log_ratios: answers, reference, weights, the adapter and its scale."""
    digest = hashlib.sha256(reference.fingerprint(policy, plan.examples).encode() + plan.ref_logps.tobytes())
    for name, weight in sorted(policy.named_parameters()):
        if "lora_" in name:
            digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    for name, module in policy.named_modules():
        if hasattr(module, "scaling"):
            digest.update(repr((name, module.scaling)).encode())
    return digest.hexdigest()


def distance(ratios: np.ndarray) -> float:
    """KL(reference || policy) in nats: the mean of -log-ratio [n, K] over the reference's own answers, unbiased."""
    return float(-ratios.mean())


def factor_at(policy, plan: Plan, nats: float) -> float:
    """By how much the adapter must be scaled (models.scaled) for this distance on the bank, within NEAR of it.

    The distance grows about as the square of the factor. ValueError where the policy does not get there at FURTHEST
    times its change: it has learnt next to nothing.
    """
    factor = 1.0
    for _ in range(TRIES):
        with models.scaled(policy, factor):
            there = distance(log_ratios(policy, plan))
        if abs(there / nats - 1) <= NEAR:
            return factor
        if factor == FURTHEST and there < nats:
            break
        factor = min(FURTHEST, factor * (nats / max(there, nats / 16)) ** 0.5)
    raise ValueError(f"at {factor:g} times its change this policy is {there:.3g} nats away, and not {nats:g}")
