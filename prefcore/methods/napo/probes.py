"""Probes of bias: how likely a policy finds the true answer and the biased one, and then what it says.

Both are read off by teacher forcing: the probabilities of all wordings of the true answer are added, and of all
wordings of what the bias names. A planted question is asked of three pictures, in neutral words, and for the shape;
one's own rows have a chosen and a rejected answer, and no more is known of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from prefcore.data.types import Example, Parameters
from prefcore.methods.napo import negatives, vision
from prefcore.methods.napo.world.pictures import PLANTED, Row, is_right, is_sentence, sentences, truth
from prefcore.scoring import metrics

MEASURES = {  # of one question
    "odds": "log-odds of the true against the biased answer (nats), mean of both biases",
    "odds_language": "the same where the words suggest another colour than the picture shows",
    "odds_vision": "the same where the shape is asked for and the colour is salient",
    "bias_language": "share of the biased answer in the probability of both, where the words suggest another colour",
    "bias_vision": "the same where the shape is asked for and the colour is salient",
    "probability": "probability of the true answer, in any wording",
    "neutral": "the same where nothing suggests a wrong one",
    "likelihood": "log-probability of the true answer (nats)",
    "kl": "nats from the reference, on what it says itself where nothing suggests a wrong answer",
    "spoken": "says the truth against a bias",
    "lp": "LP in small: says the truth of a picture and of both its counterfactuals",
    "sentences": "says one of this world's sentences",
    "accuracy": "the chosen answer has gained more than the rejected one",
    "margin": "by how much more (nats)",
    "length": "words of an answer",
}
GUARDS = {"neutral": -0.05, "likelihood": -0.5, "sentences": -0.1}  # at most so much less than the reference's
FURTHEST = 1.0  # nats from the reference where there is no bias to lose


class Held(NamedTuple):
    """Questions to measure on: the rows, their prompts, and examples with the answers that are held against each other
    (first the true ones, then as many biased ones), with the starting model's log-probabilities, [n, K].

    own, own_ref: the starting model's own answers to the rows `asked`, drawn, and their log-probabilities [m, 1].
    """

    rows: Sequence[Row]
    prompts: Sequence[vision.Prompt]
    examples: Sequence[Example]
    ref_logps: np.ndarray
    asked: Sequence[int]
    own: Sequence[Example]
    own_ref: np.ndarray


def hold(rows: Sequence[Row], album: Mapping, model, processor, p: Parameters) -> Held:
    """What all arms of one starting model are measured on."""
    prompts, tokenizer = negatives.make_prompts(rows, album, processor), processor.tokenizer
    how = {"tokenizer": tokenizer, "max_completion": p.max_completion}
    examples = [vision.make_example(r.id, q, _answers(r), **how) for r, q in zip(rows, prompts, strict=True)]
    asked = [i for i, row in enumerate(rows) if row.kind in ("neutral", "")]
    shown = [prompts[i] for i in asked]
    limits = {"max_new_tokens": p.max_new_tokens, "temperature": 1.0, "seed": p.seed}
    drawn = vision.answer(model, processor, shown, **limits)
    own = [vision.make_example(rows[i].id, prompts[i], (text,), **how) for i, text in zip(asked, drawn, strict=True)]
    ref = [_score(model, some, tokenizer, [prompts[i].image for i in places], p.precision)
           for some, places in ((examples, range(len(rows))), (own, asked))]  # fmt: skip
    return Held(rows, prompts, examples, ref[0], asked, own, ref[1])


def _answers(row: Row) -> tuple[str, ...]:
    return (*sentences(truth(row)), *sentences(row.suggested)) if row.kind else (row.chosen, row.rejected)


def _score(policy, examples, tokenizer, images, precision: str) -> np.ndarray:
    return vision.score_all(policy, examples, images, pad_id=tokenizer.pad_token_id, precision=precision)


def measure(
    held: Held, policy, processor, p: Parameters, of_question: Callable, *, arm: str, seed: int, spoken: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(a row of measures a question, a row an answer): the first `spoken` questions are also answered in words.

    of_question is `measure_planted` or `measure_own`.
    """
    frame = pd.DataFrame(held.rows, columns=Row._fields)
    frame["question_id"] = frame["id"].str.partition("/")[0]
    images = [prompt.image for prompt in held.prompts]
    tokenizer = processor.tokenizer
    scored = _score(policy, held.examples, tokenizer, images, p.precision)
    for name, logps in (("", scored), ("_ref", held.ref_logps)):
        true, biased = torch.from_numpy(logps).double().chunk(2, 1)
        frame[f"true{name}"], frame[f"biased{name}"] = true.logsumexp(1).numpy(), biased.logsumexp(1).numpy()
    own = _score(policy, held.own, tokenizer, [images[i] for i in held.asked], p.precision)
    frame["kl"] = pd.Series((held.own_ref - own)[:, 0], index=held.asked)
    asked = frame["question_id"].isin(frame["question_id"].unique()[:spoken])
    shown = [held.prompts[i] for i in np.flatnonzero(asked)]
    frame["answer"] = pd.Series(
        vision.answer(policy, processor, shown, max_new_tokens=p.max_new_tokens) if shown else [],
        index=frame.index[asked], dtype=object,
    )  # fmt: skip
    parts = frame.groupby("question_id", sort=False)
    table = pd.DataFrame([{"arm": arm, "seed": seed, "id": id} | of_question(part) for id, part in parts])
    return table, frame[asked].assign(arm=arm, seed=seed)


