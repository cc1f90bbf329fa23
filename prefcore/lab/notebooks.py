"""A notebook seen from outside: how it is run, kept and shown. What happens inside is its own matter."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from prefcore.engine.progress import Relay
from prefcore.lab import parameters

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: str | Path, output: str | Path, values: Mapping, *, root: str | Path = ".") -> Path:
    """Run the notebook with `values` in place of its parameters, in the folder `root`; return the executed copy.

    Says in the terminal which cell is running. What cells write to stderr (progress) passes through to ours and
    is not kept; the rest is, without ids, times and addresses, so equal runs give equal bytes.
    Raises ValueError for a name that the parameters cell lacks, TypeError for a value of another kind, RuntimeError
    when a cell fails or the run stops before the last cell; the copy then stays as it was, for reading.
    """
    parameters.check(path, values)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)  # it may be a link into DVC's cache
    total = sum(_runs(cell) for cell in read(path).cells) + bool(values)  # papermill adds a cell with the values
    here, done, start, relay = {"heading": "its start"}, [], time.monotonic(), Relay()

    def announce(cell, cell_index):
        if cell.cell_type == "markdown":
            here["heading"] = ([here["heading"]] + headings(cell))[-1]
        elif _runs(cell):
            done.append(cell_index)
            print(f"{_clock(start)}  {Path(path).stem}  cell {len(done)}/{total}  {here['heading']}", flush=True)

    try:
        papermill.execute_notebook(
            str(path), str(output), parameters=dict(values), kernel_name="python3", language="python", cwd=str(root),
            progress_bar=False, stderr_file=relay, start_timeout=300, on_cell_start=announce,
            shutdown_kernel="immediate",  # all is on disk, and torch takes two seconds to take leave
            config=Config(KernelManager={"transport_encryption": "auto"}),  # or the kernel warns at each start
        )  # fmt: skip
        stopped = _stopped(read(output))
    except PapermillExecutionError as error:
        if error.ename != "DataError":  # that is one line for a person whose data cannot be used
            relay.write(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)) + "\n")
        stopped = f"{error.ename}: {error.evalue}"
    except DeadKernelError as error:
        stopped = f"the kernel died ({error}); was the machine out of memory?"
    finally:
        relay.stop()
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


def _runs(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _clock(start: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes:3d}:{seconds:02d}"
