"""`run METHOD --data FILE`: the chapters' own notebooks, from a user's rows to the metrics file."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from prefcore.__main__ import main
from prefcore.lab import runs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def write_own(path: Path, weights=()) -> None:
    """Thirty made-up pairs, chat messages among their prompts; with these weights, if there are any."""
    rows = []
    for i in range(30):
        prompt = [{"role": "user", "content": f"Say {i}"}] if i % 3 == 0 else f"Say {i}:"
        answers = {"chosen": f" good {i}", "rejected": f" bad {i}"}
        if isinstance(prompt, list):
            answers = {k: [{"role": "assistant", "content": v}] for k, v in answers.items()}
        rows.append({"prompt": prompt, **answers} | ({"weight": weights[i]} if weights else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_same_notebook_runs_on_a_users_own_pairs(toy_world, method, capsys):
    write_own(Path("own.jsonl"))
    arguments = ["run", method, "--data", "own.jsonl", "--set", "epochs=2", "seeds=1"]
    assert main(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"metrics/own/own/{method}.json" in said and "30 rows read, 30 usable" in said
    metrics = json.loads(Path(f"metrics/own/own/{method}.json").read_text())
    assert all(f"{row['verdict'].upper()} ({row['kind']}): {row['claim']}" in said for row in metrics["claims"])
    assert metrics["claims"] and metrics["rows"]["equal_after_cut"] == 0
    assert metrics["rows"]["used"] == metrics["rows"]["train"] == 24
    arm = metrics["arms"][method]
    assert 0 <= arm["order"] <= 1 and arm["low"] <= arm["estimate"] <= arm["high"]
    assert {"kl", "length"} <= set(metrics["samples"]["reference"]) and "gold" not in metrics["samples"]["reference"]
    assert Path(f"runs/own/own/{method}/notebook.html").exists() and not Path(f"metrics/smoke/{method}.json").exists()


def test_weights_reach_training_and_a_row_of_weight_0_is_left_out(toy_world, capsys):
    write_own(Path("own.jsonl"), [0] + [0.5] * 29)
    assert main(["run", "dpo", "--data", "own.jsonl", "--set", "arms=[dpo]", "confirm=[]"]) == 0
    assert "0.5 to 0.5, 0.5 on average; 1 rows of weight 0 are left out" in capsys.readouterr().out
    assert pd.read_csv("runs/own/own/dpo/history.csv")["loss"][0] == pytest.approx(math.log(2) / 2, abs=1e-4)
    counts = json.loads(Path("metrics/own/own/dpo.json").read_text())["rows"]
    assert (counts["read"], counts["weight_zero"], counts["mean_weight"]) == (30, 1, 0.5)
    assert counts["train"] + counts["validation"] + counts["test"] == 29


def test_the_notebook_on_pictures_runs_on_a_users_own_rows(toy_world):
    rows = []
    for i in range(20):
        Image.new("RGB", (64, 64), (12 * i, 0, 99)).save(f"{i}.png")
        rows.append({"image": f"{i}.png", "question": "what color?", "chosen": f"It is {i}.", "rejected": "It is not."})
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["run", "napo", "--data", "own.jsonl", "--set", "vision_policy=build/smoke/biased/0"]) == 0
    arms = runs.read_metrics("own/own", ["napo"])["napo"]["arms"]
    assert {"base", "clean", "napo-own"} <= set(arms)
    assert set(arms["base"]) == set(arms["napo-own"]) >= {"accuracy", "margin", "kl", "length"}