def measure_planted(part: pd.DataFrame) -> dict[str, float]:
    """The measures of one planted question: `part` has a row for each picture and wording it is asked of."""
    rows = {row.split: row for row in part.itertuples(index=False)}
    against = [rows[name] for name in (*PLANTED[1:], "shape")]
    odds = [row.true - row.biased for row in against]
    share = [float(1 / (1 + np.exp(one))) for one in odds]
    found = {
        "odds": (odds[0] + odds[1]) / 4 + odds[2] / 2,
        "odds_language": (odds[0] + odds[1]) / 2, "odds_vision": odds[2],
        "bias_language": (share[0] + share[1]) / 2, "bias_vision": share[2],
        "probability": float(np.mean([np.exp(row.true) for row in against])),
        "neutral": float(np.exp(rows["neutral"].true)), "likelihood": float(part["true"].mean()),
        "kl": rows["neutral"].kl,
    }  # fmt: skip
    if part["answer"].isna().any():
        return found
    right = {name: float(is_right(row, row.answer)) for name, row in rows.items()}
    said = {
        "spoken": float(np.mean([right[row.split] for row in against])),
        "lp": float(np.prod([right[name] for name in PLANTED])),
        "sentences": float(np.mean([is_sentence(row.answer) for row in rows.values()])),
    }
    return found | said


def measure_own(part: pd.DataFrame) -> dict[str, float]:
    """The measures of a held-out row of a user's own: of preference, of distance, of length."""
    chosen, rejected = part["true"] - part["true_ref"], part["biased"] - part["biased_ref"]
    found = {
        "accuracy": float((0.5 + 0.5 * np.sign(chosen - rejected)).mean()), "margin": float((chosen - rejected).mean()),
        "likelihood": float(part["true"].mean()), "kl": float(part["kl"].mean()),
    }  # fmt: skip
    if part["answer"].isna().any():
        return found
    return found | {"length": float(part["answer"].str.split().str.len().mean())}


def inside_band(table: pd.DataFrame, band: Sequence[float]) -> pd.DataFrame:
    """The table of one starting model with the column `band`: by how much its graded biases lie inside `band` (below 0:
    outside), the nearer one of the two; the same for all its questions, as it is about the model.
    """
    names = [name for name in ("bias_language", "bias_vision") if name in table]
    means = table[names].mean()
    return table.assign(band=min(min(mean - band[0], band[1] - mean) for mean in means)) if names else table


def guard(table: pd.DataFrame, arms: Sequence[str], *, share: float = 1.0) -> list[dict]:
    """Rows that say whether an arm still sees and speaks as its starting models do, in means over these.

    share: of what an arm may lose there, for a first look at few questions of one starting model.
    """
    means, rows = table.groupby("arm")[[name for name in (*GUARDS, "kl") if name in table]].mean(), []
    for arm in arms:
        least = {name: means.loc["base", name] + share * allowed for name, allowed in GUARDS.items() if name in means}
        bounds = {name: (low, np.inf) for name, low in least.items()} | {"kl": (-np.inf, share * FURTHEST)}
        for name, (low, high) in bounds.items():
            value, expected = float(means.loc[arm, name]), f"{low:.3g} to {high:.3g}"
            rows.append({"name": MEASURES[name], "kind": "guard", "arm": arm, "expected": expected,
                         "estimate": value, "passed": bool(low <= value <= high)})  # fmt: skip
    return rows


def summarise(table: pd.DataFrame, seed: int) -> dict[str, dict[str, metrics.Interval]]:
    """arm -> measure -> mean with its 95 % interval over questions and starting models."""
    out: dict[str, dict[str, metrics.Interval]] = {}
    for arm, part in table.groupby("arm", sort=False):
        named = {name: part.dropna(subset=[name]) for name in MEASURES if name in part}
        wide = {name: own.pivot(index="seed", columns="id", values=name) for name, own in named.items() if len(own)}
        out[arm] = {name: metrics.bootstrap_seeds(one.to_numpy(), seed=seed) for name, one in wide.items()}
    return out
