"""Your own votes: those of Chatbot Arena, or of people on statements.

    python -m prefcore run canonical_basis --data VOTES [--set extractor=ADDRESS#MODEL]

What the two kinds have in common is a basis and what it covers; own_arena.py and own_people.py say how. Neither trains
a policy: for the categories of Chatbot Arena's votes, pairs are written that `python -m prefcore run dpo` trains on.
"""

from collections.abc import Collection
from pathlib import Path

from prefcore.data import rows
from prefcore.data.rows import DataError
from prefcore.data.types import Parameters
from prefcore.methods.canonical_basis import arena, own_arena, own_people, people
from prefcore.methods.canonical_basis.arena import Arena
from prefcore.methods.canonical_basis.people import Votes


def run(data: str, p: Parameters, by_hand: Collection[str] = ()) -> Path:
    """Read, group, measure, print, write; returns the path of the metrics. by_hand is what was set, and not needed."""
    found = read(data)
    path = own_arena.measure(found, p) if isinstance(found, Arena) else own_people.measure(found, p)
    print(f"written: {path}, and what lies beside it under runs/own/canonical_basis")
    return path


def read(source: str) -> Arena | list[Votes]:
    """Chatbot Arena's votes, or the conversations of people on statements; DataError for anything else."""
    if not Path(source).is_dir():
        first = next(iter(rows.usable_rows(source)), None)
        if first is None:
            raise DataError(f"{source}: holds no row; give votes")
        if arena.is_arena(first):
            return arena.read(source)
    return people.read(source)
