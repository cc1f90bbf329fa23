"""Candidates for the embedded world's questions, written once and kept in git: candidates/world.jsonl.gz.

    python -m prefcore stage methods.chase_sql.world.written.write --profile study

No stage of the pipeline makes them; quick and study read the file. `write` asks the language model that `sql_writer`
names. Its answers are kept as they come (scoring/llm.py), so that an interrupted run goes on where it was.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.methods.chase_sql import candidates, database, evidence, system, writing
from prefcore.methods.chase_sql.candidates import Question
from prefcore.methods.chase_sql.world import databases
from prefcore.scoring import llm


def write(p: Parameters, build: Path) -> None:
    """Three strategies × `sql_draws` for every question, one greedy answer with and one without values, and a hinted
    one where none of them is right. ValueError without `sql_writer`."""
    if not p.sql_writer:
        raise ValueError("sql_writer names no model: set it to a hub id, a folder, or address#model")
    model = llm.open_model(p.sql_writer, p._replace(dtype=p.sql_dtype))
    tokenizer, encoder = models.load_encoder(p.encoder, device=str(models.choose_device(p.device, p.threads)))
    embed = partial(models.embed, encoder=encoder, tokenizer=tokenizer)
    draws = {"samples": p.sql_draws, "temperature": p.sql_temperature, "attempts": p.sql_attempts,
             "max_tokens": p.sql_answer_tokens, "seed": p.seed}  # fmt: skip
    questions = read_questions(build, p.sql_written)
    with ExitStack() as stack:
        opened = {name: system.open_database(candidates.database_path(build / "sql_world" / "database", name))
                  for name in dict.fromkeys(question.db_id for question in questions)}  # fmt: skip
        for one in opened.values():
            stack.enter_context(closing(one.connection))
        done = with_candidates(questions, opened, model, embed, draws)
    about = {
        "model": p.sql_writer_name or p.sql_writer,
        "questions of each database": p.sql_written,
        **draws,
        "command": f"python -m prefcore stage methods.chase_sql.world.written.write --profile {p.profile}",
    }
    candidates.write(Path(evidence.CANDIDATES), done, about)


def with_candidates(
    questions: Sequence[Question], opened: Mapping[str, system.Opened], model: llm.LanguageModel, embed, draws: Mapping
) -> list[Question]:
    """The questions with their candidates; what is drawn for all of them is asked for together, as one row more costs a
    local model little."""
    problems = [problem for name, one in opened.items()
                for problem in system.pose(one, [q for q in questions if q.db_id == name], embed, model)]  # fmt: skip
    asked = {(question.db_id, question.id): question for question in questions}
    questions = [asked[problem.db_id, problem.id] for problem in problems]
    connections = {name: one.connection for name, one in opened.items()}
    tokens = draws["max_tokens"]
    drawn = writing.write(problems, model, connections, **draws)
    single = writing.greedy(problems, model, evidence.GREEDY, max_tokens=tokens)
    blind = writing.greedy([one._replace(values=()) for one in problems], model, evidence.BLIND, max_tokens=tokens)
    needy = [i for i, question in enumerate(questions) if not _any_right(question, drawn[i], connections)]
    hints = writing.hinted([problems[i] for i in needy], [questions[i].gold for i in needy], model, max_tokens=tokens)
    told = dict(zip(needy, hints, strict=True))
    return [system.with_candidates(question, [*drawn[i], single[i], blind[i], *([told[i]] if i in told else [])])
            for i, question in enumerate(questions)]  # fmt: skip


def _any_right(question: Question, drawn: Sequence[candidates.Candidate], connections: Mapping) -> bool:
    connection = connections[question.db_id]
    gold = database.execute(connection, question.gold)
    return any(database.same(database.execute(connection, one.sql), gold) for one in drawn)


def read_questions(build: Path, most: int) -> list[Question]:
    """The world's questions without candidates, the first `most` of each database."""
    rows = candidates.first_of_each(databases.read_questions(build / "sql_world" / "questions.jsonl"), most)
    return [Question(row.id, row.db_id, row.question, row.gold) for row in rows]
