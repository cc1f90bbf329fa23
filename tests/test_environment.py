"""pyproject.toml, requirements.lock, environment.yml and the Makefile say the same thing."""

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.M))


@pytest.mark.parametrize("wanted", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
def test_the_lock_satisfies_each_dependency_of_pyproject(wanted):
    wanted = Requirement(wanted)
    pins = dict(line.split("==") for line in LOCK)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)])


def test_the_lock_is_torch_first_and_then_exact_versions_in_order():
    assert LOCK[0] == "torch==2.13.0"
    for line in LOCK:  # no build tag (+), path, address (@) or option
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.]+", line), line
    names = [canonicalize_name(line.split("==")[0]) for line in LOCK]
    assert len(set(names)) == len(names)


def test_the_lock_names_no_accelerator_wheel_and_not_this_package():
    names = {canonicalize_name(line.split("==")[0]) for line in LOCK}
    assert not [name for name in names if re.match(r"nvidia|cuda|triton|rocm|pytorch-triton", name)]
    assert names.isdisjoint({"prefcore", "pip"})


def test_the_lock_brings_the_build_tool_so_that_nothing_is_built_with_an_unpinned_one():
    assert any(line.startswith("setuptools==") for line in LOCK)


@pytest.mark.parametrize("pin", LOCK)
def test_each_locked_version_accepts_the_oldest_python_that_pyproject_promises(pin):
    promised = PROJECT["requires-python"].removeprefix(">=") + ".0"
    accepted = metadata(pin.split("==")[0])["Requires-Python"]
    assert SpecifierSet(accepted or "").contains(promised), f"{pin} needs Python {accepted}"


def test_conda_gets_the_python_of_pyproject_and_everything_else_from_the_lock():
    *plain, through_pip = CONDA["dependencies"]
    assert plain == ["python=3.11", "pip"]
    assert PROJECT["requires-python"] == ">=" + plain[0].removeprefix("python=")
    assert through_pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_make_help_lists_the_targets_that_people_are_told_to_use():
    told = {"env", "data", "repro", "test", "lab", "smoke", "study", "bench", "lint", "clean", "lock"}
    assert told <= TARGETS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_make_targets_named_in_a_page_exist(page):
    named = re.findall(r"`make ([a-z]+)|^\s*(?:\$ )?make ([a-z]+)", (ROOT / page).read_text(), re.M)
    assert {a or b for a, b in named} <= TARGETS


def test_setting_up_says_what_it_installs_and_shows_of_pip_only_errors():
    """pip warns of each place in the user's own settings that lacks a package: hundreds of lines about nothing."""
    assert [line for line in MAKEFILE.splitlines() if "pip install" in line] == [
        "PIP    := -m pip install -qq --disable-pip-version-check"]  # fmt: skip
    for rule in ("$(ENV)", "$(ANGR)/.complete"):
        lines = MAKEFILE.partition(f"\n{rule}: ")[2].partition("\n\n")[0].splitlines()
        installs = [i for i, line in enumerate(lines) if "$(PIP)" in line]
        assert installs and all(lines[i - 1].startswith('\t@echo "installing ') for i in installs)


def test_ci_runs_make_test_and_stops_at_the_first_error():
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert script[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in script and script[-1] == "make test"


def test_no_set_up_file_names_a_host_or_an_index():
    names = "pyproject.toml requirements.lock environment.yml Makefile .ci/run prefcore/data/sources.py"
    for name in names.split():
        assert not re.search(r"://|--index-url|--extra-index|--find-links", (ROOT / name).read_text()), name


def test_the_modules_that_the_makefile_runs_are_there():
    named = re.findall(r"-m ((?:prefcore|benchmarks)[\w.]*)", MAKEFILE)
    assert {"prefcore.data.sources", "prefcore", "benchmarks.bench"} <= set(named)
    for name in named:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name
