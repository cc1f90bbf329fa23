"""Two biases of a vision-language model: what it says without the picture, and without the question.

Without the picture only the question's words are left (language bias), without the question only the picture (vision
bias). The model's own answers of both kinds are the negatives of NaPO; the probes here measure what is left of them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import models, train
from prefcore.engine.collate import Plan, make_plan
from prefcore.engine.train import update_state
from prefcore.lab.comparison import table
from prefcore.methods.napo import vision
from prefcore.methods.napo.world import pictures
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


def prompts_of(rows: Sequence[Row], album: Mapping, processor, *, hidden: str = "") -> list[vision.Prompt]:
    """Prompts of picture and question; `hidden` names what is left out: "picture" or "question"."""
    if hidden not in ("", "picture", "question"):
        raise ValueError(f"hidden is {hidden!r}; it must be '', 'picture' or 'question'")
    asked = [
        (None if hidden == "picture" else album[row.picture], None if hidden == "question" else row.question)
        for row in rows
    ]
    return vision.make_prompts(processor, asked)


def biased_answers(rows, album, policy, processor, *, max_new_tokens: int) -> tuple[list[str], list[str]]:
    """(language-biased, vision-biased) answers of the model itself: without the picture, without the question.

    Departs from the paper: greedy instead of three beams.
    """
    asked = [prompts_of(rows, album, processor, hidden=hidden) for hidden in ("picture", "question")]
    language, seen = (vision.answer(policy, processor, p, max_new_tokens=max_new_tokens) for p in asked)
    return language, seen


def encode(
    rows: Sequence[Row], biased: tuple[Sequence[str], Sequence[str]], prompts: Sequence[vision.Prompt], tokenizer, *,
    max_completion: int,
) -> tuple[list[Example], dict[str, int]]:
    """Examples with the branches chosen, rejected, language-biased, vision-biased, all under the full prompt.

    Columns language and vision: 1, or 0 where that answer is empty or the right one, so that there is no pair. The
    counts say of how many rows that is so.
    """
    examples, counts = [], {"rows": len(rows), "language_dropped": 0, "vision_dropped": 0}
    for row, prompt, *said in zip(rows, prompts, *biased, strict=True):
        language, seen = (float(text not in ("", row.chosen.strip())) for text in said)
        there = {"language": language, "vision": seen}
        for name, found in there.items():
            counts[f"{name}_dropped"] += found == 0
        answers = (row.chosen, row.rejected, *said)
        examples.append(
            vision.make_example(row.id, prompt, answers, tokenizer, max_completion=max_completion, columns=there)
        )
    return examples, counts


def flip(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """The examples with a `share` of the language pairs, and of the vision pairs, labelled the wrong way round (-1)."""
    if not 0 <= share < 1:
        raise ValueError(f"the share of flipped labels must be in [0, 1); got {share}")
    rng, out = np.random.default_rng(seed), list(examples)
    for name in ("language", "vision"):
        there = [i for i, example in enumerate(out) if example.columns[name]]
        for i in rng.permutation(there)[: round(share * len(there))]:
            out[i] = out[i]._replace(columns={**out[i].columns, name: -out[i].columns[name]})
    return out


def swap(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Pairs of texts of which a `share`, drawn, has its two answers the wrong way round."""
    out = list(examples)
    for i in np.random.default_rng(seed).permutation(len(out))[: round(share * len(out))]:
        out[i] = out[i]._replace(completions=out[i].completions[::-1])
    return out


def without(examples: Sequence[Example], name: str) -> list[Example]:
    """The examples without the pairs of one kind: "language" or "vision"."""
    return [example._replace(columns={**example.columns, name: 0.0}) for example in examples]


def load(p: Parameters) -> tuple:
    """(processor, vision-language model): the one that `vision_policy` names, else build/<profile>/biased.

    ValueError where own data come without a model: the small one made here knows one shape of one colour only.
    """
    if p.data and not p.vision_policy:
        raise ValueError(
            "own pictures need a model that can see them: --set vision_policy=<hub id or folder> (the small one made "
            "here is build/quick/biased)"
        )
    name = p.vision_policy or str(Path("build") / p.profile / "biased")
    return vision.load(name, device=models.choose_device(p.device, p.threads), dtype=p.dtype)


def fresh_policy(p: Parameters, seed: int):
    """The model with a new adapter: the same function as before until it is trained."""
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers}
    return vision.add_lora(load(p)[1], **how, seed=seed)


def plan(kept: Plan, examples: Sequence[Example], p: Parameters, seed: int) -> Plan:
    """An attached plan with the same prompts and answers, other directions of the pairs and another order."""
    how = {"batch_size": p.batch_size, "epochs": p.epochs, "pad_id": kept.pad_id}
    return kept._replace(examples=list(examples), batches=make_plan(examples, seed=seed, **how).batches)


