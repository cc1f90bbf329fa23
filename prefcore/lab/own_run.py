"""A chapter on a user's own data, as `run` and `compare` ask for it: what the command line says becomes its parameters.

Everything that can be wrong with data, databases and parameters is said here, before any training.
"""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from prefcore.data import datasets, files
from prefcore.data.types import freeze
from prefcore.lab import decisions, launch, notebooks, own, parameters, settings
from prefcore.lab.by_name import function
from prefcore.scoring import voters

QUESTION = ("database", "question", "evidence")  # what `run` takes instead of data for a method that answers questions
RATES = (5.0e-4, 1.0e-3, 2.0e-3)  # among which `compare` chooses for each of them
TRIED_SHARE = 0.25  # of the steps, after which it judges a tried rate

# Chapters whose own data teach nothing: the function of (source, parameters, names of those set by hand) that applies a
# trained model to them, or groups and measures them.
APPLIED = {"gennm": "methods.gennm.apply.run", "canonical_basis": "methods.canonical_basis.own.run"}

# Chapters that learn from own programs (--train): the function of (source, parameters, names of those set by hand, name
# of the run) that does so.
TRAINED = {"gennm": "methods.gennm.own.train"}

# Chapters that answer questions: the function of (data, databases, question, parameters) that does so where one is
# asked, or where the parameter `generator` names who answers those of the data; whether it did.
ASKED = {"chase_sql": "methods.chase_sql.apply.run"}

# Chapters whose data are no preferences of answers to prompts; each reader raises what is wrong with file and field.
READERS = {
    "margin_rm": "scoring.voters.read_enough",
    "micro": "methods.micro.annotators.read",
    "autoraters": "scoring.voters.read_enough",
    "napo": "methods.napo.own.read_enough",
    "chase_sql": "methods.chase_sql.candidates.read",
}


def run(given: Namespace, params: Mapping) -> None:
    """The chapter of a method on own data, executed and as a page; its numbers go to metrics/own/.

    given: method, data, train, profile (of settings), values (key=value items), columns, drop_bad, name, databases,
    launch, and the parts of a QUESTION.
    """
    path = f"notebooks/{given.method}.ipynb"
    block = parameters.settings_of(params, given.profile, given.method)
    given = Namespace(**vars(given) | {"data": given.data or block.get("data", "")})
    values = parameters.choose(path, params) | block | {"data": given.data, "profile": "own"}
    larger = params.get("study", {}).get(given.method) or {}
    by_hand = block | settings.read(given.values, values, larger)
    by_hand.pop("data", None)
    values |= by_hand
    if given.launch:
        _check_launch(given)
    if _learns(given, values, by_hand) or _answers(given, values):
        return
    if given.method in APPLIED:
        _no_columns(given)
        if given.name:
            raise ValueError(f"--name: {given.method} trains nothing, and numbers its folders itself")
        function(APPLIED[given.method])(given.data, freeze(values), list(by_hand))
        return
    parameters.check(path, values)
    if given.databases:
        if "databases" not in values:
            raise ValueError(f"{given.method} reads no databases: leave out --databases")
        values["databases"] = given.databases
    if given.method in READERS:
        values, folder, counts = _own_form(given, values, by_hand)
    else:
        values, folder, counts = _preferences(given, values, by_hand, larger)
    workers = getattr(given, "workers", params.get("workers", 1))
    if not launch.execute(path, folder / "notebook.ipynb", values, given.launch, workers=workers):
        print("the machine of the first process has the results")
        return
    notebooks.export_html(folder / "notebook.ipynb", folder / "notebook.html")
    metrics = Path("metrics") / values["profile"] / f"{given.method}.json"
    if metrics.exists():
        known = json.loads(metrics.read_text(encoding="utf-8"))
        files.write_metrics(known | {"rows": counts}, values["profile"], given.method)
        if "claims" in known:
            decisions.print_sentences(known)
    print(f"read {folder / 'notebook.html'}; numbers are in {metrics}")


