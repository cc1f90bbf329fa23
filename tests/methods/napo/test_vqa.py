"""The task: rows held out whole, their pictures, the arms, and what is refused before any work."""

import json
from pathlib import Path

import pytest
from PIL import Image

from prefcore import smoke
from prefcore.data.types import Ranked, freeze
from prefcore.methods.napo import probes, vqa
from prefcore.methods.napo.vqa import Arm
from prefcore.methods.napo.world import archive, pictures


@pytest.fixture
def planted(p):
    """Six preference rows a starting model and three test questions on toy pictures, as the stage leaves them."""
    smoke.make_pictures(archive.ARCHIVE)
    sizes = {"starting_models": 2, "preference_rows": 6, "tested_questions": 3, "seed": 0}
    pictures.prepare(freeze(sizes | {"preference_strength": 0.5}), Path("build/toy"))
    return p


def test_questions_to_choose_on_and_to_test_on_are_apart_and_whole(planted):
    task = vqa.open_task(planted._replace(seeds=2))
    assert [row.split for row in task.train(1)] == ["prefer:1"] * 4
    assert {row.id.split("/")[0] for row in task.validation} == {"q0"}
    assert {row.id.split("/")[0] for row in task.test} == {"q1", "q2"} and len(task.test) == 10
    used = [*task.train(0), *task.train(1), *task.validation, *task.test]
    assert {row.picture for row in used} == set(task.album)
    assert task.of_question is probes.measure_planted and task.chosen_by in probes.MEASURES and not task.texts
    with pytest.raises(ValueError, match=r"asks for 1 \+ 5 test questions, but .* holds 3: raise tested_questions"):
        vqa.open_task(planted._replace(test_questions=5))
    with pytest.raises(ValueError, match=r"pairs is 9, but .* holds 6 for starting model 0: raise preference_rows"):
        vqa.open_task(planted._replace(pairs=9))
    with pytest.raises(ValueError, match=r"holds 0 for starting model 2: raise preference_rows or starting_models"):
        vqa.open_task(planted._replace(seeds=3))


def test_an_arms_name_says_its_objective_and_its_share_of_noise(p):
    arms = vqa.arms_of(p._replace(seeds=5, ablation_seeds=3))
    assert arms == [
        Arm("sft", "sft", None, 5), Arm("clean", "clean", None, 5), Arm("dpo-35", "dpo", 0.35, 5),
        Arm("dpo-0", "dpo", 0.0, 3), Arm("no-vision-35", "no-vision", 0.35, 3),
    ]  # fmt: skip


def test_of_ones_own_pairs_nobody_knows_the_noise_so_each_objective_runs_once(p):
    names = [arm.name for arm in vqa.as_they_come(vqa.arms_of(p))]
    assert names == ["sft", "clean", "dpo-own", "no-vision-own"]
    assert all(arm.share is None for arm in vqa.as_they_come(vqa.arms_of(p)))


def test_text_pairs_are_two_of_a_prompts_answers_and_then_the_other_two():
    rows = [Ranked(str(i), f"w{i}", ("a", "b", "c", "d"), (4.0, 3.0, 2.0, 1.0), (True,) * 4) for i in range(5)]
    pairs = vqa.text_pairs(rows, 10, seed=0)
    by_prompt = {
        row.prompt: sorted(t for pair in pairs if pair.prompt == row.prompt for t in pair[2:4]) for row in rows
    }
    assert all(texts == ["a", "b", "c", "d"] for texts in by_prompt.values())
    assert all(pair.chosen < pair.rejected for pair in pairs) and len({pair.id for pair in pairs}) == 10
    assert pairs != vqa.text_pairs(rows, 10, seed=1)


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
    parts = task.train(0), task.validation, task.test
    assert [len(part) for part in parts] == [32, 4, 4]
    seen = [{row.picture for row in part} for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert set(task.album) == set.union(*seen) and task.of_question is probes.measure_own and not task.texts
    assert task.chosen_by in probes.MEASURES and "40 rows about 20 pictures" in task.about
    with pytest.raises(ValueError, match="--set vision_policy="):
        vqa.load_model(mine, 0)
    with pytest.raises(ValueError, match="has 3 pictures; at least 10"):
        vqa.open_task(p._replace(data=write_own(tmp_path, 3)))


def test_a_model_by_parameter_is_loaded_instead_of_the_one_made_here(p, folder):
    named = p._replace(profile="other", data="own.jsonl", vision_policy=str(folder / "build" / "toy" / "biased" / "0"))
    processor, model = vqa.load_model(named, 3)
    assert model.config.model_type == "llava" and processor.image_token == "<image>"
