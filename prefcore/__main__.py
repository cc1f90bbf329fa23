"""The command line. The only code that reads params.yaml; everything below gets its numbers as arguments.

python -m prefcore data                     raw data and weights into data/
python -m prefcore stage FUNCTION           what a stage of dvc.yaml calls, as lab.pipeline.fit_judge [--profile quick]
python -m prefcore notebook METHOD          the notebook of a method [--profile quick] [--launch FILE]
python -m prefcore study METHOD             the study of one method, with the stages that it needs, through DVC
                                            [--launch FILE]: on several processes, by a file as those in launch/
python -m prefcore verdicts                 every verdict of the studies, made again from committed files
python -m prefcore smoke [--device cuda]    every notebook with a tiny random model
python -m prefcore run METHOD --data FILE_OR_HUB_ID [--set key=value ...] [--drop-bad] [--name NAME]
                              [--columns prompt=COLUMN,chosen=COLUMN,...] [--launch FILE] [--profile hub]
python -m prefcore run chase_sql --data FILE_OR_FOLDER [--databases DIR] [--set generator=... selector=...]
python -m prefcore run chase_sql --database FILE --question TEXT [--evidence TEXT] --set generator=URL#MODEL
python -m prefcore run gennm --train FOLDER_OF_BINARIES_OR_FILE [--set policy=HUB_ID_OR_FOLDER] [--name NAME]
python -m prefcore compare --data FILE_OR_HUB_ID [--methods dpo odpo osp kto bco ulma] [--set ...] [--name NAME]
python -m prefcore score MODEL DATA [--reference MODEL] [--columns ...]      how often it prefers what people prefer
python -m prefcore plan METHOD [--set ...] [--data FILE] [--device laptop|rtx4090|a100x8|h100x8|...]
                              memory, hours and tokens before a run, from configurations alone; refuses what cannot fit
python -m prefcore doctor DATA [--policy MODEL] [--out FOLDER]     what is in the data, and which method is for it
python -m prefcore sample RUN --prompt TEXT [--prompt TEXT ...]
python -m prefcore export RUN FOLDER [--gguf]       adapter and base as one plain transformers model, with a card
python -m prefcore env                      what a bug report needs to say about machine and checkout

PREFCORE_REPORT_TO=tensorboard (or wandb, mlflow, ... with commas between) before any of them: trackers that see the
steps of every training too; history.csv stays the record.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import yaml

from prefcore.lab.by_name import function

LAUNCH = "PREFCORE_LAUNCH"  # the environment variable that does what --launch does
POLICIES = ("dpo", "odpo", "osp", "kto", "bco", "ulma")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; user errors are one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m prefcore", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data")
    stage, notebook = commands.add_parser("stage"), commands.add_parser("notebook")
    stage.add_argument("function")
    notebook.add_argument("method")
    for command in (stage, notebook):
        command.add_argument("--profile", default="")
        command.add_argument("--here", action="store_true", help="what `launch` in params.yaml calls: run it here")
    study = commands.add_parser("study")
    study.add_argument("method")
    commands.add_parser("verdicts").add_argument("--profile", default="study")
    commands.add_parser("smoke").add_argument("--device", default="cpu")
    run, compare = commands.add_parser("run"), commands.add_parser("compare")
    run.add_argument("method")
    for command in (run, compare):
        command.add_argument("--data", default="")
        command.add_argument("--set", dest="values", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
        command.add_argument("--drop-bad", action="store_true")
        command.add_argument("--columns", default="", metavar="NAME=COLUMN,...")
        command.add_argument("--name", default="")
    for command in (notebook, study, run, compare):
        command.add_argument("--launch", default="", metavar="FILE")
    asked = ("train", "databases", "database", "question", "evidence")
    for name in asked:
        run.add_argument(f"--{name}", default="")
    compare.add_argument("--methods", nargs="+", default=POLICIES, choices=POLICIES)
    run.add_argument("--profile", default="")
    compare.set_defaults(method="compare", **dict.fromkeys((*asked, "profile"), ""))
    plan = commands.add_parser("plan")
    plan.add_argument("method")
    plan.add_argument("--set", dest="values", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    for name in ("data", "columns", "device", "profile"):
        plan.add_argument(f"--{name}", default="")
    score = commands.add_parser("score")
    score.add_argument("model")
    score.add_argument("data")
    score.add_argument("--reference", default="")
    score.add_argument("--columns", default="", metavar="NAME=COLUMN,...")
    score.add_argument("--out", default="")
    talk = commands.add_parser("sample")
    talk.add_argument("run")
    talk.add_argument("--prompt", action="append", required=True)
    talk.add_argument("--seed", type=int, default=0)
    talk.add_argument("--tokens", type=int, default=32)
    export = commands.add_parser("export")
    export.add_argument("run")
    export.add_argument("folder")
    export.add_argument("--gguf", action="store_true")
    doctor = commands.add_parser("doctor")
    doctor.add_argument("data")
    doctor.add_argument("--policy", default="")
    doctor.add_argument("--out", default="")
    commands.add_parser("env")
    given = parser.parse_args(arguments)
    actions: dict[str, Callable] = {
        "data": _data, "stage": _stage, "notebook": _notebook, "study": _study, "verdicts": _verdicts, "smoke": _smoke,
        "run": _run, "compare": _compare, "plan": _plan, "score": _score, "sample": _sample, "export": _export,
        "doctor": _doctor, "env": _env,
    }  # fmt: skip
    sys.modules.setdefault("rfc3987_syntax", None)  # a grammar that jsonschema would build for a second, and not use
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # of pinned libraries, about later releases
    warnings.simplefilter("ignore", FutureWarning)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, whose every step would fill a log
    try:
        if not getattr(given, "here", True) and (launch := read_params().get("launch")):
            return _elsewhere(launch, arguments or sys.argv[1:])
        if os.environ.get("PREFCORE_REPORT_TO"):
            from prefcore.engine import trackers

            trackers.wanted()  # or an error before any work
        return actions[given.command](given) or 0
    except (ValueError, TypeError, FileNotFoundError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _elsewhere(launch: str, arguments: list[str]) -> int:
    """The same command behind another one, or in place of its {command}; one that waits, as `srun` or `sbatch -W`."""
    command = [sys.executable, "-m", "prefcore", *arguments, "--here"]
    before = shlex.split(launch)
    if any("{command}" in word for word in before):
        before, command = [word.replace("{command}", shlex.join(command)) for word in before], []
    try:
        done = subprocess.run([*before, *command])
    except FileNotFoundError:
        raise FileNotFoundError(f"launch in params.yaml is {launch!r}, and {before[0]} is not here") from None
    if done.returncode:
        raise RuntimeError(f"{shlex.join([*before, *command])} ended with status {done.returncode}")
    return 0


def read_params(profile: str = "") -> dict:
    """params.yaml of the current folder, with another profile if one is named."""
    path = Path("params.yaml")
    if not path.exists():
        raise FileNotFoundError("params.yaml is not here: run this from the repository's top folder")
    params = yaml.safe_load(path.read_text())
    return params | {"profile": profile} if profile else params


def shared(params: dict) -> dict:
    """Parameters of the stages before the notebooks."""
    return {"profile": params["profile"]} | params["common"] | params[params["profile"]]["shared"]


def run_stage(name: str, params: dict) -> None:
    """The function prefcore.<name> of (parameters, build folder), for the profile in params."""
    from prefcore.data.types import freeze

    start, stage = time.monotonic(), function(name)
    stage(freeze(shared(params)), Path("build") / params["profile"])
    print(f"{name} ({params['profile']}): {time.monotonic() - start:.0f} s", flush=True)


def run_notebook(method: str, params: dict, config: str = "") -> None:
    """The notebook of a method with the profile's parameters; the executed copy goes to runs/<profile>/<method>/.

    config: an accelerate configuration, for several processes (lab/launch.py).
    """
    from prefcore.lab import launch, notebooks, parameters

    start, folder = time.monotonic(), Path("runs") / params["profile"] / method
    path = f"notebooks/{method}.ipynb"
    how = {"workers": params.get("workers", 1)}
    if launch.execute(path, folder / "notebook.ipynb", parameters.choose(path, params), config, **how):
        notebooks.export_html(folder / "notebook.ipynb", folder / "notebook.html")
    print(f"{method} ({params['profile']}): {time.monotonic() - start:.0f} s", flush=True)


def _data(given) -> None:
    from prefcore.data import sources

    sources.fetch(Path("data"))


def _stage(given) -> None:
    run_stage(given.function, read_params(given.profile))


def _notebook(given) -> None:
    run_notebook(given.method, read_params(given.profile), given.launch or os.environ.get(LAUNCH, ""))


def _study(given) -> None:
    from prefcore.lab import launch, study

    if given.launch:
        launch.check(given.launch)
        os.environ[LAUNCH] = str(Path(given.launch).absolute())  # DVC's stages run alike, and are not to change by it
    study.run(given.method)


def _verdicts(given) -> int:
    from prefcore.data.types import freeze
    from prefcore.lab import decisions, parameters, words

    params, changed = read_params(given.profile), 0
    chapters = [name for name, block in params["methods"].items() if block and "claims" in block]
    there = [name for name in chapters if Path(f"scores/{given.profile}/{name}.csv.gz").exists()]
    for name in there:
        p = freeze(parameters.choose(f"notebooks/{name}.ipynb", params))
        known = json.loads(Path(f"metrics/{given.profile}/{name}.json").read_text(encoding="utf-8"))
        for row in decisions.again(name, p, known):
            mark = "" if row["verdict"] == row["committed"] else f"; COMMITTED: {row['committed']}"
            print(f"{name:5} {row['kind']:9} {row['verdict']:14} {words.effect(row):26} {row['claim']}{mark}")
            changed += bool(mark)
    print(f"{len(there)} chapters ({', '.join(there) or 'none'}); {changed} verdicts differ from the committed ones")
    return 1 if changed else 0


def _run(given) -> None:
    from prefcore.lab import own_run

    own_run.run(given, read_params())


def _compare(given) -> None:
    from prefcore.lab import own_run

    own_run.compare(given, read_params())


def _plan(given) -> None:
    from prefcore.lab import devices, parameters, planner, settings

    asked = given.profile if given.profile in ("", "quick", "study") else ""
    params = read_params(asked)
    block = parameters.settings_of(params, given.profile if not asked else "", given.method)
    values = parameters.choose(f"notebooks/{given.method}.ipynb", params) | block
    by_hand = block | settings.read(given.values, values, params["study"].get(given.method) or {})
    values, fill = values | by_hand, 1.0
    if given.data:
        values, fill = planner.on_data(given.data, given.method, values, by_hand, settings.columns(given.columns))
    device = devices.find(given.device, device=values.get("device", "auto"), threads=values.get("threads", 1))
    planner.plan(given.method, values, device, fill)


def _score(given) -> None:
    from prefcore.lab import own, score, settings

    found = score.score(
        str(_model_of(given.model)), given.data, base=given.reference, columns=settings.columns(given.columns)
    )
    print("\n".join([*found.notes, f"by {found.by}:", score.summarise(found).round(3).to_string(index=False)]))
    folder = score.write(found, Path(given.out or f"runs/own/{own.stem_of(given.data)}/score"))
    print(f"the pairs are in {folder / 'pairs.csv'}, and the numbers in {folder / 'score.json'}")


def _model_of(name: str) -> Path:
    """The folder of a model: that of a run, or any other; a hub id stays what it is."""
    folder = Path(name)
    return folder / "model" if (folder / "model").is_dir() else folder


def _load_run(run: str):
    from prefcore.engine import models

    folder = _model_of(run)
    if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
        raise FileNotFoundError(
            f"{folder} holds no model: name a folder of runs/ that a notebook has saved, or a model folder"
        )
    models.choose_device("auto", os.cpu_count() or 1)
    return models.load_policy(str(folder))


def _sample(given) -> None:
    from prefcore.engine import collate
    from prefcore.engine.sample import sample

    tokenizer, policy = _load_run(given.run)
    ids = [collate.encode_prompt(prompt, tokenizer) for prompt in given.prompt]
    for prompt, drawn in zip(
        given.prompt, sample(policy, tokenizer, ids, max_new_tokens=given.tokens, seed=given.seed), strict=True
    ):
        print(f"{prompt}|{drawn.text}")


def _export(given) -> None:
    from prefcore.lab import export

    tokenizer, policy = _load_run(given.run)
    folder = export.export(tokenizer, policy, Path(given.run), Path(given.folder))
    print(f"{folder} holds the whole model; it writes what the run writes")
    if given.gguf:
        print(f"{export.to_gguf(folder)} holds the same for llama.cpp")


def _doctor(given) -> None:
    from prefcore.doctor import report
    from prefcore.lab import own

    params = read_params()["common"]
    limits = {name: params[name] for name in ("max_prompt", "max_completion")}
    found = report.findings(given.data, given.policy or params["policy"], **limits)
    folder = report.write(found, given.data, Path(given.out or f"runs/own/{own.stem_of(given.data)}/doctor"))
    print("\n".join(report.lines(found)))
    print(f"read {folder / 'doctor.html'}; the same for programs is in {folder / 'doctor.json'}")


def _env(given) -> None:
    from prefcore.lab import bug_report

    print("\n".join(f"{name}: {value}" for name, value in bug_report.describe().items()))


def _smoke(given) -> None:
    from prefcore import smoke

    smoke.run(device=given.device)


if __name__ == "__main__":
    sys.exit(main())
