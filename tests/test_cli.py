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
from prefcore.data import datasets
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
    good = [GOOD | {"prompt": f"a {i}"} for i in range(20)]
    Path("own.jsonl").write_bytes(lines(*good, GOOD | {"chosen": ""}, {"prompt": "e"}))
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append((path, values)))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    assert main(["run", "kto", "--data", "own.jsonl", "--drop-bad", "--set", "beta=0.5", "epochs=2"]) == 0
    ((path, values),) = started
    assert path == "notebooks/kto.ipynb" and values["profile"] == "own/own"
    assert (values["beta"], values["epochs"], values["data"]) == (0.5, 2, "runs/own/own/kto/data.jsonl")
    said = capsys.readouterr().out
    assert "2 rows are left out: own.jsonl:21: field 'chosen': is empty" in said
    assert "22 rows read, 20 usable (2 bad, 0 ties); 16 to train on, of which 16 are used, 2 to choose by" in said
    assert datasets.read(values["data"])[3].prompt == "a 3" and values["sizes"]["many"] == 16


MANY = [GOOD | {"prompt": f"a {i}"} for i in range(20)]
LATE = {  # what training would stumble over: method, rows, what else is on the command line, what is said
    "thumbs-up alone": ("kto", [{"prompt": f"a {i}", "completion": " b", "label": True} for i in range(60)], (),
                        "all 48 answers to train on are thumbs-up"),
    "five prompts": ("dpo", MANY[:5], (), "5 different prompts are too few to hold some out: give 8 or more"),
    "no scores for ODPO": ("odpo", MANY, (), "does not say how much better chosen is; add the column margin"),
    "one score a prompt": ("dpo", [{"prompt": f"a {i}", "completion": " b", "score": i} for i in range(20)], (),
                           "none of 16 rows shares its prompt with one of another score"),
    "answers that part late": ("dpo", [row | {"chosen": " same words 1", "rejected": " same words 2"} for row in MANY],
                               ("--set", "max_completion=4"), "are equal in their first 4 tokens"),
    "another profile": ("dpo", MANY, ("--set", "profile=study"), "profile is not set here"),
    "rates that are no numbers": ("dpo", MANY, ("--set", "rates=fast"), "give a list, as [fast]"),
    "a column that is not there": ("dpo", MANY, ("--columns", "chosen=best"), "field 'best': there is no such column"),
    "columns of a method with its own rows": ("micro", MANY, ("--columns", "a=chosen"), "--columns is for pairs"),
    "votes without names": ("micro", [{"a": f"a {i}", "b": f"b {i}", "votes": [1]} for i in range(20)], (),
                            "no vote names its voter"),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_what_can_be_known_before_training_is_said_before_training(fails, name):
    method, rows, more, what = LATE[name]
    Path("own.jsonl").write_bytes(lines(*rows))
    assert what in fails("run", method, "--data", "own.jsonl", *more)


def test_columns_and_the_name_of_a_run_are_given_on_the_command_line(toy_world, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append((output, values)))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    Path("own.jsonl").write_bytes(lines(*({"ask": row["prompt"], "chosen": " c", "worse": " d"} for row in MANY)))
    ready = ["run", "dpo", "--data", "own.jsonl", "--columns", "prompt=ask,rejected=worse", "--name", "mine"]
    assert main(ready) == main(ready) == 0  # the same run again
    assert main([*ready, "--set", "beta=0.2"]) == 1
    assert "--name mine: runs/own/mine/dpo holds another run" in capsys.readouterr().err
    assert main([*ready[:-2], "--set", "sizes={few: 2, many: 5}", "max_prompt=9"]) == 0
    assert [str(output.parent) for output, _ in started] == ["runs/own/mine/dpo"] * 2 + ["runs/own/own/dpo"]
    assert (started[2][1]["sizes"], started[2][1]["max_prompt"]) == ({"few": 2, "many": 5}, 9)
    assert "of which 5 are used" in capsys.readouterr().out


ASKED = {
    "db_id": "pets", "question": "How many?", "gold": "SELECT 1", "candidates": [{"system": "one", "sql": "SELECT 1"}],
}  # fmt: skip


def test_questions_need_their_databases_before_anything_is_run(fails):
    Path("own.jsonl").write_bytes(lines(ASKED))
    assert "database: no such folder of databases; name one with --databases" in fails(
        "run", "chase_sql", "--data", "own.jsonl")
    assert "elsewhere: no such folder" in fails("run", "chase_sql", "--data", "own.jsonl", "--databases", "elsewhere")
    Path("database").mkdir()
    Path("bad.jsonl").write_bytes(lines({"question": "?"}))
    assert "bad.jsonl: no question that can be read" in fails("run", "chase_sql", "--data", "bad.jsonl")


def test_a_method_without_databases_takes_none(fails):
    Path("own.jsonl").write_bytes(lines(GOOD))
    assert fails("run", "dpo", "--data", "own.jsonl", "--databases", "here") == (
        "error: dpo reads no databases: leave out --databases")
    assert "go together, without --data, with chase_sql" in fails("run", "dpo", "--database", "a", "--question", "b")
    assert fails("run", "dpo") == "error: dpo needs --data FILE_OR_HUB_ID"


def test_a_question_goes_to_the_answer_and_not_to_the_notebook(toy_world, monkeypatch, fails):
    from prefcore.methods.chase_sql import apply

    asked = []
    monkeypatch.setattr(apply, "ask", lambda *told: asked.append(told))
    monkeypatch.setattr(apply, "answer_all", lambda *told: asked.append(told))
    named = ("--set", "generator=http://localhost:1/v1#m", "queries=3")
    assert main(["run", "chase_sql", "--database", "my.sqlite", "--question", "How many?", *named]) == 0
    assert main(["run", "chase_sql", "--data", "own.jsonl", "--databases", "here", *named]) == 0
    (database, question, evidence, p), (data, databases, _) = asked
    assert (database, question, evidence, p.queries) == ("my.sqlite", "How many?", "", 3)
    assert (data, databases, p.generator) == ("own.jsonl", "here", "http://localhost:1/v1#m")
    assert "go together" in fails("run", "chase_sql", "--database", "my.sqlite")


def test_candidates_and_databases_reach_the_notebook(toy_world, monkeypatch):
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append(values))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    Path("own.jsonl").write_bytes(lines(ASKED))
    Path("here").mkdir()
    named = ("--databases", "here", "--set", "folds=3")
    assert main(["run", "chase_sql", "--data", "own.jsonl", *named]) == 0
    told = {name: started[0][name] for name in ("data", "databases", "folds", "profile")}
    assert told == {"data": "own.jsonl", "databases": "here", "folds": 3, "profile": "own/own"}


