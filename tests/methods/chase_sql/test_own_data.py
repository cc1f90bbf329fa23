"""The chapter on a user's own candidates, from the command line to the metrics file, with a random encoder."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
import yaml

from prefcore import smoke
from prefcore.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def workplace(tmp_path, toy_weights, monkeypatch):
    """A folder with parameters, notebook and toy weights; the current one."""
    params = smoke.shrink(yaml.safe_load((smoke.ROOT / "params.yaml").read_text()))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (tmp_path / "notebooks").mkdir()
    shutil.copy(smoke.ROOT / "notebooks" / "chase_sql.ipynb", tmp_path / "notebooks")
    shutil.copytree(toy_weights, tmp_path / "build" / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, questions):
    path.write_text("".join(json.dumps({
        "question_id": q.id, "db_id": q.db_id, "question": q.question, "gold": q.gold,
        "candidates": [candidate._asdict() for candidate in q.candidates],
    }) + "\n" for q in questions))  # fmt: skip


def metrics():
    with open("metrics/own/own/chase_sql.json") as file:
        return json.load(file)


def test_own_candidates_are_held_out_by_database_and_what_is_unusable_is_counted(workplace, questions, databases):
    nowhere, empty = questions[0]._replace(db_id="nowhere"), questions[0]._replace(id="empty", candidates=())
    write(workplace / "own.jsonl", [*questions, nowhere, empty])
    with open(workplace / "own.jsonl", "a") as file:
        file.write("{no json\n")
    arguments = ["--databases", str(databases), "--set", "folds=2", "verdict_pairs=2", "per_question=2", "epochs=1"]
    assert main(["run", "chase_sql", "--data", "own.jsonl", *arguments]) == 0
    found = metrics()
    assert found["arms"]["majority vote"]["all"] == 0 and found["arms"]["oracle"]["all"] == 1
    assert found["arms"]["selector"]["questions"] == 20 and "language selector" in found["arms"]
    assert found["problems"]["data"] == {
        "candidate: invalid SQL": 20, "missing database": 1, "no candidates": 1, "unreadable row": 1}  # fmt: skip
    assert set(found["by_database"]) == {"d0", "d1", "d2", "d3"} and len(found["claims"]) == 8
    assert (workplace / "runs/own/own/chase_sql/model/judge.safetensors").exists()
    assert (workplace / "runs/own/own/chase_sql/notebook.html").exists()


def test_a_selector_is_evaluated_on_other_databases_and_not_on_its_own(workplace, questions, databases):
    other = workplace / "other" / "e9"
    other.mkdir(parents=True)
    shutil.copy(databases / "d3.sqlite", other / "e9.sqlite")
    with closing(sqlite3.connect(other / "e9.sqlite")) as made:
        made.execute("CREATE TABLE more (x)")
        made.commit()
    shutil.copy(databases / "d0.sqlite", workplace / "other")
    write(workplace / "own.jsonl", [q for q in questions if q.db_id != "d3"])
    write(workplace / "new.jsonl", [q._replace(db_id="e9") for q in questions if q.db_id == "d3"] + questions[:5])
    arguments = ["--databases", str(databases), "--eval-data", "new.jsonl", "--eval-databases", "other"]
    assert main(["run", "chase_sql", "--data", "own.jsonl", *arguments, "--set", "per_question=2"]) == 0
    found = metrics()
    assert found["arms"]["selector"]["questions"] == 5 and set(found["by_database"]) == {"e9"}
    assert found["problems"]["eval_data"]["a database of the training side"] == 5
