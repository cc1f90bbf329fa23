"""A starting model and its arms: on planted pictures, and on a user's own rows with three families of models."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from prefcore.methods.napo import objectives, starts, vqa
from prefcore.methods.napo.vqa import Arm

SETTINGS = {"rule": partial(objectives.fixed, q=0.0), "beta": 0.1,
            "weigh": partial(objectives.constant, weights=[1.0, 1.0, 1.0])}  # fmt: skip
ARM = Arm("dpo-own", "dpo", None, 1)


class Reader:
    """What turns a picture and a text into a tiny model's input: four tokens a picture, its colour in its pixels."""

    image_token = "<image>"

    def __init__(self, tokenizer, image):
        self.tokenizer, self.image = tokenizer, image

    def apply_chat_template(self, messages, **_):
        parts = messages[0]["content"]
        return "".join(self.image_token if part["type"] == "image" else part["text"] for part in parts) + "\n"

    def __call__(self, *, text, images, return_tensors):
        shade = float(np.asarray(images).mean()) / 255 + 0.1
        ids = self.tokenizer(text.replace(self.image_token, self.image_token * 4), add_special_tokens=False)[
            "input_ids"
        ]
        image = {k: v * shade if v.is_floating_point() else v for k, v in self.image.items()}
        return {"input_ids": torch.tensor([ids])} | image


def write_own(folder):
    """Twenty pictures; the right answer to every question is the same, and can be learnt."""
    for i in range(20):
        Image.new("RGB", (20, 30), (10 * i, 0, 0)).save(folder / f"{i}.png")
    row = {"question": "My old phone", "chosen": "is a wonderful great joy", "rejected": "was a poor thing"}
    (folder / "own.jsonl").write_text("\n".join(json.dumps({"image": f"{i}.png"} | row) for i in range(20)))
    return str(folder / "own.jsonl")


@pytest.mark.parametrize("family", ["llava", "smolvlm", "qwen"])
def test_a_users_model_learns_its_own_rows_and_is_measured_on_held_out_ones(
    p, tmp_path, monkeypatch, make_model, family
):
    own = p._replace(data=write_own(tmp_path), vision_policy="mine", epochs=4)
    processor, model = vqa.load_model(p, 0)
    if family != "llava":
        words = processor.tokenizer
        model, image, _ = make_model(family, vocab=len(words), token=words.convert_tokens_to_ids("<image>"))
        processor = Reader(words, image)
    monkeypatch.setattr(vqa, "load_model", lambda p, start: (processor, model))
    task = vqa.open_task(own)
    start = starts.open_start(own, task, 0)
    base = starts.measure_base(own, task, start)
    done = starts.run(own, task, start, ARM, start.plan.examples, objectives.loss, SETTINGS, learning_rate=1e-2,
                      state=objectives.STATE)  # fmt: skip
    again = starts.measure_base(own, task, start)
    assert base.table[["accuracy", "margin", "kl"]].to_numpy().tolist() == [[0.5, 0.0, 0.0]] * 2
    assert (done.table["accuracy"] == 1).all() and (done.table["margin"] > 0.1).all() and done.table["kl"].notna().all()
    pd.testing.assert_frame_equal(base.table, again.table)  # the model came back as it was
    assert done.history["loss"].iloc[-1] < done.history["loss"].iloc[0]
    assert len(done.answers) == 1 and isinstance(done.answers["answer"].iloc[0], str)


def test_a_rate_is_chosen_by_the_measure_among_those_that_still_see_and_speak():
    base = pd.DataFrame({"arm": "base", "neutral": 0.9, "likelihood": -1.0, "kl": 0.0, "odds": [0.0, 0.0]})
    changes = {1e-4: {"odds": 1.0}, 3e-4: {"odds": 2.0}, 1e-3: {"odds": 9.0, "neutral": 0.8}}
    tried = {rate: base.assign(arm="dpo", **change) for rate, change in changes.items()}
    assert starts.choose_rate(tried, base, "odds") == 3e-4
    assert starts.choose_rate(tried | {1e-3: tried[1e-3].assign(neutral=0.9)}, base, "odds") == 1e-3
    assert starts.choose_rate(tried | {3e-4: tried[3e-4].assign(kl=0.6)}, base, "odds") == 1e-4  # a guard allows 1
    none = {rate: table.assign(likelihood=-2.0) for rate, table in tried.items()}
    assert starts.choose_rate(none, base, "odds") == 1e-4  # the lowest
    own = {rate: table.drop(columns="neutral") for rate, table in tried.items()}
    assert starts.choose_rate(own, base.drop(columns="neutral"), "odds") == 1e-3


def test_every_starting_model_is_opened_once_for_all_its_arms_and_the_first_one_not_again(p, monkeypatch, capsys):
    opened, done = [], []

    def open_start(p, task, number):
        opened.append(number)
        return make_start(number)

    def make_start(number):
        empty = type("Plan", (), {"examples": []})
        return starts.Start(number, None, None, [], ([], []), empty, None, None)

    def trained(arm, start):
        done.append((arm, start.number))
        table = pd.DataFrame({"arm": [arm], "seed": [start.number]})
        return starts.Trained(table, table, table.assign(step=1))

    monkeypatch.setattr(starts, "open_start", open_start)
    monkeypatch.setattr(starts, "measure_base", lambda p, task, start: trained("base", start))
    arms = [Arm("napo-35", "napo", 0.35, 3), Arm("mae-35", "mae", 0.35, 2)]
    task = type("Task", (), {"arms": arms})
    found = starts.run_all(p._replace(seeds=3), task, make_start(0), lambda arm, start: trained(arm.name, start))
    assert opened == [1, 2]
    assert done == [("base", 0), ("napo-35", 0), ("mae-35", 0), ("base", 1), ("napo-35", 1), ("mae-35", 1),
                    ("base", 2), ("napo-35", 2)]  # fmt: skip
    assert list(zip(found.table["arm"], found.table["seed"], strict=True)) == done and len(found.history) == 8
    assert capsys.readouterr().out.count("starting model") == 3
