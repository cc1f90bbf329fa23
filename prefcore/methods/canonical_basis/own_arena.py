"""Chatbot Arena's votes: reasons by a language model, categories, what they explain, and ratings for each of them.

`extractor`, a language model, names reasons and a topic for each vote, in both orders of the answers. The phrases
become categories, merged a second time by what they choose (signature.py); held-out votes between answers that nothing
else shows say how many of them a basis explains; a blind check says whether a reason names the winner to a judge who
does not know who won; and models get a rating for each preference. Phrases are kept under build/llm/, so that a second
run asks nothing.
"""

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data import files
from prefcore.data.rows import DataError
from prefcore.data.types import Parameters
from prefcore.lab import runs
from prefcore.methods.canonical_basis import (
    agreement,
    blind_check,
    cluster,
    elo,
    extraction,
    groupings,
    signature,
    task,
)  # fmt: skip
from prefcore.methods.canonical_basis.arena import Arena, Vote
from prefcore.methods.canonical_basis.extraction import Comparison
from prefcore.scoring import llm, metrics
from prefcore.scoring.llm import LanguageModel

OUT = Path("runs/own/canonical_basis")


class Reasons(NamedTuple):
    """answers: (style, order) -> extraction [n] of each vote; phrases, and of each mention its vote and its phrase."""

    answers: Mapping[tuple, Sequence]
    phrases: list[str]
    owner: np.ndarray
    phrase: np.ndarray


def measure(found: Arena, p: Parameters) -> Path:
    """Reasons, categories, held-out coverage, the blind check and ratings of models for each preference."""
    if not p.extractor:
        raise DataError("votes name no reasons: give a language model that does, --set extractor=ADDRESS#MODEL or a "
                        "hub id or folder")  # fmt: skip
    print(f"{len(found.votes)} votes; left out: {dict(found.left_out) or 'none'}")
    model = llm.open_model(p.extractor, p)
    reasons = extract(found.votes, model, p)
    embed = task.open_encoder(p)
    how = {"cuts": p.cuts, "threshold": p.merge, "sample": p.silhouette_sample, "seed": p.seed}
    words = cluster.find(reasons.phrases, reasons.phrase, embed, **how)
    change, held_out = place(found.votes, embed, p)
    learns, judges = groupings.halves(held_out, seed=p.seed)
    sizes = [*p.merged_sizes, len(words.found.names)]
    merged, worth = signature.choose_size(change, reasons.owner, words.category, learns, judges, sizes=sizes,
                                          basis=p.basis)  # fmt: skip
    size = max(worth, key=worth.get)
    category = merged[size][words.category]
    held = explain(change, reasons.owner, held_out, {"chosen": category, "words": words.category}, p.basis)
    names = name(category, words.found.names, words.category)
    written = {
        "votes": len(found.votes), "left_out": dict(found.left_out), "clusters": len(words.found.names),
        "categories": size, "worth": {str(key): value for key, value in worth.items()},
        "explained": {arm: metrics.bootstrap_interval(values, seed=p.seed) for arm, values in held.items()},
        "blind_check": check(found.votes, reasons, category, model, p),
        "agreement": agreement_of(reasons, category), "topics": count_topics(reasons, p.basis),
        "basis": names[: p.basis], "ratings": rate(found.votes, reasons, category, names, p),
        "claims": [],
    }  # fmt: skip
    for key in ("explained", "blind_check", "agreement", "topics", "basis", "ratings"):
        print(f"{key}: {written[key]}")
    write_pairs(found.votes, reasons, category, names[: p.basis])
    history = pd.DataFrame({"size": list(worth), "explained": list(worth.values())})
    scores = pd.concat([pd.DataFrame({"arm": arm, "id": [found.votes[n].id for n in np.flatnonzero(held_out)],
                                      "explained": values}) for arm, values in held.items()])  # fmt: skip
    return runs.finish("canonical_basis", "own", metrics=written, history=history, scores=scores)


def extract(votes: Sequence[Vote], model: LanguageModel, p: Parameters) -> Reasons:
    """What the model names for each vote; a phrase counts once for a vote. DataError where it names next to nothing."""
    asked = {"seed": p.seed, "temperature": 0.0, "max_tokens": p.extraction_tokens}
    answers = extraction.both_orders(compare(votes), model, p.styles, **asked)
    pairs = [(n, cluster.normalise(phrase)) for named in answers.values()
             for n, one in enumerate(named) if one for phrase in one.phrases]  # fmt: skip
    pairs = sorted(dict.fromkeys(pairs), key=lambda pair: pair[0])
    phrases = list(dict.fromkeys(phrase for _, phrase in pairs))
    if len(phrases) < 3:
        silent = sum(one is None for named in answers.values() for one in named)
        raise DataError(f"{p.extractor} named {len(phrases)} different phrases ({silent} answers of another form than "
                        "asked for): take a stronger model, or more extraction_tokens")  # fmt: skip
    place_of = {phrase: n for n, phrase in enumerate(phrases)}
    owner = np.array([n for n, _ in pairs])
    return Reasons(answers, phrases, owner, np.array([place_of[phrase] for _, phrase in pairs]))


def compare(votes: Sequence[Vote]) -> list[Comparison]:
    """The votes as an extractor sees them."""
    return [Comparison(vote.id, vote.first, vote.second, vote.first_wins, vote.prompt) for vote in votes]


