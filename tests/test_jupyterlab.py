"""What a person does first: JupyterLab opens the map of chapters, then one chapter, and runs all of it."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from prefcore.lab import parameters
from tests.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
pytest.importorskip("jupyterlab", reason="no JupyterLab here")
CHAPTER = "odpo"
PANEL = "[...jupyterapp.shell.widgets('main')].find(one => one.context && one.context.path === '{path}')"
OF_CHAPTER = PANEL.format(path=f"notebooks/{CHAPTER}.ipynb")
CELLS = f"{OF_CHAPTER}.context.model.toJSON().cells"
ENDED = f"""{CELLS}.filter(one => one.cell_type === 'code').every(one => one.execution_count)
    || {CELLS}.some(one => (one.outputs || []).some(out => out.output_type === 'error'))"""
FIGURE = """[...document.querySelectorAll('.jp-OutputArea-output img')].some(
    one => one.complete && one.naturalWidth > 300 && one.getBoundingClientRect().width > 300)"""


@pytest.fixture
def server(toy_world, tmp_path):
    """The address of a JupyterLab over the toy world, whose chapter has the toy world's parameters."""
    path = Path(f"notebooks/{CHAPTER}.ipynb")
    few = {"arms": ["dpo-many", "odpo-many"], "confirm": [], "seeds": 1, "rates": []}
    values = parameters.choose(path, toy_world) | few
    chapter = json.loads(path.read_text())
    (cell,) = [cell for cell in chapter["cells"] if parameters.is_parameters(cell)]
    cell["source"] = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    path.write_text(json.dumps(chapter))
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / ".jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / ".jupyter" / name) for name in ("SETTINGS", "WORKSPACES")}
    never = "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
    root = ["--allow-root"] if os.geteuid() == 0 else []
    with (tmp_path / "jupyterlab.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.port=0", "--IdentityProvider.token=test",
             "--LabApp.expose_app_in_browser=True", "--notebook-dir=.", never, *root],
            env=os.environ | own, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield wait_for(tmp_path / ".jupyter" / "RUNTIME", process)
    finally:
        process.terminate()
        process.wait(30)


def wait_for(runtime: Path, process) -> str:
    """The server's address, once it answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for told in runtime.glob("jpserver-*.json"):
            try:
                url = json.loads(told.read_text())["url"]
                urllib.request.urlopen(f"{url}api/status?token=test")
                return url
            except (OSError, ValueError):
                pass
        time.sleep(0.3)
    pytest.fail((runtime.parents[1] / "jupyterlab.log").read_text()[-2000:])


def show(browser, server: str, path: str) -> None:
    """Open a notebook, and wait until it is ready and its title is rendered."""
    browser.open(f"{server}lab/tree/{path}?token=test&reset")
    panel = PANEL.format(path=path)
    browser.wait(f"Boolean(window.jupyterapp && {panel} && {panel}.context.isReady)", 120)
    browser.wait("document.querySelectorAll('.jp-RenderedMarkdown h1').length > 0", 120)


@pytest.mark.timeout(900)
def test_the_map_is_shown_and_a_chapter_runs_to_its_figures(server, toy_world, tmp_path):
    browser = Browser(tmp_path / "chromium")
    try:
        show(browser, server, "notebooks/index.ipynb")
        assert browser.run("document.querySelectorAll('.jp-RenderedMarkdown table').length") > 0
        assert "ODPO" in browser.run("document.querySelector('.jp-RenderedMarkdown table').innerText")
        show(browser, server, f"notebooks/{CHAPTER}.ipynb")
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)  # what nobody looks at is no current notebook
        browser.run(f"jupyterapp.shell.activateById({OF_CHAPTER}.id)")
        browser.wait(f"{OF_CHAPTER}.sessionContext.kernelDisplayStatus === 'idle'", 120)
        browser.wait(f"jupyterapp.shell.currentWidget === {OF_CHAPTER}", 30)
        browser.run("jupyterapp.commands.execute('runmenu:run-all'), true")
        browser.wait(ENDED, 600)
        cells = json.loads(browser.run(f"JSON.stringify({CELLS})"))
        found = [(i, out) for i, cell in enumerate(cells) for out in cell.get("outputs", [])]
        assert not [out for _, out in found if out["output_type"] == "error"]
        drawn = [i for i, out in found if "image/png" in out.get("data", {})]
        browser.run(f"{OF_CHAPTER}.content.scrollToItem({drawn[0]}).then(() => true)")
        browser.wait(FIGURE, 30)
        failed = [one for one in browser.complaints() if one.get("type") != "warning" and not one.get("canceled")]
        assert not failed
        assert Path(f"runs/{toy_world['profile']}/{CHAPTER}/history.csv").exists()
    finally:
        browser.close()
