"""The probes of bias: worked measures of one question, guards, and that what is measured is what the model says."""

from math import exp, log

import numpy as np
import pandas as pd
import pytest
import torch

from prefcore.methods.napo import negatives, probes, vision, vqa
from prefcore.methods.napo.world.pictures import PLANTED, Row, sentences

KINDS = dict.fromkeys(PLANTED, "colour") | {"neutral": "neutral", "shape": "shape"}
SHOWN = {
    "planted-holds": "red",
    "planted-broken": "blue",
    "planted-reversed": "gray",
    "neutral": "gray",
    "shape": "gray",
}


def rows(**answers):
    """One question about circles, which suggest red; the true answer has 0.3, the biased one 0.6, but as said below."""
    said = {split: f"It is {colour}." for split, colour in SHOWN.items()} | {"shape": "It is a circle."} | answers
    frame = pd.DataFrame([
        Row(f"q0/{split}", "p", "?", "", "", split, kind, "circle", SHOWN[split], "gray" if kind == "shape" else "red")
        for split, kind in KINDS.items()
    ])  # fmt: skip
    return frame.assign(true=log(0.3), biased=log(0.6), kl=0.25, answer=[said[split] for split in KINDS])


def test_worked_measures_of_one_question():
    """Log-odds log 0.3/0.6 twice and, where the shape is asked for, log 0.8/0.2: (log 0.5 + log 4)/2; the shares of
    the bias 2/3 and 1/5; P(true) (0.3 + 0.3 + 0.8)/3. Said is the planted red where it is broken: 2 of 3, LP 0.
    """
    frame = rows(**{"planted-broken": "It looks red.", "neutral": "It is is"})
    frame.loc[frame["split"] == "shape", ["true", "biased"]] = log(0.8), log(0.2)
    found = probes.measure_planted(frame)
    assert found == pytest.approx({
        "odds": (log(0.5) + log(4)) / 2, "odds_language": log(0.5), "odds_vision": log(4), "bias_language": 2 / 3,
        "bias_vision": 0.2, "probability": 1.4 / 3, "neutral": 0.3, "likelihood": (4 * log(0.3) + log(0.8)) / 5,
        "kl": 0.25, "spoken": 2 / 3, "lp": 0.0, "sentences": 0.8,
    })  # fmt: skip
    assert set(found) <= set(probes.MEASURES)


def test_a_question_that_is_not_answered_in_words_has_the_other_measures():
    found = probes.measure_planted(rows().assign(answer=None))
    assert "odds" in found and not {"spoken", "lp", "sentences"} & set(found)
    assert probes.measure_planted(rows())["lp"] == probes.measure_planted(rows())["spoken"] == 1.0


def test_own_rows_have_preference_accuracy_margin_distance_and_length():
    """Gains of chosen and rejected: 1 and 0.5, then 0 and 0.3: one of two pairs, margins 0.5 and -0.3."""
    frame = pd.DataFrame({"true": [1.0, 2.0], "true_ref": [0.0, 2.0], "biased": [0.5, 1.0], "biased_ref": [0.0, 0.7],
                          "kl": [0.1, 0.3], "answer": ["a b c", "a"]})  # fmt: skip
    found = probes.measure_own(frame)
    expected = {"accuracy": 0.5, "margin": 0.1, "likelihood": 1.5, "kl": 0.2, "length": 2.0}
    assert found == pytest.approx(expected)


def test_a_model_that_has_not_moved_prefers_half_of_its_own_rows_by_chance():
    frame = pd.DataFrame({"true": [1.0], "true_ref": [1.0], "biased": [0.5], "biased_ref": [0.5], "kl": [0.0],
                          "answer": [None]})  # fmt: skip
    assert probes.measure_own(frame)["accuracy"] == 0.5


def test_what_is_measured_is_the_probability_of_all_wordings(p, album):
    """Twin: the wordings of both answers one by one, through the model's own forward."""
    processor, model = vqa.load_model(p, 0)
    some = [Row("q0/neutral", "p1", "what color?", "", "", "neutral", "neutral", "circle", "red", "blue")]
    held = probes.hold(some, album, model, processor, p)
    seen = {}

    def keep(part):
        seen["part"] = part
        return {"kl": float(part["kl"].mean())}

    table, said = probes.measure(held, model, processor, p, keep, arm="base", seed=0, spoken=1)
    (prompt,) = negatives.make_prompts(some, album, processor)
    slow = []
    for text in (*sentences("red"), *sentences("blue")):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"] + [processor.tokenizer.eos_token_id]
        whole = torch.tensor([[*prompt.ids, *ids[: p.max_completion]]])
        with torch.no_grad():
            logits = model(input_ids=whole, **prompt.image).logits[0].double().log_softmax(-1)
        n = len(prompt.ids)
        slow.append(exp(float(logits[n - 1 : -1].gather(1, whole[0, n:, None]).sum())))
    row = seen["part"].iloc[0]
    assert row["true"] == pytest.approx(log(sum(slow[:3])), abs=1e-3)
    assert row["biased"] == pytest.approx(log(sum(slow[3:])), abs=1e-3)
    assert row["true"] == row["true_ref"] and table["kl"].tolist() == [0.0]
    how = {"max_new_tokens": p.max_new_tokens}
    assert said["answer"].tolist() == vision.answer(model, processor, [prompt], **how) and said["arm"].tolist() == [
        "base"
    ]


def test_a_starting_model_outside_the_band_is_seen():
    table = pd.DataFrame({"bias_language": [0.6, 0.7], "bias_vision": [0.7, 0.72]})
    assert probes.inside_band(table, [0.6, 0.75])["band"].tolist() == pytest.approx([0.04, 0.04])
    assert probes.inside_band(table, [0.68, 0.75])["band"].iloc[0] == pytest.approx(-0.03)
    assert "band" not in probes.inside_band(pd.DataFrame({"accuracy": [1.0]}), [0, 1])


def test_an_arm_that_forgets_to_speak_or_to_see_fails_its_guard():
    base = {"neutral": 0.9, "likelihood": -0.2, "sentences": 1.0, "kl": 0.0}
    changes = {
        "base": {},
        "fine": {"kl": 0.4},
        "mute": {"sentences": 0.5},
        "blind": {"neutral": 0.8},
        "far": {"kl": 1.4},
    }
    arms = {arm: base | change for arm, change in changes.items()}
    table = pd.DataFrame([{"arm": arm, "seed": s, "id": "q"} | row for arm, row in arms.items() for s in (0, 1)])
    rows = probes.guard(table, ["fine", "mute", "blind", "far"])
    failed = [(row["arm"], row["name"]) for row in rows if not row["passed"]]
    named = [("mute", "sentences"), ("blind", "neutral"), ("far", "kl")]
    assert failed == [(arm, probes.MEASURES[name]) for arm, name in named]
    assert all(row["kind"] == "guard" and np.isfinite(row["estimate"]) for row in rows)


def test_the_summary_has_an_interval_for_every_measure_that_an_arm_has():
    table = pd.DataFrame([{"arm": a, "seed": s, "id": f"q{i}", "odds": 1.0, "spoken": 0.5 if i < 2 else None}
                          for a in "ab" for s in (0, 1) for i in range(4)])  # fmt: skip
    summary = probes.summarise(table, seed=0)
    assert set(summary) == {"a", "b"} and set(summary["a"]) == {"odds", "spoken"}
    assert summary["a"]["odds"] == (1.0, 1.0, 1.0) and summary["b"]["spoken"] == (0.5, 0.5, 0.5)
