"""`run gennm --data`: a binary or a list of functions in, names with confidences out, bad input named."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from prefcore import smoke
from prefcore.__main__ import main
from prefcore.data import files
from prefcore.engine import collate, models, train
from prefcore.lab import parameters
from prefcore.methods.gennm import apply, recover
from prefcore.methods.gennm.corpus import normalise
from prefcore.methods.gennm.world import decompiler

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SOURCE = Path(__file__).parent / "programs"
ROOT = SOURCE.parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with params.yaml, the notebook, toy weights, and a model that has learnt the form of the answer."""
    folder = tmp_path_factory.mktemp("applied")
    params = smoke.shrink(yaml.safe_load((ROOT / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "gennm.ipynb", folder / "notebooks")
    smoke.make_weights(folder / "build" / "weights")
    tokenizer, model = models.load_policy(str(folder / "build/weights/policy"))
    items = [normalise(record._asdict()) for record in smoke.make_functions()][:6]
    p = {"max_prompt": 60, "max_completion": 40, "most_ids": 4}
    examples = recover.examples(items, [[] for _ in items], tokenizer, p)
    plan = collate.make_plan(examples, batch_size=4, epochs=50, seed=0, pad_id=0)
    model.requires_grad_(True)
    train.fit(model, plan, recover.token_loss, {}, learning_rate=1e-2, checkpoints=folder / "c", seed=0)
    models.save_policy(model, tokenizer, folder / "runs" / "quick" / "gennm" / "model")
    return folder


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    shutil.rmtree("runs/own", ignore_errors=True)
    return trained


def functions_file(*rows):
    Path("own.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return "own.jsonl"


def toy_rows():
    return [{"function": r.function, "code": r.code, "names": r.names} for r in smoke.make_functions()[:3]]


SETTINGS = ["--set", "max_prompt=60", "max_completion=40", "most_ids=4"]


def test_a_list_of_functions_gets_names_with_confidences_and_a_score_where_truth_is_there(here, capsys):
    assert main(["run", "gennm", "--data", functions_file(*toy_rows()), *SETTINGS]) == 0
    said = capsys.readouterr().out
    assert "9 variables with true names: precision" in said and "3 functions, 0 notes" in said
    written = json.loads(Path("runs/own/gennm/names.json").read_text())
    assert written["model"] == "runs/quick/gennm/model" and len(written["functions"]) == 3
    first = written["functions"][0]
    assert first["function"] == "sub_401000" and "address" not in first
    assert set(first["variables"]) <= {"a0", "a1", "v0"} and first["variables"]
    for one in (*first["variables"].values(), first["name"]):
        assert 0 <= one["confidence"] <= 1 and one["name"].isidentifier()
        assert one["name"] in first["code"] and one["name"] in said
    assert main(["run", "gennm", "--data", "own.jsonl", *SETTINGS]) == 0
    assert capsys.readouterr().out == said


def test_functions_of_one_file_that_call_each_other_are_linked(here):
    rows = [{"function": r.function, "code": r.code, "binary": r.binary} for r in smoke.make_functions()[:6]]
    items = apply.read_functions(functions_file(*rows), {"functions": 9}).items
    assert items[0].calls == {"f1": items[1].key} and items[3].calls == {"f1": items[0].key}
    assert items[4].calls == {"f1": items[5].key}  # of another binary, whose addresses are the same


def test_rows_that_cannot_be_used_are_named_and_the_rest_goes_on(here, capsys):
    named = {"function": "f", "code": "int f(){}", "names": [1]}
    bad = [{"function": "f"}, {"function": "f", "code": "x = 1"}, named, "{"]
    assert main(["run", "gennm", "--data", functions_file(toy_rows()[0], *bad), *SETTINGS]) == 0
    said = capsys.readouterr().out
    assert "own.jsonl:2: field 'code': None is no function" in said and ":3: field 'code': 'x = 1'" in said
    assert ":4: field 'names': must map identifiers" in said and ":5: not valid JSON" in said
    assert "1 functions, 4 notes" in said


def test_nothing_usable_a_missing_file_and_a_missing_model_are_one_line(here, capsys):
    cases = {
        functions_file({"function": "f"}): "own.jsonl: no function to name; own.jsonl:1: field 'code'",
        "nowhere.jsonl": "no such file", "nowhere.so": "nowhere.so: no such file",
    }  # fmt: skip
    for data, message in cases.items():
        assert main(["run", "gennm", "--data", data]) == 1
        err = capsys.readouterr().err.strip()
        assert message in err and len(err.splitlines()) == 1
    functions_file(toy_rows()[0])
    shutil.move("runs/quick", "runs/away")
    try:
        assert main(["run", "gennm", "--data", "own.jsonl"]) == 1
        assert "no trained model: call `dvc repro gennm` first" in capsys.readouterr().err
    finally:
        shutil.move("runs/away", "runs/quick")


@pytest.fixture
def binary(here, monkeypatch):
    """A stripped binary whose decompiler says what is committed, and fails on one function."""
    lines = (SOURCE / "ledger.O0.jsonl").read_text().splitlines()
    broken = {"address": 9000, "size": 40, "error": "RecursionError: too deep"}
    worker = here / "worker.py"
    worker.write_text("import sys\nfor line in " + repr([*lines, json.dumps(broken)]) + ":\n    print(line)\n")
    monkeypatch.setattr(decompiler, "WORKER", worker)
    monkeypatch.setattr(decompiler.decompile, "__kwdefaults__", {"python": Path(sys.executable)})
    shutil.copy(SOURCE / "ledger.O0.so", here / "stripped.so")
    return "stripped.so"


def test_a_binary_gets_names_by_address_and_a_function_that_failed_is_named(binary, capsys):
    assert main(["run", "gennm", "--data", binary, *SETTINGS]) == 0
    said = capsys.readouterr().out
    assert "note: function at 0x2328: RecursionError: too deep" in said
    written = json.loads(Path("runs/own/gennm/names.json").read_text())
    assert [f["address"] for f in written["functions"]][:2] == ["0x1020", "0x1063"]
    assert written["functions"][0]["function"] == "sub_401020" and len(written["functions"]) == 8
    assert "8 functions, 1 notes" in said


def test_callers_and_callees_of_a_binary_know_of_each_other(binary):
    values = parameters.choose("notebooks/gennm.ipynb", yaml.safe_load(Path("params.yaml").read_text()))
    found = apply.read_binary(binary, values)
    (delegate,) = [item for item in found.items if "8001" in item.code]
    assert set(delegate.calls.values()) == {"stripped.so:sub_40122b", "stripped.so:sub_401020"}
    assert all(key in {item.key for item in found.items} for key in delegate.calls.values())


@pytest.mark.parametrize(("content", "message"), [
    (b"no binary at all", "not a readable ELF"),
    (b"", "not a readable ELF"),
    ("cut", "not a readable ELF|is cut off"),
    ("arm", "is for AArch64; only x86-64 is read here"),
])  # fmt: skip
def test_what_is_no_binary_of_ours_is_one_line(here, capsys, content, message):
    whole = (SOURCE / "ledger.O0.so").read_bytes()
    other = {"cut": whole[:7000], "arm": whole[:18] + (183).to_bytes(2, "little") + whole[20:]}
    Path("bad.so").write_bytes(other.get(content, content))
    assert main(["run", "gennm", "--data", "bad.so"]) == 1
    err = capsys.readouterr().err.strip()
    assert re.search(message, err) and len(err.splitlines()) == 1 and "bad.so" in err


def test_a_binary_without_functions_says_so(here, monkeypatch, capsys):
    worker = here / "worker.py"
    worker.write_text("print('{\"base\": 1, \"end\": 2, \"functions\": 0}')\n")
    monkeypatch.setattr(decompiler, "WORKER", worker)
    monkeypatch.setattr(decompiler.decompile, "__kwdefaults__", {"python": Path(sys.executable)})
    shutil.copy(SOURCE / "ledger.O0.so", "empty.so")
    assert main(["run", "gennm", "--data", "empty.so"]) == 1
    assert "no function to name; empty.so: holds no function" in capsys.readouterr().err


def test_the_newest_model_is_the_studys(here):
    assert apply.newest_model() == "runs/quick/gennm/model"
    Path("runs/study/gennm/model").mkdir(parents=True)
    try:
        assert apply.newest_model() == "runs/study/gennm/model"
    finally:
        shutil.rmtree("runs/study")


def test_names_in_json_are_read_back_as_written(here):
    files.write_lines(smoke.make_functions(), Path("build/smoke/functions.jsonl"))
    from prefcore.methods.gennm.world import programs

    assert programs.read(Path("build/smoke/functions.jsonl")) == smoke.make_functions()
