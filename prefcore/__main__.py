"""The command line. The only code that reads params.yaml; everything below gets its numbers as arguments.

python -m prefcore data                     raw data and weights into data/
python -m prefcore stage FUNCTION           what a stage of dvc.yaml calls, as lab.pipeline.fit_judge [--profile quick]
python -m prefcore notebook METHOD          the notebook of a method [--profile quick]
python -m prefcore study METHOD             the study of one method, with the stages that it needs, through DVC
python -m prefcore verdicts                 every verdict of the studies, made again from committed files
python -m prefcore smoke [--device cuda]    every notebook with a tiny random model
python -m prefcore run METHOD --data FILE_OR_HUB_ID [--set key=value ...] [--drop-bad] [--name NAME]
                              [--columns prompt=COLUMN,chosen=COLUMN,...]
python -m prefcore run chase_sql --data FILE_OR_FOLDER [--databases DIR] [--eval-data ... --eval-databases DIR]
python -m prefcore doctor DATA [--policy MODEL] [--out FOLDER]     what is in the data, and which method is for it
python -m prefcore sample RUN --prompt TEXT [--prompt TEXT ...]
python -m prefcore export RUN FOLDER [--gguf]       adapter and base as one plain transformers model, with a card
python -m prefcore env                      what a bug report needs to say about machine and checkout
"""

import argparse
import inspect
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import yaml

