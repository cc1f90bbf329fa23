"""Names from debug information: right places, and no name where the place does not tell."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from prefcore.methods.gennm.world import dwarf
from prefcore.methods.gennm.world.dwarf import BinaryError, Function, Spot, Variable

PROGRAMS = Path(__file__).parent / "programs"
# What a reader of ledger.c and of the decompiled text knows without debug information: each constant names a variable.
MARKS = {
    "classify": {r"(\w+) = 1001;": "verdict", r"if \((\w+) > 1002\)": "distance", r"if \((\w+) <= 1003\)": "amount",
                 r" = \w+ - (\w+);": "threshold"},
    "settle": {r"(\w+) = 2001;": "total", r"(\w+) \* 2002": "bonus", r"(\w+)->field_8": "cursor",
               r"(\w+) \+= 1\)": "step", r" < (\w+);": "rounds", r"for \(\w+ = (\w+); \w+; ": "first"},
    "open_account": {r"(\w+)->field_8 = 3001": "fresh", r"field_0 = (\w+);": "number", r"field_10 = (\w+);": "tail"},
    "mixed": {r"(\w+) = \w+ \* 4002": "doubled", r"(\w+) \* 4002": "extra", r"MulV\((\w+), ": "count"},
    "scopes": {r"(\w+) = 5001;": "outcome", r"(\w+) \* 5003": "selector", r"(\w+) = \w+ \* 5003": "inner",
               r"(\w+) = \w+ \* 5004": "other"},
    "fill": {r"for \((\w+) = 0;": "place"},
    "parse_number": {r"(\w+) \* 10": "value", r"\*\((\w+)\) - 48": "text", r"(\w+) = \*\(\w+\) - 48": "digit",
                     r" > (\w+)\)\s+return -7002": "limit"},
    "delegate": {r"\((\w+), 8001\)": "clean"},
}  # fmt: skip


def decompiled(level):
    """[(text, aligned names, true function)] of the hand-made library at an optimisation level."""
    truth = {f.low: f for f in dwarf.functions(PROGRAMS / f"ledger.{level}.so")}
    lines = [json.loads(line) for line in (PROGRAMS / f"ledger.{level}.jsonl").read_text().splitlines()[1:]]
    return [(line["code"], dwarf.align(line["variables"], truth[line["address"]]), truth[line["address"]])
            for line in lines if line["address"] in truth]  # fmt: skip


def test_every_variable_of_hand_made_c_that_its_constant_gives_away_gets_its_true_name():
    checked = 0
    for code, names, function in decompiled("O0"):
        for pattern, true in MARKS[function.name].items():
            found = re.search(pattern, code)
            assert found, (function.name, pattern)
            assert names[found[1]] == true, (function.name, pattern)
            checked += 1
    assert checked == sum(map(len, MARKS.values())) == 26


def test_no_variable_of_hand_made_c_gets_a_name_of_another_function():
    for level in ("O0", "O2"):
        found = decompiled(level)
        assert len(found) >= 6
        for _, names, function in found:
            assert set(names.values()) <= {v.name for v in (*function.parameters, *function.locals)}


def test_with_optimisation_location_lists_name_arguments_and_registers():
    """parse_number at -O2: the digit lives in eax while it is compared, the text in rdi, the limit in esi."""
    names = {function.name: names for _, names, function in decompiled("O2")}
    assert names["parse_number"] == {"cur": "text", "a1": "limit", "v3": "digit"}
    assert names["delegate"] == {"a0": "source", "a1": "bound"}
    assert names["settle"]["a2"] == "bonus"


def test_a_function_that_returns_a_struct_through_memory_has_no_arguments_by_position():
    """fill(seed, gap) takes a hidden pointer in rdi: the first argument is not `seed`."""
    (names,) = [names for _, names, function in decompiled("O0") if function.name == "fill"]
    assert not {"a1", "a2", "ptr"} & set(names)


def variable(name, kind="integer", *spots):
    return Variable(name, kind, spots)


def stack(offset):
    return Spot(0, 100, offset, None)


def argument(register, id="a0"):
    return {"id": id, "kind": "argument", "stack": None, "register": register}


def test_floats_take_no_integer_register_and_a_struct_ends_the_counting():
    taken = tuple(variable(name, kind, stack(-8 * i)) for i, (name, kind) in enumerate(
        (("x", "float"), ("n", "integer"), ("s", "memory"), ("m", "integer")), start=1))  # fmt: skip
    f = Function("f", 0, 100, "integer", taken, ())
    assert dwarf.align([argument("rdi"), argument("rsi", "a1")], f) == {"a0": "n"}


def test_two_names_for_one_place_give_none_and_the_same_name_twice_gives_it():
    at = {"id": "v0", "kind": "stack", "stack": -12, "register": None}
    inside = tuple(variable(name, "integer", stack(-12)) for name in "ab")
    two = Function("f", 0, 100, "integer", (), inside)
    assert dwarf.align([at], two) == {}
    assert dwarf.align([at], two._replace(locals=two.locals[:1] * 2)) == {"v0": "a"}
    assert dwarf.align([at | {"stack": -16}], two) == {}


def test_a_register_that_holds_different_variables_at_its_uses_gives_no_name():
    f = Function("f", 0, 100, "integer", (), (variable("a", "integer", Spot(0, 50, None, "rax")),
                                              variable("b", "integer", Spot(50, 100, None, "rax"))))  # fmt: skip
    used = {"id": "v0", "kind": "register", "stack": None, "register": "rax"}
    assert dwarf.align([used | {"at": [10, 20]}], f) == {"v0": "a"}
    assert dwarf.align([used | {"at": [10, 60]}], f) == {}
    assert dwarf.align([used | {"at": []}], f) == {}


def test_what_is_no_binary_of_ours_is_said_in_one_line(tmp_path):
    whole = (PROGRAMS / "ledger.O0.so").read_bytes()
    arm = bytearray(whole)
    arm[18:20] = (183).to_bytes(2, "little")  # e_machine: AArch64
    cases = {"text": b"int main;", "empty": b"", "head": whole[:40], "cut": whole[:6000], "arm": bytes(arm)}
    says = dict.fromkeys(cases, "not a readable ELF") | {"cut": "not a readable ELF|is cut off",
                                                         "arm": "is for AArch64; only x86-64"}  # fmt: skip
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BinaryError, match=says[name]) as caught:
            dwarf.check_elf(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BinaryError, match="no such file"):
        dwarf.check_elf(tmp_path / "absent")
    dwarf.check_elf(PROGRAMS / "ledger.O0.so")


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not here")
def test_what_gcc_makes_here_is_read_and_a_stripped_copy_has_nothing_to_read(tmp_path):
    (tmp_path / "a.c").write_text("int twice(int number) { int doubled = number * 2; return doubled; }\n")
    subprocess.run(["gcc", "-O0", "-g", "-fPIC", "-shared", "-o", "a.so", "a.c"], cwd=tmp_path, check=True)
    (function,) = dwarf.functions(tmp_path / "a.so")
    assert function.name == "twice" and [v.name for v in function.locals] == ["doubled"]
    assert [v.name for v in function.parameters] == ["number"] and function.low < function.high
    subprocess.run(["strip", "--strip-all", "a.so"], cwd=tmp_path, check=True)
    with pytest.raises(BinaryError, match="no debug information"):
        dwarf.functions(tmp_path / "a.so")
    subprocess.run(["gcc", "-c", "-o", "a.o", "a.c"], cwd=tmp_path, check=True)
    with pytest.raises(BinaryError, match="no code to run"):
        dwarf.check_elf(tmp_path / "a.o")
