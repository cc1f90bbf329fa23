"""The sources of the site: executed study chapters, and pages whose tables come from files in the repository.

python -m docs.pages FOLDER       writes them, from the top folder; docs/conf.py says how site/ is built from them
"""

import gzip
import hashlib
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from docs import chapters
from docs.chapters import table
from prefcore.data import sources

VERDICTS = ("held", "not held", "no difference", "undecided", "not tested")
FIGURES = {  # in figures/, of either profile: what is to be seen
    "overview": "For each arm of the policy chapters its ρ, the correlation with gold within prompts: a dot with its "
                "95 % interval; one panel for each profile that has run.",
    "compare": "The six policies trained on the same data, each with its 95 % interval.",
}  # fmt: skip


def write(folder: Path, root: Path = Path(".")) -> None:
    """Write all sources into `folder`, anew; print which chapters have no page, and why."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "chapters").mkdir(parents=True)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    metrics = {path.stem: json.loads(path.read_text(encoding="utf-8"))
               for path in sorted((root / "metrics" / "study").glob("*.json"))}  # fmt: skip
    order = [name for name in params["methods"] if (root / "notebooks" / f"{name}.ipynb").exists()]
    for name in order:
        keep(name, root)
    found = {name: chapter(name, metrics.get(name, {}), params, root) for name in order if name != "overview"}
    for name, made in found.items():
        print(f"{name}: {', '.join(filter(None, ['a page' if made.page else 'no page', made.remark]))}")
        if made.page:
            text = json.dumps(made.page, ensure_ascii=False, indent=1)
            (folder / "chapters" / f"{name}.ipynb").write_text(text, encoding="utf-8")
    drawn = copy_figures(folder, root)
    known: dict[str, Callable[[], str]] = {
        "contents": lambda: contents([name for name, made in found.items() if made.page]),
        "chapters": lambda: overview(found, metrics),
        "verdicts": lambda: verdicts({name: metrics[name] for name in order if name in metrics}, root),
        "figures": lambda: "\n".join(drawn.values()),
        "runs": lambda: training_runs(metrics),
        "speed": lambda: speed(root),
        "scorers": lambda: scorers(metrics),
        "instruments": lambda: instruments(metrics),
        "bank": lambda: bank(root),
        "archives": archives,
        "commands": lambda: commands(found, drawn),
        "versions": lambda: versions(root),
        "files": lambda: committed(root),
        "stages": lambda: stages(root),
    }
    for path in sorted((root / "docs").glob("*.md")):
        text = re.sub(r"\{\{ (\w+) \}\}", lambda match: known[match[1]](), path.read_text(encoding="utf-8"))
        (folder / path.name).write_text(text, encoding="utf-8")


def command(method: str) -> str:
    """What makes a study chapter, with the stages that it reads."""
    return f"make study METHOD={method}"


class Chapter(NamedTuple):
    """A study chapter: its page (None: it has none), what to know of it, and the headings of its figures."""

    page: dict | None
    remark: str
    figures: Sequence[str] = ()


def keep(method: str, root: Path) -> None:
    """Keep the executed study chapter in docs/executed/, which is committed: runs/ is not, and a page outlives it.

    Its text is that of the chapter today, where their code is the same: what was found is written after the run.
    """
    ran, kept = root / "runs" / "study" / method / "notebook.ipynb", root / "docs" / "executed" / f"{method}.ipynb"
    if ran.exists():
        try:
            chapters.read(ran)
        except ValueError as error:
            print(f"{method}: the notebook in runs/study/ {error}")
        else:
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(ran, kept)
    if kept.exists():
        notebook = json.loads(kept.read_text(encoding="utf-8"))
        notebook["cells"] = chapters.read_source(kept)
        chapters.take_text(notebook["cells"], chapters.read_source(root / "notebooks" / f"{method}.ipynb"))
        for cell in notebook["cells"]:
            cell["source"] = cell["source"].splitlines(keepends=True)
        kept.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def chapter(method: str, metrics: Mapping, params: Mapping, root: Path) -> Chapter:
    """The study of one method, where it has run, is complete and can be held against committed metrics."""
    path = root / "docs" / "executed" / f"{method}.ipynb"
    if not path.exists():
        return Chapter(None, "no executed notebook was there to show" if metrics else "not run")
    if "claims" not in metrics:
        return Chapter(None, "its executed notebook has no committed metrics beside it")
    cells = chapters.read(path)
    now = params["common"] | (params["methods"][method] or {}) | (params["study"][method] or {})
    committed = chapters.read_source(root / "notebooks" / f"{method}.ipynb")
    differ = len(chapters.differing(cells, metrics["claims"]))
    remark = f"run and committed metrics differ in {differ} claims" if differ else ""
    page = chapters.page(cells, committed, metrics["claims"], now, command(method))
    return Chapter(page, remark, chapters.figures(cells))


def name_of(method: str, root: Path) -> str:
    """The title of a chapter."""
    return chapters.title(chapters.read_source(root / "notebooks" / f"{method}.ipynb"))


# --- the front page ---------------------------------------------------------------------------------------------


def contents(names: list[str]) -> str:
    """The tree of pages."""
    behind = ["data", "reproduce", "many_runs"]
    trees = [("Study chapters", [f"chapters/{name}" for name in names]), ("Behind it", behind)]
    return "\n".join(":::{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n:::\n"
                     for caption, pages in trees if pages)  # fmt: skip


def overview(found: Mapping, metrics: Mapping) -> str:
    """Every chapter: how its claims came out, and its page or the reason why it has none."""
    rows = []
    for name, made in found.items():
        counts = Counter(row["verdict"] for row in metrics.get(name, {}).get("claims", []))
        link = f"[`{name}`](chapters/{name}.ipynb)" if made.page else f"`{name}`"
        came = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        rows.append((link, came, made.remark))
    return table(("Chapter", "Claims in the study", "Remark"), rows)


def verdicts(metrics: Mapping, root: Path) -> str:
    """A section for each chapter with study results: its controls counted, and all its claims."""
    parts = []
    for name, found in metrics.items():
        if not found.get("claims"):
            continue
        parts.append(f"### {name_of(name, root)}\n")
        if controls := found.get("controls"):
            failed = [f"{row['name']} of {row['arm']}" if row["kind"] == "guard" else row["name"]
                      for row in controls if not row["passed"]]  # fmt: skip
            parts.append(f"Controls and guards: {len(controls) - len(failed)} of {len(controls)} passed"
                         + (f"; failed: {', '.join(failed)}.\n" if failed else ".\n"))  # fmt: skip
        named = "delta" in found["claims"][0]
        head = ("Claim", "Verdict", "Effect, 95 % interval", *(("Matters from", "Kind") if named else ()), "Test")
        rows = [
            (row["claim"], f"**{row['verdict']}**" + (f" ({row['because']})" if row.get("because") else ""), shown(row),
             *((f"{row['delta']:g}", row["kind"]) if named else ()), row["test"])
            for row in found["claims"]
        ]  # fmt: skip
        parts.append(table(head, rows))
    return "\n".join(parts)


def shown(row: Mapping) -> str:
    """An effect as it is set: minus signs, on one line."""
    return chapters.effect(row).replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def copy_figures(folder: Path, root: Path) -> dict[str, str]:
    """Copy what is in figures/; name -> the figure as Markdown, with its command."""
    drawn = {}
    for name, words in FIGURES.items():
        for profile in ("study", "quick"):
            path = root / "figures" / f"{profile}_{name}.png"
            if path.exists():
                shutil.copyfile(path, folder / path.name)
                made = f"python -m prefcore notebook {name} --profile {profile}"
                drawn[path.stem] = f":::{{figure}} {path.name}\n:alt: {words}\n\nMade by `{made}`\n:::\n"
    return drawn


def training_runs(metrics: Mapping) -> str:
    """What the studies trained, as far as their metrics count it."""
    rows = []
    for name, found in metrics.items():
        seeds = [arm["seeds"] for arm in found.get("arms", {}).values() if "seeds" in arm]
        if seeds:
            rows.append((f"`{name}`", len(seeds), max(seeds), sum(seeds), len(found.get("tried", []))))
    return table(("Chapter", "Arms", "Seeds", "Training runs", "Further runs to choose rates"), rows)


def speed(root: Path) -> str:
    """Training beside TRL in float32, from the benchmark."""
    rows = json.loads((root / "benchmarks" / "results" / "speed.json").read_text(encoding="utf-8"))["training"]
    return table(
        ("Case", "Peer", "Pairs", "Seconds, ours", "Seconds, peer", "Faster", "Memory, ours / peer"),
        [(row["label"], row["peer"], row["pairs"], *(f"{s:.1f}" for s in row["seconds"]["first"]),
          f"{row['faster']['first']:.1f} ×", f"{row['memory']:.2f}") for row in rows if row["precision"] == "float32"],
    )  # fmt: skip


# --- data and scorers -------------------------------------------------------------------------------------------


def scorers(metrics: Mapping) -> str:
    """Correlation of both scorers with human means on held-out texts, by kind of text."""
    found = metrics["scorers"]
    rows = [(kind, found["gold"][kind]["texts"], *(f"{r['r']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in (
        found["gold"][kind], found["proxy"][kind]))) for kind in found["gold"]]  # fmt: skip
    return table(("Texts", "Held out", "Gold, r", "Proxy, r"), rows)


def instruments(metrics: Mapping) -> str:
    """Judge and, once NaPO's study has run, its vision towers: shares of right answers."""
    rows = [("OSP's judge, verdicts on pairs", metrics["judge"]["pairs"], metrics["judge"]["accuracy"])]
    towers = metrics.get("vision", {})
    rows += [(f"NaPO's vision tower {name.partition('_')[2]}, {name.partition('_')[0]}", towers["test"], right)
             for name, right in towers.items() if isinstance(right, Mapping)]  # fmt: skip
    return table(("Instrument", "Tested on", "Right, 95 % interval"), [
        (name, count, f"{right['estimate']:.3f} [{right['low']:.3f}, {right['high']:.3f}]")
        for name, count, right in rows])  # fmt: skip