def test_methods_are_compared_on_all_rows_each_with_a_rate_of_its_own(toy_world, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append((path, values)))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    Path("own.jsonl").write_bytes(lines(*MANY))
    assert main(["compare", "--data", "own.jsonl", "--methods", "kto", "dpo", "--set", "seeds=3"]) == 0
    ((path, values),) = started
    assert path == "notebooks/compare.ipynb" and values["arms"] == values["confirm"] == ["kto-many", "dpo-many"]
    assert values["rates"] == [5e-4, 1e-3, 2e-3] and values["seeds"] == 3 and values["sizes"]["many"] == 16
    assert main(["compare", "--data", "own.jsonl", "--set", "rates=[0.001]"]) == 0
    assert started[1][1]["rates"] == [0.001] and len(started[1][1]["arms"]) == 6
    assert main(["compare"]) == 1 and "compare needs --data" in capsys.readouterr().err


def test_voted_pairs_teach_what_most_people_prefer(toy_world, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(notebooks, "execute", lambda path, output, values: started.append(values))
    monkeypatch.setattr(notebooks, "export_html", lambda *_: None)
    rows = [{"topic": f"a {i}", "a": "b", "b": "c", "votes": [0, 0, 1] if i else [0, 1]} for i in range(21)]
    Path("votes.jsonl").write_bytes(lines(*rows))
    assert main(["run", "odpo", "--data", "votes.jsonl"]) == 0
    made = [json.loads(line) for line in Path(started[0]["data"]).read_text().splitlines()]
    assert len(made) == 20 and {(row["chosen"], round(row["strength"], 3)) for row in made} == {("c", 0.667)}
    assert "21 voted pairs: chosen is what most votes prefer, on 1 of them as many" in capsys.readouterr().out


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
    assert "runs/quick/dpo holds no model" in fails("export", "runs/quick/dpo", "merged")


def test_a_policy_goes_on_with_each_prompt(toy_world, capsys):
    arguments = ["sample", "build/smoke/reference", "--prompt", "Tweet: My", "--prompt", "Tweet: This", "--tokens", "5"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert [line.split("|")[0] for line in first.split("\n") if "|" in line] == ["Tweet: My", "Tweet: This"]
    assert main(arguments) == 0 and capsys.readouterr().out == first
    assert main([*arguments, "--seed", "1"]) == 0 and capsys.readouterr().out != first


def test_an_adapter_of_a_run_can_be_sampled_and_exported(toy_world, capsys):
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
    assert main(["export", "runs/smoke/dpo", "whole"]) == 0
    assert not Path("whole/adapter_config.json").exists()
    found = reference.score_all(models.load_policy("whole")[1], rows, pad_id=0)
    assert found[0, 0] == pytest.approx(expected[0, 0], abs=1e-4)


def test_doctor_tells_the_same_on_the_terminal_in_json_and_on_a_page(toy_world, capsys):
    Path("own.jsonl").write_bytes(lines(*MANY, MANY[0], {"prompt": "e"}))
    assert main(["doctor", "own.jsonl"]) == 0
    said = capsys.readouterr().out
    found = json.loads(Path("runs/own/own/doctor/doctor.json").read_text())
    assert all(f"{row['name']}: {row['says']}" in said for row in found)
    assert "! rows that cannot be used: " in said and "own.jsonl:" in said
    assert Path("runs/own/own/doctor/doctor.html").read_text().count("<th scope=row") == len(found)


def test_doctor_reads_votes_too_and_refuses_what_a_run_refuses(toy_world, capsys):
    rows = [{"a": f"text {i}", "b": f"another {i}", "votes": cast}
            for i, cast in enumerate([(1, 1, 0, 0), (1, 1, 1, 1)] * 15)]  # fmt: skip
    Path("votes.jsonl").write_bytes(lines(*rows))
    assert main(["doctor", "votes.jsonl"]) == 0
    assert "disagreement: in a share of 0.50" in capsys.readouterr().out
    Path("bad.jsonl").write_bytes(b"{")
    assert main(["doctor", "bad.jsonl"]) == 1
    assert "bad.jsonl" in capsys.readouterr().err


def test_env_says_what_a_bug_report_needs(toy_world, capsys):
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert "torch: " in said and "sha256 of params.yaml: " in said


# --- elsewhere --------------------------------------------------------------------------------------------------

WAITS = "import json, pathlib, sys; pathlib.Path('told.json').write_text(json.dumps(sys.argv[1:]))"


@pytest.mark.parametrize("form", ["waits.py --gpus 1", "waits.py --gpus 1 --wrap '{command}'"])
def test_what_stands_in_launch_gets_the_command_and_runs_it_where_it_likes(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("waits.py").write_text(WAITS)
    Path("params.yaml").write_text(yaml.safe_dump({"launch": f"{sys.executable} {form}"}))
    assert main(["stage", "no.function", "--profile", "study"]) == 0
    _, count, *told = json.loads(Path("told.json").read_text())
    if "{command}" in form:
        told = told[1].split()
    assert count == "1"
    assert told == [sys.executable, "-m", "prefcore", "stage", "no.function", "--profile", "study", "--here"]


def test_a_command_that_fails_elsewhere_fails_here_and_one_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for launch, said in ((f"{sys.executable} -c 'raise SystemExit(3)'", "ended with status 3"),
                         ("no-such-program -W", "no-such-program is not here")):  # fmt: skip
        Path("params.yaml").write_text(yaml.safe_dump({"launch": launch}))
        assert main(["notebook", "kto"]) == 1
        assert said in capsys.readouterr().err


def test_no_stage_depends_on_what_launches_it():
    for path in ("dvc.yaml", "study/dvc.yaml"):
        assert "launch" not in (ROOT / path).read_text()
