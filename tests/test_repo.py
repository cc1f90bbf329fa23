"""Rules of the repository: who imports whom, names that must agree, what DVC is told, and what stands nowhere."""

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from prefcore.lab import parameters, study

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "prefcore"
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
TOGETHER = ("compare", "overview")  # chapters on several methods
METHODS = [name for name in PARAMS["methods"] if name not in TOGETHER]
CHAPTERS = [*METHODS, *TOGETHER]
CODE = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(ROOT.glob("*.md"))
ROOMS = ["data", "engine", "scoring", "lab", "methods", "doctor", "smoke", "__main__"]  # imports run to the left only


def imported(source: str) -> set[str]:
    """Names of all modules that a source imports, wherever it does; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_files(source: str) -> set[str]:
    """Paths of the prefcore files that a source imports itself."""
    paths = {name.replace(".", "/") + ".py" for name in imported(source) if name.startswith("prefcore.")}
    return {path for path in paths if (ROOT / path).exists()}


@cache
def reached(path: str) -> frozenset[str]:
    """The file with all prefcore files that it imports, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += own_files((ROOT / file).read_text())
    return frozenset(seen)


def notebook_code(name: str) -> str:
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: str) -> str:
    """data, engine, ... of prefcore/data/files.py."""
    return path.removesuffix(".py").split("/")[1]


def owner_of(path: str) -> str | None:
    """The method in whose file or folder a path of prefcore lies; None for the core."""
    parts = path.removesuffix(".py").split("/")
    return parts[2] if parts[1] == "methods" and len(parts) > 2 else None


# --- rooms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_imports_go_down_only(path):
    own = str(path.relative_to(ROOT))
    for other in own_files(path.read_text()):
        assert ROOMS.index(room_of(other)) <= ROOMS.index(room_of(own)), f"{own} imports {other}"
        assert owner_of(other) in (None, owner_of(own), "dpo") or room_of(own) in ("smoke", "__main__"), other
    outside = {name.split(".")[0] for name in imported(path.read_text())}
    assert outside.isdisjoint({"tests", "benchmarks", "notebooks", "trl", "pytest"})


@pytest.mark.parametrize("name", ["dpo", "odpo", "kto", "bco", "ulma"])
def test_a_method_that_is_one_loss_imports_engine_and_data_alone(name):
    assert {room_of(path) for path in own_files((PACKAGE / "methods" / f"{name}.py").read_text())} <= {"engine", "data"}


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_notebook_uses_its_own_method_and_dpo_and_no_other(name):
    used = {owner_of(path) for path in own_files(notebook_code(name))} - {None}
    if name in METHODS:
        assert {name} <= used <= {name, "dpo"}
    else:
        assert used == (set(POLICIES) if name == "compare" else set())


def test_a_module_that_one_method_uses_lives_with_that_method():
    """Computed from the imports; a user is a method (its files and its notebook) or another module of the core."""
    users: dict[str, set[str]] = {}
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in CODE}
    sources |= {f"notebooks/{name}": notebook_code(name) for name in METHODS}
    for own, source in sources.items():
        user = own.removeprefix("notebooks/") if own.startswith("notebooks") else owner_of(own) or own
        for other in own_files(source):
            users.setdefault(other, set()).add(user)
    lonely = {path: found for path, found in users.items()
              if owner_of(path) is None and len(found) == 1 and next(iter(found)) in METHODS}  # fmt: skip
    assert not lonely


def test_all_code_is_in_a_room_and_tests_stand_where_the_code_stands():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "smoke.py"}
    for test in (ROOT / "tests").rglob("test_*.py"):
        folder = test.parent.relative_to(ROOT / "tests")
        assert (PACKAGE / folder).is_dir(), f"{test.relative_to(ROOT)} tests no folder of prefcore"


@pytest.mark.parametrize("path", [path for path in CODE if path.name == "__init__.py"], ids=relative)
def test_a_room_says_at_its_door_which_question_it_answers(path):
    (node,) = ast.parse(path.read_text()).body
    lines = ast.get_docstring(ast.parse(path.read_text())).splitlines()
    assert isinstance(node, ast.Expr) and 1 <= len(lines) <= 8
    assert len(lines) >= 3 or path.parent in (PACKAGE, PACKAGE / "methods")


