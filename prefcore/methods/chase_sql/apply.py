"""Ask your own database, by any model.

    python -m prefcore run chase_sql --database my.sqlite --question "..." [--evidence "..."]
        --set generator=ADDRESS#model|HUB_ID|FOLDER [selector=...] [queries=7]
    python -m prefcore run chase_sql --data FOLDER_OR_FILE --set generator=...

The first prints the chosen query with its rows and the clusters behind the choice; the second writes candidates for the
questions of a file that have none, and chooses. All candidates are written as JSON to runs/own/chase_sql/.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.engine.progress import show
from prefcore.methods.chase_sql import candidates, database, execution, judges, system, writing
from prefcore.methods.chase_sql.candidates import Question
from prefcore.scoring import llm

OUT = Path("runs/own/chase_sql")
ROWS = 20  # printed of a result


def run(data: str, databases: str, asked: Mapping[str, str], p: Parameters) -> bool:
    """Answer a question {database, question, evidence}, or, by a `generator`, those of data; whether there was one."""
    if asked["question"]:
        ask(asked["database"], asked["question"], asked["evidence"], p)
    elif p.generator:
        answer_all(data, databases, p)
    return bool(asked["question"] or p.generator)


def ask(file: str, question: str, evidence: str, p: Parameters) -> Path:
    """Answer one question and print the answer; returns the path of all candidates."""
    parts = open_parts(p)
    answer = system.answer(file, question, parts["model"], embed=parts["embed"], judge=parts["judge"],
                           evidence=evidence, **draws(p))  # fmt: skip
    print(readable(answer))
    return _write("answer.json", {"database": file, "generator": p.generator, "selector": p.selector}
                  | system.as_json(answer))  # fmt: skip


def answer_all(source: str, databases: str, p: Parameters) -> Path:
    """Write candidates for the questions of a file or folder that have none, choose for each, and count how many are
    right where gold is known; returns the path of the candidates, which `run chase_sql --data` reads again."""
    questions, unusable = candidates.read(source, gold=False)
    for one in unusable:
        print(f"left out: {one.id}: {one.detail}")
    folder, parts = candidates.find_databases(source, databases), open_parts(p)
    done: list[Question] = []
    answers, right = [], []
    for name in dict.fromkeys(question.db_id for question in questions):
        opened = system.open_database(candidates.database_path(folder, name))._replace(name=name)
        with closing(opened.connection):
            own = [question for question in questions if question.db_id == name]
            own = write_missing(own, opened, parts, p)
            for question in own:
                answers.append(system.choose(question, opened, parts["judge"]))
                if question.gold:
                    gold = database.execute(opened.connection, question.gold)
                    right.append(database.same(answers[-1].result, gold))
            done += own
        for what in opened.index.left_out:
            print(f"{name}: not among the values: {what}")
        show(f"{name}: {len(own)} questions")
    candidates.write(OUT / "candidates.jsonl", done, {"generator": p.generator, "draws": draws(p)})
    path = _write("answers.json", {"generator": p.generator, "selector": p.selector,
                                   "answers": [system.as_json(answer) for answer in answers]})  # fmt: skip
    told = f"; {sum(right)} of {len(right)} with gold are right" if right else ""
    print(f"{len(answers)} questions answered{told}; queries and candidates are in {path}")
    return OUT / "candidates.jsonl"


def write_missing(questions: Sequence[Question], opened: system.Opened, parts: dict, p: Parameters) -> list[Question]:
    """The questions of one database, those without candidates with new ones."""
    bare = [question for question in questions if not question.candidates]
    if not bare:
        return list(questions)
    problems = system.pose(opened, bare, parts["embed"], parts["model"])
    made = writing.write(problems, parts["model"], {opened.name: opened.connection}, **draws(p))
    new = {question.id: own for question, own in zip(bare, made, strict=True)}
    return [system.with_candidates(question, new.get(question.id, ())) for question in questions]


def open_parts(p: Parameters) -> dict:
    """model, embed and judge, as `generator`, `encoder` and `selector` name them. ValueError without a generator."""
    if not p.generator:
        raise ValueError("no model writes the queries: --set generator=ADDRESS#model, a hub id or a folder")
    device = str(models.choose_device(p.device, p.threads))
    tokenizer, encoder = models.load_encoder(p.encoder, device=device)
    embed = partial(models.embed, encoder=encoder, tokenizer=tokenizer)
    judge = judges.open_judge(p.selector, p, embed)
    return {"model": llm.open_model(p.generator, p), "embed": embed, "judge": judge}


def draws(p: Parameters) -> dict:
    """How candidates are drawn."""
    return {"samples": p.queries, "temperature": p.temperature, "attempts": p.attempts, "max_tokens": p.answer_tokens,
            "seed": p.seed}  # fmt: skip


def readable(answer: system.Answer) -> str:
    """The chosen query, its rows, and the clusters with votes and points, in words."""
    lines = [answer.sql or "(no complete query)", ""]
    if answer.result.error:
        lines.append(f"error: {answer.result.error} ({answer.result.detail})")
    else:
        lines.append(" | ".join(answer.result.columns))
        for row in answer.result.rows[:ROWS]:
            lines.append(" | ".join("NULL" if cell is None else str(cell) for cell in row))
        lines.append(f"({len(answer.result.rows)} rows)")
    lines += ["", f"{len(answer.pool.sqls)} candidates; clusters of equal results:"]
    for row in system.clusters(answer):
        count = f"{row['failed']} failed" if row["failed"] else f"{row['votes']} votes"
        lines.append(f"  {count}, {row['points']:g} points: {row['result']}\n    {' '.join(row['sql'].split())}")
    lines += [f"not among the values: {what}" for what in answer.left_out]
    if set(answer.pool.clusters) == {execution.FAILED}:
        lines.append("no candidate runs: try a stronger generator, more queries or more answer_tokens")
    return "\n".join(lines)


def _write(name: str, content: dict) -> Path:
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / name
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"all candidates are in {path}")
    return path
