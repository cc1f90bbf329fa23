"""What is asked of the model that writes the world's candidates, and where gold is shown to it."""

from contextlib import ExitStack, closing

import pytest

from prefcore.data.types import freeze
from prefcore.methods.chase_sql import candidates, evidence, prompts, system
from prefcore.methods.chase_sql.world import databases, written
from prefcore.methods.chase_sql.writing import HINTED

DRAWS = {"samples": 2, "temperature": 1.0, "attempts": 1, "max_tokens": 64, "seed": 0}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    databases.build(freeze({"profile": "toy", "seed": 0, "sql_rows": 10, "sql_questions": 4}), folder)
    return folder


def test_of_each_database_the_first_questions_are_read(build):
    rows = written.read_questions(build, 2)
    assert len(rows) == 48 and len({row.db_id for row in rows}) == 24 and not any(row.candidates for row in rows)


def test_every_question_gets_all_kinds_of_candidates_and_gold_is_shown_only_where_none_is_right(build, embed):
    """Two databases; the model answers the first question of each with gold, all others with a query without rows."""
    rows = [row for row in written.read_questions(build, 3) if row.db_id in ("airline", "zoo")]
    known = {row.question: row.gold for row in rows[::3]}
    seen = []

    def model(requests):
        seen.extend(request.messages[-1][1] for request in requests)
        asked = (text.rpartition("Question: ")[2].split("\n")[0] for text in seen[-len(requests) :])
        return [f"{prompts.FINAL}\n```sql\n{known.get(question, 'SELECT 1 WHERE 0')}\n```" for question in asked]

    with ExitStack() as stack:
        opened = {name: system.open_database(candidates.database_path(build / "sql_world" / "database", name))
                  for name in ("airline", "zoo")}  # fmt: skip
        for one in opened.values():
            stack.enter_context(closing(one.connection))
        done = written.with_candidates(rows, opened, model, embed, DRAWS)
    assert [(row.db_id, row.id) for row in done] == [(row.db_id, row.id) for row in rows]
    kinds = [name for name in prompts.STRATEGIES for _ in range(2)] + [evidence.GREEDY, evidence.BLIND]
    for row in done:
        needs = row.question not in known
        assert [one.system for one in row.candidates] == kinds + [HINTED] * needs
    told = [text for text in seen if "A correct query is:" in text]
    assert len(told) == 4 and all(sum(row.gold in text for row in rows) == 1 for text in told)
    assert not any(row.gold in text for row in rows for text in seen if text not in told)


def test_without_a_writer_nothing_is_written(build):
    with pytest.raises(ValueError, match="sql_writer names no model"):
        written.write(freeze({"sql_writer": ""}), build)
