"""A notebook seen from outside: its parameters, its form, its execution. What happens inside is its own matter."""

import ast
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def merge_parameters(params: Mapping, method: str) -> dict:
    """Parameters of a notebook from the content of params.yaml: profile, then common, methods.<m>, <profile>.<m>.

    Later blocks win. A block may be empty but not missing (ValueError).
    """
    profile = params.get("profile")
    merged = {"profile": profile}
    for path in (("common",), ("methods", method), (profile, method)):
        block = params
        for key in path:
            if not isinstance(block, Mapping) or key not in block:
                raise ValueError(f"params.yaml has no block {'.'.join(map(str, path))}, which {method} needs")
            block = block[key]
        merged |= block or {}
    return merged


def parameters(path: str | Path) -> dict:
    """Names and values of the cell tagged "parameters", literals only; raises ValueError with the line that is not."""
    cells = [cell for cell in read(path).cells if is_parameters(cell)]
    if len(cells) != 1:
        raise ValueError(f'{path}: {len(cells)} cells are tagged "parameters"; there must be one')
    values = {}
    for node in ast.parse(cells[0].source).body:
        where = f"{path}: parameters, line {node.lineno}: {ast.unparse(node)}"
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise ValueError(f"{where} is not `name = literal`")
        name = node.targets[0].id
        if name in values:
            raise ValueError(f"{where} sets {name} a second time")
        try:
            values[name] = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"{where} is not a literal") from None
    return values


def execute(path: str | Path, output: str | Path, values: Mapping, *, root: str | Path = ".") -> Path:
    """Run the notebook with `values` in place of its parameters, in the folder `root`; return the executed copy.

    Says in the terminal which cell is running. What cells write to stderr (progress) passes through to the terminal and
    is not kept; the rest is, without ids, times and addresses, so equal runs give equal bytes.
    Raises ValueError for a name that the parameters cell lacks, TypeError for a value of another kind, RuntimeError
    when a cell fails or the run stops before the last cell; the copy then stays as it was, for reading.
    """
    _check_values(path, values)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)  # it may be a link into DVC's cache
    total = sum(_runs(cell) for cell in read(path).cells) + bool(values)  # papermill adds a cell with the values
    here, done, start = {"heading": "its start"}, [], time.monotonic()

    def announce(cell, cell_index):
        if cell.cell_type == "markdown":
            here["heading"] = ([here["heading"]] + headings(cell))[-1]
        elif _runs(cell):
            done.append(cell_index)
            print(f"{_clock(start)}  {Path(path).stem}  cell {len(done)}/{total}  {here['heading']}", flush=True)

    try:
        papermill.execute_notebook(
            str(path), str(output), parameters=dict(values), kernel_name="python3", language="python", cwd=str(root),
            progress_bar=False, stderr_file=sys.stderr, start_timeout=300, on_cell_start=announce,
            config=Config(KernelManager={"transport_encryption": "auto"}),  # or the kernel warns at each start
        )  # fmt: skip
        stopped = _stopped(read(output))
    except PapermillExecutionError as error:
        print(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)), file=sys.stderr)
        stopped = f"{error.ename}: {error.evalue}"
    except DeadKernelError as error:
        stopped = f"the kernel died ({error}); was the machine out of memory?"
    if stopped:
        raise RuntimeError(f"{path}: under '{here['heading']}': {stopped} (the partial notebook is {output})")
    _write(output, _repeatable(read(output)))
    print(f"{_clock(start)}  {Path(path).stem}  done", flush=True)
    return output


def clean(path: str | Path) -> None:
    """Rewrite the notebook as it is committed: no outputs, no counts, numbered ids, no metadata but tags and kernel."""
    Path(path).write_text(cleaned(path), encoding="utf-8", newline="\n")


def export_html(executed: str | Path, html: str | Path) -> Path:
    """Write an executed notebook as one page to read."""
    from nbconvert import HTMLExporter  # slow to import, rarely needed

    page, _ = HTMLExporter().from_filename(str(executed))
    html = Path(html)
    html.parent.mkdir(parents=True, exist_ok=True)
    html.unlink(missing_ok=True)
    html.write_text(page, encoding="utf-8")
    return html


def _check_values(path: str | Path, values: Mapping) -> None:
    defaults = parameters(path)
    unknown = sorted(set(values) - set(defaults))
    if unknown:
        raise ValueError(f"{path} has no parameter {', '.join(unknown)}; it has {', '.join(defaults)}")
    for name, value in values.items():
        default = defaults[name]
        kinds = (int, float) if type(default) is float else (type(default),)
        if default is not None and type(value) not in kinds:
            hint = "; YAML reads 1e-6 as a string, write 1.0e-6" if isinstance(value, str) else ""
            raise TypeError(
                f"{path}: {name} is {value!r} ({type(value).__name__}), "
                f"but the notebook has {default!r} ({type(default).__name__}){hint}"
            )


def read(path: str | Path) -> NotebookNode:
    """The notebook as it lies on disk."""
    return nbformat.read(str(path), as_version=4)


def _write(path: Path, nb: NotebookNode) -> None:
    path.write_text(nbformat.writes(nb) + "\n", encoding="utf-8", newline="\n")


def cleaned(path: str | Path) -> str:
    """The text of the file as `clean` leaves it."""
    nb = _bare(read(path))
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(nb) + "\n"


def _bare(nb: NotebookNode) -> NotebookNode:
    """The notebook with nothing but what its author wrote and what its cells gave; empty cells go."""
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat_minor = 5
    nb.cells = [cell for cell in nb.cells if cell.source.strip()]
    for index, cell in enumerate(nb.cells):
        cell.id = f"cell-{index}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    return nb


def _repeatable(nb: NotebookNode) -> NotebookNode:
    """An executed notebook without anything that differs between two equal runs."""
    for cell in _bare(nb).cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for out in cell.outputs:
            if out.get("name") == "stderr" or _WIDGET in out.get("data", {}):
                continue
            texts = out if out.output_type == "stream" else out.get("data", {})
            for key in {"text", "text/plain", "text/html"} & set(texts):
                texts[key] = _ADDRESS.sub("at 0x0", texts[key])
            if kept and out.output_type == kept[-1].output_type == "stream":  # chunks depend on the moment
                kept[-1].text += out.text
            else:
                kept.append(out)
        cell.outputs = kept
    return nb


def _stopped(nb: NotebookNode) -> str | None:
    """Why the run ended early although papermill is content, as after sys.exit(0); None if every cell ran."""
    for cell in filter(_runs, nb.cells):
        for out in cell.outputs:
            if out.output_type == "error":
                return f"{out.ename}: {out.evalue} stopped the notebook before its end"
        if cell.execution_count is None:
            return "a cell was never executed"
    return None


def headings(cell: NotebookNode) -> list[str]:
    """The second-level headings of a text cell."""
    return re.findall(r"^## +(.+?)\s*$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []


def is_parameters(cell: NotebookNode) -> bool:
    """Whether this is the cell that papermill replaces."""
    return cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])


def _runs(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _clock(start: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes:3d}:{seconds:02d}"
