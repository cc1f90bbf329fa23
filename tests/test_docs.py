"""The site's sources: an executed chapter is shown as it ran, and never silently beside other verdicts."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from docs import chapters, pages

ROOT = Path(__file__).parents[1]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
READ = ("params.yaml", "dvc.lock", "study", "requirements.lock", "pyproject.toml", "metrics", "figures", "notebooks",
        "banks", "benchmarks", "scores")  # fmt: skip
PICTURE = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}, "metadata": {}}
CLAIM = {"claim": "a gains more", "test": "rho of a − b, 9 units × 3 training seed(s)", "verdict": "held",
         "estimate": 0.0204, "low": 0.01, "high": 0.031}  # fmt: skip


def said(row, verdict=None):
    """The lines that a chapter prints of a claim."""
    verdict = (verdict or row["verdict"]).upper()
    return f"\n{verdict} (primary): {row['claim']}\n  {row['test']}: {chapters.effect(row)}; an effect of 0.02.\n"


def text(source):
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def code(source, *outputs, tags=()):
    found = [{"output_type": "stream", "text": out} if isinstance(out, str) else out for out in outputs]
    ran = {"outputs": found, "execution_count": 1, "metadata": {"tags": [*tags]}}
    return {"cell_type": "code", "source": source} | ran


def executed(printed, beta=0.1):
    """A small chapter after its run."""
    return [
        text("# DPO: a title\n\n## Method"), code("beta = 0.5  # pull", tags=["parameters"]),
        code(f"# Parameters\nbeta = {beta}", tags=["injected-parameters"]), text("## Training\n\nNow it trains."),
        code("draw()", PICTURE), text("Left: the loss from $\\log 2$ on, in `nats`.\n\nMore."),
        code("decide()", printed), text("**Found:** nothing yet."),
    ]  # fmt: skip


def committed(cells, found="**Found:** it holds."):
    """The chapter in git: no values of a run, and what was found in words."""
    return [*(cell for cell in cells[:-1] if "injected-parameters" not in chapters.tags(cell)), text(found)]


def shown(cells, now, beta=0.1, row=CLAIM):
    """All that the page of a chapter says in text cells."""
    page = chapters.page(cells, now, [row], {"beta": beta}, "make study METHOD=dpo")
    return "\n".join(cell["source"] for cell in page["cells"] if cell["cell_type"] == "markdown")


# --- one chapter ------------------------------------------------------------------------------------------------


def test_what_a_chapter_prints_of_its_claims_is_read_back():
    older = f"UNDECIDED: b is worse\n  mean of b minus a, all: {chapters.effect(CLAIM)}; the interval contains 0.\n"
    assert chapters.claims_said(executed(said(CLAIM) + older)) == {
        (CLAIM["claim"], CLAIM["test"]): ("held", "+0.020 [+0.010, +0.031]"),
        ("b is worse", "mean of b minus a, all"): ("undecided", "+0.020 [+0.010, +0.031]"),
    }


@pytest.mark.parametrize("name", ["decisions", "claims"])
def test_both_ways_of_printing_a_claim_are_understood(name, capsys):
    row = CLAIM | {"kind": "primary", "delta": 0.02, "detectable": 0.1, "because": ""}
    if name == "decisions":
        from prefcore.lab import decisions

        decisions.print_sentences({"controls": [], "claims": [row]})
    else:
        from prefcore.methods.canonical_basis import claims

        claims.print_sentences([row])
    assert not chapters.differing(executed(capsys.readouterr().out), [row])


def test_a_run_that_agrees_is_shown_with_a_note_and_the_words_found_since():
    cells = executed(said(CLAIM))
    page = shown(cells, committed(cells))
    assert "{note}" in page and "{warning}" not in page
    assert "it holds" in page and "nothing yet" not in page


def test_a_run_with_another_verdict_is_shown_with_both_verdicts():
    cells = executed(said(CLAIM, "not tested"))
    page = shown(cells, committed(cells))
    assert "{warning}" in page
    assert "| a gains more | not tested +0.020 [+0.010, +0.031] | held +0.020 [+0.010, +0.031] |" in page


@pytest.mark.parametrize("printed", ["", said(CLAIM) + said(CLAIM | {"claim": "c is more"})], ids=["less", "more"])
def test_a_claim_that_only_one_of_both_has_is_named(printed):
    cells = executed(printed)
    assert "no such claim" in shown(cells, committed(cells))


def test_another_effect_is_another_result_though_the_verdict_is_the_same():
    cells = executed(said(CLAIM | {"high": 0.05}))
    assert "held +0.020 [+0.010, +0.050]" in shown(cells, committed(cells))


def test_a_last_digit_that_rounding_moved_is_no_difference():
    cells = executed(said(CLAIM | {"high": 0.0314999}))
    assert "{note}" in shown(cells, committed(cells), row=CLAIM | {"high": 0.0315})


def test_a_chapter_whose_code_has_changed_keeps_its_own_words():
    cells = executed(said(CLAIM))
    page = shown(cells, [*committed(cells)[:-2], code("decide(anew)"), text("**Found:** it holds.")])
    assert "code has changed since this run" in page and "nothing yet" in page


def test_parameters_that_have_changed_are_named():
    cells = executed(said(CLAIM), beta=0.3)
    assert "`beta`" in shown(cells, committed(cells))
    assert "Parameters with" not in shown(cells, committed(cells), beta=0.3)


def test_code_is_folded_and_a_figure_has_words_and_its_command():
    cells = executed(said(CLAIM))
    page = chapters.page(cells, committed(cells), [CLAIM], {"beta": 0.1}, "make study METHOD=dpo")
    codes = [cell["metadata"] for cell in page["cells"] if cell["cell_type"] == "code"]
    assert all(cell["tags"] == ["hide-input"] for cell in codes)
    (look,) = [cell["mystnb"] for cell in codes if "figure" in cell["mystnb"]]
    assert look["image"]["alt"] == "Figure under Training. Left: the loss from log 2 on, in nats."
    assert look["figure"]["caption"] == "Made by `make study METHOD=dpo`"
    assert chapters.figures(cells) == ["Training"]


def test_a_table_of_pandas_has_scopes_and_no_style():
    pandas = pytest.importorskip("pandas")
    table = chapters.accessible(pandas.DataFrame({"rho": [0.1]}, index=["dpo"]).to_html())
    assert '<th scope="col">rho</th>' in table and '<th scope="row">dpo</th>' in table
    assert "style" not in table and "border" not in table and "<th></th>" not in table and 'tabindex="0"' in table


@pytest.mark.parametrize("broken", ["never ran", "failed"])
def test_a_run_that_did_not_end_is_refused(tmp_path, broken):
    cells = executed(said(CLAIM))
    cells[4] |= {"execution_count": None} if broken == "never ran" else {"outputs": [{"output_type": "error"}]}
    (tmp_path / "notebook.ipynb").write_text(json.dumps({"cells": cells}))
    with pytest.raises(ValueError, match="stopped before its last cell"):
        chapters.read(tmp_path / "notebook.ipynb")


def test_a_cell_of_a_table_may_hold_a_bar():
    assert chapters.table(["a"], [["p(y|x)"]]) == "| a |\n| --- |\n| p(y\\|x) |\n"


# --- all pages --------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """The repository's files that pages read, with no run in it."""
    for name in READ:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    for path in (ROOT / "docs").glob("*.md"):
        (tmp_path / "docs" / path.name).symlink_to(path)
    return tmp_path


