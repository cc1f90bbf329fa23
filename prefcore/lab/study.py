"""The study pipeline: the stages of dvc.yaml under the profile `study`, in a file that `dvc repro` leaves alone.

DVC reads one value of `profile` a file. So study/dvc.yaml is the same text with its own, written from dvc.yaml and
never by hand; study/dvc.lock is its record, as dvc.lock is that of the quick profile.
"""

import copy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

PIPELINE = Path("study/dvc.yaml")
HEAD = "# Written from dvc.yaml by prefcore/lab/study.py: change it there, then run `python -m prefcore study`.\n"


def derive(pipeline: Mapping) -> dict:
    """The content of study/dvc.yaml: the stages that belong to a profile, run from the folder above.

    What no profile has a copy of (the weights) stays a stage of dvc.yaml alone, as DVC lets one stage write a file.
    """
    stages = copy.deepcopy({k: v for k, v in pipeline["stages"].items() if "${profile}" in repr(v)})
    for stage in stages.values():
        stage.get("do", stage)["wdir"] = ".."
    return {"vars": [{"profile": "study"}], "stages": stages}


def text() -> str:
    """What study/dvc.yaml must hold by the dvc.yaml of this folder."""
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    return HEAD + yaml.safe_dump(derive(pipeline), sort_keys=False, width=120)


def write() -> Path:
    """study/dvc.yaml anew, where it differs."""
    if not PIPELINE.exists() or PIPELINE.read_text(encoding="utf-8") != text():
        PIPELINE.parent.mkdir(exist_ok=True)
        PIPELINE.write_text(text(), encoding="utf-8")
    return PIPELINE


def stage_of(method: str) -> str:
    """The name of a method's stage: its own, or the group of policies with the method behind @."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if method in stages:
        return method
    for name, stage in stages.items():
        if method in stage.get("foreach", ()):
            return f"{name}@{method}"
    raise ValueError(f"{method} is no stage of dvc.yaml, which has {', '.join(stages)}")


def run(method: str) -> None:
    """Bring one method's study up to date: only what changed runs, with the stages that it reads."""
    target = f"{write()}:{stage_of(method)}"
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", target])
    if done.returncode:
        raise RuntimeError(f"dvc repro {target} failed; what it said stands above")
