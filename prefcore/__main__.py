"""The command line. The only code that reads params.yaml; everything below gets its numbers as arguments.

python -m prefcore data                     raw data and weights into data/
python -m prefcore stage FUNCTION           what a stage of dvc.yaml calls, as lab.pipeline.fit_judge [--profile quick]
python -m prefcore notebook METHOD          the notebook of a method [--profile quick]
python -m prefcore study METHOD             the study of one method, with the stages that it needs, through DVC
python -m prefcore verdicts                 every verdict of the studies, made again from committed files
python -m prefcore smoke [--device cuda]    every notebook with a tiny random model
python -m prefcore run METHOD --data FILE_OR_HUB_ID [--set key=value ...] [--drop-bad]
python -m prefcore run chase_sql --data FILE_OR_FOLDER [--databases DIR] [--eval-data ... --eval-databases DIR]
python -m prefcore sample RUN --prompt TEXT [--prompt TEXT ...]
python -m prefcore merge RUN FOLDER         adapter and base as one plain transformers model
"""

import argparse
import inspect
import os
import sys
import time
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
    for name in DATABASES:
        run.add_argument(f"--{name.replace('_', '-')}", default="")
    talk = commands.add_parser("sample")
    talk.add_argument("run")
    talk.add_argument("--prompt", action="append", required=True)
    talk.add_argument("--seed", type=int, default=0)
    talk.add_argument("--tokens", type=int, default=32)
    merge = commands.add_parser("merge")
    merge.add_argument("run")
    merge.add_argument("folder")
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
        "merge": _merge,
    }
    sys.modules.setdefault("rfc3987_syntax", None)  # a grammar that jsonschema would build for a second, and not use
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # of pinned libraries, about later releases
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
# trained model to them.
APPLIED = {"gennm": "methods.gennm.apply.run"}

# Chapters whose data are no preferences of answers to prompts; each reader raises what is wrong with file and field.
READERS = {
    "margin_rm": "scoring.voters.read",
    "micro": "scoring.voters.read",
    "autoraters": "scoring.voters.read",
    "canonical_basis": "methods.canonical_basis.people.read",
    "napo": "methods.napo.own.read",
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
    import json

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
    from prefcore.data import datasets
    from prefcore.data.types import freeze
    from prefcore.lab import notebooks, parameters

    path = f"notebooks/{given.method}.ipynb"
    values = parameters.choose(path, read_params()) | {"data": given.data, "profile": "own"}
    for item in given.values:
        key, equals, value = item.partition("=")
        if not equals or key not in values:
            raise ValueError(f"--set {item}: give key=value with one of {', '.join(sorted(values))}")
        values[key] = yaml.safe_load(value)
    if given.method in APPLIED:
        by_hand = [item.partition("=")[0] for item in given.values]
        function(APPLIED[given.method])(given.data, freeze(values), by_hand)
        return
    for name in DATABASES:
        if told := getattr(given, name):
            if name not in values:
                raise ValueError(f"{given.method} reads no databases: leave out --{name.replace('_', '-')}")
            values[name] = told
    if "drop_bad" in values:
        values["drop_bad"] = given.drop_bad
    elif given.drop_bad:
        raise ValueError(f"{given.method} leaves out no rows: mend the data, and call it without --drop-bad")
    if given.drop_bad:
        records, problems = datasets.read_usable(given.data)
        print(f"{len(records)} usable rows, {len(problems)} left out{': ' + str(problems[0]) if problems else ''}")
    else:
        read = function(READERS.get(given.method, "data.datasets.read"))
        read(given.data)  # bad input stops here, before any training
    if "databases" in values:
        _check_databases(values)
    folder = Path("runs/own") / given.method
    notebooks.execute(path, folder / "notebook.ipynb", values)
    notebooks.export_html(folder / "notebook.ipynb", folder / "notebook.html")
    print(f"read {folder / 'notebook.html'}; numbers are in metrics/own/{given.method}.json")


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


def _merge(given) -> None:
    from prefcore.engine import models

    tokenizer, policy = _load_run(given.run)
    models.save_policy(policy, tokenizer, Path(given.folder))
    print(f"{given.folder} holds the merged model")


def _smoke(given) -> None:
    from prefcore import smoke

    smoke.run(device=given.device)


if __name__ == "__main__":
    sys.exit(main())