def finished(root, method, claims):
    """An executed study notebook of a method, made of its committed chapter, that printed these claims."""
    cells = chapters.read_source(ROOT / "notebooks" / f"{method}.ipynb")
    for cell in cells:
        if cell["cell_type"] == "code":
            cell |= {"execution_count": 1, "outputs": []}
    cells[-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "".join(map(said, claims))}]
    path = root / "runs" / "study" / method / "notebook.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def study_with_claims():
    """A method with committed claims of its study, and they."""
    for path in sorted((ROOT / "metrics" / "study").glob("*.json")):
        if claims := json.loads(path.read_text(encoding="utf-8")).get("claims"):
            return path.stem, claims
    raise AssertionError("no study has claims")


def test_without_a_run_every_chapter_is_named_on_the_front_page_and_none_has_a_page(root, capsys):
    pages.write(root / "out", root)
    front = (root / "out" / "index.md").read_text(encoding="utf-8")
    assert not list((root / "out" / "chapters").iterdir()) and "chapters/" not in front
    for name in PARAMS["methods"]:
        assert name == "overview" or f"| `{name}` |" in front
    assert capsys.readouterr().out.count("no page") == len(PARAMS["methods"]) - 1


def test_a_page_outlives_the_run_that_made_it(root):
    method, claims = study_with_claims()
    finished(root, method, claims)
    pages.write(root / "out", root)
    page = (root / "out" / "chapters" / f"{method}.ipynb").read_bytes()
    shutil.rmtree(root / "runs")
    pages.write(root / "out", root)
    assert (root / "out" / "chapters" / f"{method}.ipynb").read_bytes() == page


