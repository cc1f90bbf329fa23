"""Questions on databases with the SQL that some systems proposed, read from files; nothing is run here.

    candidates.jsonl[.gz]   rows {question_id, db_id, question, gold, evidence, candidates: [{system, sql}]};
                            a first row {about: {...}} says what wrote them and how
    a folder                with candidates.* as above; or a Spider or BIRD folder as it is: dev.json (query or SQL, and
                            evidence), and predictions/NAME.sql, .txt (a line a question) or .json (BIRD's) if there are

A database NAME is looked for as NAME/NAME.sqlite, NAME/NAME.db or NAME.sqlite in the folder of databases, which is
`database` or `dev_databases` beside the rows unless another is named.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prefcore.data.rows import DataError, Row, fault, read_text, refuse_weight, rows, short

BIRD = "\t----- bird -----\t"  # stands between a query and the name of its database
FILES = tuple(f"candidates{end}{more}" for end in (".jsonl", ".json") for more in ("", ".gz"))


class Candidate(NamedTuple):
    """What one system proposed, an empty text where it gave nothing; `draft` is what a fixer made it of, if one did."""

    system: str
    sql: str
    draft: str | None = None


class Question(NamedTuple):
    """A question on one database, its gold query (empty where unknown), and the candidates in the file's order."""

    id: str
    db_id: str
    question: str
    gold: str
    candidates: tuple[Candidate, ...] = ()
    evidence: str = ""


class Unusable(NamedTuple):
    """What cannot be used, and why: a row, a question or a candidate; `system` is empty where it is no candidate."""

    id: str
    db_id: str
    system: str
    what: str
    detail: str


def read(source: str, *, gold: bool = True) -> tuple[list[Question], list[Unusable]]:
    """(questions, unusable rows): a row that cannot be read is put aside, and the rest goes on.

    gold: whether a row needs the right query. A question without candidates is among the questions. DataError where
    there is no question at all.
    """
    path = Path(source)
    if path.is_dir():
        listed = next((path / name for name in FILES if (path / name).exists()), None)
        if listed is None and not (path / "dev.json").exists():
            raise DataError(f"{source}: this folder holds neither {FILES[0]} nor dev.json")
        path = listed or path / "dev.json"
    predictions = _predictions(path.parent / "predictions") if path.name == "dev.json" else {}
    questions, unusable, seen = [], [], set()
    for number, row in enumerate(rows(str(path))):
        try:
            if isinstance(row, DataError):
                raise row
            if number == 0 and isinstance(row.values.get("about"), dict):
                continue
            question = _question(row, number, predictions)
            if gold and not question.gold:
                has = ", ".join(map(repr, row.values))
                raise fault(row, "gold", f"no right query, which is called gold, query or SQL; the row has {has}")
            if (question.db_id, question.id) in seen:
                raise fault(row, "question_id", f"{short(question.id)} stands twice; number the questions")
            seen.add((question.db_id, question.id))
            questions.append(question)
        except DataError as error:
            unusable.append(Unusable(f"row {number + 1}", "", "", "unreadable row", str(error)))
    if not questions:
        raise DataError(f"{path}: no question that can be read{f' ({unusable[0].detail})' if unusable else ''}")
    for name, sqls in predictions.items():
        while len(sqls) > number + 1 and not sqls[-1]:
            sqls.pop()  # empty lines at the end of a file are no answers
        if len(sqls) != number + 1:
            raise DataError(f"{path.parent / 'predictions'}: {name} has {len(sqls)} queries for {number + 1} questions")
    return questions, unusable


def first_of_each(rows: Sequence, most: int) -> list:
    """The first `most` of the rows of each database (their db_id), in order."""
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row.db_id] += 1
        if seen[row.db_id] <= most:
            kept.append(row)
    return kept


def find_databases(source: str, databases: str = "") -> Path:
    """The folder of databases: the named one, or the usual one beside the rows."""
    beside = Path(source) if Path(source).is_dir() else Path(source).parent
    places = [Path(databases)] if databases else [beside / "database", beside / "dev_databases"]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(f"{places[0]}: no such folder of databases; name one with --databases")


def database_path(databases: str | Path, db_id: str) -> Path:
    """The file of a database. FileNotFoundError where there is none, ValueError for a name that is no plain name."""
    if not re.fullmatch(r"\w[\w .&+()-]*", db_id):
        raise ValueError(f"{short(db_id)} is no name of a database: only letters, digits, _ - . & + ( ) and spaces")
    places = [Path(databases) / name for name in (f"{db_id}/{db_id}.sqlite", f"{db_id}/{db_id}.db", f"{db_id}.sqlite")]
    for place in (*places, *_in_capitals(places)):
        if place.is_file():
            return place
    raise FileNotFoundError(f"{places[0]}: there is no such database file")


