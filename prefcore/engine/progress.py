"""How far a long piece of work is and how long it will still take, on stderr.

Our runner shows a notebook's stderr in the terminal and keeps it, with its timings, out of the executed notebook.
"""

import sys
import time
from collections.abc import Iterable, Iterator

EVERY = 10  # seconds between two lines


def track(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """The items one by one; now and then a line with the share done and the time still to go."""
    total = len(items) if total is None else total
    start = last = time.monotonic()
    for i, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now - last >= EVERY:
            left = (now - start) / (i + 1) * (total - i - 1)
            show(f"{label}: {i + 1}/{total}, about {left:.0f} s to go")
            last = now


def show(line: str) -> None:
    """One line of progress; on a terminal it takes the place of the one before."""
    sys.stderr.write(f"\r\033[K{line}" if sys.stderr.isatty() else line + "\n")
    sys.stderr.flush()
