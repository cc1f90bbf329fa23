"""The end of a run: what is written, byte for byte, and what is refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from prefcore.lab import runs, verdicts
from prefcore.methods.canonical_basis import claims
from prefcore.scoring.metrics import Interval

HISTORY = pd.DataFrame({"step": [1, 2], "loss": [0.693147180559945, 0.5], "validation_margin": [math.nan, 0.25]})
SCORES = pd.DataFrame({"id": ["p1", "p2"], "gold": [1 / 3, -2.0], "completion": ["fine, really", 'a "quote"\nand é']})


def finish(root, metrics=None, history=HISTORY, scores=SCORES, method="dpo", profile="quick"):
    return runs.finish(method, profile, metrics=metrics or {"gold": 0.5}, history=history, scores=scores, root=root)


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_finish_writes_three_files_and_nothing_else(tmp_path):
    assert finish(tmp_path) == tmp_path / "metrics/quick/dpo.json"
    assert list(contents(tmp_path)) == [
        "metrics/quick/dpo.json", "runs/quick/dpo/history.csv", "runs/quick/dpo/scores.csv",
    ]  # fmt: skip


def test_checkpoints_go_and_what_a_tracker_wrote_stays(tmp_path):
    folder = tmp_path / ".checkpoints" / "quick" / "dpo"
    for name in ("dpo-0/checkpoint-2/complete", "dpo-0/runs/event", "dpo-1/checkpoint-2/complete", "dpo-1/run.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    finish(tmp_path)
    assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))] == [
        "dpo-0", "dpo-0/runs", "dpo-0/runs/event",
    ]  # fmt: skip
    (folder / "dpo-0/runs/event").unlink()
    (folder / "dpo-0/runs").rmdir()
    finish(tmp_path)
    assert not folder.exists()


def test_the_bytes_are_these(tmp_path):
    finish(tmp_path, {"b": np.float32(0.1), "a": {"n": np.int64(3), "ok": True, "none": None, "z": -0.0}})
    found = contents(tmp_path)
    assert found["metrics/quick/dpo.json"] == (
        b'{\n  "a": {\n    "n": 3,\n    "none": null,\n    "ok": true,\n    "z": 0.0\n  },\n  "b": 0.1\n}\n'
    )
    assert found["runs/quick/dpo/history.csv"] == b"step,loss,validation_margin\n1,0.693147,\n2,0.5,0.25\n"
    assert found["runs/quick/dpo/scores.csv"] == (
        'id,gold,completion\np1,0.333333,"fine, really"\np2,-2,"a ""quote""\nand é"\n'.encode()
    )


def test_order_of_keys_and_last_bits_do_not_change_the_bytes(tmp_path):
    finish(tmp_path / "one", {"a": 0.1 + 0.2, "b": 1.0}, history=HISTORY.assign(loss=HISTORY["loss"] * (1 + 1e-15)))
    finish(tmp_path / "two", {"b": 1.0, "a": 0.3})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("value, kept", [(123456.789, 123457.0), (1.23456789e-9, 1.23457e-9), (2.0, 2.0), (7, 7)])
def test_floats_keep_six_significant_digits_and_integers_all(tmp_path, value, kept):
    assert json.loads(finish(tmp_path, {"x": value, "n": 123456789}).read_text()) == {"x": kept, "n": 123456789}


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), np.array([1.0, -math.inf])])
def test_a_number_that_is_none_is_refused_with_its_path_and_nothing_is_written(tmp_path, bad):
    with pytest.raises(ValueError, match=r"metrics\.arms\[1\]\.gold"):
        finish(tmp_path, {"arms": [{"gold": 0.0}, {"gold": bad}]})
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    "key", ["time", "train_runtime", "train_samples_per_second", "Seconds", "host", "hostname", "date", "wall-time"]
)
def test_times_and_hosts_are_refused_in_metrics_and_tables(tmp_path, key):
    with pytest.raises(ValueError, match=f"metrics.a.{key} looks like a time or a host"):
        finish(tmp_path, {"a": {key: 1}})
    for table in ("history", "scores"):
        with pytest.raises(ValueError, match=f"dpo {table}.{key} looks like"):
            finish(tmp_path, **{table: pd.DataFrame({key: [1]})})


@pytest.mark.parametrize("key", ["sentiment", "second_round", "candidate", "machine", "estimated", "finished"])
def test_words_that_only_contain_such_a_word_are_fine(tmp_path, key):
    assert json.loads(finish(tmp_path, {key: 1}).read_text()) == {key: 1}


def test_what_json_does_not_know_is_refused(tmp_path):
    with pytest.raises(TypeError, match="metrics.a is a set"):
        finish(tmp_path, {"a": {1}})
    with pytest.raises(TypeError, match="the key 0.1"):
        finish(tmp_path, {"a": {0.1: 1}})


def test_scores_are_whole_and_history_may_have_gaps_but_no_infinity(tmp_path):
    with pytest.raises(ValueError, match="dpo scores: 1 bad values in 'gold', the first in row 1: nan"):
        finish(tmp_path, scores=SCORES.assign(gold=[1.0, math.nan]))
    with pytest.raises(ValueError, match="dpo history: 1 bad values in 'loss', the first in row 0: inf"):
        finish(tmp_path, history=HISTORY.assign(loss=[math.inf, 1.0]))
    assert not contents(tmp_path)


def test_scores_come_back_as_they_were_written(tmp_path):
    finish(tmp_path)
    pd.testing.assert_frame_equal(runs.read_tables("quick", ["dpo"], "scores", root=tmp_path)["dpo"], SCORES.round(6))


def test_metrics_are_read_in_the_order_of_the_methods(tmp_path):
    for method in ("dpo", "bco", "overview"):
        finish(tmp_path, {"gold": len(method)}, method=method)
    finish(tmp_path, method="kto", profile="study")
    found = runs.read_metrics("quick", ["dpo", "kto", "bco"], root=tmp_path)
    assert list(found) == ["dpo", "bco"] and found["dpo"] == {"gold": 3}


def test_a_metrics_file_of_a_method_that_is_gone_is_an_error(tmp_path):
    finish(tmp_path, method="ppo")
    with pytest.raises(ValueError, match=r"ppo\.json belongs to no block of params.yaml.*delete it"):
        runs.read_metrics("quick", ["dpo"], root=tmp_path)


def test_a_required_method_without_metrics_is_an_error(tmp_path):
    finish(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"kto\.json is missing; run the notebook of kto first"):
        runs.read_metrics("quick", ["dpo", "kto"], required=["dpo", "kto"], root=tmp_path)


def test_claims_of_all_methods_meet_in_one_table(tmp_path):
    row = claims.claim("wins with few pairs", "gold, 64 prompts", Interval(0.12345678, -0.1, 0.3))
    row |= {"detectable": 0.25}
    finish(tmp_path, {"claims": [row]}, method="odpo")
    finish(tmp_path, method="dpo")
    table = verdicts.table(runs.read_metrics("quick", ["dpo", "odpo"], root=tmp_path))
    assert table.drop(columns="delta").to_dict("records") == [
        {
            "method": "odpo", "kind": "", "claim": "wins with few pairs", "test": "gold, 64 prompts",
            "verdict": "undecided", "estimate": 0.123457, "low": -0.1, "high": 0.3, "detectable": 0.25,
        }
    ]  # fmt: skip
    assert table["delta"].isna().all()
