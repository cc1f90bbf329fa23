"""Several examples in one row of a batch: mixed lengths without much padding.

An example that begins at column c of row r is at the place (r, c). Masks and positions (engine/collate) see to it that
the others in its row do not exist for it.
"""

import heapq
import math
from collections.abc import Sequence

import torch

Place = tuple[int, int]


def share_rows(sizes: Sequence[int]) -> list[Place]:
    """A place for each of these sizes (tokens), in rows of about twice the longest, or a row each if that is less.

    Longest first, each goes to the row that is least full (Graham 1969). Longer rows would save no more padding, but
    attention grows with the square.
    """
    fewest = math.ceil(sum(sizes) / (2 * max(sizes)))
    tries = [_fill(sizes, rows) for rows in (len(sizes), fewest, fewest + 1, fewest + 2) if rows <= len(sizes)]
    return min(tries, key=lambda places: math.prod(extent(sizes, places)))


def _fill(sizes: Sequence[int], rows: int) -> list[Place]:
    filled, places = [(0, row) for row in range(rows)], {}
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        end, row = heapq.heappop(filled)
        places[i] = row, end
        heapq.heappush(filled, (end + sizes[i], row))
    return [places[i] for i in range(len(sizes))]


def extent(sizes: Sequence[int], places: Sequence[Place]) -> tuple[int, int]:
    """(rows, columns) that examples of these sizes take at these places."""
    ends = [start + length for length, (_, start) in zip(sizes, places, strict=True)]
    return 1 + max(row for row, _ in places), max(ends)


def pad_trunk(states: Sequence[torch.Tensor], places: Sequence[Place]) -> torch.Tensor:
    """The frozen layers' output of a batch's examples, [T_i, H] each, as one tensor [R, T, H], zero at the padding."""
    out = states[0].new_zeros(*extent([len(state) for state in states], places), states[0].shape[1])
    for state, (row, start) in zip(states, places, strict=True):
        out[row, start : start + len(state)] = state
    return out