def test_every_committed_executed_chapter_is_whole_and_has_metrics_beside_it():
    kept = sorted((ROOT / "docs" / "executed").glob("*.ipynb"))
    assert kept
    for path in kept:
        assert chapters.read(path) and (ROOT / "metrics" / "study" / f"{path.stem}.json").exists()


def test_columns_in_an_output_are_not_wrapped():
    cells = [text("# A title"), code("print(table)", "arm     rho\ndpo    0.29\n"), code("print(text)", "a b  c\n")]
    page = chapters.page(cells, cells, [], {}, "make study METHOD=dpo")
    assert [cell["metadata"]["tags"][1:] for cell in page["cells"][1:]] == [["aligned"], []]


def test_every_committed_claim_is_on_the_front_page(root):
    pages.write(root / "out", root)
    front = (root / "out" / "index.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "metrics" / "study").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")).get("claims", []):
            (line,) = [line for line in front.splitlines() if f"| {row['claim']} |" in line and row["test"] in line]
            assert f"**{row['verdict']}**" in line and pages.shown(row) in line


def test_a_run_has_a_page_and_one_with_other_verdicts_says_so_in_both_places(root, capsys):
    method, claims = study_with_claims()
    finished(root, method, claims)
    pages.write(root / "out", root)
    assert f"{method}: a page\n" in capsys.readouterr().out
    page = root / "out" / "chapters" / f"{method}.ipynb"
    assert "{note}" in page.read_text(encoding="utf-8")
    shutil.rmtree(root / "runs")
    finished(root, method, claims[1:])
    pages.write(root / "out", root)
    assert "run and committed metrics differ in 1 claims" in (root / "out" / "index.md").read_text(encoding="utf-8")
    assert "{warning}" in page.read_text(encoding="utf-8")


def test_a_half_run_or_uncommitted_study_has_no_page_and_says_why(root, capsys):
    method, claims = study_with_claims()
    path = finished(root, method, claims)
    whole = path.read_text()
    path.write_text(whole.replace('"execution_count": 1', '"execution_count": null', 1))
    pages.keep(method, root)
    assert "still running" in capsys.readouterr().out
    assert "no executed notebook" in pages.chapter(method, {"claims": claims}, PARAMS, root).remark
    path.write_text(whole)
    pages.keep(method, root)
    assert "no committed metrics" in pages.chapter(method, {}, PARAMS, root).remark


def test_what_was_found_is_written_into_the_executed_chapter_too(root):
    method, claims = study_with_claims()
    ran = finished(root, method, claims)
    notebook = json.loads(ran.read_text(encoding="utf-8"))
    at = max(index for index, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "markdown")
    now = notebook["cells"][at]["source"]
    notebook["cells"][at]["source"] = "**Found:** nothing yet."
    ran.write_text(json.dumps(notebook), encoding="utf-8")
    pages.keep(method, root)
    kept = chapters.read(root / "docs" / "executed" / f"{method}.ipynb")
    assert kept[at]["source"] == now and kept[-1]["outputs"][0]["text"]


def test_the_pages_leave_no_place_unfilled(root):
    pages.write(root / "out", root)
    for path in (root / "out").glob("*.md"):
        assert "{{" not in path.read_text(encoding="utf-8"), path.name
