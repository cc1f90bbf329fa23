"""The command line: what a user does wrong is one line that says where and what to do, before anything is trained."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prefcore.__main__ import function, main
from prefcore.lab import notebooks

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
GOOD = {"prompt": "a b", "chosen": " c", "rejected": " d"}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def lines(*rows):
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a notebook was started")

    monkeypatch.setattr(notebooks, "execute", refuse)


@pytest.fixture
def fails(toy_world, no_training, capsys):
    """Runs the command, expects status 1, and returns the one line that it says."""

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 1
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: "), err
        assert "Traceback" not in err
        return err.strip()

    return run


# --- the command itself -----------------------------------------------------------------------------------------

STARTED = """import contextlib, sys
from prefcore.__main__ import main
with contextlib.suppress(SystemExit):
    main(["--help"] if sys.argv[1] == "help" else ["stage", "no.function"])
if sys.argv[1] == "notebook":
    from prefcore.lab import notebooks
print("modules:", *sys.modules)"""
SLOW = {  # lark builds a grammar that jsonschema would like to have
    "help": {"torch", "transformers", "numpy", "pandas", "nbformat", "papermill"},
    "notebook": {"torch", "transformers", "pandas", "matplotlib", "scipy", "lark"},
}


@pytest.mark.parametrize("command", SLOW)
def test_a_command_waits_for_no_import_that_it_does_not_need(command):
    """`--help`, and what has to run before the kernel of a notebook starts: torch alone takes a second."""
    done = subprocess.run([sys.executable, "-c", STARTED, command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found = set(done.stdout.rpartition("modules:")[2].split())
    assert SLOW[command].isdisjoint(found) and ("jsonschema" in found) == (command == "notebook")


def test_bars_of_libraries_stay_out_of_a_log():
    """transformers draws one of 272 steps as it unpacks weights; without a terminal that is a line of 272 parts."""
    code = """from prefcore.__main__ import main
main(["stage", "no.function"])
from tqdm import tqdm
list(tqdm(range(3), desc="unpacking"))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "unpacking" not in done.stderr


# --- stages and studies -----------------------------------------------------------------------------------------


def test_the_study_of_an_unknown_method_is_one_line(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["study", "ppo"]) == 1
    assert capsys.readouterr().err.startswith("error: ppo is no stage of dvc.yaml, which has weights, prepare, ")


@pytest.mark.parametrize("name", ["lab.pipeline.fit_judges", "pipeline.fit_judge", "os.system", "lab"])
def test_a_stage_that_is_no_function_of_prefcore_is_one_line(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["stage", name]) == 1
    said = capsys.readouterr().err
    assert said == f"error: there is no function prefcore.{name}; dvc.yaml has the names of all stages\n"


def test_every_stage_of_the_pipeline_names_a_function_of_parameters_and_build_folder():
    commands = [stage["cmd"].split() for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
                if "cmd" in stage]  # fmt: skip
    names = [words[4] for words in commands if words[3] == "stage"]
    assert len(names) >= 13
    for name in names:
        assert list(inspect.signature(function(name)).parameters)[:2] == ["p", "build"]


# --- own data ---------------------------------------------------------------------------------------------------

