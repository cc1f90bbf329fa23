"""Runs are made once whoever shares them, read back exactly, and made anew when anything that decides them changes."""

import json
import multiprocessing
import os
import signal
import time
from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest

from prefcore.data.types import freeze
from prefcore.lab import kept

TABLE = pd.DataFrame({"id": ["a", "b"], "text": ["x\r\ny", None], "rho": [0.1 + 0.2, float("nan")], "n": [1, 2]})


def told(name: str, made: list) -> dict[str, pd.DataFrame]:
    made.append(name)
    print(f"this is {name}")
    return {"scores": TABLE.assign(arm=name), "history": TABLE[["rho"]]}


def test_a_kept_run_comes_back_exactly_with_what_it_has_printed_and_is_not_made_again(tmp_path, capsys):
    made: list[str] = []
    runs = {name: lambda name=name: told(name, made) for name in ("b", "a")}
    first = kept.share(tmp_path, runs)
    said = capsys.readouterr().out
    again = kept.share(tmp_path, runs)
    assert made == ["b", "a"] and said == capsys.readouterr().out == "this is b\nthis is a\n"
    assert list(again) == ["b", "a"]
    for name in runs:
        for table in ("scores", "history"):
            pd.testing.assert_frame_equal(first[name][table], again[name][table], check_exact=True)
        pd.testing.assert_frame_equal(first[name]["scores"], TABLE.assign(arm=name), check_exact=True)


def test_a_run_that_failed_is_made_by_the_next_start(tmp_path):
    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        kept.share(tmp_path, {"a": lambda: told("a", []), "b": fail})
    made: list[str] = []
    kept.share(tmp_path, {name: lambda name=name: told(name, made) for name in ("a", "b")})
    assert made == ["b"]


def _worker(folder: str, slow: bool) -> None:
    def make(name):
        with open(f"{folder}/made.txt", "a") as file:
            file.write(f"{name} {os.getpid()}\n")
        time.sleep(0.3 if not slow else 30)
        return {"scores": TABLE}

    kept.share(Path(folder), {f"run-{i}": lambda i=i: make(i) for i in range(6)})


def start(folder: Path, *, slow: bool = False) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(target=_worker, args=(str(folder), slow))
    process.start()
    return process


@pytest.mark.timeout(120)
def test_two_processes_make_each_run_once(tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    lines = [line.split() for line in (tmp_path / "made.txt").read_text().splitlines()]
    assert sorted(name for name, _ in lines) == [str(i) for i in range(6)] and len({pid for _, pid in lines}) == 2


@pytest.mark.timeout(120)
def test_the_run_of_a_process_that_was_killed_is_made_by_the_other(tmp_path):
    dead = start(tmp_path, slow=True)
    while not (tmp_path / "made.txt").exists():
        time.sleep(0.05)
    other = start(tmp_path)
    time.sleep(1)
    os.kill(dead.pid, signal.SIGKILL)
    other.join()
    assert other.exitcode == 0 and len(list(tmp_path.glob("run-*/said.txt"))) == 6


def test_the_folder_is_another_one_when_parameters_notebook_data_or_models_change(tmp_path):
    with chdir(tmp_path):
        p = freeze({"chapter": "dpo", "profile": "toy", "data": "", "policy": "m", "beta": 0.1})
        files = ["notebooks/dpo.ipynb", "banks/toy.jsonl", "build/toy/preferences.jsonl",
                 "build/toy/gold/model.safetensors", "build/toy/biased/0/model.safetensors"]  # fmt: skip
        for name in files:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("{}")
        folders = [kept.folder_of(p), kept.folder_of(p._replace(beta=0.2))]
        for name in files:
            Path(name).write_text(json.dumps({"other": name}))
            kept._inputs.cache_clear()
            folders.append(kept.folder_of(p))
        kept._inputs.cache_clear()
        assert folders[-1] == kept.folder_of(p) and len(set(folders)) == len(folders)
        Path("m").mkdir()
        own = [kept.folder_of(p._replace(data="own.jsonl"))]
        for name in ("own.jsonl", "m/model.safetensors", "m/model-2.safetensors"):
            Path(name).write_text("1")
            kept._inputs.cache_clear()
            own.append(kept.folder_of(p._replace(data="own.jsonl")))
        Path("shards").mkdir()
        own.append(kept.folder_of(p._replace(data="shards")))
        Path("shards/a.jsonl").write_text("1")
        kept._inputs.cache_clear()
        own.append(kept.folder_of(p._replace(data="shards")))
        assert len(set(own)) == 6


def test_nothing_is_kept_of_a_notebook_that_a_person_runs_by_hand(tmp_path, monkeypatch):
    monkeypatch.delenv(kept.ROLE, raising=False)
    with chdir(tmp_path):
        made: list[str] = []
        for _ in range(2):
            kept.tables_of(freeze({"profile": "toy"}), {"a": lambda: told("a", made)})
        assert made == ["a", "a"] and not list(tmp_path.iterdir())
