"""The built site in a real browser: nothing is asked of a network, nothing fails, everything is seen and reached."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.parse import urldefrag

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = [str(path.relative_to(SITE)) for path in sorted(SITE.rglob("*.html"))]
WIDTHS = (380, 1400)
built = pytest.mark.skipif(not PAGES, reason="no built site here: make site")
in_browser = pytest.mark.skipif(not CHROMIUM or not PAGES, reason="no Chromium, or no built site (make site)")


class Browser:
    """Headless Chromium, driven by its DevTools protocol; `events` holds all that it reported since the last page."""

    def __init__(self, profile: Path):
        websocket = pytest.importorskip("websocket", reason="websocket-client comes with JupyterLab")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which the superuser cannot have
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless", "--disable-gpu", "--no-first-run", *sandbox, "--remote-debugging-port=0",
             f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = self._port(profile / "DevToolsActivePort")
            tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
            (address,) = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]
            self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        except BaseException:
            self.process.kill()
            raise
        self.count, self.events = 0, []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _port(self, path: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if path.exists() and "\n" in path.read_text():
                return path.read_text().split()[0]
            time.sleep(0.1)
        pytest.skip("Chromium does not start here")

    def call(self, method: str, **parameters) -> dict:
        """The result of a command of the protocol."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, page: str, width: int = 1400) -> None:
        """Open a page of the site in a window of this width, and wait until it is loaded."""
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **window)
        self.call("Page.navigate", url="about:blank")
        self.run("new Promise(done => setTimeout(done, 50))")
        self.events.clear()
        self.call("Page.navigate", url=f"{SITE.as_uri()}/{page}")
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))
        self.run("new Promise(done => setTimeout(done, 200))")

    def run(self, script: str):
        """The value of a JavaScript expression, a promise's when it is kept."""
        given = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9)

    def asked(self) -> list[str]:
        """Addresses that the page asked for."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def complaints(self) -> list[dict]:
        """Errors and warnings of the console, exceptions, and requests that failed."""
        found = []
        for event in self.events:
            about = event.get("params", {})
            bad = event["method"] in ("Runtime.exceptionThrown", "Network.loadingFailed")
            bad |= event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning")
            bad |= event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert")
            found += [about] if bad else []
        return found

    def close(self) -> None:
        """Let it go."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


# --- files ------------------------------------------------------------------------------------------------------


@built
def test_the_site_shows_the_verdicts_that_are_committed():
    text = re.sub(r"<[^>]+>", "", (SITE / "index.html").read_text(encoding="utf-8")).replace("\N{NO-BREAK SPACE}", " ")
    for path in sorted((ROOT / "metrics" / "study").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")).get("claims", []):
            effect = f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]".replace("-", "−")
            assert effect in text, f"{path.stem}, {row['claim']}: {effect} is not on the front page; run make site"


@built
def test_the_site_is_small_and_names_no_machine():
    files = [path for path in SITE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15 * 2**20
    for path in files:
        if path.suffix in (".html", ".js", ".css"):
            found = re.findall(r"(?<![\w./~])/(?:home|root|Users|work|mnt|tmp|opt)/[\w.]+", path.read_text("utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found}"


# --- in the browser ---------------------------------------------------------------------------------------------

SEEN = """[...document.images].map(one => {
  one.scrollIntoView();
  const box = one.getBoundingClientRect(), frame = (one.closest("figure") || one).getBoundingClientRect();
  return {name: one.src, alt: one.alt, drawn: one.complete && one.naturalWidth > 0, wide: box.width, high: box.height,
          inside: box.left >= 0 && frame.left >= 0 && frame.right <= innerWidth + 1};
})"""
BARE = """[...document.querySelectorAll("table")].filter(
  one => one.querySelector("tbody td") && !one.querySelector("th")).length"""
LINKS = """[...document.querySelectorAll("a[href]")].map(one => one.href)"""
NAMES = """[...document.querySelectorAll("[id]")].map(one => one.id)"""
COLOURS = """[document.body, document.querySelector("article p")].map(one => {
  let shown = one;
  while (one === document.body && getComputedStyle(shown).backgroundColor === "rgba(0, 0, 0, 0)")
    shown = shown.parentElement;
  const style = getComputedStyle(shown);
  return one === document.body ? style.backgroundColor : style.color;
})"""


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_its_own_files_only_and_all_that_is_in_it_is_seen(browser, page, width):
    browser.open(page, width)
    assert not [url for url in browser.asked() if not url.startswith((f"{SITE.as_uri()}/", "data:"))]
    assert not browser.complaints()
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page is wider than its window"
    assert browser.run(BARE) == 0, "a table without headers"
    figures = browser.run(SEEN)
    assert figures or not re.search(r"^(chapters/|index)", page)
    for figure in figures:
        assert figure["drawn"] and figure["inside"] and len(figure["alt"]) > 20, figure
        assert figure["wide"] > 250 and figure["high"] > 25, figure


@in_browser
def test_every_link_within_the_site_leads_somewhere(browser):
    links, names = {}, {}
    for page in PAGES:
        browser.open(page)
        links[page] = browser.run(LINKS)
        names[f"{SITE.as_uri()}/{page}"] = browser.run(NAMES)
    for page, found in links.items():
        for address, name in map(urldefrag, found):
            if address.startswith("file:"):
                assert address in names, f"{page} links to {address}"
                assert not name or name in names[address], f"{page} links to {address}#{name}"
            else:
                assert address.startswith("https://"), f"{page} links to {address}"


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colours_that_a_reader_prefers(browser, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open("index.html")
    background, text = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in browser.run(COLOURS))
    assert (background > text) == (scheme == "light") and abs(background - text) > 380
    browser.call("Emulation.setEmulatedMedia", features=[])


@in_browser
def test_keys_reach_the_content_first_and_then_the_pages(browser):
    browser.open("index.html")
    reached = []
    for _ in range(len(PAGES) + 8):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert reached[0].startswith("#") and any("reproduce.html" in name for name in reached), reached


@in_browser
def test_search_works_from_disk(browser):
    browser.open("search.html?q=offset")
    browser.run("new Promise(done => setTimeout(done, 1000))")
    assert browser.run("document.querySelectorAll('#search-results li').length") > 0
    assert not browser.complaints()
