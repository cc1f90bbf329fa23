"""The fixer: a query that fails or gives nothing is repaired until it gives rows, and else stays."""

import pytest

from prefcore.methods.chase_sql import fixer
from prefcore.methods.chase_sql.database import Result

OUTCOMES = {"bad": Result((), (), "invalid SQL", "no"), "empty": Result(("a",), ()), "good": Result(("a",), ((1,),)),
            "empty2": Result(("a",), ())}  # fmt: skip


def repaired(start, answers, attempts=3):
    asked = []

    def rewrite(places, failed, outcomes, attempt):
        asked.append((attempt, tuple(failed), tuple(outcomes)))
        return [answers[attempt]] * len(places)

    (fixed,) = fixer.fix([start], lambda i, text: OUTCOMES[text], rewrite, lambda r: r.error or "no rows", attempts)
    return fixed, asked


@pytest.mark.parametrize(("start", "answers", "end", "attempts"), [
    ("good", [], "good", 0),
    ("bad", ["good"], "good", 1),
    ("empty", ["bad", "good"], "good", 2),
    ("bad", ["empty", "good"], "good", 2),
    ("bad", ["bad", "bad", "bad"], "bad", 3),
    ("empty", ["bad", "empty2", "bad"], "empty", 3),  # an empty answer may be right: it stays
    ("bad", ["empty", "bad", "bad"], "empty", 3),
    ("bad", ["", "", "good"], "good", 3),  # an answer without SQL
])  # fmt: skip
def test_a_query_is_repaired_until_it_gives_rows_and_else_stays(start, answers, end, attempts):
    fixed, asked = repaired(start, answers)
    assert (fixed.sql, fixed.attempts) == (end, attempts) and len(asked) == attempts


def test_at_most_three_repairs_are_asked_for_and_none_where_none_are_allowed():
    assert fixer.ATTEMPTS == 3 and len(repaired("bad", ["bad"] * 9, attempts=3)[1]) == 3
    assert repaired("bad", ["good"], attempts=0)[0] == fixer.Fixed("bad", 0)


def test_a_repair_sees_what_came_of_the_query_it_repairs():
    _, asked = repaired("bad", ["empty", "good"])
    assert asked == [(0, ("bad",), ("invalid SQL",)), (1, ("empty",), ("no rows",))]