def test_only_the_command_line_and_the_toy_world_read_params_yaml():
    readers = {relative(path) for path in CODE if re.search(r"(read_text|open|load)\b.*params\.yaml", path.read_text())}
    readers |= {relative(path) for path in CODE if re.search(r"""Path\("params\.yaml"\)\n""", path.read_text())}
    assert readers <= {"__main__.py", "smoke.py"}
    environment = {relative(path) for path in CODE if "os.environ" in path.read_text()}
    assert environment <= {"__main__.py", "data/sources.py", "engine/trackers.py", "scoring/llm.py",
                           "lab/launch.py", "lab/kept.py"}  # fmt: skip


# --- names agree ------------------------------------------------------------------------------------------------


def test_a_method_has_a_block_a_file_a_test_and_a_notebook():
    files = {path.stem for path in (ROOT / "prefcore" / "methods").iterdir()} - {"__init__", "__pycache__"}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "methods").glob("test_*.py")}
    tests |= {path.name for path in (ROOT / "tests" / "methods").iterdir() if list(path.glob("test_*.py"))}
    chapters = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(METHODS) == files == tests == chapters - {*TOGETHER, *parameters.PAGES}
    assert {*TOGETHER, *parameters.PAGES} < chapters
    assert list(PARAMS["methods"])[-1] == "overview"


def test_both_profiles_have_the_same_parameters():
    assert set(PARAMS) == {"profile", "workers", "launch", "common", "methods", "quick", "study", "hub"}
    assert PARAMS["profile"] == "quick" and PARAMS["launch"] == ""
    assert set(PARAMS["quick"]) == set(PARAMS["study"]) == {"shared", *PARAMS["methods"]}
    for name in PARAMS["quick"]:
        constants = {*PARAMS["common"], *(PARAMS["methods"].get(name) or {})}  # a profile may have its own value
        quick, study = (set(PARAMS[profile][name] or {}) - constants for profile in ("quick", "study"))
        assert quick == study, name


def test_numbers_are_written_so_that_yaml_reads_numbers():
    """YAML 1.1 reads 1e-6 as a text."""
    texts = [match for match in re.findall(r"[:\[,]\s*([-+]?\d[\d.]*e[-+]?\d+)", (ROOT / "params.yaml").read_text())]
    assert texts and all(isinstance(yaml.safe_load(text), float) for text in texts)


# --- DVC --------------------------------------------------------------------------------------------------------

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
POLICIES = list(DVC["stages"]["method"]["foreach"])


def stages(profile="quick") -> dict:
    """name -> (cmd, deps, params, outs) of every stage, templates filled in."""
    found = {}
    for name, stage in DVC["stages"].items():
        items = [(f"{name}@{key}", stage["do"], key, item) for key, item in stage["foreach"].items()] if (
            "foreach" in stage) else [(name, stage, None, None)]  # fmt: skip
        for full, body, key, item in items:
            text = json.dumps(body).replace("${profile}", profile)
            filled = json.loads(text.replace("${key}", f"{key}").replace("${item}", f"{item}"))
            outs = [out for kind in ("outs", "metrics", "plots") for out in filled.get(kind, [])]
            names = {next(iter(out)) if isinstance(out, dict) else out for out in outs}
            found[full] = (filled["cmd"], set(filled["deps"]), set(filled.get("params", [])), names)
    return found


FUNCTIONS = {name: cmd.split()[4] for name, (cmd, *_) in stages().items() if cmd.startswith("python -m prefcore stage")}


def covers(deps: set[str], files: set[str]) -> bool:
    """Every file lies in a folder (or is a file) that deps name, and each prefcore folder that they name holds one."""
    named = {dep for dep in deps if dep.startswith("prefcore/")}
    inside = {file: {dep for dep in named if file == dep or file.startswith(f"{dep}/")} for file in files}
    missing = {file for file, found in inside.items() if not found}
    idle = named - {dep for found in inside.values() for dep in found}
    assert not missing, f"not listed: {missing}"
    assert not idle, f"listed for nothing: {idle}"
    return True


def stage_of(name: str) -> str:
    """The stage of a notebook: group@name, or the name alone."""
    return next(stage for stage in stages() if stage.rpartition("@")[2] == name)


