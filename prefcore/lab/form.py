"""The form of a committed chapter: short cells after prose, one meaning a name, nothing of one machine."""

import ast
import io
import re
import symtable
import tokenize
from pathlib import Path

from nbformat import NotebookNode

from prefcore.lab.notebooks import cleaned, headings, read
from prefcore.lab.parameters import PAGES, is_parameters

HEADINGS = (
    "Method and claim", "Parameters", "The data", "The objective", "Training", "Evaluation", "What it says", "Save",
)  # fmt: skip
CELL_LINES, FUNCTION_LINES, COLUMNS = 25, 12, 120
REBOUND = {"fig", "ax", "axes", "_"}  # names that every figure binds anew
NETWORK_MODULES = {"aiohttp", "ftplib", "http", "httpx", "requests", "socket", "urllib", "urllib3"}
_URL = re.compile(r"\b(?:https?|ftp|ssh|git|s3|gs)://")
_HOME = re.compile(r"(?<![\w./])/(?:home|root|Users|tmp|mnt)/|\b[A-Z]:\\")
_ABSOLUTE = re.compile(r"/[\w.]|~[/\\]|[A-Za-z]:[\\/]")


def check(path: str | Path) -> list[str]:
    """What is wrong with the form of a committed notebook, one sentence each; empty if nothing is."""
    nb, path = read(path), Path(path)
    problems = []
    if path.read_text(encoding="utf-8") != cleaned(path):
        problems.append("is not as clean() writes it (outputs, counts, ids or metadata); clean it")
    kernel = nb.metadata.get("kernelspec", {})
    if (kernel.get("name"), kernel.get("language")) != ("python3", "python"):
        problems.append(f"its kernelspec is {dict(kernel)}; name must be python3 and language python")
    found = [h for cell in nb.cells for h in headings(cell)]
    if path.stem not in PAGES and found != list(HEADINGS):
        problems.append(f"its headings are {found}; they must be {list(HEADINGS)}")
    if sum(is_parameters(cell) for cell in nb.cells) != 1:
        problems.append('must have one cell tagged "parameters"')
    for index, cell in enumerate(nb.cells):
        found = _HOME.findall(cell.source)
        problems += [f"cell {index} names an absolute path ({text})" for text in found]
        if cell.cell_type == "code":
            if index == 0 or nb.cells[index - 1].cell_type != "markdown":
                problems.append(f"cell {index} is code without markdown before it")
            problems += [f"cell {index} {problem}" for problem in _code_problems(cell)]
    problems += _name_problems(nb)
    return [f"{path.name}: {problem}" for problem in problems]


def _code_problems(cell: NotebookNode) -> list[str]:
    problems = ["has outputs"] if cell.outputs else []
    problems += ["has an execution count"] if cell.execution_count is not None else []
    lines = len(cell.source.splitlines())
    if lines > CELL_LINES and not is_parameters(cell):  # there, one parameter a line decides
        problems.append(f"has {lines} lines; at most {CELL_LINES}")
    if wide := [line for line in cell.source.splitlines() if len(line) > COLUMNS] if not is_parameters(cell) else []:
        problems.append(f"has a line of {len(wide[0])} columns; at most {COLUMNS}: {wide[0][:60]!r}")
    problems += [f"names a network address ({url})" for url in _URL.findall(cell.source)]
    if is_parameters(cell):
        problems += _parameter_problems(cell.source)
    try:
        tree = ast.parse(cell.source)
    except SyntaxError as error:
        return [*problems, f"is not plain Python: line {error.lineno}: {error.msg}"]
    inner = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            problems.append(f"defines the class {node.name}; move it to prefcore")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES:
                problems.append(f"defines {node.name} in {length} lines; at most {FUNCTION_LINES}, else in prefcore")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            problems += [f"imports {name}, a network module" for name in names if name.split(".")[0] in NETWORK_MODULES]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            if _ABSOLUTE.match(node.value):
                problems.append(f"names an absolute path ({node.value})")
    return problems


def _name_problems(nb: NotebookNode) -> list[str]:
    """Names with two meanings: a parameter that is read or bound outside its cell, a name that two cells bind."""
    known: dict[str, str] = {}
    problems, ours = [], set()
    for index, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        try:
            table, tree = symtable.symtable(cell.source, "cell", "exec"), ast.parse(cell.source)
        except SyntaxError:
            continue
        bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
        loops = {name.id for node in ast.walk(tree) if isinstance(node, ast.For) for name in ast.walk(node.target)
                 if isinstance(name, ast.Name)}  # fmt: skip
        added = {node.target.id for node in ast.walk(tree)
                 if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)}  # fmt: skip
        if is_parameters(cell):
            ours = bound
            continue
        used = {s.get_name() for s in _tables(table) if s.is_referenced() and s.is_global()}
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced()}
        if bare := sorted((used | bound) & ours):
            problems.append(f"cell {index} uses {', '.join(bare)} by name; read p.{bare[0]}, and bind another name")
        for name in sorted(bound - REBOUND - added):
            kind = "loop" if name in loops else f"cell {index}"
            if name in known and {known[name], kind} != {"loop"}:
                problems.append(f"cell {index} binds {name}, which {known[name]} has bound before")
            known.setdefault(name, kind)
    return problems


def _tables(table: symtable.SymbolTable) -> list[symtable.Symbol]:
    """All symbols of the functions and comprehensions inside."""
    return [symbol for child in table.get_children() for symbol in [*child.get_symbols(), *_tables(child)]]


def _parameter_problems(source: str) -> list[str]:
    problems = []
    for line in source.splitlines():
        try:
            (node,) = ast.parse(line).body
            ast.literal_eval(node.value)
            tokens = list(tokenize.generate_tokens(io.StringIO(line).readline))
            comments = [t.string.strip("# ") for t in tokens if t.type == tokenize.COMMENT]
            good = isinstance(node, ast.Assign) and any(comments)
        except (SyntaxError, ValueError, AttributeError, tokenize.TokenError):
            good = False
        if not good:
            problems.append(f"has the line {line!r}; each must be `name = literal  # comment`")
        elif line.count("=") > 1:  # papermill counts them, and takes the parameter for an unknown one
            problems.append(f"has a second = in the line {line!r}; write it in words")
    return problems
