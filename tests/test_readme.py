"""The README says only what the committed metrics say."""

import json
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
CLAIM = re.compile(r"\*\*(held|not held|no difference|undecided)\*\*: (.+?) \(([-+\d.]+) \[([-+\d.]+), ([-+\d.]+)\]\)")
SAID = [found for line in (TOP / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [")
        for found in CLAIM.findall(line)]  # fmt: skip


def measured() -> dict[str, list[tuple[str, ...]]]:
    """Claim -> its verdicts and numbers, of both profiles, in the README's way of writing them."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for path in sorted(TOP.glob("metrics/*/*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for row in found.get("claims", []):
            numbers = (f"{row[name]:+.2f}" for name in ("estimate", "low", "high"))
            rows.setdefault(row["claim"], []).append((row["verdict"], *numbers))
    return rows


def test_the_readme_shows_claims():
    assert len(SAID) >= 8


@pytest.mark.parametrize("said", SAID, ids=[text[:60] for _, text, *_ in SAID])
def test_each_verdict_in_the_readme_is_that_of_a_metrics_file(said):
    verdict, text, *numbers = said
    assert (verdict, *numbers) in measured().get(text, []), f"{text}: metrics say {measured().get(text)}"
