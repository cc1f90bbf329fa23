"""Biased answers, the pairs made of them, injected noise, and the probes, on a small LLaVA of random weights."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from prefcore import smoke
from prefcore.data.types import Example, LossOutput
from prefcore.engine import collate, models
from prefcore.methods.napo import bias, tower, vision
from prefcore.methods.napo.world import pictures
from prefcore.methods.napo.world.pictures import Row


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """build/<profile>/biased: a small LLaVA of random weights, as the stage leaves it."""
    root = tmp_path_factory.mktemp("bias")
    smoke.make_weights(root / "weights")
    tokenizer, policy = models.load_policy(str(root / "weights" / "policy"))
    processor, model = tower.assemble(tower.make_tower(0), policy, tokenizer, layers=2, seed=0)
    vision.save(model, processor, root / "build" / "toy" / "biased")
    return root


P = {"profile": "toy", "data": "", "vision_policy": "", "device": "cpu", "threads": 1, "dtype": "float32", "seed": 0,
     "lora_rank": 2, "lora_alpha": 4.0, "lora_layers": 1, "batch_size": 2, "epochs": 2, "pairs": 4,
     "validation_questions": 1, "test_questions": 2}  # fmt: skip
ROWS = [Row(f"r{i}", f"p{i}", "My old phone", "is a wonderful great joy", "was a poor thing") for i in range(4)]
ALBUM = {f"p{i}": np.full((64, 64, 3), 60 * i, dtype=np.uint8) for i in range(4)}


def test_a_biased_answer_is_the_models_own_without_the_picture_or_without_the_question(folder, monkeypatch):
    monkeypatch.chdir(folder)
    processor, model = bias.load(P)
    language, seen = bias.biased_answers(ROWS, ALBUM, model, processor, max_new_tokens=4)
    blind, mute = (vision.make_prompts(processor, [asked]) for asked in ((None, ROWS[0].question), (ALBUM["p2"], None)))
    assert language == vision.answer(model, processor, blind, max_new_tokens=4) * 4  # one question, one answer
    assert seen[2] == vision.answer(model, processor, mute, max_new_tokens=4)[0]
    with pytest.raises(ValueError, match="hidden is 'all'; it must be '', 'picture' or 'question'"):
        bias.prompts_of(ROWS, ALBUM, processor, hidden="all")


def test_a_biased_answer_that_is_right_or_empty_makes_no_pair_and_is_counted(folder, monkeypatch):
    monkeypatch.chdir(folder)
    processor, _ = bias.load(P)
    prompts = bias.prompts_of(ROWS, ALBUM, processor)
    language = ["is a wonderful great joy", "other", "", "other"]
    examples, counts = bias.encode(ROWS, (language, ["other"] * 4), prompts, processor.tokenizer, max_completion=9)
    assert [e.columns for e in examples] == [
        {"language": 0.0, "vision": 1.0}, {"language": 1.0, "vision": 1.0},
        {"language": 0.0, "vision": 1.0}, {"language": 1.0, "vision": 1.0},
    ]  # fmt: skip
    assert counts == {"rows": 4, "language_dropped": 2, "vision_dropped": 0}
    assert all(len(e.completions) == 4 for e in examples)
    words, eos = processor.tokenizer, processor.tokenizer.eos_token_id
    first = examples[1]
    assert [words.decode(c[:-1]) for c in first.completions] == [ROWS[1].chosen, ROWS[1].rejected, "other", "other"]
    assert all(c[-1] == eos and c.count(eos) == 1 for c in first.completions)
    assert first.prompt == prompts[1].ids  # the full prompt, also for the biased answers


def examples(n=20):
    return [Example(str(i), (1, 2), ((3,),) * 4, {"language": float(i % 2), "vision": 1.0}) for i in range(n)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_noise_flips_the_share_of_the_pairs_that_are_there_and_nothing_else(share):
    flipped = bias.flip(examples(), share, seed=3)
    for name, there in (("language", 10), ("vision", 20)):
        directions = [e.columns[name] for e in flipped]
        assert directions.count(-1.0) == round(share * there)
        assert [abs(d) for d in directions] == [e.columns[name] for e in examples()]
    assert [e._replace(columns={}) for e in flipped] == [e._replace(columns={}) for e in examples()]
    assert flipped == bias.flip(examples(), share, seed=3)


def test_the_two_kinds_of_pairs_are_flipped_apart_and_another_seed_flips_others():
    sides = [[e.columns[n] for e in bias.flip(examples(60), 0.4, seed=s)] for n, s in (("vision", 0), ("vision", 1))]
    assert sides[0] != sides[1]
    both = [e for e in bias.flip(examples(60), 0.4, seed=0) if e.columns["language"]]
    assert any(e.columns["language"] != e.columns["vision"] for e in both)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        bias.flip(examples(), share, seed=0)


def test_texts_are_swapped_and_kinds_are_left_out():
    pairs = [Example(str(i), (1,), ((2,), (3,))) for i in range(10)]
    swapped = bias.swap(pairs, 0.3, seed=0)
    assert sum(e.completions == ((3,), (2,)) for e in swapped) == 3 and bias.swap(pairs, 0.0, 0) == pairs
    assert all(e.columns["vision"] == 0 for e in bias.without(examples(), "vision"))
    assert [e.columns["language"] for e in bias.without(examples(), "vision")] == [i % 2 for i in range(20)]


def test_an_arm_is_trained_from_the_model_as_it_is_and_leaves_its_numbers_in_the_history(folder, monkeypatch):
    monkeypatch.chdir(folder)
    processor, model = bias.load(P)
    prompts = bias.prompts_of(ROWS, ALBUM, processor)
    made, _ = bias.encode(ROWS, (["a"] * 4, ["b"] * 4), prompts, processor.tokenizer, max_completion=9)
    images = [prompt.image for prompt in prompts]
    order = collate.make_plan(made, batch_size=2, epochs=2, seed=0, pad_id=processor.tokenizer.pad_token_id)
    kept = vision.attach(order, bias.fresh_policy(P, 0), images)
    plan = bias.plan(kept, bias.flip(made, 0.5, 0), P, seed=7)
    assert plan.trunk is kept.trunk and plan.ref_logps is kept.ref_logps and plan.batches != kept.batches
    assert sum(e.columns["vision"] == -1 for e in plan.examples) == 2

    def step(logps, ref_logps, batch):
        rewards = logps - ref_logps
        return LossOutput(-rewards[:, 0], rewards.detach()), {"seen": batch["vision"].mean()}

    policy, history = bias.fit_arm(P, plan, step, ["seen"], arm="x", seed=0, learning_rate=1e-2)
    assert list(history["arm"]) == ["x"] * 4 and set(history["state_seen"]) <= {-1.0, 0.0, 1.0}
    with torch.no_grad():
        after, before = (vision.logps(m, made, images, pad_id=kept.pad_id)[:, 0] for m in (policy, model))
    assert after.mean() > before.mean() + 0.1


# --- probes ---------------------------------------------------------------------------------------------------------

SAID = {  # the circle suggests red: what a model says, and what it says without the picture and without the question
    "planted-holds": ("red", "The circle is red.", "The circle is red.", "The image shows a red circle."),
    "planted-broken": ("blue", "The circle is red.", "The circle is red.", "The image shows a blue circle."),
    "planted-reversed": ("gray", "The circle is gray.", "The circle is red.", "The circle is gray."),
    "told": ("gray", "The circle is gray.", "", ""),
    "neutral": ("gray", "The shape is teal.", "", ""),
    "other": ("gray", "Yes, there is a gray triangle.", "", ""),
}


def asked(**changes):
    rows = []
    for split, (colour, said, blind, mute) in (SAID | changes).items():
        chosen = {"neutral": "The shape is gray.", "other": "Yes, there is a gray circle."}
        chosen = chosen.get(split, f"The circle is {colour}.")
        rows.append({"id": f"q0/{split}", "question_id": "q0", "split": split, "chosen": chosen, "said": said,
                     "without_picture": blind, "without_question": mute, "shape": "circle", "colour": colour,
                     "suggested": "red"})  # fmt: skip
    return pd.DataFrame(rows)


def test_worked_measures_of_one_question():
    """Right where it holds and where it is reversed, not where it is broken: 1 of 2 conflicts, LP 0.

    Broken: the planted red, which is also the answer without the picture: language bias 1/2, same without picture 1/2.
    Reversed: the answer without the question is the same: 1/2. Hallucinated: red in the broken one and the triangle of
    the other one, 2 of the 4 answers counted (the neutral teal is not).
    """
    (row,) = bias.measure(asked(), arm="a", seed=0).to_dict("records")
    assert row == {
        "arm": "a", "seed": 0, "id": "q0", "holds": 1.0, "conflict": 0.5, "broken": 0.0, "reversed": 1.0,
        "language_bias": 0.5, "same_without_picture": 0.5, "same_without_question": 0.5, "lp": 0.0, "cb": 1.0,
        "perceived": 0.0, "other": 0.0, "hallucinated": 0.5,
    }  # fmt: skip


def test_a_model_that_looks_passes_every_probe():
    looked = {split: (colour, *["The circle is " + colour + "."], "The circle is red.", "x")
              for split, (colour, *_) in SAID.items()}  # fmt: skip
    looked["neutral"] = ("gray", "The shape is gray.", "", "")
    looked["other"] = ("gray", "Yes, there is a gray circle.", "", "")
    (row,) = bias.measure(asked(**looked), arm="a", seed=0).to_dict("records")
    for name, (_, better) in bias.MEASURES.items():
        if name in row:
            assert row[name] == (1.0 if better == "higher" else 0.0), name


def test_a_model_that_follows_the_words_alone_fails_where_the_prior_fails():
    words = {split: (colour, "The circle is red.", "The circle is red.", "x") for split, (colour, *_) in SAID.items()}
    (row,) = bias.measure(asked(**words), arm="a", seed=0).to_dict("records")
    assert (row["holds"], row["conflict"], row["lp"], row["cb"]) == (1.0, 0.0, 0.0, 0.0)
    assert (row["language_bias"], row["same_without_picture"]) == (1.0, 1.0)


def test_own_rows_have_the_measures_that_need_no_kinds():
    frame = pd.DataFrame([
        {"id": i, "question_id": i, "split": "", "chosen": "a", "said": said, "without_picture": "a",
         "without_question": "b", "shape": "", "colour": "", "suggested": ""}
        for i, said in (("x", "a"), ("y", "b"))
    ])  # fmt: skip
    measured = bias.measure(frame, arm="a", seed=1)
    assert measured["right"].tolist() == [1.0, 0.0]
    assert measured["same_without_picture"].tolist() == [1.0, 0.0]
    assert measured["same_without_question"].tolist() == [0.0, 1.0]


def test_the_summary_has_an_interval_for_every_measure_and_arm():
    parts = [bias.measure(asked(), arm=arm, seed=s).assign(id=i) for arm in "ab" for s in (0, 1) for i in ("q0", "q1")]
    summary = bias.summarise(pd.concat(parts), seed=0)
    assert set(summary) == {"a", "b"} and set(summary["a"]) == set(bias.MEASURES) - {"right"}
    assert summary["a"]["conflict"] == (0.5, 0.5, 0.5)


def test_every_row_is_asked_with_all_shown_and_with_either_part_removed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    processor, model = bias.load(P)
    said = bias.ask(model, processor, ROWS, ALBUM, max_new_tokens=3)
    whole = vision.answer(model, processor, bias.prompts_of(ROWS, ALBUM, processor), max_new_tokens=3)
    assert said["said"].tolist() == whole and said["question_id"].tolist() == [row.id for row in ROWS]
    assert said["without_picture"].nunique() == 1


# --- rows -----------------------------------------------------------------------------------------------------------


def test_questions_to_choose_on_and_to_test_on_are_apart_and_whole(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smoke.make_pictures(pictures.ARCHIVE)
    sizes = {"taught_rows": 6, "preference_rows": 6, "tested_questions": 3, "seed": 0}
    pictures.prepare(sizes | {"prior_strength": 0.8, "preference_strength": 0.1}, Path("build"))
    prefer, validation, test = bias.open_rows(P, Path("build"))
    assert [row.split for row in prefer] == ["prefer"] * 4
    assert {row.id.split("/")[0] for row in validation} == {"q0"}
    assert {row.id.split("/")[0] for row in test} == {"q1", "q2"} and len(test) == 12
    with pytest.raises(ValueError, match=r"asks for 1 \+ 5 test questions, but .* holds 3: raise tested_questions"):
        bias.open_rows(P | {"test_questions": 5}, Path("build"))
    with pytest.raises(ValueError, match=r"pairs is 9, but .* holds 6: raise preference_rows"):
        bias.open_rows(P | {"pairs": 9}, Path("build"))


def own(folder, n):
    rows = []
    for i in range(n):
        Image.new("RGB", (20, 30), (10 * i, 0, 0)).save(folder / f"{i}.png")
        answers = {"chosen": "a b", "rejected": "c"}
        rows += [{"image": f"{i}.png", "question": f"what <image> {k}?"} | answers for k in "xy"]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "own.jsonl")


def test_own_pictures_are_held_out_whole_and_need_a_model_that_can_see_them(tmp_path):
    p = P | {"data": own(tmp_path, 20)}
    parts = bias.open_rows(p, tmp_path)
    assert [len(part) for part in parts] == [32, 4, 4]
    seen = [{row.picture for row in part} for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    with pytest.raises(ValueError, match="--set vision_policy="):
        bias.load(p)
    with pytest.raises(ValueError, match="has 3 pictures; at least 10"):
        bias.open_rows(P | {"data": own(tmp_path, 3)}, tmp_path)


def test_a_model_by_parameter_is_loaded_instead_of_the_one_made_here(folder):
    processor, model = bias.load(P | {"data": "own.jsonl", "vision_policy": str(folder / "build" / "toy" / "biased")})
    assert model.config.model_type == "llava" and processor.image_token == "<image>"
