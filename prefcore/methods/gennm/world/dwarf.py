"""Names of functions and variables from a binary's debug information, and which decompiled variable each belongs to.

A decompiler sees a stripped copy: registers and places on the stack. The debug copy of the same binary says which name
lived there. Offsets count from the stack pointer at entry, where the return address lies: DWARF's frame base (the
canonical frame address) is 8 bytes above it on x86-64, so a variable at `DW_OP_fbreg n` is at n + 8.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.locationlists import LocationEntry, LocationParser
from elftools.elf.elffile import ELFFile

RETURN_ADDRESS = 8  # bytes between the frame base and the stack pointer at entry
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")  # of integers and pointers, System V ABI for x86-64
REGISTERS = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)))  # DWARF's order
THROUGH = {"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type", "DW_TAG_atomic_type"}


class BinaryError(ValueError):
    """A file that is no binary of the kind that we read. One line: file, what is wrong, what to do."""


class Spot(NamedTuple):
    """Where a variable is while the program counter is in [low, high): `stack` bytes from entry, or in a register."""

    low: int
    high: int
    stack: int | None
    register: str | None


class Variable(NamedTuple):
    """A name; `kind` is how it is passed: integer (also pointers), float, or memory (structs and unions)."""

    name: str
    kind: str
    spots: tuple[Spot, ...]


class Function(NamedTuple):
    """A function with its addresses in the file, parameters in order, and locals (without those of inlined calls)."""

    name: str
    low: int
    high: int
    returns: str
    parameters: tuple[Variable, ...]
    locals: tuple[Variable, ...]


def check_elf(path: str | Path) -> None:
    """Raise BinaryError unless the file is a whole ELF binary for x86-64 with code in it."""
    path = Path(path)
    if not path.is_file():
        raise BinaryError(f"{path}: no such file; check the path")
    with path.open("rb") as raw:
        if raw.read(24) == b"version https://git-lfs.":
            raise BinaryError(f"{path}: is a pointer of Git LFS, and the file itself is not here; call `git lfs pull`")
    try:
        with path.open("rb") as raw:
            elf = ELFFile(raw)
            machine, size = elf.get_machine_arch(), path.stat().st_size
            segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
            code = [s for s in segments if s["p_flags"] & 1]
            torn = any(s["p_offset"] + s["p_filesz"] > size for s in segments)
    except (ELFError, ValueError, KeyError, TypeError, AttributeError, OSError, UnicodeDecodeError) as error:
        raise BinaryError(f"{path}: not a readable ELF file ({' '.join(str(error).split()) or 'damaged'})") from None
    if machine != "x64":
        raise BinaryError(f"{path}: is for {machine}; only x86-64 is read here")
    if torn:
        raise BinaryError(f"{path}: is cut off: its segments reach beyond its {size} bytes; fetch it again")
    if not code:
        raise BinaryError(f"{path}: holds no code to run (an object file?); link it first")


def functions(path: str | Path) -> list[Function]:
    """All functions of a binary with debug information, by address. Raises BinaryError where it has none."""
    with Path(path).open("rb") as raw:
        elf = ELFFile(raw)
        if not elf.has_dwarf_info(strict=True):
            raise BinaryError(f"{path}: has no debug information; compile it with -g")
        info = elf.get_dwarf_info()
        lists = info.location_lists()
        out = []
        for unit in info.iter_CUs():
            reader = _Reader(unit, LocationParser(lists), DWARFExprParser(unit.structs))
            out += [reader.function(die) for die in unit.iter_DIEs() if _has_code(die)]
    return sorted((f for f in out if f), key=lambda f: f.low)


def _has_code(die) -> bool:
    return die.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in die.attributes


class _Reader(NamedTuple):
    """What reading one compilation unit needs."""

    unit: object
    locations: LocationParser
    expressions: DWARFExprParser

    def function(self, die) -> Function | None:
        name = _name(die)
        if not name or not self._frame_is_canonical(die):
            return None
        low, high = die.attributes["DW_AT_low_pc"].value, die.attributes["DW_AT_high_pc"]
        high = high.value if high.form == "DW_FORM_addr" else low + high.value
        parameters = [self._variable(c, low, high) for c in die.iter_children() if c.tag == "DW_TAG_formal_parameter"]
        inside = [self._variable(child, low, high) for child in _locals(die)]
        returned = _type(_origin(die))
        return Function(name, low, high, _kind(returned) if returned else "nothing",
                        tuple(v for v in parameters if v), tuple(v for v in inside if v))  # fmt: skip

    def _frame_is_canonical(self, die) -> bool:
        base = die.attributes.get("DW_AT_frame_base")
        return base is not None and [op.op_name for op in self._parse(base.value)] == ["DW_OP_call_frame_cfa"]

    def _parse(self, raw) -> list:
        try:
            return self.expressions.parse_expr(raw)
        except (DWARFError, KeyError, ValueError):
            return []

    def _variable(self, die, low: int, high: int) -> Variable | None:
        name, kind = _name(die), _type(_origin(die))
        return Variable(name, _kind(kind) if kind else "memory", tuple(self._spots(die, low, high))) if name else None

    def _spots(self, die, low: int, high: int) -> Iterator[Spot]:
        where = die.attributes.get("DW_AT_location")
        if where is None or not self.locations.attribute_has_location(where, self.unit["version"]):
            return
        found = self.locations.parse_from_attribute(where, self.unit["version"], die)
        base = self.unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        for entry in found if isinstance(found, list) else [found]:
            if isinstance(entry, LocationEntry):
                shift = 0 if entry.is_absolute or base is None else base.value
                spot = self._spot(entry.loc_expr, entry.begin_offset + shift, entry.end_offset + shift)
            elif hasattr(entry, "loc_expr"):
                spot = self._spot(entry.loc_expr, low, high)
            else:
                base, spot = _base(entry, base), None
            if spot:
                yield spot

    def _spot(self, expression, low: int, high: int) -> Spot | None:
        operations = self._parse(expression)
        if len(operations) != 1:  # a computed value, or in pieces
            return None
        name = operations[0].op_name
        if name == "DW_OP_fbreg":
            return Spot(low, high, operations[0].args[0] + RETURN_ADDRESS, None)
        number = name.removeprefix("DW_OP_reg")
        if number.isdigit() and int(number) < len(REGISTERS):
            return Spot(low, high, None, REGISTERS[int(number)])
        return None


class _Base(NamedTuple):
    value: int


def _base(entry, base):
    """The base address from here on, in a location list that sets a new one."""
    return _Base(entry.base_address) if hasattr(entry, "base_address") else base


def _origin(die):
    """The declaration that a concrete instance stands for, or the entry itself."""
    for _ in range(4):
        for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
            if link in die.attributes:
                die = die.get_DIE_from_attribute(link)
                break
        else:
            return die
    return die


def _name(die) -> str:
    name = _origin(die).attributes.get("DW_AT_name")
    return name.value.decode("utf-8", "replace") if name else ""


def _type(die):
    """The type behind typedefs and qualifiers, or None."""
    while "DW_AT_type" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in THROUGH:
            return die
    return None


def _kind(kind) -> str:
    if kind.tag in ("DW_TAG_pointer_type", "DW_TAG_enumeration_type", "DW_TAG_array_type"):
        return "integer"
    if kind.tag == "DW_TAG_base_type":
        floats = kind.attributes["DW_AT_encoding"].value in (3, 4)  # complex float, float
        small = kind.attributes["DW_AT_byte_size"].value <= 8
        return ("float" if small else "memory") if floats else ("integer" if small else "memory")
    return "memory"


def _locals(die) -> Iterator:
    for child in die.iter_children():
        if child.tag == "DW_TAG_variable":
            yield child
        elif child.tag == "DW_TAG_lexical_block":
            yield from _locals(child)


def align(variables: Sequence[Mapping], truth: Function) -> dict[str, str]:
    """Decompiled name -> true name, for those variables of one function whose place tells which one they are.

    variables: `id` (the name in the decompiled text) with `stack` (bytes from entry), or with `register` where it is an
    argument, or with `register` and `at` (addresses of instructions that use it). A place where variables of different
    names live one after the other says nothing, and gives no name.
    """
    entry, stack = _entry_registers(truth), _stack(truth)
    found = {}
    for variable in variables:
        if variable["kind"] == "argument" and variable["register"]:
            names = {entry[variable["register"]]} if variable["register"] in entry else set()
        elif variable["kind"] == "stack" or variable.get("stack") is not None:
            names = stack.get(variable["stack"], set())
        else:
            names = _in_register(truth, variable["register"], variable.get("at", ()))
        if len(names) == 1:
            found[variable["id"]] = names.pop()
    return found


def _stack(truth: Function) -> dict[int, set[str]]:
    places: dict[int, set[str]] = {}
    for variable in (*truth.parameters, *truth.locals):
        for spot in variable.spots:
            if spot.stack is not None:
                places.setdefault(spot.stack, set()).add(variable.name)
    return places


def _entry_registers(truth: Function) -> dict[str, str]:
    """Argument register -> parameter: as location lists tell at entry, else by position and the calling convention."""
    told = {spot.register: v.name for v in truth.parameters for spot in v.spots if spot.low <= truth.low < spot.high
            and spot.register in ARGUMENTS}  # fmt: skip
    if told or truth.returns == "memory":  # a struct may be returned through a hidden first argument
        return told
    if any(spot.register or (spot.low, spot.high) != (truth.low, truth.high)
           for v in truth.parameters for spot in v.spots):  # optimised, and not told: it may be a clone with others
        return {}
    positions, free = {}, iter(ARGUMENTS)
    for parameter in truth.parameters:
        if parameter.kind == "memory":
            break  # it takes no, one or two registers
        if parameter.kind == "integer":
            positions[next(free, "")] = parameter.name
    positions.pop("", None)
    return positions


def _in_register(truth: Function, register: str | None, at: Sequence[int]) -> set[str]:
    """Variables that are in the register at all of these instructions (just after one that writes it)."""
    names = [
        {v.name for v in (*truth.parameters, *truth.locals) for s in v.spots
         if s.register == register and s.low <= address < s.high}
        for address in at
    ]  # fmt: skip
    return set.intersection(*names) if names else set()
