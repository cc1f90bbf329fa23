"""The query fixer: a query that fails or gives nothing is asked for again, with what came of it (section 3.4).

CHASE-SQL (arXiv 2410.01943), beta = 3. Departs from the paper: where no repair helps, the original query stays, since
an empty answer can be the right one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from prefcore.methods.chase_sql.database import Result

ATTEMPTS = 3


class Fixed(NamedTuple):
    """What a query became; attempts is how many repairs were asked for."""

    sql: str
    attempts: int


def needs_repair(result: Result) -> bool:
    """An error, or no row."""
    return bool(result.error) or not result.rows


def fix(
    queries: Sequence[str],
    run: Callable[[int, str], Result],
    rewrite: Callable,
    show: Callable[[Result], str],
    attempts: int = ATTEMPTS,
) -> list[Fixed]:
    """Repair many queries together, in rounds.

    run(i, sql) -> Result on the database of query i. rewrite(positions, failed SQL, outcomes in words, round) -> [SQL].
    A repair that gives rows ends the search. One that runs where its predecessor failed is kept, and asked to be
    repaired in turn. Where no repair is better than what it repairs, the query stays as it was.
    """
    now = list(queries)
    results = [run(i, text) for i, text in enumerate(now)]
    repairs = [0] * len(now)
    for attempt in range(attempts):
        waiting = [i for i, result in enumerate(results) if needs_repair(result)]
        if not waiting:
            break
        new = rewrite(waiting, [now[i] for i in waiting], [show(results[i]) for i in waiting], attempt)
        for i, text in zip(waiting, new, strict=True):
            repairs[i] += 1
            result = run(i, text) if text else None
            better = result and not result.error and (result.rows or results[i].error)
            if better:
                now[i], results[i] = text, result
    return [Fixed(text, count) for text, count in zip(now, repairs, strict=True)]