def uses_of(place: str) -> tuple[set[str], set[str]]:
    """(prefcore files, parameters p.x) that a function `module.name` uses, itself or through others of that module."""
    module, _, function = place.rpartition(".")
    path = f"prefcore/{module.replace('.', '/')}.py"
    functions = {node.name: node for node in ast.parse((ROOT / path).read_text()).body
                 if isinstance(node, ast.FunctionDef)}  # fmt: skip
    keys, seen, waiting = set(), set(), [function]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Name) and node.id in functions:
                waiting.append(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "p":
                keys.add(node.attr)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "models.load":
                keys |= {"device", "threads", "dtype"}
    return set(reached(path)), keys - {"_replace"}


def test_there_is_a_stage_for_every_chapter_and_the_overview_reads_them_all():
    assert {stage.rpartition("@")[2] for stage in stages()} == {*FUNCTIONS, *CHAPTERS}
    cmd, deps, _, _ = stages()["overview"]
    assert {f"metrics/quick/{name}.json" for name in (*METHODS, "compare")} <= deps
    assert {f"runs/quick/{name}/scores.csv" for name in POLICIES} <= deps


@pytest.mark.parametrize("stage", FUNCTIONS)
def test_a_shared_stage_lists_the_rooms_and_parameters_that_it_uses_and_no_other(stage):
    cmd, deps, params, _ = stages()[stage]
    assert cmd.removesuffix(" --profile quick") == f"python -m prefcore stage {FUNCTIONS[stage]}"
    files, keys = uses_of(FUNCTIONS[stage])
    assert covers(deps, files)
    shared = set(PARAMS["quick"]["shared"])
    wanted = {f"quick.shared.{key}" if key in shared else f"common.{key}" for key in keys - {"profile"}}
    assert params == (wanted if stage != "weights" else set())


def test_no_stage_that_prepares_or_trains_shared_models_depends_on_what_draws_or_tells():
    tells = {f"prefcore/lab/{name}" for name in ("plots.py", "comparison.py", "verdicts.py", "overview.py")}
    for name in FUNCTIONS:
        _, deps, _, _ = stages()[name]
        assert "prefcore/lab" not in deps and not tells & deps, name


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_stage_of_a_notebook_lists_all_rooms_that_it_reaches(name):
    cmd, deps, params, _ = stages()[stage_of(name)]
    assert cmd == f"python -m prefcore notebook {name} --profile quick" and f"notebooks/{name}.ipynb" in deps
    files = {file for own in own_files(notebook_code(name)) for file in reached(own)}
    assert covers(deps - {"prefcore/methods/dpo.py"}, {file for file in files if file != "prefcore/methods/dpo.py"})
    assert "prefcore/methods/dpo.py" in deps or "prefcore/methods/dpo.py" not in files
    assert {"common", f"methods.{name}", f"quick.{name}"} == params


def test_the_study_pipeline_is_the_quick_one_under_its_own_profile(monkeypatch):
    monkeypatch.chdir(ROOT)
    written = (ROOT / study.PIPELINE).read_text()
    assert written == study.text() and "quick" not in written
    names = set(yaml.safe_load(written)["stages"])
    assert names == set(DVC["stages"]) - {"weights"}


def test_the_pipeline_is_short_enough_to_read():
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert len(lines) <= 350 and max(map(len, lines)) <= 120


def test_what_a_stage_reads_is_raw_source_or_the_output_of_another_stage():
    """dvc exp run --temp starts without build/ and runs/."""
    made = {out for _, _, _, outs in stages().values() for out in outs}
    (raw,) = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"]
    for name, (_, deps, _, _) in stages().items():
        for dep in deps:
            if dep.split("/")[0] in ("banks", "build", "runs", "metrics", "figures"):
                assert dep in made or str(Path(dep).parent) in made, f"{name} reads {dep}, which no stage makes"
            else:
                assert dep.startswith(raw["path"] + "/") or (ROOT / dep).exists(), f"{name} reads {dep}"


def test_numbers_of_a_run_are_in_git_and_folders_of_a_run_are_not():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"/data", "/build/", "/runs/", "/.checkpoints/"} <= set(ignored)
    for _, _, _, outs in stages().values():
        assert {out.split("/")[0] for out in outs} <= {"banks", "build", "runs", "metrics", "scores", "figures"}


@pytest.mark.parametrize("profile", ["quick", "study"])
def test_stages_keep_to_the_folders_of_their_profile(profile):
    other = {"quick": "study", "study": "quick"}[profile]
    for _, deps, params, outs in stages(profile).values():
        assert not [name for name in deps | params | outs if re.search(rf"(^|/|\.){other}(/|\.|$)", name)]


