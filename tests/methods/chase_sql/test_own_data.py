"""The chapter on a user's own candidates, from the command line to the metrics file, with a random encoder."""

import json
import shutil

import pytest
import yaml

from prefcore import smoke
from prefcore.__main__ import main
from prefcore.methods.chase_sql import candidates

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


def test_own_candidates_are_held_out_by_database_and_what_is_unusable_is_counted(workplace, questions, databases):
    nowhere, empty = questions[0]._replace(db_id="nowhere"), questions[0]._replace(id="empty", candidates=())
    candidates.write(workplace / "own.jsonl", [*questions, nowhere, empty], {"model": "three systems"})
    with open(workplace / "own.jsonl", "a") as file:
        file.write("{no json\n")
    how = ["--databases", str(databases), "--set", "folds=2", "per_question=2", "selectors=[linear, permuted]"]
    assert main(["run", "chase_sql", "--data", "own.jsonl", *how]) == 0
    found = json.loads((workplace / "metrics/own/own/chase_sql.json").read_text())
    assert found["arms"]["votes"]["right"] == 0 and found["arms"]["oracle"]["right"] == 1
    assert {"linear", "linear with votes", "votes without sound"} <= set(found["arms"])
    assert found["unusable"] == {
        "candidate: invalid SQL": 20, "missing database": 1, "no candidates": 1, "unreadable row": 1}  # fmt: skip
    assert (workplace / "runs/own/own/chase_sql/model/judge.safetensors").exists()
    assert (workplace / "runs/own/own/chase_sql/notebook.html").exists()


def test_rows_without_gold_are_refused_where_nobody_is_asked_for_queries(workplace, questions, databases, capsys):
    candidates.write(workplace / "own.jsonl", [q._replace(gold="") for q in questions], {})
    assert main(["run", "chase_sql", "--data", "own.jsonl", "--databases", str(databases)]) == 1
    assert "no right query, which is called gold, query or SQL; the row has" in capsys.readouterr().err
