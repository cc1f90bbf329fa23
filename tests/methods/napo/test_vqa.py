"""The task: rows held out whole, their pictures, the texts beside them, and what is refused before any work."""

import json
from pathlib import Path

import pytest
from PIL import Image

from prefcore import smoke
from prefcore.data import files
from prefcore.data.types import Ranked, freeze
from prefcore.methods.napo import probes, vqa
from prefcore.methods.napo.world import archive, pictures


@pytest.fixture
def planted(p):
    """Six preference rows and three test questions on toy pictures, as the stage leaves them."""
    smoke.make_pictures(archive.ARCHIVE)
    sizes = {"taught_rows": 6, "preference_rows": 6, "tested_questions": 3, "seed": 0}
    pictures.prepare(freeze(sizes | {"prior_strength": 0.8, "preference_strength": 0.1}), Path("build/toy"))
    return p


def test_questions_to_choose_on_and_to_test_on_are_apart_and_whole(planted):
    task = vqa.open_task(planted)
    assert [row.split for row in task.train] == ["prefer"] * 4
    assert {row.id.split("/")[0] for row in task.validation} == {"q0"}
    assert {row.id.split("/")[0] for row in task.test} == {"q1", "q2"} and len(task.test) == 12
    assert {row.picture for row in task.train + task.validation + task.test} == set(task.album)
    assert task.measure is probes.measure_planted and {*task.tested, *task.parts} <= set(probes.MEASURES)
    assert "the prior holds in" in task.about
    with pytest.raises(ValueError, match=r"asks for 1 \+ 5 test questions, but .* holds 3: raise tested_questions"):
        vqa.open_task(planted._replace(test_questions=5))
    with pytest.raises(ValueError, match=r"pairs is 9, but .* holds 6: raise preference_rows"):
        vqa.open_task(planted._replace(pairs=9))


def test_pairs_of_texts_are_the_foundations_best_and_worst_answers_and_dpo_is_run_first(planted):
    answers = [Ranked(str(i), f"w{i}", ("good", "bad"), (1.0, 0.0), (True, True)) for i in range(5)]
    single = Ranked("x", "w", ("one",), (0.0,), (True,))
    files.write_lines([single, *answers], Path("build/toy/preferences.jsonl"))
    asked = {"text_pairs": 3, "text_held_out": 2, "text_arms": ["dpo", "napo"], "text_noises": [0.2, 0.4]}
    task = vqa.open_task(planted._replace(**asked, text_seeds=2))
    assert [pair.prompt for pair in task.text_pairs + task.text_held_out] == [f"w{i}" for i in range(5)]
    assert len(task.text_pairs) == 3 and task.text_pairs[0].chosen == "good"
    assert task.text_runs[:3] == [("dpo", 0.2, 0), ("napo", 0.2, 0), ("dpo", 0.2, 1)] and len(task.text_runs) == 8
    with pytest.raises(ValueError, match=r"asks for 3 \+ 9 pairs of texts .* holds 5: raise preference_prompts"):
        vqa.open_task(planted._replace(**asked | {"text_held_out": 9}))


def test_without_pairs_of_texts_nothing_is_run_on_them(planted):
    task = vqa.open_task(planted._replace(text_arms=["dpo"], text_noises=[0.4]))
    assert task.text_pairs == task.text_held_out == task.text_runs == []


def write_own(folder, n):
    rows = []
    for i in range(n):
        Image.new("RGB", (20, 30), (10 * i, 0, 0)).save(folder / f"{i}.png")
        answers = {"chosen": "a b", "rejected": "c"}
        rows += [{"image": f"{i}.png", "question": f"what <image> {k}?"} | answers for k in "xy"]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "own.jsonl")


def test_own_pictures_are_held_out_whole_and_need_a_model_that_can_see_them(p, tmp_path):
    mine = p._replace(data=write_own(tmp_path, 20))
    task = vqa.open_task(mine)
    parts = task.train, task.validation, task.test
    assert [len(part) for part in parts] == [32, 4, 4]
    seen = [{row.picture for row in part} for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert set(task.album) == set.union(*seen) and task.measure is probes.measure_own and task.text_runs == []
    assert {*task.tested, *task.parts} <= set(probes.MEASURES) and "40 rows about 20 pictures" in task.about
    with pytest.raises(ValueError, match="--set vision_policy="):
        vqa.load_model(mine)
    with pytest.raises(ValueError, match="has 3 pictures; at least 10"):
        vqa.open_task(p._replace(data=write_own(tmp_path, 3)))


def test_a_model_by_parameter_is_loaded_instead_of_the_one_made_here(p, folder):
    named = p._replace(profile="other", data="own.jsonl", vision_policy=str(folder / "build" / "toy" / "biased"))
    processor, model = vqa.load_model(named)
    assert model.config.model_type == "llava" and processor.image_token == "<image>"