def test_caches_of_tools_do_not_make_a_stage_look_changed():
    ignored = set((ROOT / ".dvcignore").read_text().split())
    assert {"__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".ruff_cache"} <= ignored


# --- what stands nowhere ----------------------------------------------------------------------------------------

SOURCES = [
    *CODE, *PAGES, *(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "benchmarks").glob("*.py"),
    *(ROOT / "launch").glob("*.yaml"), *(path for path in (ROOT / "docs").iterdir() if path.is_file()),
    *(ROOT / name for name in ("Makefile", "params.yaml", "dvc.yaml", "pyproject.toml", "requirements.lock",
                               "environment.yml", "CITATION.cff", ".ci/run", ".gitignore", ".dvcignore", "NOTICE")),
]  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_path_of_a_machine_and_no_registry_host_is_named(path):
    text = path.read_text()
    assert not re.findall(r"(?<![\w./~])/(?:home|root|Users|work|mnt|tmp|opt)/\S*|\b[A-Z]:\\Users", text)
    hosts = r"\b(?:[\w.-]+\.)?(?:pypi\.org|pythonhosted\.org|huggingface\.co|hf\.co|anaconda\.org|modelscope\.cn)\b"
    assert not re.findall(hosts, text)


@pytest.mark.parametrize(
    "path", [*CODE, *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")],
    ids=lambda p: str(p.relative_to(ROOT)),
)  # fmt: skip
def test_nothing_unpickles_evaluates_or_runs_foreign_code(path):
    tree = ast.parse(path.read_text())
    modules = {name.split(".")[0] for name in imported(path.read_text())}
    assert modules.isdisjoint({"pickle", "dill", "cloudpickle", "joblib"})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "os.system", "yaml.load", "np.load", "pd.read_pickle"}
            for keyword in node.keywords:
                allowed = keyword.arg not in ("trust_remote_code", "allow_pickle", "shell")
                assert allowed or ast.unparse(keyword.value) == "False"


def test_weights_are_read_from_safetensors_only():
    text = (PACKAGE / "engine" / "models.py").read_text()
    loads = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
             and ast.unparse(node.func).endswith(".from_pretrained")]  # fmt: skip
    for node in loads:
        about = ast.unparse(node)
        if not re.match(r"Auto(Tokenizer|Config)", about):
            assert "use_safetensors=True" in about or "gguf_file=" in about, about
    assert len(loads) >= 4


# --- size and words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_a_file_is_small_and_says_what_it_is(path):
    assert len(path.read_text().splitlines()) < 350
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or path.name == "__init__.py"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_notebook_starts_with_the_quick_profile(name):
    assert parameters.defaults(ROOT / "notebooks" / f"{name}.ipynb")["profile"] == "quick"


@pytest.mark.parametrize("name", METHODS)
def test_a_chapter_says_where_it_departs_from_its_paper_and_what_its_numbers_mean(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    departs = re.search(r"\*Where we depart from the paper:\*\n\n((?:\|.*\n?)+)", prose)
    numbers = re.search(r"What each logged number means.*:\n\n((?:\|.*\n?)+)", prose)
    head, _, *rows = departs[1].splitlines()
    assert head == "| paper | here | why | measured effect |" and len(rows) >= 5
    for row in rows:
        *_, effect, _ = cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]
        assert len(cells) == 6 and effect, row
    assert numbers[1].startswith("| number | meaning |") and numbers[1].count("\n") >= 6


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_commands_files_and_parameters_that_a_page_names_exist(path):
    text = path.read_text()
    known = set(re.findall(r"python -m prefcore (\w+)", (ROOT / "prefcore" / "__main__.py").read_text()))
    assert set(re.findall(r"python -m prefcore (\w+)", text)) <= known
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.M)) <= targets
    for key in re.findall(r"-S ([\w.]+)=", text):
        block = PARAMS
        for part in key.split("."):
            block = block[part]
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / link).exists() or link.startswith("figures/"), link


def test_only_files_that_belong_into_git_are_in_git():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    for name in done.stdout.splitlines():
        assert name.split("/")[0] not in ("data", "build", "runs", ".checkpoints", ".venv"), name
        assert not (ROOT / name).exists() or (ROOT / name).stat().st_size < 2**20, name
