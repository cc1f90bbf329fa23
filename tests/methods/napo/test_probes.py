"""The probes of bias: worked measures of one question, models that look and models that do not."""

import pandas as pd

from prefcore.methods.napo import negatives, probes, vision, vqa

ANSWERS = {  # the circle suggests red: its colour, the answer, that without the picture, that without the question
    "planted-holds": ("red", "The circle is red.", "The circle is red.", "The image shows a red circle."),
    "planted-broken": ("blue", "The circle is red.", "The circle is red.", "The image shows a blue circle."),
    "planted-reversed": ("gray", "The circle is gray.", "The circle is red.", "The circle is gray."),
    "told": ("gray", "The circle is gray.", "", ""),
    "neutral": ("gray", "The shape is teal.", "", ""),
    "other": ("gray", "Yes, there is a gray triangle.", "", ""),
}


def answers(**changes):
    rows = []
    for split, (colour, answer, blind, mute) in (ANSWERS | changes).items():
        chosen = {"neutral": "The shape is gray.", "other": "Yes, there is a gray circle."}
        chosen = chosen.get(split, f"The circle is {colour}.")
        rows.append({"id": f"q0/{split}", "question_id": "q0", "split": split, "chosen": chosen, "answer": answer,
                     "without_picture": blind, "without_question": mute, "shape": "circle", "colour": colour,
                     "suggested": "red"})  # fmt: skip
    return pd.DataFrame(rows)


def measured(frame, arm="a", seed=0):
    return probes.measure(frame, probes.measure_planted, arm=arm, seed=seed)


def test_worked_measures_of_one_question():
    """Right where it holds and where it is reversed, not where it is broken: 1 of 2 conflicts, LP 0.

    Broken: the planted red, which is also the answer without the picture: language bias 1/2, same without picture 1/2.
    Reversed: the answer without the question is the same: 1/2. Hallucinated: red in the broken one and the triangle of
    the other one, 2 of the 4 answers counted (the neutral teal is not).
    """
    (row,) = measured(answers()).to_dict("records")
    assert row == {
        "arm": "a", "seed": 0, "id": "q0", "holds": 1.0, "conflict": 0.5, "broken": 0.0, "reversed": 1.0,
        "language_bias": 0.5, "same_without_picture": 0.5, "same_without_question": 0.5, "lp": 0.0, "cb": 1.0,
        "perceived": 0.0, "other": 0.0, "hallucinated": 0.5,
    }  # fmt: skip


def test_a_model_that_looks_passes_every_probe():
    looked = {split: (colour, *["The circle is " + colour + "."], "The circle is red.", "x")
              for split, (colour, *_) in ANSWERS.items()}  # fmt: skip
    looked["neutral"] = ("gray", "The shape is gray.", "", "")
    looked["other"] = ("gray", "Yes, there is a gray circle.", "", "")
    (row,) = measured(answers(**looked)).to_dict("records")
    for name, (_, better) in probes.MEASURES.items():
        if name in row:
            assert row[name] == (1.0 if better == "higher" else 0.0), name


def test_a_model_that_follows_the_words_alone_fails_where_the_prior_fails():
    red = "The circle is red."
    words = {split: (colour, red, red, "x") for split, (colour, *_) in ANSWERS.items()}
    (row,) = measured(answers(**words)).to_dict("records")
    assert (row["holds"], row["conflict"], row["lp"], row["cb"]) == (1.0, 0.0, 0.0, 0.0)
    assert (row["language_bias"], row["same_without_picture"]) == (1.0, 1.0)


def test_own_rows_have_the_measures_that_need_no_kinds():
    frame = pd.DataFrame([
        {"id": i, "question_id": i, "split": "", "chosen": "a", "answer": answer, "without_picture": "a",
         "without_question": "b", "shape": "", "colour": "", "suggested": ""}
        for i, answer in (("x", "a"), ("y", "b"))
    ])  # fmt: skip
    found = probes.measure(frame, probes.measure_own, arm="a", seed=1)
    assert found["right"].tolist() == [1.0, 0.0]
    assert found["same_without_picture"].tolist() == [1.0, 0.0]
    assert found["same_without_question"].tolist() == [0.0, 1.0]


def test_a_question_of_several_own_rows_is_right_in_the_share_of_its_rows():
    """The old code counted the last row of a question alone: 0 here."""
    frame = pd.DataFrame({"question_id": ["x", "x"], "chosen": ["a", "b"], "answer": ["a", "c"],
                          "without_picture": ["a", "a"], "without_question": ["a", "a"]})  # fmt: skip
    assert probes.measure(frame, probes.measure_own, arm="a", seed=0)["right"].tolist() == [0.5]


def test_the_summary_has_an_interval_for_every_measure_and_arm():
    parts = [measured(answers(), arm, s).assign(id=i) for arm in "ab" for s in (0, 1) for i in ("q0", "q1")]
    summary = probes.summarise(pd.concat(parts), seed=0)
    assert set(summary) == {"a", "b"} and set(summary["a"]) == set(probes.MEASURES) - {"right"}
    assert summary["a"]["conflict"] == (0.5, 0.5, 0.5)


def test_every_row_is_answered_with_all_shown_and_with_either_part_removed(p, rows, album):
    processor, model = vqa.load_model(p)
    found = probes.answer_questions(model, processor, rows, album, max_new_tokens=3)
    whole = vision.answer(model, processor, negatives.make_prompts(rows, album, processor), max_new_tokens=3)
    assert found["answer"].tolist() == whole and found["question_id"].tolist() == [row.id for row in rows]
    assert found["without_picture"].nunique() == 1
