"""How far a long piece of work is: said now and then on stderr, and nothing of it anywhere else."""

from prefcore.engine import progress


def test_all_items_pass_and_the_time_still_to_go_is_said(monkeypatch, capsys):
    clock = iter(range(0, 1000, 6))  # six seconds an item
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track("abcd", "sampling")) == list("abcd")
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == ["sampling: 2/4, about 12 s to go", "sampling: 4/4, about 0 s to go"]


def test_short_work_says_nothing(capsys):
    assert list(progress.track(iter("ab"), "scoring", total=2)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