def fit_arm(
    p: Parameters, kept: Plan, step: Callable, numbers: Sequence[str], *, arm: str, seed: int, learning_rate: float
) -> tuple[object, pd.DataFrame]:
    """(policy, one history row a step) of one arm, trained on an attached plan from the model with a new adapter.

    step(logps, ref_logps, batch) -> (LossOutput, numbers by name): the history shows them as state_<name>.
    """
    policy = fresh_policy(p, seed)

    def loss(logps, ref_logps, batch, state):
        out, found = step(logps, ref_logps, batch)
        update_state(state, **found)
        return out

    history = train.fit(
        policy, kept, loss, learning_rate=learning_rate, seed=seed, state=dict.fromkeys(numbers, 0.0),
        label=f"{arm}, seed {seed}", checkpoints=Path(".checkpoints") / p.profile / "napo" / f"{arm}-{seed}",
    )  # fmt: skip
    history.insert(0, "arm", arm)
    history.insert(1, "seed", seed)
    return policy, history


# --- probes ---------------------------------------------------------------------------------------------------------


def ask(policy, processor, rows: Sequence[Row], album: Mapping, *, max_new_tokens: int) -> pd.DataFrame:
    """What a model says of each row, with all shown, without the picture and without the question: a row each.

    Columns: those of Row, question_id (the id up to its slash), said, without_picture, without_question.
    """
    frame = pd.DataFrame(rows, columns=Row._fields)
    how = {"max_new_tokens": max_new_tokens}
    frame["question_id"] = frame["id"].str.partition("/")[0]
    frame["said"] = vision.answer(policy, processor, prompts_of(rows, album, processor), **how)
    language, seen = biased_answers(rows, album, policy, processor, **how)
    return frame.assign(without_picture=language, without_question=seen)


def measure(asked: pd.DataFrame, *, arm: str, seed: int) -> pd.DataFrame:
    """One row a question with the MEASURES that its rows allow; id, arm and seed beside them."""
    where = {"arm": arm, "seed": seed}
    groups = asked.groupby("question_id", sort=False)
    return pd.DataFrame([where | {"id": id} | _measures(part) for id, part in groups])


def _measures(part: pd.DataFrame) -> dict[str, float]:
    rows = {row.split: row for row in part.itertuples(index=False)}
    right = {split: float(row.said == row.chosen) for split, row in rows.items()}
    if not set(PLANTED) <= set(rows):  # your own data: no kinds, one row a question
        return {
            "right": float(np.mean(list(right.values()))),
            "same_without_picture": float((part["said"] == part["without_picture"]).mean()),
            "same_without_question": float((part["said"] == part["without_question"]).mean()),
        }
    holds, broken, reversed_ = PLANTED
    against = [rows[broken], rows[reversed_]]
    shown = [rows[split] for split in (*PLANTED, "other")]
    return {
        "holds": right[holds], "conflict": (right[broken] + right[reversed_]) / 2,
        "broken": right[broken], "reversed": right[reversed_],
        "language_bias": float(np.mean([row.suggested in words_of(row.said) for row in against])),
        "same_without_picture": float(np.mean([row.said == row.without_picture for row in against])),
        "same_without_question": float(np.mean([row.said == row.without_question for row in against])),
        "lp": right[holds] * right[broken] * right[reversed_], "cb": right["told"], "perceived": right["neutral"],
        "other": right["other"],
        "hallucinated": float(np.mean([bool(words_of(row.said) - {row.shape, row.colour}) for row in shown])),
    }  # fmt: skip


def summarise(scores: pd.DataFrame, seed: int) -> dict[str, dict[str, metrics.Interval]]:
    """arm -> measure -> mean with its 95 % interval over questions (and seeds, where there are several)."""
    names = [name for name in MEASURES if name in scores]
    return {
        arm: {name: metrics.bootstrap_seeds(table(scores, arm, name).to_numpy(), seed=seed) for name in names}
        for arm in dict.fromkeys(scores["arm"])
    }


def open_rows(p: Parameters, build: Path) -> tuple[list[Row], list[Row], list[Row]]:
    """(rows to make preferences of, validation rows, test rows): of the default data, or of the file that `data` names.

    Own rows are split 80/10/10 by picture. Validation questions of the default data are drawn as the tests are.
    ValueError where there are too few rows.
    """
    if p.data:
        rows = pictures.read_own(p.data)
        names = sorted({row.picture for row in rows})
        place = dict(zip(np.random.default_rng(p.seed).permutation(names).tolist(), range(len(names)), strict=True))
        share = [place[row.picture] / len(names) for row in rows]
        parts = [[r for r, s in zip(rows, share, strict=True) if low <= s < high]
                 for low, high in ((0, 0.8), (0.8, 0.9), (0.9, 1))]  # fmt: skip
        if not all(parts):
            raise ValueError(f"{p.data} has {len(names)} pictures; at least 10 are needed to hold some out")
        return parts[0], parts[1], parts[2]
    found = pictures.read_rows(build / "pictures.jsonl")
    tests = [row for row in found if row.split not in ("teach", "prefer")]
    questions = list(dict.fromkeys(row.id.partition("/")[0] for row in tests))
    prefer = [row for row in found if row.split == "prefer"]
    first, second = p.validation_questions, p.test_questions
    if first + second > len(questions):
        asks = f"asks for {first} + {second} test questions, but"
        raise ValueError(f"napo {asks} {build} holds {len(questions)}: raise tested_questions")
    if p.pairs > len(prefer):
        raise ValueError(f"pairs is {p.pairs}, but {build} holds {len(prefer)}: raise preference_rows")
    parts = set(questions[:first]), set(questions[first : first + second])
    validation, test = ([row for row in tests if row.id.partition("/")[0] in names] for names in parts)
    return prefer[: p.pairs], validation, test
