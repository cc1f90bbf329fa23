"""How far long work is: one line that moves where lines can, a line a minute in a log, and only on stderr."""

import io
import sys

import pytest

from prefcore.engine import progress


class Terminal(io.StringIO):
    """Takes all that is written, as a terminal does."""

    def isatty(self):
        return True


Kernel = type("Kernel", (io.StringIO,), {"__module__": "ipykernel.iostream"})  # stderr in a notebook


def seen(text):
    """What a reader sees in turn: each state of a moving line, without the codes that move it."""
    return [state.replace("\033[K", "").strip() for state in text.removesuffix("\r").split("\r")[1:]]


@pytest.fixture
def clock(monkeypatch):
    """clock(n) lets n seconds pass between any two looks at the time."""

    def each(seconds):
        times = iter(range(0, 10**6, seconds))
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))

    return each


# --- a log ------------------------------------------------------------------------------------------------------


def test_all_items_pass_and_a_log_gets_a_line_a_minute_with_the_time_still_to_go(clock, capsys):
    clock(30)  # seconds an item
    assert list(progress.track("abcdefgh", "sampling")) == list("abcdefgh")
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "sampling: 2/8, about 3 min to go", "sampling: 4/8, about 2 min to go",
        "sampling: 6/8, about 60 s to go", "sampling: 8/8, about 0 s to go",
    ]  # fmt: skip


def test_short_work_says_nothing_in_a_log(capsys):
    assert list(progress.track(iter("ab"), "scoring", total=2)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


# --- a line that moves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [Terminal, Kernel])
def test_where_lines_can_move_one_stands_there_from_the_start_and_goes_when_the_work_is_done(
    stream, clock, monkeypatch
):
    monkeypatch.setattr(sys, "stderr", stream())
    clock(5)
    assert list(progress.track("ab", "scoring")) == ["a", "b"]
    assert "\n" not in sys.stderr.getvalue()
    assert seen(sys.stderr.getvalue()) == [
        "scoring: 0/2", "scoring: 1/2, about 5 s to go", "scoring: 2/2, about 0 s to go", "",
    ]  # fmt: skip


def test_quick_steps_move_the_line_once_a_second(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "MOVE", 10)
    clock(1)
    list(progress.track(range(35), "dpo"))
    assert [state.split(",")[0] for state in seen(sys.stderr.getvalue())] == [
        "dpo: 0/35", "dpo: 10/35", "dpo: 20/35", "dpo: 30/35", "",
    ]  # fmt: skip


def test_work_that_breaks_off_takes_its_line_away(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    work = progress.track("ab", "scoring")
    next(work)
    work.close()
    assert seen(sys.stderr.getvalue()) == ["scoring: 0/2", ""]


# --- from a kernel's stderr to ours -----------------------------------------------------------------------------


def test_a_kernels_moving_line_is_a_line_a_minute_in_a_log_and_other_lines_pass(clock, capsys):
    clock(1)
    relay = progress.Relay()
    for step in range(150):
        relay.write(f"\rdpo: {step}/150   ")
    relay.write("\r        \ra warning\nits second line\n\r        \r")
    relay.write("a third\n")
    assert capsys.readouterr().err.splitlines() == [
        "dpo: 59/150", "dpo: 119/150", "a warning", "its second line", "a third",
    ]  # fmt: skip


def test_a_kernels_line_moves_on_a_terminal_and_makes_room_for_others(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    relay = progress.Relay()
    relay.write("\rdpo: 1/2")
    relay.write("\rdpo: 2/2")
    relay.write("a warning\n")
    assert sys.stderr.getvalue() == "\r\033[Kdpo: 1/2\r\033[Kdpo: 2/2\r\033[Ka warning\n"
    relay.write("\rodpo: 1/2")
    relay.stop()
    assert sys.stderr.getvalue().endswith("\r\033[Kodpo: 1/2\r\033[K")
