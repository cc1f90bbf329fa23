"""All findings about one set of data: which detectors apply to what, and the same findings as text, JSON and a page."""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from prefcore.data import datasets, views
from prefcore.data.rows import DataError
from prefcore.data.types import Pair, Unary
from prefcore.doctor import preferences, texts, votes
from prefcore.doctor.finding import Finding, count
from prefcore.scoring import voters

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}table{border-collapse:collapse}th,td{text-align:left;padding:.4rem .8rem;
border-bottom:1px solid #ccc;vertical-align:top}code{overflow-wrap:anywhere}.act{font-weight:700}
@media(prefers-color-scheme:dark){body{color:#eee;background:#111}}"""


def findings(source: str, policy: str, *, max_prompt: int, max_completion: int) -> list[Finding]:
    """Findings about a file or hub set: preferences of any kind, or pairs with single votes.

    policy: hub id or folder of the model that is to be trained, of which the tokenizer is read. What cannot be read
    raises DataError, as in a run; rows that cannot be used are a finding.
    """
    try:
        found = datasets.scan(source)
    except DataError as problem:
        try:
            return examine_votes(voters.read(source))
        except (DataError, ValueError):
            raise problem from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(policy, trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"policy {policy}: no tokenizer ({' '.join(str(error).split())[:99]}); use --policy") from None
    bad = len(found.problems)
    says = f"{bad} of {found.rows} rows cannot be used" + (f": {found.problems[0]}" if bad else ".")
    first = count("rows that cannot be used", bad, says, warns=bad > 0, do="--drop-bad leaves them out" if bad else "")
    return [first, *examine(found.records, tokenizer, max_prompt=max_prompt, max_completion=max_completion)]


def examine(records: Sequence, tokenizer, *, max_prompt: int, max_completion: int) -> list[Finding]:
    """Findings about preferences of any kind; the tokenizer is that of the policy which is to be trained."""
    limits = {"max_prompt": max_prompt, "max_completion": max_completion}
    found = [texts.kinds(records), texts.repeated(records), texts.near_duplicates(records)]
    found += [*texts.lengths(records, tokenizer, **limits), texts.control_tokens(records)]
    found.append(texts.empty_or_refused(records))
    given = [record.weight for record in records if getattr(record, "weight", None) is not None]
    found += [preferences.weights(given)] if given else []
    pairs = views.pairs_if_any(records)
    if pairs:
        found += [preferences.length_bias(pairs), preferences.contradictions(pairs)]
        found += [preferences.gaps(pairs)] if views.are_graded(pairs) else []
        found += [votes.disagreement([pair.votes for pair in pairs if pair.votes])] * any(p.votes for p in pairs)
    if isinstance(records[0], Unary):
        found += [preferences.balance(records), preferences.prompt_shift(records)]
    return found


def examine_votes(pairs: Sequence) -> list[Finding]:
    """Findings about pairs with single votes (scoring/votes.VotedPair)."""
    named = [pair for pair in pairs if pair.voters]
    cast = [pair.votes for pair in pairs]
    judged = [Pair(p.id, p.prompt, *((p.a, p.b) if p.share > 0.5 else (p.b, p.a))) for p in pairs if p.share != 0.5]
    found = [votes.disagreement(cast), preferences.length_bias(judged)]
    return found + [votes.people([pair.votes for pair in named], [pair.voters for pair in named])] * bool(named)


def lines(found: Sequence[Finding]) -> list[str]:
    """For a terminal: what asks for something to be done is marked, and has its step below it."""
    out = []
    for one in found:
        out.append(f"{'!' if one.warns else ' '} {one.name}: {one.says}")
        out += [f"    -> {one.do}"] if one.do else []
    return out


def write(found: Sequence[Finding], source: str, folder: Path) -> Path:
    """doctor.json and doctor.html, in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "doctor.json").write_text(as_json(found), encoding="utf-8")
    (folder / "doctor.html").write_text(page(found, Path(source).name), encoding="utf-8")
    return folder


def as_json(found: Sequence[Finding]) -> str:
    """A list of findings; what has no interval has null for it."""
    rows = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in one._asdict().items()}
            for one in found]  # fmt: skip
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def page(found: Sequence[Finding], source: str) -> str:
    """The findings as one HTML file that needs no other; every text of the data in it is escaped."""
    rows = "\n".join(
        f"<tr><th scope=row{' class=act' if one.warns else ''}>{html.escape(one.name)}</th>"
        f"<td>{html.escape(one.says)}</td><td><code>{html.escape(one.do)}</code></td></tr>"
        for one in found
    )
    title = f"What is in {html.escape(source)}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>Rows in bold ask for something to be done."
        f"<table><thead><tr><th scope=col>looked for<th scope=col>found<th scope=col>what to do</thead>"
        f"<tbody>{rows}</tbody></table></html>\n"
    )
