"""Every notebook, run by papermill in the toy world: as a stage, by DVC, and by `make smoke`."""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel

from prefcore import smoke
from prefcore.__main__ import main
from prefcore.engine import machine
from prefcore.lab import notebooks, overview, parameters, runs, verdicts
from prefcore.methods.gennm import limits

ROOT = Path(__file__).resolve().parents[1]
METHODS = [m for m in yaml.safe_load((ROOT / "params.yaml").read_text())["methods"] if m != "overview"]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
POLICIES = list(STAGES["method"]["foreach"])
FAILED = subprocess.CompletedProcess([], returncode=1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.timeout(900)]


class Repository:
    """A toy copy of this repository, in which the shared stages have run and the notebooks have not."""

    def __init__(self, folder: Path, toy_folder: Path):
        self.folder = folder
        shutil.copytree(toy_folder, folder, dirs_exist_ok=True)
        for name in ("prefcore", "study"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
        for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        for name in ("minilm", "smollm2", "ratings", "programs"):  # of which the toy world needs nothing
            (folder / "data" / name).mkdir(parents=True)
            (folder / "data" / name / "nothing").touch()
        self.change("study", yaml.safe_load((folder / "params.yaml").read_text())["smoke"])  # a study of toy size
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        self.dvc("init", "--quiet")
        shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")

    def run_notebooks(self) -> dict[str, str]:
        """What each notebook's command said; two at a time, the overview after them."""
        with ThreadPoolExecutor(2) as two:
            said = dict(zip(METHODS, two.map(self.run_notebook, METHODS), strict=True))
        return said | {"overview": self.run_notebook("overview")}

    def run_notebook(self, name: str) -> str:
        command = [sys.executable, "-m", "prefcore", "notebook", name]
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=self.folder, **both).stdout

    def dvc(self, *arguments: str) -> tuple[list[str], float, str]:
        """(stages that ran, seconds, everything that was said)."""
        start, own = time.monotonic(), Path(sys.executable).parent  # stages call the python of this environment
        env = os.environ | {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=self.folder, env=env, **both)
        ran = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
        assert done.returncode == 0, done.stdout
        return ran, time.monotonic() - start, done.stdout

    def change(self, key: str, value) -> None:
        """Another value in params.yaml; key is a path such as methods.kto.beta."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        *blocks, last = key.split(".")
        inside = params
        for block in blocks:
            inside = inside[block]
        inside[last] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def stale(self) -> set[str]:
        """The stages of dvc.yaml that the next repro would run, as DVC says; those of the study are left out."""
        _, _, said = self.dvc("status", "--json")
        found = json.loads(said[said.index("{") :])
        return {name for name in found if not name.startswith("study/") and name != "data.dvc"}

    @contextmanager
    def edited(self, path: str):
        """A file of prefcore with one line more, while the block runs."""
        file = self.folder / path
        before = file.read_text()
        file.write_text(before + "\nEDITED = True\n")
        yield
        file.write_text(before)

    def results(self) -> dict[str, bytes]:
        """dvc.lock, which names all outputs by their hash, and all metrics."""
        paths = [self.folder / "dvc.lock", *sorted((self.folder / "metrics").rglob("*.json"))]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def repository(tmp_path_factory, toy_folder):
    """All notebooks have run once; what they said is kept, and a notebook that failed has left no metrics."""
    made = Repository(tmp_path_factory.mktemp("repository"), toy_folder)
    made.said = made.run_notebooks()
    return made


@pytest.fixture(scope="module")
def tracked(repository):
    """The same with all that the stages made known to DVC."""
    repository.dvc("commit", "--force", "--quiet", "dvc.yaml")
    return repository


# --- notebooks as stages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*METHODS, "overview"])
def test_the_notebook_runs_to_its_end_and_leaves_metrics_and_a_page_to_read(repository, name):
    folder = repository.folder / "runs" / "smoke" / name
    assert (folder / "notebook.html").exists(), repository.said[name]
    nb = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert all(c.execution_count for c in nb.cells if c.cell_type == "code")
    assert "<html" in (folder / "notebook.html").read_text()[:1000]
    metrics = json.loads((repository.folder / "metrics" / "smoke" / f"{name}.json").read_text())
    assert metrics["arms"]


@pytest.mark.parametrize("name", ["index", "doctor"])
def test_a_page_that_is_no_stage_runs_in_the_folder_of_the_notebooks_as_a_reader_would_run_it(repository, name):
    values = {"profile": "smoke"}
    folder = repository.folder / "notebooks"
    notebooks.execute(folder / f"{name}.ipynb", folder / f"{name}.done.ipynb", values, root=folder)
    (folder / f"{name}.done.ipynb").unlink()


@pytest.mark.parametrize("name", METHODS)
def test_each_method_leaves_history_scores_and_claims(repository, name):
    folder = repository.folder / "runs" / "smoke" / name
    history, scores = (pd.read_csv(folder / f"{part}.csv") for part in ("history", "scores"))
    assert len(history) and len(scores)
    claims = json.loads((repository.folder / "metrics" / "smoke" / f"{name}.json").read_text())["claims"]
    assert claims and all(c["verdict"] in verdicts.VERDICTS and c["low"] <= c["high"] for c in claims)
    assert not (repository.folder / ".checkpoints" / "smoke" / name).exists()


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_measured_sampled_beside_the_reference_and_kept(repository, name):
    folder = repository.folder / "runs" / "smoke" / name
    history, samples = (pd.read_csv(folder / f"{part}.csv") for part in ("history", "scores"))
    assert history["loss"].notna().all() and {"arm", "seed", "step"} <= set(history)
    assert "reference" in set(samples["arm"]) and samples["gold"].notna().all()
    table = runs.read_measures("smoke", name, repository.folder)
    arms = json.loads((repository.folder / "metrics" / "smoke" / f"{name}.json").read_text())["arms"]
    assert overview.MAIN[name] in arms and set(arms) == set(table.dropna(subset=["ratio_1"])["arm"])
    assert (folder / "model" / "adapter_model.safetensors").exists()


def test_every_verdict_is_made_again_from_committed_files_and_a_changed_one_fails(
    repository, monkeypatch, capsys, tmp_path
):
    for name in ("params.yaml", "notebooks", "metrics", "scores", "banks"):
        copy = shutil.copytree if (repository.folder / name).is_dir() else shutil.copy
        copy(repository.folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    blocks = yaml.safe_load(Path("params.yaml").read_text())["methods"].values()
    claiming = sum("claims" in (block or {}) for block in blocks)
    assert main(["verdicts", "--profile", "smoke"]) == 0
    assert f"{claiming} chapters" in (said := capsys.readouterr().out) and "0 verdicts differ" in said
    path = Path("metrics/smoke/kto.json")
    path.write_text(path.read_text().replace('"verdict": "not tested"', '"verdict": "held"', 1))
    assert main(["verdicts", "--profile", "smoke"]) == 1
    assert "COMMITTED: held" in capsys.readouterr().out


def test_the_reward_model_of_a_chapter_is_a_plain_encoder_with_its_head(repository):
    folder = repository.folder / "runs" / "smoke" / "margin_rm" / "model"
    encoder = AutoModel.from_pretrained(folder, use_safetensors=True)
    assert load_file(folder / "head.safetensors")["weight"].shape == (1, encoder.config.hidden_size)


def test_what_the_gennm_notebook_saves_is_what_run_reads(repository, monkeypatch, capsys):
    """The whole way: train, save, name a file's functions within the limits of that training."""
    monkeypatch.chdir(repository.folder)
    folder, params = "runs/smoke/gennm/model", yaml.safe_load(Path("params.yaml").read_text())
    values = parameters.choose("notebooks/gennm.ipynb", params)
    assert limits.load(folder)._asdict() == {name: values[name] for name in limits.Limits._fields}
    assert json.loads(Path(folder, "limits.json").read_text())["trained"]["functions"] == 8
    rows = [{"function": r.function, "code": r.code, "names": r.names} for r in smoke.make_functions()[:3]]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["run", "gennm", "--data", "own.jsonl", "--set", f"model={folder}"]) == 0
    own = f"max_code {values['max_code']}, max_prompt {values['max_prompt']}, "
    assert f"limits of {folder}: {own}" in capsys.readouterr().out


