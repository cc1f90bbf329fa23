"""The built site in a real browser: nothing is asked of a network, nothing fails, everything is seen and reached."""

import json
import re
from pathlib import Path
from urllib.parse import urldefrag

import pytest

from tests.browser import CHROMIUM, Browser

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
PAGES = [str(path.relative_to(SITE)) for path in sorted(SITE.rglob("*.html"))]
WIDTHS = (380, 1400)
built = pytest.mark.skipif(not PAGES, reason="no built site here: make site")
in_browser = pytest.mark.skipif(not CHROMIUM or not PAGES, reason="no Chromium, or no built site (make site)")


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
    browser.open(f"{SITE.as_uri()}/{page}", width)
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
        browser.open(f"{SITE.as_uri()}/{page}")
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
    browser.open(f"{SITE.as_uri()}/index.html")
    background, text = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in browser.run(COLOURS))
    assert (background > text) == (scheme == "light") and abs(background - text) > 380
    browser.call("Emulation.setEmulatedMedia", features=[])


@in_browser
def test_keys_reach_the_content_first_and_then_the_pages(browser):
    browser.open(f"{SITE.as_uri()}/index.html")
    reached = []
    for _ in range(len(PAGES) + 8):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert reached[0].startswith("#") and any("reproduce.html" in name for name in reached), reached


@in_browser
def test_search_works_from_disk(browser):
    browser.open(f"{SITE.as_uri()}/search.html?q=offset")
    browser.run("new Promise(done => setTimeout(done, 1000))")
    assert browser.run("document.querySelectorAll('#search-results li').length") > 0
    assert not browser.complaints()
