"""Probes of bias: what a model answers to held-out questions, with either part of the prompt removed, and what counts.

A planted question is asked of three pictures (the prior holds, is broken, is reversed) and in other words; one's own
rows are asked as they are.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.methods.napo import negatives, vision
from prefcore.methods.napo.comparison import table
from prefcore.methods.napo.world.pictures import PLANTED, Row, words_of
from prefcore.scoring import metrics

MEASURES = {  # of one question, in [0, 1]: what is counted, and which way is better
    "holds": ("right where the planted prior holds", "higher"),
    "conflict": ("right where the planted prior fails (broken or reversed)", "higher"),
    "broken": ("right where the planted prior is broken", "higher"),
    "reversed": ("right where the planted prior is reversed", "higher"),
    "language_bias": ("names the planted colour against the picture", "lower"),
    "same_without_picture": ("says the same with the picture removed", "lower"),
    "same_without_question": ("says the same with the question removed", "lower"),
    "lp": ("LP in small: right on the picture and on both of its counterfactuals", "higher"),
    "cb": ("CB in small: right on the counterfactual when told what it shows", "higher"),
    "perceived": ("right when asked in words without a prior", "higher"),
    "other": ("right on questions without a prior (shape, presence)", "higher"),
    "hallucinated": ("answers that name a shape or colour not in the picture", "lower"),
    "right": ("right answers", "higher"),
}


def answer_questions(policy, processor, rows: Sequence[Row], album: Mapping, *, max_new_tokens: int) -> pd.DataFrame:
    """What a model answers to each row, with all shown, without the picture and without the question: a row each.

    Columns: those of Row, question_id (the id up to its slash), answer, without_picture, without_question.
    """
    frame = pd.DataFrame(rows, columns=Row._fields)
    how = {"max_new_tokens": max_new_tokens}
    frame["question_id"] = frame["id"].str.partition("/")[0]
    frame["answer"] = vision.answer(policy, processor, negatives.make_prompts(rows, album, processor), **how)
    language, picture = negatives.biased_answers(rows, album, policy, processor, **how)
    return frame.assign(without_picture=language, without_question=picture)


def measure(answers: pd.DataFrame, of_question: Callable, *, arm: str, seed: int) -> pd.DataFrame:
    """One row a question with its measures, by `measure_planted` or `measure_own`; id, arm and seed beside them."""
    where = {"arm": arm, "seed": seed}
    groups = answers.groupby("question_id", sort=False)
    return pd.DataFrame([where | {"id": id} | of_question(part) for id, part in groups])


def measure_planted(answers: pd.DataFrame) -> dict[str, float]:
    """All MEASURES but the last, of one planted question: `answers` has a row for each of its splits."""
    rows = {row.split: row for row in answers.itertuples(index=False)}
    right = {split: float(row.answer == row.chosen) for split, row in rows.items()}
    holds, broken, reversed_ = PLANTED
    against = [rows[broken], rows[reversed_]]
    shown = [rows[split] for split in (*PLANTED, "other")]
    return {
        "holds": right[holds], "conflict": (right[broken] + right[reversed_]) / 2,
        "broken": right[broken], "reversed": right[reversed_],
        "language_bias": float(np.mean([row.suggested in words_of(row.answer) for row in against])),
        "same_without_picture": float(np.mean([row.answer == row.without_picture for row in against])),
        "same_without_question": float(np.mean([row.answer == row.without_question for row in against])),
        "lp": right[holds] * right[broken] * right[reversed_], "cb": right["told"], "perceived": right["neutral"],
        "other": right["other"],
        "hallucinated": float(np.mean([bool(words_of(row.answer) - {row.shape, row.colour}) for row in shown])),
    }  # fmt: skip


def measure_own(answers: pd.DataFrame) -> dict[str, float]:
    """The MEASURES that need to know nothing of a picture, of one question of a user's own."""
    return {
        "right": float((answers["answer"] == answers["chosen"]).mean()),
        "same_without_picture": float((answers["answer"] == answers["without_picture"]).mean()),
        "same_without_question": float((answers["answer"] == answers["without_question"]).mean()),
    }


def summarise(scores: pd.DataFrame, seed: int) -> dict[str, dict[str, metrics.Interval]]:
    """arm -> measure -> mean with its 95 % interval over questions (and seeds, where there are several)."""
    names = [name for name in MEASURES if name in scores]
    return {
        arm: {name: metrics.bootstrap_seeds(table(scores, arm, name).to_numpy(), seed=seed) for name in names}
        for arm in dict.fromkeys(scores["arm"])
    }