# --- DVC --------------------------------------------------------------------------------------------------------


def test_a_repro_with_nothing_to_do_takes_less_than_ten_seconds(tracked):
    ran, seconds, said = tracked.dvc("repro")
    assert ran == [] and "up to date" in said
    assert seconds < 10 or os.getloadavg()[0] > os.cpu_count()


def test_a_forced_run_of_one_method_ends_with_the_same_bytes(tracked):
    before = tracked.results()
    ran, _, _ = tracked.dvc("repro", "--force", "--single-item", "method@bco")
    assert ran == ["method@bco"]
    assert tracked.results() == before


def test_a_change_of_one_methods_constant_runs_that_method_and_the_overview(tracked):
    before = tracked.results()
    tracked.change("methods.kto.beta", 0.7)
    ran, _, said = tracked.dvc("repro")
    assert ran == ["method@kto", "overview"], said
    changed = {name for name, content in tracked.results().items() if content != before[name]}
    assert changed == {"dvc.lock", "metrics/smoke/kto.json", "metrics/smoke/overview.json"}


def test_a_change_in_a_methods_folder_runs_that_methods_stages_alone(tracked):
    with tracked.edited("prefcore/methods/gennm/prompt.py"):
        assert tracked.stale() == {"gennm"}
        ran, _, said = tracked.dvc("repro")
        assert ran == ["gennm"], said  # its numbers are the same, so the comparison has nothing to do
    with tracked.edited("prefcore/methods/gennm/world/dwarf.py"):
        assert tracked.stale() == {"programs", "coder", "gennm"}
    tracked.dvc("commit", "--force", "--quiet", "dvc.yaml")