def place(votes: Sequence[Vote], embed, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """(winner minus loser [N, D], held_out [N]): a random half, no answer of which any other vote shows."""
    texts = list(dict.fromkeys(text for vote in votes for text in (vote.first, vote.second)))
    where = {text: n for n, text in enumerate(texts)}
    first, second = (np.array([where[getattr(vote, side)] for vote in votes]) for side in ("first", "second"))
    wins = np.array([vote.first_wins for vote in votes])
    winner, loser = np.where(wins, first, second), np.where(wins, second, first)
    held_out = np.random.default_rng(p.seed).random(len(votes)) < 0.5
    seen = np.union1d(winner[~held_out], loser[~held_out])
    held_out &= ~(np.isin(winner, seen) | np.isin(loser, seen))
    if min(held_out.sum(), (~held_out).sum()) < 2:
        raise DataError(f"{len(votes)} votes leave {held_out.sum()} held-out ones of other answers: bring more")
    return task.differences(texts, winner, loser, embed, p), held_out


def explain(change, owner, held_out, groups: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """arm -> 1, -1 or 0 of each held-out vote by the `size` heaviest categories of each grouping."""
    out = {}
    for arm, category in groups.items():
        past = np.where(held_out[owner] | (category >= size), -1, category)
        there = np.where(held_out[owner] & (category < size), category, -1)
        pointers = signature.signatures(change, owner, past, categories=int(category.max()) + 1)
        out[arm] = signature.explained(change, owner, there, pointers)[held_out]
    return out


def name(category: np.ndarray, names: Sequence[str], words: np.ndarray) -> list[str]:
    """Each category by the name of the cluster of words that most of its mentions come from."""
    table = groupings.count(category, words, int(category.max()) + 1, len(names))
    return [names[best] for best in table.argmax(1)]


def check(votes, reasons: Reasons, category: np.ndarray, model: LanguageModel, p: Parameters) -> dict:
    """The blind check of a sample of votes: by their own phrase, and by one of another category (control)."""
    first = {int(n): m for m, n in reversed(list(enumerate(reasons.owner.tolist())))}
    sample = np.random.default_rng(p.seed).permutation(sorted(first))[: p.extraction_sample]
    mention = np.array([first[int(n)] for n in sample])
    own = [reasons.phrases[i] for i in reasons.phrase[mention]]
    shown = compare([votes[n] for n in sample])
    kinds = {"extracted": own}
    if len(set(category[mention].tolist())) > 1:
        kinds["other category"] = blind_check.other_phrases(own, category[mention], seed=p.seed)
    values = {kind: blind_check.check(shown, named, model, seed=p.seed) for kind, named in kinds.items()}
    return {kind: metrics.bootstrap_interval(value, seed=p.seed) for kind, value in values.items() if len(value) > 1}


def agreement_of(reasons: Reasons, category: np.ndarray) -> dict:
    """Share of votes answered in form, and how far orders and styles name the same category."""
    of_phrase = dict(zip(reasons.phrase.tolist(), category.tolist(), strict=True))
    place_of = {phrase: of_phrase[n] for n, phrase in enumerate(reasons.phrases)}
    named = {key: [[place_of[cluster.normalise(phrase)] for phrase in one.phrases] if one else [] for one in found]
             for key, found in reasons.answers.items()}  # fmt: skip
    answered = float(np.mean([bool(one) for found in named.values() for one in found]))
    return {"answered": answered, "same_in_both_orders": agreement.same_in_both_orders(named),
            "kappa_of_styles": agreement.of_styles(named)}  # fmt: skip


def count_topics(reasons: Reasons, size: int) -> list[dict]:
    """The most named topics, a row each, and how often they were named."""
    named = Counter(cluster.normalise(one.topic) for found in reasons.answers.values() for one in found if one)
    return [{"topic": topic, "named": often} for topic, often in named.most_common(size)]


def rate(votes, reasons: Reasons, category: np.ndarray, names: Sequence[str], p: Parameters) -> list[dict]:
    """A row for each category of the basis and model: Elo points from the votes that mention it; `overall` from all.

    A category behind which there are fewer than elo.LEAST votes has no rating.
    """
    models = sorted({model for vote in votes for model in vote.models})
    code = np.array([[models.index(model) for model in vote.models] for vote in votes])
    wins = np.array([vote.first_wins for vote in votes])
    winner, loser = np.where(wins, code[:, 0], code[:, 1]), np.where(wins, code[:, 1], code[:, 0])
    mentioned = groupings.count(reasons.owner, category, len(votes), len(names)) > 0
    picks = {"overall": winner != loser} | {label: (winner != loser) & mentioned[:, c]
                                            for c, label in enumerate(names[: p.basis])}  # fmt: skip
    out = []
    for label, picked in picks.items():
        if picked.sum() >= elo.LEAST:
            counts = elo.win_counts(winner[picked], loser[picked], models=len(models))
            ratings = elo.bradley_terry(counts, ridge=p.elo_ridge, base=p.elo_base)
            out += [{"category": label, "model": model, "rating": round(float(rating), 1)}
                    for model, rating in zip(models, ratings, strict=True)]  # fmt: skip
    return out


def write_pairs(votes, reasons: Reasons, category: np.ndarray, names: Sequence[str]) -> None:
    """One file of pairs for each category of the basis, for `run dpo --data`; those of an earlier run go."""
    folder = OUT / "pairs"
    shutil.rmtree(folder, ignore_errors=True)
    for c, label in enumerate(names):
        pairs = [votes[n].as_pair() for n in np.unique(reasons.owner[category == c])]
        slug = re.sub(r"\W+", "-", label).strip("-")[:40]
        files.write_lines(pairs, folder / f"{c + 1:02}-{slug}.jsonl")