DATABASES = ("databases", "eval_data", "eval_databases")  # what `run` also takes for a method on databases


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
    commands.add_parser("study").add_argument("method")
    commands.add_parser("verdicts").add_argument("--profile", default="study")
    commands.add_parser("smoke").add_argument("--device", default="cpu")
    run = commands.add_parser("run")
    run.add_argument("method")
    run.add_argument("--data", required=True)
    run.add_argument("--set", dest="values", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    run.add_argument("--drop-bad", action="store_true")
    run.add_argument("--columns", default="", metavar="NAME=COLUMN,...")
    run.add_argument("--name", default="")
    for name in DATABASES:
        run.add_argument(f"--{name.replace('_', '-')}", default="")
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
        "data": _data,
        "stage": _stage,
        "notebook": _notebook,
        "study": _study,
        "verdicts": _verdicts,
        "smoke": _smoke,
        "run": _run,
        "sample": _sample,
        "export": _export,
        "doctor": _doctor,
        "env": _env,
    }
    sys.modules.setdefault("rfc3987_syntax", None)  # a grammar that jsonschema would build for a second, and not use
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # of pinned libraries, about later releases
    warnings.simplefilter("ignore", FutureWarning)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, whose every step would fill a log
    try:
        return actions[given.command](given) or 0
    except (ValueError, TypeError, FileNotFoundError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


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


def function(name: str) -> Callable:
    """prefcore.<module>.<function>, imported only now, as no command needs all modules."""
    module, _, last = f"prefcore.{name}".rpartition(".")
    try:
        found = getattr(import_module(module), last)
    except (ImportError, AttributeError):
        found = None
    if not inspect.isfunction(found):
        raise ValueError(f"there is no function prefcore.{name}; dvc.yaml has the names of all stages")
    return found


def run_notebook(method: str, params: dict) -> None:
    """The notebook of a method with the profile's parameters; the executed copy goes to runs/<profile>/<method>/."""
    from prefcore.lab import notebooks, parameters

    start, folder = time.monotonic(), Path("runs") / params["profile"] / method
    path = f"notebooks/{method}.ipynb"
    notebooks.execute(path, folder / "notebook.ipynb", parameters.choose(path, params))
    notebooks.export_html(folder / "notebook.ipynb", folder / "notebook.html")
    print(f"{method} ({params['profile']}): {time.monotonic() - start:.0f} s", flush=True)


# Chapters whose own data teach nothing: the function of (source, parameters, names of those set by hand) that applies a
# trained model to them, or groups and measures them.
APPLIED = {"gennm": "methods.gennm.apply.run", "canonical_basis": "methods.canonical_basis.own.run"}

# Chapters whose data are no preferences of answers to prompts; each reader raises what is wrong with file and field.
READERS = {
    "margin_rm": "scoring.voters.read_enough",
    "micro": "methods.micro.annotators.read",
    "autoraters": "scoring.voters.read_enough",
    "napo": "methods.napo.own.read_enough",
    "chase_sql": "methods.chase_sql.candidates.read",
}


def _data(given) -> None:
    from prefcore.data import sources

    sources.fetch(Path("data"))


def _stage(given) -> None:
    run_stage(given.function, read_params(given.profile))


def _notebook(given) -> None:
    run_notebook(given.method, read_params(given.profile))


def _study(given) -> None:
    from prefcore.lab import study

    study.run(given.method)


def _verdicts(given) -> int:
    from prefcore.data.types import freeze
    from prefcore.lab import decisions, parameters

    params, changed = read_params(given.profile), 0
    chapters = [name for name, block in params["methods"].items() if block and "claims" in block]
    there = [name for name in chapters if Path(f"scores/{given.profile}/{name}.csv.gz").exists()]
    for name in there:
        p = freeze(parameters.choose(f"notebooks/{name}.ipynb", params))
        known = json.loads(Path(f"metrics/{given.profile}/{name}.json").read_text(encoding="utf-8"))
        for row in decisions.again(name, p, known):
            effect = f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            mark = "" if row["verdict"] == row["committed"] else f"; COMMITTED: {row['committed']}"
            print(f"{name:5} {row['kind']:9} {row['verdict']:14} {effect:26} {row['claim']}{mark}")
            changed += bool(mark)
    print(f"{len(there)} chapters ({', '.join(there) or 'none'}); {changed} verdicts differ from the committed ones")
    return 1 if changed else 0


def _run(given) -> None:
    from prefcore.data import files
    from prefcore.data.types import freeze
    from prefcore.lab import notebooks, parameters, settings

    path = f"notebooks/{given.method}.ipynb"
    params = read_params()
    values = parameters.choose(path, params) | {"data": given.data, "profile": "own"}
    larger = params.get("study", {}).get(given.method) or {}
    by_hand = settings.read(given.values, values, larger)
    values |= by_hand
    if given.method in APPLIED:
        _no_columns(given)
        if given.name:
            raise ValueError(f"--name: {given.method} trains nothing, and numbers its folders itself")
        function(APPLIED[given.method])(given.data, freeze(values), list(by_hand))
        return
    parameters.check(path, values)
    for name in DATABASES:
        if told := getattr(given, name):
            if name not in values:
                raise ValueError(f"{given.method} reads no databases: leave out --{name.replace('_', '-')}")
            values[name] = told
    if given.method in READERS:
        values, folder, counts = _own_form(given, values, by_hand)
    else:
        values, folder, counts = _preferences(given, values, by_hand, larger)
    notebooks.execute(path, folder / "notebook.ipynb", values)
    notebooks.export_html(folder / "notebook.ipynb", folder / "notebook.html")
    metrics = Path("metrics") / values["profile"] / f"{given.method}.json"
    if metrics.exists():
        known = json.loads(metrics.read_text(encoding="utf-8"))
        files.write_metrics(known | {"rows": counts}, values["profile"], given.method)
    print(f"read {folder / 'notebook.html'}; numbers are in {metrics}")


def _preferences(given, values: dict, by_hand: dict, larger: dict) -> tuple[dict, Path, dict]:
    """(values, folder, counts of rows) for pairs, labels or scores; bad input stops here, before any training."""
    from prefcore.data import datasets
    from prefcore.lab import own, settings

    columns = dict(settings.column(item) for item in given.columns.split(",")) if given.columns else {}
    found = own.usable(datasets.scan(given.data, columns=columns), given.method, given.data)
    if not given.drop_bad:
        datasets.demand(found)
    ready = own.prepare(found, given.method, values, by_hand, larger)
    content = "".join(map(repr, ready.records))
    profile, folder = own.folder_for(given.data, given.method, ready.values, content, given.name)
    data = datasets.write(ready.records, folder / "data.jsonl")
    if found.problems:
        print(f"{len(found.problems)} rows are left out: {found.problems[0]}")
    print("\n".join(ready.notes))
    return ready.values | {"profile": profile, "data": str(data)}, folder, ready.counts


def _own_form(given, values: dict, by_hand: dict) -> tuple[dict, Path, dict]:
    """The same for a chapter whose rows have a form of their own, which it reads from where they are."""
    from prefcore.lab import own

    if given.drop_bad:
        raise ValueError(f"{given.method} leaves out no rows: mend the data, and call it without --drop-bad")
    _no_columns(given)
    found = function(READERS[given.method])(given.data)
    if "databases" in values:
        _check_databases(values)
    sizes = own.sizes_of_votes(found, values)
    values = values | {name: size for name, size in sizes.items() if name not in by_hand}
    counts = {"usable": len(found[0] if isinstance(found, tuple) else found)} | {name: values[name] for name in sizes}
    profile, folder = own.folder_for(given.data, given.method, values, own.fingerprint(given.data), given.name)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return values | {"profile": profile}, folder, counts


def _no_columns(given) -> None:
    if given.columns:
        raise ValueError(f"--columns is for pairs, labels and scores; {given.method} reads rows of its own form")


def _check_databases(values: dict) -> None:
    """What can be wrong with databases and a second data set is said before anything is trained."""
    from prefcore.methods.chase_sql import candidates

    candidates.find_databases(values["data"], values["databases"])
    if values["eval_databases"] and not values["eval_data"]:
        raise ValueError("--eval-databases without --eval-data: name the questions on these databases, too")
    if values["eval_data"]:
        candidates.read(values["eval_data"])
        candidates.find_databases(values["eval_data"], values["eval_databases"])


def _load_run(run: str):
    from prefcore.engine import models

    folder = Path(run)
    folder = folder / "model" if (folder / "model").is_dir() else folder
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