def test_a_change_of_the_figures_runs_no_stage_that_prepares_or_trains_for_others(tracked):
    with tracked.edited("prefcore/lab/plots.py"):
        assert tracked.stale() == {*(f"method@{name}" for name in POLICIES), *METHODS, "overview"} - set(POLICIES)
    with tracked.edited("prefcore/engine/train.py"):
        assert {"reference", "scorers", "judge", "biased", "method@dpo"} <= tracked.stale()


def test_a_study_stage_runs_again_when_code_or_parameters_change_though_its_output_is_there(tracked):
    """The old command skipped a stage whose output existed."""
    stage = "study/dvc.yaml:sql_world"
    assert tracked.dvc("repro", stage)[0] == [stage]
    assert tracked.dvc("repro", stage)[0] == [] and (tracked.folder / "build" / "study" / "sql_world").exists()
    tracked.change("study.shared.sql_rows", 9)
    assert tracked.dvc("repro", stage)[0] == [stage]
    with tracked.edited("prefcore/methods/chase_sql/world/words.py"):
        assert tracked.dvc("repro", stage)[0] == [stage]
    assert tracked.stale() == set()  # the quick pipeline is untouched
    assert (tracked.folder / "study" / "dvc.lock").exists()


def test_metrics_can_be_shown_and_plots_drawn(tracked):
    _, _, said = tracked.dvc("metrics", "show", "--json")
    shown = json.loads(said[said.index("{") :])[""]["data"]
    stages = {"overview", "scorers", "judge", "voted", "vision", "biased", "programs"}
    assert {Path(path).stem for path in shown} == {*METHODS, *stages}
    tracked.dvc("plots", "show", "--out", "drawn")
    page = (tracked.folder / "drawn" / "index.html").read_text()
    assert "Training loss" in page and "Gold score" in page


# --- make smoke -------------------------------------------------------------------------------------------------


def test_smoke_runs_every_notebook_the_comparison_last_and_says_how_long_each_took(monkeypatch, tmp_path, capsys):
    started = []
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    monkeypatch.setattr(smoke, "workspace", lambda folder, device: smoke.shrink(params))
    monkeypatch.setattr(smoke, "run_notebook", lambda method, folder: started.append((method, folder)) or 1.5)
    seconds = smoke.run(tmp_path)
    assert {method for method, _ in started} == {*METHODS, "overview"} and started[-1] == ("overview", tmp_path)
    said = capsys.readouterr().out
    assert all(f"smoke  {name}" in said for name in ("workspace", *METHODS, "overview", "all"))
    assert len(seconds) == 2 + len(METHODS)


def test_a_notebook_that_fails_ends_smoke_with_its_name_before_the_overview(monkeypatch, tmp_path):
    params, started = yaml.safe_load((ROOT / "params.yaml").read_text()), []
    monkeypatch.setattr(smoke, "workspace", lambda folder, device: smoke.shrink(params))
    monkeypatch.setattr(smoke.subprocess, "run", lambda command, cwd: started.append(command[-1]) or FAILED)
    with pytest.raises(RuntimeError, match=f"the notebook of {METHODS[0]} failed"):
        smoke.run(tmp_path)
    assert "overview" not in started


def test_the_toy_parameters_are_those_of_the_quick_profile_with_other_values():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    small = smoke.shrink(params)
    for name in params["methods"]:
        quick = parameters.merge({**params, "profile": "quick"}, name)
        toy = parameters.merge(small, name)
        assert toy.keys() == quick.keys()
        assert {k: type(v) for k, v in toy.items()} == {k: type(v) for k, v in quick.items()}
    assert small["smoke"]["shared"].keys() == params["quick"]["shared"].keys()


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this processor has no bfloat16 products")
def test_training_in_bfloat16_moves_no_reported_number_by_more_than_its_own_interval(toy_world):
    found = {}
    for precision in machine.PRECISIONS:
        toy_world["smoke"]["dpo"]["precision"] = precision
        Path("params.yaml").write_text(yaml.safe_dump(toy_world, sort_keys=False))
        smoke.run_notebook("dpo", Path())
        losses = pd.read_csv("runs/smoke/dpo/history.csv")["loss"]
        found[precision] = json.loads(Path("metrics/smoke/dpo.json").read_text()), losses
    (exact, losses), (rounded, others) = found["float32"], found["bfloat16"]
    assert 0 < (losses - others).abs().max() < 0.05
    for before, after in zip(exact["claims"], rounded["claims"], strict=True):
        assert before["low"] <= after["estimate"] <= before["high"], before["claim"]
    for arm, numbers in exact["arms"].items():
        assert numbers["low"] <= rounded["arms"][arm]["estimate"] <= numbers["high"], arm