def compare(given: Namespace, params: Mapping) -> None:
    """The chapter `compare` on own data: the methods that the data can feed, on the same rows, split and passes, each
    with the best of RATES by its rho on held-out rows after TRIED_SHARE of the steps. Products of the training are in
    bfloat16 where the processor has them; as many processes as there would be threads share the runs.
    """
    from prefcore.engine import machine, models

    common = params["common"]
    device = models.choose_device(common["device"], common["threads"])
    known = {item.partition("=")[0] for item in given.values}
    arms = ", ".join(f"{name}-many" for name in dict.fromkeys(given.methods))
    asked = {"arms": f"[{arms}]", "confirm": f"[{arms}]", "rates": f"[{', '.join(map(str, RATES))}]"}
    asked |= {"tried_share": TRIED_SHARE, "precision": "bfloat16" if machine.has_bfloat16(device) else "float32"}
    workers = 1 if given.launch or "threads" in known else max(common["threads"], params.get("workers", 1))
    asked |= {"threads": 1} if workers > 1 else {}
    more = [f"{key}={found}" for key, found in asked.items() if key not in known]
    run(Namespace(**vars(given) | {"values": [*given.values, *more], "workers": workers}), params)


def _preferences(given: Namespace, values: dict, by_hand: dict, larger: Mapping) -> tuple[dict, Path, dict]:
    """(values, folder, counts of rows) for pairs, labels, scores or votes."""
    found = own.usable(_read(given.data, settings.columns(given.columns)), given.method, given.data)
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


def _read(source: str, columns: Mapping) -> datasets.Reading:
    """The preferences of a file; of voted pairs, what most people prefer."""
    if columns or not voters.are_voted(source):
        return datasets.scan(source, columns=columns)
    pairs = voters.read(source)
    records, ties = voters.preferred(pairs)
    note = (f"{len(pairs)} voted pairs: chosen is what most votes prefer, on {ties} of them as many prefer either. How "
            "many did is strength and margin here; margin_rm, micro and autoraters read the votes themselves")
    return datasets.Reading(records, [], len(pairs), ties, [note])


def _own_form(given: Namespace, values: dict, by_hand: dict) -> tuple[dict, Path, dict]:
    """The same for a chapter whose rows have a form of their own, which it reads from where they are."""
    if given.drop_bad:
        raise ValueError(f"{given.method} leaves out no rows: mend the data, and call it without --drop-bad")
    _no_columns(given)
    from prefcore.lab import planner

    found = function(READERS[given.method])(given.data)
    if "databases" in values:
        function("methods.chase_sql.candidates.find_databases")(values["data"], values["databases"])
    sizes = own.sizes_of_votes(found, values)
    values = values | {name: size for name, size in sizes.items() if name not in by_hand}
    planner.demand(given.method, values)
    counts = {"usable": len(found[0] if isinstance(found, tuple) else found)} | {name: values[name] for name in sizes}
    profile, folder = own.folder_for(given.data, given.method, values, own.fingerprint(given.data), given.name)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return values | {"profile": profile}, folder, counts


def _no_columns(given: Namespace) -> None:
    if given.columns:
        raise ValueError(f"--columns is for pairs, labels and scores; {given.method} reads rows of its own form")


def _check_launch(given: Namespace) -> None:
    launch.check(given.launch)
    if given.method in APPLIED or any(getattr(given, name) for name in QUESTION):
        raise ValueError(f"--launch: {given.method} trains nothing here, so one process is enough")


def _answers(given: Namespace, values: dict) -> bool:
    """Answer a question, or those of the data, where that is asked for; whether it was."""
    asked = {name: getattr(given, name) for name in QUESTION}
    both = asked["database"] and asked["question"]
    if any(asked.values()) and (given.method not in ASKED or given.data or not both):
        raise ValueError(f"--database and --question go together, without --data, with {', '.join(ASKED)}")
    if not given.data and not both:
        raise ValueError(f"{given.method} needs --data FILE_OR_HUB_ID")
    if given.method not in ASKED:
        return False
    return function(ASKED[given.method])(given.data, given.databases, asked, freeze(values))


def _learns(given: Namespace, values: dict, by_hand: dict) -> bool:
    """Learn from own programs where that is asked for (--train); whether it was."""
    if not given.train:
        return False
    if given.method not in TRAINED:
        raise ValueError(f"{given.method} has no --train: it learns from what --data names")
    if given.data or given.drop_bad:
        raise ValueError("--train goes alone: --data names what a trained model is for, and no row has to be dropped")
    _no_columns(given)
    function(TRAINED[given.method])(given.train, freeze(values), list(by_hand), given.name)
    return True