def bank(root: Path) -> str:
    """How many prompts and answers the bank of the study has."""
    lines = (root / "banks" / "study.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    used = {"test": "measures every arm", "validation": "chooses learning rates, by the proxy",
            "fresh": "prompts from which arms are sampled"}  # fmt: skip
    count = Counter((row["split"], len(row["completions"])) for row in rows)
    return table(("Part", "Prompts", "Rated answers each", "What it does"),
                 [(part, number, answers, used[part]) for (part, answers), number in count.items()])  # fmt: skip


def archives() -> str:
    """Where every byte of the data comes from: packages, versions and hashes."""
    rows = [(a.package, a.version, f"`{a.sha256}`") for a in sources.ARCHIVES]
    return table(("Package", "Version", "SHA-256 of the archive"), rows)


# --- reproducibility --------------------------------------------------------------------------------------------


def commands(found: Mapping, drawn: Mapping) -> str:
    """The command that makes each figure."""
    rows = [(f"[`{name}`](chapters/{name}.ipynb), {figure}", f"`{command(name)}`")
            for name, made in found.items() for figure in made.figures]  # fmt: skip
    for name in drawn:
        profile, _, notebook = name.partition("_")
        rows.append((f"figures/{name}.png", f"`python -m prefcore notebook {notebook} --profile {profile}`"))
    return table(("Figure", "Command"), rows)