def _in_capitals(places: Sequence[Path]) -> list[Path]:
    """Files there whose names differ from these in small and capital letters alone, as Windows has them."""
    wanted = {place.name.lower() for place in places}
    folders = {place.parent for place in places if place.parent.is_dir()}
    return sorted(path for folder in folders for path in folder.iterdir() if path.name.lower() in wanted)


def write(path: Path, questions: Sequence[Question], about: Mapping) -> None:
    """The questions with their candidates as a file for `read`; .gz packs it, with equal bytes for equal rows."""
    lines = [json.dumps({"about": about}, ensure_ascii=False)]
    for one in questions:
        proposed = [{k: v for k, v in candidate._asdict().items() if v is not None} for candidate in one.candidates]
        row = {"question_id": one.id, "db_id": one.db_id, "question": one.question, "gold": one.gold,
               "evidence": one.evidence, "candidates": proposed}  # fmt: skip
        lines.append(json.dumps({k: v for k, v in row.items() if v != ""}, ensure_ascii=False))
    raw = "".join(f"{line}\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part")
    aside.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    aside.replace(path)


def read_about(source: str) -> dict:
    """What the first row of a file of candidates says about how they were made; {} where it says nothing."""
    first = next(iter(rows(source)), None)
    return {} if first is None or isinstance(first, DataError) else first.values.get("about") or {}


def _question(row: Row, number: int, predictions: Mapping[str, Sequence[str]]) -> Question:
    refuse_weight(row)
    values = row.values
    gold = next((name for name in ("gold", "query", "SQL") if values.get(name)), None)
    texts = [read_text(row, name) for name in ("db_id", "question", gold) if name]
    id = number if values.get("question_id") is None else values["question_id"]
    if isinstance(id, bool) or not isinstance(id, int | str):
        raise fault(row, "question_id", f"{short(id)} is neither a number nor a text")
    given = values.get("candidates") or []
    if not isinstance(given, list):
        raise fault(row, "candidates", f"{short(given)} is no list of {{system, sql}}")
    proposed = [_candidate(row, item) for item in given]
    proposed += [Candidate(name, sqls[number].removesuffix(f"\t{texts[0]}").strip())
                 for name, sqls in predictions.items() if number < len(sqls)]  # Spider's lines may name the database
    evidence = values.get("evidence") or ""
    if not isinstance(evidence, str):
        raise fault(row, "evidence", f"{short(evidence)} is no text")
    return Question(str(id), texts[0], texts[1], texts[2] if gold else "", tuple(proposed), evidence)


def _candidate(row: Row, item) -> Candidate:
    if not isinstance(item, dict) or not isinstance(item.get("system"), str):
        raise fault(row, "candidates", f"{short(item)} does not say which system it is from")
    sql = item.get("sql")
    if not isinstance(sql, str | None):
        raise fault(row, "candidates", f"the SQL of {item['system']}, {short(sql)}, is no text")
    draft = item.get("draft")
    if not isinstance(draft, str | None):
        raise fault(row, "candidates", f"the draft of {item['system']}, {short(draft)}, is no text")
    return Candidate(item["system"], sql or "", draft)


def _predictions(folder: Path) -> dict[str, list[str]]:
    """System -> its query for each question, from the files of a folder; none where there is no folder."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in (".sql", ".txt"):
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            lines = text.removesuffix("\n").split("\n")  # and at no other mark of a line: a query may hold it
        elif path.suffix.lower() == ".json":
            lines = _numbered(path)
        else:
            continue
        found[path.stem] = [line.partition(BIRD)[0].strip() for line in lines]
    return found


def _numbered(path: Path) -> list[str]:
    """BIRD's object of queries by the number of the question; an empty text where a system gave nothing (null)."""
    try:
        by_number = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); give an object of queries by their numbers") from None
    if not isinstance(by_number, dict) or not all(str(i) in by_number for i in range(len(by_number))):
        raise DataError(f"{path}: is no object of queries by the number of the question, from 0")
    queries = [by_number[str(i)] for i in range(len(by_number))]
    for i, query in enumerate(queries):
        if not isinstance(query, str | None):
            raise DataError(f"{path}: the query of question {i}, {short(query)}, is no text")
    return [query or "" for query in queries]