BAD = {
    "missing field": (lines(GOOD, {"prompt": "a", "chosen": " c"}), ":2: field 'rejected': missing"),
    "missing in the first row": (lines({"prompt": "a", "chosen": " c"}), ":1: field 'rejected': missing"),
    "null field": (lines(GOOD, GOOD | {"chosen": None}), ":2: field 'chosen': missing"),
    "empty field": (lines(GOOD, GOOD, GOOD | {"chosen": "  "}), ":3: field 'chosen': is empty"),
    "identical answers": (lines(GOOD, GOOD | {"rejected": " c"}), ":2: field 'rejected': identical to 'chosen'"),
    "wrong type": (lines(GOOD, GOOD | {"rejected": 7}), ":2: field 'rejected': "),
    "no messages": (lines(GOOD | {"chosen": [], "rejected": []}), ":1: field 'chosen': is an empty list"),
    "score is NaN": (
        lines({"prompt": "a", "completion": "b", "score": 1.0}, '{"prompt": "a", "completion": "b", "score": NaN}'),
        ":2: field 'score': nan is not finite",
    ),
    "score is a text": (lines({"prompt": "a", "completion": "b", "score": "1.0"}), ":1: field 'score': "),
    "label is neither": (
        lines({"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "b", "label": "yes"}),
        ":2: field 'label': 'yes' is neither true nor false",
    ),
    "label is two": (
        lines({"prompt": "a", "completion": "b", "label": 2}), ":1: field 'label': 2 is neither true nor false"
    ),
    "invalid UTF-8": (
        lines(GOOD) + b'{"prompt": "\xff", "chosen": "c", "rejected": "d"}\n', ":2: field 'prompt': invalid UTF-8"
    ),
    "empty file": (b"", ":1: no rows, the data are empty"),
    "only blank lines": (b"\n\n", ":1: no rows, the data are empty"),
    "not JSON": (lines(GOOD, "{'prompt': 1}"), ":2: not valid JSON"),
    "no common prompt": (
        lines({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}),
        ":1: field 'rejected': no common prompt",
    ),
    "no common message": (
        lines({"chosen": CHAT, "rejected": [{"role": "user", "content": "no"}, CHAT[1]]}),
        ":1: field 'rejected': no common prompt",
    ),
    "strength above 1": (lines(GOOD | {"strength": 1.5}), ":1: field 'strength': 1.5 is no probability"),
    "unknown columns": (lines({"question": "a", "answer": "b"}), ":1: the columns 'question', 'answer'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_named_with_file_line_and_field_before_any_training(fails, name):
    content, message = BAD[name]
    Path("own.jsonl").write_bytes(content)
    said = fails("run", "dpo", "--data", "own.jsonl")
    assert f"own.jsonl{message}" in said


def test_a_file_that_is_not_there_is_named(fails):
    assert "nowhere.jsonl: no such file" in fails("run", "dpo", "--data", "nowhere.jsonl")


def test_bad_rows_can_be_left_out(toy_world, monkeypatch, capsys):
    Path("own.jsonl").write_bytes(lines(GOOD, GOOD | {"chosen": ""}, GOOD | {"prompt": "c d"}))
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append((path, values)))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    assert main(["run", "kto", "--data", "own.jsonl", "--drop-bad", "--set", "beta=0.5", "epochs=2"]) == 0
    ((path, values),) = started
    assert path == "notebooks/kto.ipynb" and values["drop_bad"] and values["profile"] == "own"
    assert (values["beta"], values["epochs"], values["data"]) == (0.5, 2, "own.jsonl")
    said = capsys.readouterr().out
    assert "2 usable rows, 1 left out: own.jsonl:2: field 'chosen': is empty" in said


ASKED = {
    "db_id": "pets", "question": "How many?", "gold": "SELECT 1", "candidates": [{"system": "one", "sql": "SELECT 1"}],
}  # fmt: skip


def test_questions_need_their_databases_before_anything_is_run(fails):
    Path("own.jsonl").write_bytes(lines(ASKED))
    assert "database: no such folder of databases; name one with --databases" in fails(
        "run", "chase_sql", "--data", "own.jsonl")
    assert "elsewhere: no such folder" in fails("run", "chase_sql", "--data", "own.jsonl", "--databases", "elsewhere")
    Path("database").mkdir()
    ready = ("run", "chase_sql", "--data", "own.jsonl")
    assert "--eval-databases without --eval-data" in fails(*ready, "--eval-databases", "database")
    assert "other.jsonl: no such file" in fails(*ready, "--eval-data", "other.jsonl")
    Path("bad.jsonl").write_bytes(lines({"question": "?"}))
    assert "bad.jsonl: no question that can be read" in fails("run", "chase_sql", "--data", "bad.jsonl")


def test_a_method_without_databases_takes_none(fails):
    Path("own.jsonl").write_bytes(lines(GOOD))
    assert fails("run", "dpo", "--data", "own.jsonl", "--eval-data", "own.jsonl") == (
        "error: dpo reads no databases: leave out --eval-data")


def test_candidates_and_databases_reach_the_notebook(toy_world, monkeypatch):
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append(values))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    Path("own.jsonl").write_bytes(lines(ASKED))
    Path("here").mkdir()
    named = ("--databases", "here", "--eval-data", "own.jsonl", "--eval-databases", "here", "--set", "folds=3")
    assert main(["run", "chase_sql", "--data", "own.jsonl", *named]) == 0
    told = {name: started[0][name] for name in ("data", "databases", "eval_data", "eval_databases", "folds", "profile")}
    assert told == {"data": "own.jsonl", "databases": "here", "eval_data": "own.jsonl", "eval_databases": "here",
                    "folds": 3, "profile": "own"}  # fmt: skip


def test_a_command_of_its_own_says_the_same_line(toy_world):
    Path("own.jsonl").write_bytes(lines(GOOD, GOOD | {"rejected": " c"}))
    command = [sys.executable, "-m", "prefcore", "run", "dpo", "--data", "own.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: own.jsonl:2: field 'rejected': identical to 'chosen'")
    assert len(done.stderr.splitlines()) == 1


# --- settings and names -----------------------------------------------------------------------------------------


@pytest.fixture
def own_data(toy_world):
    Path("own.jsonl").write_bytes(lines(*(GOOD | {"prompt": f"a {i}"} for i in range(20))))
    return "own.jsonl"


@pytest.mark.parametrize("item", ["betta=1", "beta"])
def test_an_unknown_setting_is_refused_with_those_that_there_are(fails, own_data, item):
    said = fails("run", "dpo", "--data", own_data, "--set", item)
    assert f"--set {item}: give key=value with one of" in said and "learning_rate" in said


@pytest.mark.parametrize(
    "item, message",
    [
        ("beta=high", "beta is 'high' (str), but the notebook has 0.1 (float)"),
        ("beta=1e-6", "beta is '1e-6' (str), but the notebook has 0.1 (float); YAML reads 1e-6 as a string"),
        ("epochs=1.5", "epochs is 1.5 (float), but the notebook has 2 (int)"),
    ],
)
def test_a_setting_of_another_kind_is_refused(toy_world, own_data, capsys, item, message):
    assert main(["run", "dpo", "--data", own_data, "--set", item]) == 1
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_an_unknown_method_is_named(fails, own_data):
    assert "methods.dqo" in fails("run", "dqo", "--data", own_data)
    assert "methods.dqo" in fails("notebook", "dqo")


def test_another_folder_than_the_top_is_noticed(fails, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert "run this from the repository's top folder" in fails("notebook", "dpo")


def test_an_unknown_command_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as error:
        main(["trian"])
    assert error.value.code == 2 and "'run'" in capsys.readouterr().err


# --- talking to a policy ----------------------------------------------------------------------------------------


def test_a_folder_without_a_model_is_named(fails):
    said = fails("sample", "runs/quick/dpo", "--prompt", "a")
    assert "runs/quick/dpo holds no model: name a folder of runs/" in said
    assert "runs/quick/dpo holds no model" in fails("merge", "runs/quick/dpo", "merged")


def test_a_policy_goes_on_with_each_prompt(toy_world, capsys):
    arguments = ["sample", "build/smoke/reference", "--prompt", "Tweet: My", "--prompt", "Tweet: This", "--tokens", "5"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert [line.split("|")[0] for line in first.split("\n") if "|" in line] == ["Tweet: My", "Tweet: This"]
    assert main(arguments) == 0 and capsys.readouterr().out == first
    assert main([*arguments, "--seed", "1"]) == 0 and capsys.readouterr().out != first


def test_an_adapter_of_a_run_can_be_sampled_and_merged(toy_world, capsys):
    from prefcore.data.types import Example
    from prefcore.engine import models, reference
    from prefcore.lab import runs

    tokenizer, base = models.load_policy("build/smoke/reference")
    policy = models.add_lora(base, rank=2, alpha=4.0, top_layers=1, seed=0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
    rows = [Example("a", (5, 6), ((7, 8),))]
    expected = reference.score_all(policy, rows, pad_id=0)
    runs.save_model(policy, tokenizer, "smoke", "dpo")
    assert main(["sample", "runs/smoke/dpo", "--prompt", "Tweet: My"]) == 0
    assert capsys.readouterr().out.startswith("Tweet: My|")
    assert main(["merge", "runs/smoke/dpo", "merged"]) == 0
    assert not Path("merged/adapter_config.json").exists()
    found = reference.score_all(models.load_policy("merged")[1], rows, pad_id=0)
    assert found[0, 0] == pytest.approx(expected[0, 0], abs=1e-4)