def versions(root: Path) -> str:
    """Exact versions of the packages that pyproject.toml asks for."""
    exact = dict(re.findall(r"^([\w.-]+)==(\S+)", (root / "requirements.lock").read_text(encoding="utf-8"), re.M))
    asked = re.findall(r'^  "([\w-]+)[=><]', (root / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    low = {name.lower(): version for name, version in exact.items()}
    return table(("Package", "Version"), [(name, low[name.lower()]) for name in asked if name.lower() in low])


def committed(root: Path) -> str:
    """Hashes of the committed files on which the site rests."""
    paths = [*(root / name for name in ("params.yaml", "requirements.lock", "dvc.lock", "study/dvc.lock")),
             root / "banks" / "study.jsonl", *sorted((root / "metrics" / "study").glob("*.json")),
             *sorted((root / "scores" / "study").glob("*.csv.gz"))]  # fmt: skip
    return table(("File", "SHA-256"), [(f"`{path.relative_to(root)}`", f"`{sha256(path)}`") for path in paths])


def sha256(path: Path) -> str:
    """The hash of a file; of a packed one that of what is packed, as packers differ."""
    data = path.read_bytes()
    return hashlib.sha256(gzip.decompress(data) if path.suffix == ".gz" else data).hexdigest()


def stages(root: Path) -> str:
    """What each stage of both pipelines made, by the hash that DVC recorded."""
    rows = []
    for lock in ("study/dvc.lock", "dvc.lock"):
        for stage in yaml.safe_load((root / lock).read_text(encoding="utf-8"))["stages"].values():
            for out in stage["outs"]:
                where = root / out["path"]
                in_git = out["path"].split("/")[0] in ("banks", "figures", "metrics", "scores") and where.exists()
                same = in_git and hashlib.md5(where.read_bytes()).hexdigest() == out["md5"]
                said = ("is this one" if same else "is another") if in_git else ""
                rows.append((f"`{out['path']}`", f"`{out['md5']}`", out["size"], said, f"`{stage['cmd']}`"))
    return table(("Output", "MD5 by DVC", "Bytes", "The committed file", "Command"), rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
