"""The output contract: what its parser reads, and all that it rejects."""

import random as chance
import string

import pytest

from prefcore.methods.autoraters import answer, readout


@pytest.mark.parametrize("text, value", [
    ("<prob_rb_better>0.85</prob_rb_better>", 0.85), ("<prob_rb_better>0</prob_rb_better>", 0.0),
    ("<prob_rb_better>1</prob_rb_better>", 1.0), ("<prob_rb_better>1.000</prob_rb_better>", 1.0),
    ("\n <think>A 6, B 3 < 5</think>\n<prob_rb_better>0.10</prob_rb_better> \n", 0.1),
    ("<think></think><prob_rb_better>0.0</prob_rb_better>", 0.0),
])  # fmt: skip
def test_the_parser_reads_what_the_contract_allows(text, value):
    assert answer.parse(text) == value


@pytest.mark.parametrize("inside", [
    "", " ", "1.01", "-0.1", "+0.5", "2", "1e-1", "nan", "inf", "85%", "0.5%", "0,5", ".5", "0.", "1.", "00.5", "0.5 ",
    " 0.5", "0.5\n", "½", "٠.٥", "０.５", "0.5.5", "0x1", "0.8 or 0.9", "1.0001", "--0.5", "0_5", "0.5f",
])  # fmt: skip
def test_the_parser_rejects_what_is_no_plain_number_from_0_to_1(inside):
    assert answer.parse(f"<prob_rb_better>{inside}</prob_rb_better>") is None


@pytest.mark.parametrize("text", [
    "", "0.85", "<prob_rb_better>0.85", "0.85</prob_rb_better>", "<prob_rb_better>0.85<prob_rb_better>",
    "<PROB_RB_BETTER>0.85</PROB_RB_BETTER>", "<prob_rb_better >0.85</prob_rb_better>",
    "<prob_rb_better>0.8</prob_rb_better><prob_rb_better>0.8</prob_rb_better>",
    "So: <prob_rb_better>0.85</prob_rb_better>", "<prob_rb_better>0.85</prob_rb_better>.",
    "<think>a<prob_rb_better>0.85</prob_rb_better>", "<think>a</think>b<prob_rb_better>0.85</prob_rb_better>",
    "<think>a</think></think><prob_rb_better>0.85</prob_rb_better>", "</think><prob_rb_better>0.8</prob_rb_better>",
    "<prob_rb_better>0.85</prob_rb_better><think>a</think>", "<think>a</think>",
    "<think><prob_rb_better>0.8</prob_rb_better></think>", "<think>a<think>b</think><prob_rb_better>1</prob_rb_better>",
])  # fmt: skip
def test_the_parser_rejects_any_other_frame(text):
    assert answer.parse(text) is None


def slow_parse(text):
    """The contract read character by character, without regular expressions."""
    marks = ["<think>", "</think>", "<prob_rb_better>", "</prob_rb_better>"]
    if any(len(text.split(mark)) > 2 for mark in marks):
        return None
    text = text.strip()
    if text.startswith(marks[0]):
        end = text.find(marks[1])
        if end < 0 or text.find(marks[2]) < end:
            return None
        text = text[end + len(marks[1]):].strip()
    if not text.startswith(marks[2]) or not text.endswith(marks[3]):
        return None
    inside = text[len(marks[2]):-len(marks[3])]
    whole, point, part = inside.partition(".")
    if whole not in ("0", "1") or (point and not part) or any(c not in "0123456789" for c in part):
        return None
    return float(inside) if whole == "0" or set(part) <= {"0"} else None


PIECES = ["<think>", "</think>", "<prob_rb_better>", "</prob_rb_better>", "0", "1", ".", "5", "85", " ", "\n", "%", "-",
          "e", "nan", "x", "<", ">", "٣", "\u200b", "\x00", "<prob_rb_better", "0.85", "1.0", "\ud800"]  # fmt: skip


def test_fuzzed_texts_are_read_as_a_slow_reader_reads_them_and_never_leave_the_unit_interval():
    rng, read = chance.Random(0), 0
    for _ in range(20_000):
        if rng.random() < 0.5:
            text = "".join(rng.choices(PIECES, k=rng.randrange(8)))
        else:  # a good text with up to three characters changed, put in or left out
            text = list(answer.write(rng.random(), reasoning=rng.choice(["", "A 6, B 3"])))
            for _ in range(rng.randrange(4)):
                at = rng.randrange(len(text) + 1)
                text[at:at + rng.randrange(2)] = rng.choice([[], [rng.choice(string.printable)]])
            text = "".join(text)
        found = answer.parse(text)
        assert found == slow_parse(text), text
        assert found is None or 0 <= found <= 1
        read += found is not None
    assert read > 2_000


def test_what_is_written_is_read_back():
    for k in range(101):
        assert answer.parse(answer.write(k / 100)) == k / 100
        assert answer.parse(answer.write(k / 100, reasoning="B is warmer")) == k / 100


def test_a_long_number_or_a_long_text_takes_no_time_and_is_read_right():
    assert answer.parse("<prob_rb_better>0." + "3" * 100_000 + "</prob_rb_better>") == pytest.approx(1 / 3)
    assert answer.parse("<prob_rb_better>" * 50_000) is None
    assert answer.parse(" " * 200_000 + "<think>" + "<" * 200_000) is None


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_what_is_no_probability_is_not_written(bad):
    with pytest.raises(ValueError, match=str(bad)):
        answer.write(bad)
    with pytest.raises(ValueError, match="mark"):
        answer.write(0.5, reasoning="so </think> then")


def test_the_prompt_ends_inside_this_contract():
    assert readout.parse("85") == 0.85 and readout.parse("8 ") is None and readout.parse("") is None
