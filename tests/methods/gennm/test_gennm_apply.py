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
from prefcore.data.types import freeze
from prefcore.engine import collate, models, train
from prefcore.lab import parameters
from prefcore.methods.gennm import apply, limits, losses, namer, prompt, recover
from prefcore.methods.gennm.corpus import normalise
from prefcore.methods.gennm.world import decompiler, programs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SOURCE = Path(__file__).parent / "programs"
LIMITS = {"max_code": 2000, "max_prompt": 200, "max_name": 11, "rounds": 1}  # not params.yaml's


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with params.yaml, the notebook, toy weights, and a model that has learnt some names."""
    folder = tmp_path_factory.mktemp("applied")
    params = smoke.shrink(yaml.safe_load((smoke.ROOT / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "notebooks").mkdir()
    for name in ("gennm", "dpo"):  # that which is used here, and one that has no --train
        shutil.copy(smoke.ROOT / "notebooks" / f"{name}.ipynb", folder / "notebooks")
    smoke.make_weights(folder / "build" / "weights")
    items, p = [normalise(record._asdict()) for record in smoke.make_functions()][:6], freeze(LIMITS)
    loaded = models.load_policy(str(folder / "build/weights/policy"))
    start = namer.extend(namer.Namer(*loaded, ()), namer.known_names(items))
    plan = collate.make_plan(recover.examples(items, [[] for _ in items], start, p), batch_size=8, epochs=50, seed=0,
                             pad_id=0)  # fmt: skip
    train.fit(start.policy, plan, losses.name_loss, {}, learning_rate=1e-2, checkpoints=folder / "c", seed=0)
    namer.save(start, folder / "runs" / "quick" / "gennm" / "model")
    limits.save(folder / "runs" / "quick" / "gennm" / "model", p, {"functions": len(items)})
    return folder


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)
    for made in ("runs/own", "build/named", ".checkpoints"):
        shutil.rmtree(made, ignore_errors=True)
    return trained


def functions_file(*rows):
    Path("own.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return "own.jsonl"


def newest():
    """The names that the last run has written; each run has a folder of its own."""
    return max(Path("runs/own").glob("*/gennm/names.json"), key=lambda path: path.stat().st_mtime_ns)


def toy_rows():
    return [{"function": r.function, "code": r.code, "names": r.names} for r in smoke.make_functions()[:3]]


def test_a_list_of_functions_gets_names_with_confidences_and_a_score_where_truth_is_there(here, capsys):
    assert main(["run", "gennm", "--data", functions_file(*toy_rows())]) == 0
    said = capsys.readouterr().out
    assert "9 variables with true names: precision" in said and "3 functions, 0 notes" in said
    written = json.loads(newest().read_text())
    assert written["model"] == "runs/quick/gennm/model" and len(written["functions"]) == 3
    first = written["functions"][0]
    assert first["function"] == "sub_401000" and "address" not in first
    assert set(first["variables"]) <= {"a0", "a1", "v0"} and first["variables"]
    listing = newest().with_suffix(".c").read_text()
    for one in first["variables"].values():
        assert 0 <= one["confidence"] <= 1 and one["name"].isidentifier()
        assert one["name"] in first["code"] and f" -> {one['name']} (" in listing
    assert first["code"] in listing and listing.startswith("/* sub_401000")
    assert main(["run", "gennm", "--data", "own.jsonl"]) == 0
    assert capsys.readouterr().out == said


def test_functions_of_one_file_that_call_each_other_are_linked(here):
    rows = [{"function": r.function, "code": r.code, "binary": r.binary} for r in smoke.make_functions()[:6]]
    items = apply.read_functions(functions_file(*rows), freeze({"functions": 9})).items
    assert items[0].calls == {"f1": items[1].key} and items[3].calls == {"f1": items[0].key}
    assert items[4].calls == {"f1": items[5].key}  # of another binary, whose addresses are the same


def test_rows_that_cannot_be_used_are_named_and_the_rest_goes_on(here, capsys):
    named = {"function": "f", "code": "int f(){}", "names": [1]}
    bad = [{"function": "f"}, {"function": "f", "code": "x = 1"}, named, "{"]
    assert main(["run", "gennm", "--data", functions_file(toy_rows()[0], *bad)]) == 0
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
    monkeypatch.setattr(decompiler, "PYTHON", Path(sys.executable))
    shutil.copy(SOURCE / "ledger.O0.so", here / "stripped.so")
    return "stripped.so"


def test_a_binary_gets_names_by_address_and_a_function_that_failed_is_named(binary, capsys):
    assert main(["run", "gennm", "--data", binary]) == 0
    said = capsys.readouterr().out
    assert "note: function at 0x2328: RecursionError: too deep" in said
    written = json.loads(newest().read_text())
    assert [f["address"] for f in written["functions"]][:2] == ["0x1020", "0x1063"]
    assert written["functions"][0]["function"] == "sub_401020" and len(written["functions"]) == 8
    assert "8 functions, 1 notes" in said


def test_callers_and_callees_of_a_binary_know_of_each_other(binary):
    values = parameters.choose("notebooks/gennm.ipynb", yaml.safe_load(Path("params.yaml").read_text()))
    found = apply.read_binary(binary, freeze(values))
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
    worker.write_text('print(\'{"base": 1, "end": 2, "functions": 0}\')\n')
    monkeypatch.setattr(decompiler, "WORKER", worker)
    monkeypatch.setattr(decompiler, "PYTHON", Path(sys.executable))
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
    assert programs.read(Path("build/smoke/functions.jsonl")) == smoke.make_functions()


# --- limits travel with the model, and everything is asked ------------------------------------------------------


@pytest.fixture
def naming(monkeypatch):
    """A model in the place of the toy one that gives every identifier a name; returns (function, hints) as asked."""
    seen = []

    def predict(used, items, hints, p):
        seen.extend(zip(items, hints, strict=True))
        named = [{id: f"name_of_{id}" for id in prompt.nameable(item)} for item in items]
        return [recover.Answer(names, dict.fromkeys(names, 0.5)) for names in named]

    monkeypatch.setattr(recover, "predict", predict)
    return seen


def wide(name="sub_401000", variables=10, last=""):
    """A function of 2 parameters and many variables."""
    lines = [f"    int v{i};" for i in range(variables)] + [f"    v{i} = a0 + a1;" for i in range(variables)]
    return f"int {name}(int a0, int a1)\n{{\n" + "\n".join(lines) + f"\n{last}    return a0;\n}}\n"


def written():
    return json.loads(newest().read_text())


def test_the_limits_are_those_that_the_model_was_trained_with_whatever_params_yaml_says(here, naming, capsys):
    shutil.copytree("runs/quick", "runs/study")
    own = LIMITS | {"max_prompt": 90, "rounds": 0}
    Path("runs/study/gennm/model/limits.json").write_text(json.dumps({"limits": own}))
    try:
        assert main(["run", "gennm", "--data", functions_file(*toy_rows())]) == 0
    finally:
        shutil.rmtree("runs/study")
    assert written()["limits"] == own and len(naming) == 3  # no round of propagation
    assert "limits of runs/study/gennm/model: max_code 2000, max_prompt 90, " in capsys.readouterr().out


def test_a_limit_that_a_person_sets_goes_before_that_of_the_model(here, naming):
    assert main(["run", "gennm", "--data", functions_file(*toy_rows()), "--set", "max_name=2"]) == 0
    assert written()["limits"] == LIMITS | {"max_name": 2}


def test_a_model_without_limits_is_refused_by_name_unless_all_are_given(here, naming, capsys):
    shutil.copytree("runs/quick/gennm/model", "elsewhere", dirs_exist_ok=True)
    Path("elsewhere/limits.json").unlink()
    command = ["run", "gennm", "--data", functions_file(*toy_rows()), "--set", "model=elsewhere"]
    assert main([*command, "max_code=99"]) == 1
    err = capsys.readouterr().err
    assert "elsewhere/limits.json is missing" in err and "max_code, max_prompt" in err and len(err.splitlines()) == 1
    assert main([*command, *(f"{name}={value}" for name, value in LIMITS.items())]) == 0
    assert written()["limits"] == LIMITS


@pytest.mark.parametrize("names", [{}, {"v3": "width"}])
def test_every_variable_of_a_function_gets_a_name_however_many_there_are(here, naming, capsys, names):
    """Also where the data know the true name of one alone."""
    assert main(["run", "gennm", "--data", functions_file({"function": "f", "code": wide(), "names": names})]) == 0
    (function,) = written()["functions"]
    everything = {"a0", "a1", *(f"v{i}" for i in range(10))}
    assert {id: one["name"] for id, one in function["variables"].items()} == {id: f"name_of_{id}" for id in everything}
    assert function["name"]["name"] == "name_of_f0"
    assert "12 variables asked for, 12 named; 0 of 1 functions" in capsys.readouterr().out


def test_what_gets_no_name_keeps_the_one_that_the_decompiler_gave():
    code = "int sub_40(int a1, int a2)\n{\n    int v7;\n    v7 = sub_41(a1) + a2;\n    return v7;\n}"
    item, named = normalise({"function": "f", "code": code}), {"a0": "size", "a1": "v7"}
    record = apply.record_of(item, named, recover.Answer(named, dict.fromkeys(named, 0.5)), {})
    text = "int sub_40(int size, int {})\n{{\n int {};\n {} = sub_41(size) + {};\n return {};\n}}"
    assert record["code"] == text.format("v7", "v7_2", "v7_2", "v7", "v7_2")  # no two of them are called alike
    assert record["name"] is None and set(record["variables"]) == {"a1", "a2"}


def test_names_travel_along_calls_and_are_voted_on(here, naming, monkeypatch):
    rounds, validate = [], apply.validation.validate
    monkeypatch.setattr(apply.validation, "validate", lambda *given: rounds.extend(given[0]) or validate(*given))
    caller = {"function": "f", "code": wide(last="    sub_402000(v9);\n")}
    callee = {"function": "g", "code": "int sub_402000(int a0)\n{\n    return a0;\n}\n"}
    assert main(["run", "gennm", "--data", functions_file(caller, callee)]) == 0
    assert ["called f0(name_of_v9)"] in [hints for _, hints in naming]
    assert len(rounds) == 2


def test_what_a_run_has_named_is_not_named_again_unless_something_else_has_changed(here, naming):
    command = ["run", "gennm", "--data", functions_file(*toy_rows())]
    assert main(command) == 0
    before, asked = written(), len(naming)
    assert main(command) == 0 and written() == before and len(naming) == asked
    assert main([*command, "--set", "max_name=3"]) == 0 and len(naming) == 2 * asked


def test_a_run_that_is_stopped_keeps_the_functions_that_it_has_named(here, tmp_path):
    items = [normalise(record._asdict()) for record in smoke.make_functions()] * 3
    items = [item._replace(code=f"{item.code}//{i}") for i, item in enumerate(items)]
    calls = []

    def predict(some, hints):
        calls.append(len(some))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [recover.Answer({"a0": "x"}, {"a0": 1.0}) for _ in some]

    none = [[] for _ in items]
    with pytest.raises(KeyboardInterrupt):
        apply.predict_kept(items, none, predict, tmp_path, "m")
    assert len(apply.predict_kept(items, none, predict, tmp_path, "m")) == len(items)
    assert sum(calls) == len(items) + apply.TOGETHER  # the second lot was begun twice


def test_a_function_longer_than_any_of_training_is_told_and_named_all_the_same(here, naming, capsys):
    rows = functions_file(toy_rows()[0], {"function": "f", "code": wide(variables=30)})
    assert main(["run", "gennm", "--data", rows, "--set", "max_code=300"]) == 0
    said = capsys.readouterr().out
    assert said.count("note: ") == 1 and "tokens, and the model has learnt from at most 300 (max_code)" in said
    assert "35 variables asked for, 35 named; 1 of 2 functions are longer than max_code" in said
    assert "2 functions, 1 notes" in said and written()["notes"][0].startswith("sub_401000: ")


# --- learning from one's own programs ---------------------------------------------------------------------------


def test_a_folder_of_binaries_with_debug_information_teaches_and_what_is_none_is_named(binary, capsys):
    Path("programs").mkdir(exist_ok=True)
    shutil.copy(SOURCE / "ledger.O0.so", "programs/ledger.so")
    Path("programs/notes.txt").write_text("no binary")
    few = ["--set", "epochs=1", "batch_size=16", "model=runs/quick/gennm/model"]
    assert main(["run", "gennm", "--train", "programs", *few]) == 0
    said = capsys.readouterr().out
    assert "notes.txt: not a readable ELF" in said and "ledger.so: 8 functions with debug information" in said
    assert "learnt from" in said and "of 8 functions; the model is in runs/own/programs/gennm/model" in said
    model = "runs/own/programs/gennm/model"
    taught = namer.load(model, device="cpu", dtype="float32")
    assert {"threshold", "bound"} <= set(taught.names) and limits.load(model)._asdict() == LIMITS
    again = ["run", "gennm", "--data", functions_file(*toy_rows()), "--set", f"model={model}"]
    assert main(again) == 0 and written()["model"] == model


def test_some_binaries_are_kept_back_and_measured_before_and_after(here, capsys):
    rows = [{"function": r.function, "code": r.code, "names": r.names, "binary": r.binary}
            for r in smoke.make_functions()]  # fmt: skip
    few = ["--set", "epochs=1", "batch_size=16"]
    assert main(["run", "gennm", "--train", functions_file(*rows), *few]) == 0
    said = capsys.readouterr().out
    assert "learnt from 32 of 36 functions" in said and "4 functions of binaries kept back: mean F1" in said


def test_nothing_to_learn_from_and_two_sources_at_once_are_one_line(here, capsys):
    Path("empty").mkdir(exist_ok=True)
    bare = functions_file({"function": "f", "code": "int f(int a)\n{\n    return a;\n}"})
    cases = {("--train", "empty"): "no file in it is a binary with debug information",
             ("--train", bare): "of 1 functions none has a variable with a true name",
             ("--train", "empty", "--data", bare): "--train goes alone"}  # fmt: skip
    for given, message in cases.items():
        assert main(["run", "gennm", *given]) == 1
        err = capsys.readouterr().err.strip()
        assert message in err and len(err.splitlines()) == 1
    assert main(["run", "dpo", "--train", "empty"]) == 1
    assert "dpo has no --train" in capsys.readouterr().err
