"""The README says only what the committed metrics say."""

import json
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
CLAIM = re.compile(r"\*\*(held|not held|no difference|undecided)\*\*: (.+?) \(([-+\d.]+) \[([-+\d.]+), ([-+\d.]+)\]\)")
SAID = [found for line in (TOP / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [")
        for found in CLAIM.findall(line)]  # fmt: skip
FAULTS = {"share that ends by itself": "texts do not end", "share under three words": "many of under three words"}
COMPARED = re.compile(r"^\| (DPO|ODPO|OSP|KTO|BCO|ULMA) \|(.+)\|$", re.MULTILINE)


def measured() -> dict[str, list[tuple[str, ...]]]:
    """Claim -> its verdicts and numbers, of both profiles, in the README's way of writing them."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for path in sorted(TOP.glob("metrics/*/*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for row in found.get("claims", []):
            numbers = (f"{row[name]:+.2f}" for name in ("estimate", "low", "high"))
            rows.setdefault(row["claim"], []).append((row["verdict"], *numbers))
    return rows


def test_the_readme_s_comparison_is_that_of_its_study():
    """rho with its interval, the difference to DPO, gold at 2 nats, the distance at the end and tokens read, by row."""
    found = json.loads((TOP / "metrics/study/compare.json").read_text(encoding="utf-8"))
    less = {frozenset(row["contrast"]): row for row in found["claims"] if row["measure"] == "rho"}
    said = dict(COMPARED.findall((TOP / "README.md").read_text(encoding="utf-8").partition("## Run it")[0]))
    assert len(said) == 6
    for method, cells in said.items():
        arm = f"{method.lower()}-many"
        own, pair = found["arms"][arm], less.get(frozenset(["dpo-many", arm]))
        rho = "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**own)
        numbers = [rho, "{estimate:+.2f} [{low:+.2f}, {high:+.2f}]".format(**pair)] if pair else [rho]
        numbers += [f"{found['samples'][arm]['gold']:+.2f}", f"{own['nats']:.1f}", f"{found['cost'][arm]:,}"]
        shown = [cell.strip() for cell in cells.replace("−", "-").split("|")]
        assert [n for n in numbers if any(cell.startswith(n) for cell in shown)] == numbers, (method, numbers, shown)
        guards = {row["name"]: row["passed"] for row in found["controls"] if row.get("arm") == arm}
        assert {name for name, told in FAULTS.items() if told in cells} == {n for n, ok in guards.items() if not ok}


def test_the_readme_shows_claims():
    assert len(SAID) >= 8


@pytest.mark.parametrize("said", SAID, ids=[text[:60] for _, text, *_ in SAID])
def test_each_verdict_in_the_readme_is_that_of_a_metrics_file(said):
    verdict, text, *numbers = said
    assert (verdict, *numbers) in measured().get(text, []), f"{text}: metrics say {measured().get(text)}"
