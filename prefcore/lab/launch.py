"""A chapter on several processes, of one machine or of many, as a configuration of `accelerate` says.

Each process runs the notebook in a kernel of its own: `train.fit` deals every step out among them (engine/ranks.py),
and everything else they do alike. The first one's notebook and files are the results. So a chapter is the same program
however many run it, a run keeps its identity, and a checkpoint of two processes serves one.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from prefcore.lab import kept, notebooks, parameters

SHARDS = {  # what a configuration of FSDP may say
    "fsdp_version": 2, "fsdp_reshard_after_forward": True, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_state_dict_type": "FULL_STATE_DICT", "fsdp_offload_params": False, "fsdp_activation_checkpointing": False,
}  # fmt: skip
GRACE = 8  # seconds in which the others can say what went wrong: the first that ends, ends all


def execute(path: str | Path, output: str | Path, values: Mapping, config: str = "", *, workers: int = 1) -> bool:
    """Run the notebook as notebooks.execute does, on the processes of the configuration file; without one, on one.

    workers: without a configuration, processes that share the runs of the chapter (lab/kept.py), each run on one.
    Returns whether the executed copy is here: of several machines, only that of the first process has it. Raises
    ValueError for a configuration that cannot be kept to, RuntimeError when a process fails or is killed, which ends
    all; the same command then goes on from the last checkpoint.
    """
    if not config:
        with helpers(path, values, workers - 1), patched(kept.ROLE, "chapter"):
            notebooks.execute(path, output, values)
        return True
    said = check(config)
    parameters.check(path, values)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from prefcore.engine import shards

    more = {shards.ASKED: said["distributed_type"] == "FSDP", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    said = {**said, "distributed_type": "MULTI_GPU", "fsdp_config": {}}  # shards are dealt by our engine, on CPUs too
    with TemporaryDirectory() as folder, patch_environment(**more):
        (Path(folder) / "values.json").write_text(json.dumps(dict(values)), encoding="utf-8")
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
        work = ["--module", __name__, str(path), str(output), folder]
        try:
            launch_command(launch_command_parser().parse_args(["--config_file", f"{folder}/config.yaml", *work]))
        except ChildFailedError as error:
            raise RuntimeError(_cause(error, Path(folder))) from None
        return (Path(folder) / "first").exists()


@contextmanager
def helpers(path: str | Path, values: Mapping, count: int) -> Iterator[None]:
    """While it is open, so many processes take part in the runs of the chapter, where it has some to share."""
    chapter = Path(path).read_text(encoding="utf-8")
    if count < 1 or not ("training.run_all(" in chapter or "kept.end_helper(" in chapter):
        yield
        return
    with TemporaryDirectory() as folder:
        (Path(folder) / "values.json").write_text(json.dumps(dict(values)), encoding="utf-8")
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ | {kept.ROLE: "helper"}}
        begin = [sys.executable, "-m", __name__, str(path)]
        started = [subprocess.Popen([*begin, f"{folder}/{k}.ipynb", folder], **silent) for k in range(count)]
        try:
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


@contextmanager
def patched(name: str, value: str) -> Iterator[None]:
    """While it is open, the environment has this value, unless it has one."""
    before = os.environ.get(name)
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def check(config: str | Path) -> dict:
    """What the file says. ValueError for what a chapter cannot keep to, FileNotFoundError where there is no file."""
    if not Path(config).is_file():
        raise FileNotFoundError(f"--launch {config}: there is no such file; the folder launch/ has some to start from")
    said = yaml.safe_load(Path(config).read_text(encoding="utf-8")) or {}
    if (kind := said.get("distributed_type")) not in ("MULTI_GPU", "FSDP"):
        raise ValueError(
            f"{config}: distributed_type is {kind}: write MULTI_GPU, or FSDP for models that fit on no single device "
            "(without GPUs, the processes of MULTI_GPU meet on the CPU)"
        )
    if said.get("mixed_precision", "no") not in ("no", False):
        raise ValueError(
            f"{config}: mixed_precision is {said['mixed_precision']}: write 'no', and round by the parameter precision"
        )
    found = said.get("fsdp_config") or {}
    if kind == "FSDP" and (strange := dict(set(found.items()) - set(SHARDS.items()))):
        raise ValueError(f"{config}: fsdp_config has {strange}; there is no other way to shard here than {SHARDS}")
    if kind == "FSDP" and found.get("fsdp_version") != 2:
        raise ValueError(f"{config}: fsdp_config needs fsdp_version: 2")
    return said


def _cause(error, folder: Path) -> str:
    """Which process was killed; else what those that failed have said, what several say once."""
    killed = [f"process {rank} was ended by {failure.signal_name()}" for rank, failure in error.failures.items()
              if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM]  # fmt: skip
    said = {}
    for path in sorted(folder.glob("process *.txt")):
        text, partial, place = path.read_text(encoding="utf-8").partition(" (the partial notebook is ")
        said.setdefault(text, f"{path.stem}: {text}{partial}{place}")
    causes = killed or list(said.values()) or [str(error)]
    return "; ".join(causes) + "; the same command goes on from the last checkpoint"


def _work(path: str, output: str, folder: str) -> int:
    """What each process does; the exit status."""
    from accelerate.utils import get_int_from_env

    rank = get_int_from_env(["RANK"], 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # in order, so that the kernel ends too
    values = json.loads((Path(folder) / "values.json").read_text(encoding="utf-8"))
    try:
        if rank == 0:
            notebooks.execute(path, output, values)
            (Path(folder) / "first").touch()
        else:
            with TemporaryDirectory() as aside, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                notebooks.execute(path, Path(aside) / "notebook.ipynb", values)
    except (ValueError, TypeError, RuntimeError) as error:
        (Path(folder) / f"process {rank}.txt").write_text(str(error), encoding="utf-8")
        time.sleep(GRACE)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_work(*sys.argv[1:]))
