"""An executed study chapter as a page: checked against what is committed, its code folded, its figures described."""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prefcore.lab.words import effect

# What prefcore/lab prints of a claim: its verdict, the claim, and on the next line the test and the effect.
_SAID = re.compile(r"^([A-Z][A-Z ]+?)(?: \(\w+\))?: (.+)\n  (.+): ([-+]\d+\.\d+ \[[-+]\d+\.\d+, [-+]\d+\.\d+\])", re.M)


def table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A Markdown table with a header row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def read_source(path: Path) -> list[dict]:
    """The cells of a notebook, each source as one text."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def read(path: Path) -> list[dict]:
    """The cells of an executed notebook. Raises ValueError where one of them failed or never ran."""
    cells = read_source(path)
    for cell in cells:
        ran = cell.get("execution_count") is not None
        if cell["cell_type"] == "code" and cell["source"].strip():
            if not ran or any(out["output_type"] == "error" for out in cell["outputs"]):
                raise ValueError("stopped before its last cell, or is still running")
    return cells


def title(cells: Sequence[Mapping]) -> str:
    """The first heading."""
    return next(line for cell in cells for line in cell["source"].splitlines() if line.startswith("# "))[2:]


def tags(cell: Mapping) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def claims_said(cells: Sequence[Mapping]) -> dict[tuple[str, str], tuple[str, str]]:
    """(claim, test) -> (verdict, effect), as the outputs of an executed chapter have them."""
    printed = "\n".join("".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", []))
    return {(claim, test): (verdict.lower(), found) for verdict, claim, test, found in _SAID.findall(printed)}


def differing(cells: Sequence[Mapping], claims: Sequence[Mapping]) -> list[tuple[str, str, str]]:
    """(claim, what the chapter printed, what is committed) of all claims that are not the same in both."""
    printed = claims_said(cells)
    committed = {(row["claim"], row["test"]): (row["verdict"], effect(row)) for row in claims}
    lacking = ("no such claim", "")
    both = [(key[0], printed.get(key, lacking), committed.get(key, lacking))
            for key in dict.fromkeys([*committed, *printed])]  # fmt: skip
    return [(claim, " ".join(ran), " ".join(now)) for claim, ran, now in both if not _agree(ran, now)]


def _agree(ran: tuple[str, str], now: tuple[str, str]) -> bool:
    """Equal verdicts, and effects that differ by rounding at most: a chapter prints what its metrics round."""
    numbers = [[float(number) for number in re.findall(r"[-+][\d.]+", words)] for _, words in (ran, now)]
    return ran[0] == now[0] and all(abs(a - b) < 0.0015 for a, b in zip(*numbers, strict=True))


def changed_parameters(cells: Sequence[Mapping], params: Mapping) -> list[str]:
    """Names of the parameters that the chapter ran with and that `params` has otherwise or not at all."""
    source = next((cell["source"] for cell in cells if "injected-parameters" in tags(cell)), "")
    ran = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    return [name for name, value in ran.items() if name != "profile" and params.get(name) != value]


def page(cells: list[dict], committed: list[dict], claims: Sequence[Mapping], params: Mapping, command: str) -> dict:
    """The notebook that the builder reads: `cells` as executed, with what differs from the repository said on top.

    Where the committed chapter has the same code, its text is taken, as what was found is written after the run.
    """
    same = take_text(cells, committed)
    shown = [_shown(cells, index, command) for index in range(len(cells))]
    head, _, rest = shown[0]["source"].partition("\n")
    note = notice(differing(cells, claims), changed_parameters(cells, params), same, command)
    shown[0]["source"] = f"{head}\n\n{note}\n{rest}"
    language = {"name": "python", "display_name": "Python 3", "language": "python"}
    return {"cells": shown, "metadata": {"kernelspec": language}, "nbformat": 4, "nbformat_minor": 5}


def take_text(cells: Sequence[dict], committed: Sequence[Mapping]) -> bool:
    """Whether both have the same code; where they have, the executed `cells` get the text of the committed chapter."""
    own = [cell for cell in cells if "injected-parameters" not in tags(cell)]
    same = [_code(cell) for cell in own] == [_code(cell) for cell in committed]
    for cell, now in zip(own, committed, strict=False):
        if same and cell["cell_type"] == "markdown":
            cell["source"] = now["source"]
    return same


def notice(differ: Sequence[tuple[str, str, str]], parameters: Sequence[str], same: bool, command: str) -> str:
    """What a reader has to know of the run before reading it."""
    notes = [] if same else ["The chapter's code has changed since this run; text and code here are those of the run."]
    if parameters:
        names = ", ".join(f"`{name}`" for name in parameters)
        notes.append(f"Parameters with another value in `params.yaml` today, or none: {names}.")
    if not differ:
        start = f"Executed at study size by `{command}`. Its verdicts and effects are those of the committed metrics."
        return ":::{note}\n" + "\n\n".join([start, *notes]) + "\n:::\n"
    start = f"This run and the committed metrics differ in {len(differ)} claims; the committed ones count."
    rows = table(("Claim", "In this run", "Committed"), differ)
    return ":::{warning}\n" + "\n\n".join([start, rows, *notes, f"`{command}` makes both anew."]) + "\n:::\n"


def _code(cell: Mapping) -> str | None:
    """The code of a cell; None for text, and the names alone of the parameters."""
    if cell["cell_type"] == "code" and "parameters" in tags(cell):
        return repr([node.targets[0].id for node in ast.parse(cell["source"]).body])
    return cell["source"] if cell["cell_type"] == "code" else None


def _shown(cells: Sequence[Mapping], index: int, command: str) -> dict:
    """A cell as the builder wants it: code folded, figures with alternative text and caption, tables with scopes."""
    cell = cells[index]
    kept = {"cell_type": cell["cell_type"], "source": cell["source"], "id": f"cell-{index}", "metadata": {}}
    if cell["cell_type"] != "code":
        return kept
    prompt = {"parameters": "Parameters, with their meaning", "injected-parameters": "Parameters of this run"}
    name = next((prompt[tag] for tag in tags(cell) if tag in prompt), "Code")
    look = {"code_prompt_show": name, "code_prompt_hide": name, "image": {"alt": describe(cells, index)}}
    if _has_image(cell):
        look["figure"] = {"caption": f"Made by `{command}`"}
    outputs = json.loads(json.dumps(cell["outputs"]))
    for out in outputs:
        if "text/html" in out.get("data", {}):
            out["data"]["text/html"] = accessible("".join(out["data"]["text/html"]))
    aligned = any(re.search(r"\S {3,}\S", "".join(out.get("text", ""))) for out in outputs)  # columns
    marks = ["hide-input", "aligned"] if aligned else ["hide-input"]
    return kept | {"metadata": {"tags": marks, "mystnb": look}, "outputs": outputs,
                   "execution_count": cell["execution_count"]}  # fmt: skip


def figures(cells: Sequence[Mapping]) -> list[str]:
    """The heading of every figure."""
    return [heading(cells, index) for index, cell in enumerate(cells) if _has_image(cell)]


def _has_image(cell: Mapping) -> bool:
    return any("image/png" in out.get("data", {}) for out in cell.get("outputs", []))


def heading(cells: Sequence[Mapping], index: int) -> str:
    """The heading under which a cell stands."""
    found = re.findall(r"^#+ (.+)$", "\n".join(cell["source"] for cell in cells[:index] if not _code(cell)), re.M)
    return found[-1] if found else ""


def describe(cells: Sequence[Mapping], index: int) -> str:
    """A figure in words: its heading, and what the chapter's next text says of it."""
    after = cells[index + 1]["source"] if index + 1 < len(cells) and not _code(cells[index + 1]) else ""
    first = after.split("\n\n")[0]
    text = "" if first.startswith("#") else first
    text = re.sub(r"\\(?:mathrm|text)\{(.*?)\}", r"\1", text)
    return " ".join(re.sub(r"[$*`\\{}]", "", f"Figure under {heading(cells, index)}. {text}").split())


def accessible(frame: str) -> str:
    """The HTML of a pandas table without its style, with scopes for its headers, in a box that keys can scroll."""
    frame = re.sub(r'<style.*?</style>| border="1"| style="[^"]*"', "", frame, flags=re.S)
    head, end, body = frame.replace("<th></th>", "<td></td>").partition("</thead>")
    scoped = head.replace("<th>", '<th scope="col">') + end + body.replace("<th>", '<th scope="row">')
    return f'<div class="scroll" role="region" tabindex="0" aria-label="Table">{scoped}</div>'
