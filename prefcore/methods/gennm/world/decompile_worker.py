"""Decompiles one stripped binary: a script for the decompiler's own environment (`make angr`).

    python decompile_worker.py BINARY --least BYTES --most BYTES --limit FUNCTIONS --seconds BACKSTOP [--done FUNCTIONS]

Writes JSON lines: first {base, end, functions}, then for each function in order of address
{address, size, code, variables} or {address, size, error}. Addresses count from the start of the file's image.
Functions are chosen by size, never by how long they take; `seconds` is a backstop against a function on which the
decompiler hangs. The first `done` of the chosen functions are left out: a run before has printed them.
"""

import argparse
import json
import logging
import os
import signal
import sys

READS = ("read", "VariableAccessSort.READ", "1")


def main() -> int:
    """Read the command line, decompile, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    for name in ("least", "most", "limit", "seconds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--done", type=int, default=0)
    given = parser.parse_args()
    lines = os.fdopen(os.dup(1), "w")  # the libraries print too: to stderr with that
    os.dup2(2, 1)
    import angr

    logging.disable(logging.CRITICAL)
    project = angr.Project(given.binary, auto_load_libs=False)
    graph = project.analyses.CFGFast(normalize=True, data_references=True)
    project.analyses.CompleteCallingConventions(recover_variables=True)
    image = project.loader.main_object
    found = [f for f in project.kb.functions.values() if not (f.is_plt or f.is_simprocedure or f.is_alignment)]
    found = [f for f in found if image.min_addr <= f.addr <= image.max_addr]
    found.sort(key=lambda f: f.addr)
    say(lines, {"base": image.mapped_base, "end": image.max_addr, "functions": len(found)})
    chosen = [f for f in found if given.least <= f.size <= given.most][: given.limit]
    chosen = chosen[given.done :]
    signal.signal(signal.SIGALRM, stop)
    for function in chosen:
        head = {"address": function.addr - image.mapped_base, "size": function.size}
        signal.alarm(given.seconds)
        try:
            record = decompile(project, function, graph)
        except Exception as error:  # whatever the decompiler raises: this function is reported, the rest goes on
            record = {"error": f"{type(error).__name__}: {error}"[:200]}
        signal.alarm(0)
        say(lines, head | record)
    return 0


def stop(number, frame):
    """Give up on the function at hand."""
    raise TimeoutError("the decompiler took too long")


def say(lines, record: dict) -> None:
    """One line, at once: what is printed before a kill is kept."""
    lines.write(json.dumps(record) + "\n")
    lines.flush()


def decompile(project, function, graph) -> dict:
    """Text and variables of one function."""
    done = project.analyses.Decompiler(function, cfg=graph.model)
    if done.codegen is None or not done.codegen.text:
        return {"error": "the decompiler gave no text"}
    text = done.codegen
    manager = text._variable_kb.variables[function.addr]
    seen, variables = set(), []
    for argument in text.cfunc.arg_list:
        variables.append(place(project, manager, argument.name, argument.variable) | {"kind": "argument"})
        seen.add(argument.name)
    for variable, shown in text.cfunc.variables_in_use.items():
        if shown.name not in seen and not type(variable).__name__.startswith("SimMemory"):
            variables.append(place(project, manager, shown.name, variable))
            seen.add(shown.name)
    return {"code": text.text, "variables": variables}


def place(project, manager, name: str, variable) -> dict:
    """Where a variable lives: bytes from the stack pointer at entry; or a register, and instructions that read it."""
    kind, base = type(variable).__name__, project.loader.main_object.mapped_base
    if kind == "SimStackVariable":
        return {"id": name, "kind": "stack", "stack": variable.offset, "register": None, "at": []}
    register = project.arch.translate_register_name(variable.reg, 8) if kind == "SimRegisterVariable" else None
    reads = [a.location.ins_addr for a in manager.get_variable_accesses(variable) if str(a.access_type) in READS]
    at = sorted({address - base for address in reads if address})
    return {"id": name, "kind": "register", "stack": None, "register": register, "at": at}


if __name__ == "__main__":
    sys.exit(main())
