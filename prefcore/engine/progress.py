"""How far a long piece of work is and how long it will still take, on stderr.

On a terminal and in a notebook that is one line that moves, in a log a line a minute. Our runner passes on what a
kernel says there (`Relay`), and keeps it, with its timings, out of the executed notebook.
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator

MOVE, LOG = 1, 60  # seconds between two states of a line that moves, and between two lines of a log
WIDTH = 60  # columns that a moving line overwrites in a notebook, which knows no code that erases a line


def track(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """The items one by one; now and then the share done and the time still to go."""
    total = len(items) if total is None else total
    moves = _in_terminal() or _in_notebook()
    start = last = time.monotonic()
    try:
        if moves:
            show(f"{label}: 0/{total}")
        for i, item in enumerate(items):
            yield item
            now = time.monotonic()
            if now - last >= (MOVE if moves else LOG):
                left = (now - start) / (i + 1) * (total - i - 1)
                show(f"{label}: {i + 1}/{total}, about {_duration(left)} to go")
                last = now
    finally:
        if moves:
            show("")


def show(line: str) -> None:
    """One line of progress; where lines can move, it takes the place of the one before."""
    if _in_notebook():
        sys.stderr.write(f"\r{line:<{WIDTH}}" + "\r" * (not line))  # the kernel sends it on by itself
        return
    sys.stderr.write(f"\r\033[K{line}" if _in_terminal() else line + "\n")
    sys.stderr.flush()


class Relay:
    """The file to which a kernel's stderr goes on its way to ours.

    Lines pass. One that moves (a carriage return before it, no newline after it) moves on a terminal, and in a log is
    said once a minute.
    """

    def __init__(self):
        self.last, self.moving = time.monotonic(), False

    def write(self, text: str) -> None:
        """Pass the text on."""
        for piece in re.findall(r"\r?[^\r\n]*\n?", text)[:-1]:  # the last one is empty
            line = piece.strip()
            if not piece.startswith("\r") or piece.endswith("\n"):
                self.stop()
                sys.stderr.write(piece.lstrip("\r"))
            elif _in_terminal():
                show(line)
                self.moving = bool(line)
            elif line and (now := time.monotonic()) - self.last >= LOG:
                show(line)
                self.last = now

    def flush(self) -> None:
        """As a file does."""
        sys.stderr.flush()

    def stop(self) -> None:
        """Take away a line that still stands there, as after an error."""
        if self.moving:
            show("")
            self.moving = False


def _in_terminal() -> bool:
    return sys.stderr.isatty()


def _in_notebook() -> bool:
    return type(sys.stderr).__module__.startswith("ipykernel.")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
