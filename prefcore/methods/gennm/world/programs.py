"""Real programs as decompiled functions with the true names of their variables: one DVC stage.

C sources of well-known libraries -> small shared libraries with gcc -> a stripped copy of each -> decompiled -> names
from the debug copy. Only C files are read from the archives, and only by gcc: nothing of an archive is executed.
"""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.engine.progress import show, track
from prefcore.methods.gennm.world import dwarf
from prefcore.methods.gennm.world.decompiler import decompile_cached

# A library of ours exports nothing, so that its functions lose their names when stripped; what the sources say about
# visibility is taken out, as the linker refuses hidden symbols of another library.
HIDE = "{ local: *; };\n"
FLAGS = ("-g", "-fPIC", "-w", "-std=gnu11", "-Dvisibility(x)=", "-D__visibility__(x)=")


CACHE = Path("build/decompiled")  # of both profiles: a stage that was killed goes on where it was


class Project(NamedTuple):
    """A C library inside a source distribution: which files are compiled, with which folders and definitions.

    Paths are below `folder`. Every licence here is permissive; NOTICE names them.
    """

    name: str
    archive: str
    folder: str
    sources: tuple[str, ...]
    includes: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


PROJECTS = (
    Project("brotli", "brotli-1.2.1", "c", ("common/*.c", "dec/*.c", "enc/*.c"), ("include",)),
    Project("cmark", "cmarkgfm-2025.10.22", "third_party/cmark", ("src/*.c", "extensions/*.c"),
            ("src", "extensions", "../../generated/unix"), (), ("src/main.c",)),
    Project("hiredis", "hiredis-3.5.0", "vendor/hiredis", ("*.c",), (), ("_GNU_SOURCE",), ("test.c", "ssl.c")),
    Project("http-parser", "httptools-0.9.0", "vendor/http-parser", ("http_parser.c", "contrib/*.c"), (".",)),
    Project("libastro", "ephem-4.2.1", "libastro", ("*.c",), (".", "..")),
    Project("libuv", "uvloop-0.23.0", "vendor/libuv", ("src/*.c", "src/unix/*.c"), ("include", "src"),
            ("_GNU_SOURCE",)),
    Project("llhttp", "httptools-0.9.0", "vendor/llhttp", ("src/*.c",), ("include",)),
    Project("lmdb", "lmdb-3.0.0", "lib", ("*.c",), (".",)),
    Project("pycryptodome", "pycryptodome-4.4.0", "src", ("*.c",), (".",),
            ("HAVE_STDINT_H", "HAVE_UINT128", "HAVE_POSIX_MEMALIGN", "PYCRYPTO_LITTLE_ENDIAN", "SYS_BITS=64",
             "LTC_NO_ASM")),
    Project("quickjs", "quickjs-1.19.4", "upstream-quickjs", ("*.c",), (),
            ("_GNU_SOURCE", "CONFIG_BIGNUM", 'CONFIG_VERSION="2020"')),
    Project("tree-sitter", "tree_sitter-0.26.1", "tree_sitter/core/lib", ("src/*.c",), ("include", "src"),
            ("_GNU_SOURCE",), ("src/lib.c", "src/wasm_store.c")),
    Project("unqlite", "unqlite-1.2.0", "src", ("*.c",), (".",)),
    Project("xxhash", "xxhash-4.1.0", "deps/xxhash", ("*.c",), (".",)),
    Project("zstd", "zstandard-0.25.0", "zstd", ("*.c",), (".",), ("ZSTD_DISABLE_ASM",)),
)  # fmt: skip


class Decompiled(NamedTuple):
    """One decompiled function. `names`: identifier in `code` -> true name; `functions`: the same for `sub_...`.

    `image` is the range of addresses of the binary, in which a number in the code may be an address.
    """

    project: str
    binary: str
    function: str
    address: int
    size: int
    code: str
    names: dict[str, str]
    functions: dict[str, str]
    image: tuple[int, int]


class ToolMissing(RuntimeError):
    """A program that this stage needs and this machine lacks."""


def prepare(p: Parameters, build: Path) -> None:
    """data/programs -> functions.jsonl and metrics/<profile>/programs.json: what was lost at which step."""
    how = p.programs
    known = {project.name: project for project in PROJECTS}
    if missing := [name for name in how["projects"] if name not in known]:
        raise ValueError(f"programs.projects: {', '.join(missing)} is not among {', '.join(known)}")
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [known[name] for name in how["projects"]]
        built, report = build_all(chosen, Path("data/programs"), Path(scratch), how, threads=p.threads)
        records, counts = recover_all(built, how, threads=p.threads)
    files.write_lines(records, build / "functions.jsonl")
    parts = projects_of(how)
    files.write_metrics({"projects": report, "steps": counts, "parts": parts, **by_project(records)}, p.profile,
                        "programs")  # fmt: skip


def projects_of(how: Mapping) -> dict[str, list[str]]:
    """The projects of each part: `test` and `validation` as named, the others teach; ValueError for strangers.

    A split by project alone shows what a name costs that the programmers of another project gave.
    """
    parts = {part: list(how[part]) for part in ("validation", "test")}
    named = parts["validation"] + parts["test"]
    if strangers := [name for name in named if name not in how["projects"] or named.count(name) > 1]:
        raise ValueError(f"programs: {', '.join(strangers)} must be in `projects`, and in `test` or `validation`, once")
    return {"train": [name for name in how["projects"] if name not in named], **parts}


def by_project(records: Sequence[Decompiled]) -> dict:
    """Binaries, functions, those of them with true names, and aligned variables of each project, -O2 apart."""
    rows = {}
    names = [record.binary.rpartition("-")[0] or record.project for record in records]  # of an -O2 library its own
    for name in sorted(set(names)):
        part = [record for record, own in zip(records, names, strict=True) if own == name]
        counts = {"functions": len(part), "with_names": sum(bool(r.names) for r in part)}
        rows[name] = {"binaries": len({r.binary for r in part}), **counts,
                      "variables": sum(len(r.names) for r in part)}  # fmt: skip
    return {"kept": rows}


def build_all(projects, archives: Path, scratch: Path, how: Mapping, *, threads: int) -> tuple[list, dict]:
    """([(project, debug copy)] in order, for each project the number of files, failures and libraries).

    All projects at -O0; those in `optimised` at -O2 too, as libraries of their own named after project.O2.
    """
    if not shutil.which("gcc") or not shutil.which("strip"):
        raise ToolMissing("programs: gcc and strip are not here; on Debian: apt-get install gcc binutils")
    out, report = [], {}
    also = [project for project in projects if project.name in how["optimised"]]
    for project, level in [*((project, "O0") for project in projects), *((project, "O2") for project in also)]:
        name = project.name if level == "O0" else f"{project.name}.{level}"
        folder = scratch / name
        unpack(archives / f"{project.archive}.tar.gz", folder / "source")
        root = folder / "source" / project.archive / project.folder
        objects, failed = compile_files(project, root, folder, level, threads)
        libraries = link(name, objects, folder, how["lines"])
        used = libraries[:: -(-len(libraries) // how["binaries"])]  # from all over the project
        out += [(project, path) for path in used]
        report[name] = {"files": len(objects), "not_compiled": failed, "linked": len(libraries), "used": len(used)}
    return out, report


def unpack(archive: Path, folder: Path) -> None:
    """C files and what they include, of a source archive; a member that leaves the folder is refused."""
    with tarfile.open(archive) as box:
        for member in box:
            path = PurePosixPath(member.name)
            if not member.isreg() or path.suffix not in (".c", ".h", ".inc", ".def", ".ipp"):
                continue
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{archive}: its member {member.name} leads out of the archive")
            target = folder.joinpath(*path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(box.extractfile(member).read())


def sources_of(project: Project, root: Path) -> list[Path]:
    """The project's C files below its folder, in order."""
    found = sorted({path for pattern in project.sources for path in root.glob(pattern)})
    return [f for f in found if not any(fnmatch(str(f.relative_to(root)), name) for name in project.without)]


def compile_files(project: Project, root: Path, folder: Path, level: str, threads: int):
    """([(object, lines of its source)], names of files that gcc refuses: those of other systems, mostly)."""
    files = sources_of(project, root)
    (folder / "objects").mkdir(parents=True)
    flags = [f"-{level}", *FLAGS, *(f"-D{d}" for d in project.defines)]
    flags += [f"-I{root / include}" for include in project.includes]

    def compile_one(numbered):
        number, source = numbered
        target = folder / "objects" / f"{number:03d}.o"
        done = subprocess.run(["gcc", *flags, "-c", str(source), "-o", str(target)], capture_output=True)
        lines = source.read_text(encoding="utf-8", errors="replace").count("\n")
        return (target, lines) if done.returncode == 0 else str(source.relative_to(root))

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(compile_one, enumerate(files)))
    return [d for d in done if isinstance(d, tuple)], [d for d in done if isinstance(d, str)]


def link(name: str, objects: Sequence[tuple[Path, int]], folder: Path, least: int) -> list[Path]:
    """Neighbouring objects as shared libraries of at least so many source lines; alone where they do not fit."""
    (folder / "hide.map").write_text(HIDE)
    groups, lines = [[]], least
    for target, size in objects:
        if lines >= least:
            groups, lines = [*groups, []], 0
        groups[-1].append(target)
        lines += size
    out = []
    for group in groups[1:]:
        together = share(group, folder / f"{name}-{group[0].stem}.so", folder)
        alone = [] if together else [share([one], folder / f"{name}-{one.stem}.so", folder) for one in group]
        out += [path for path in (together, *alone) if path]
    return out


def share(objects: Sequence[Path], target: Path, folder: Path) -> Path | None:
    """The objects as one shared library, or None where the linker refuses."""
    command = ["gcc", "-shared", "-nostartfiles", "-Wl,--build-id=none", f"-Wl,--version-script={folder / 'hide.map'}"]
    done = subprocess.run([*command, "-o", str(target), *map(str, objects)], capture_output=True)
    return target if done.returncode == 0 else None


def recover_all(built, how: Mapping, *, threads: int) -> tuple[list[Decompiled], dict]:
    """Decompiled functions with names, in order of binary and address, and how many were lost at which step."""
    stripped = []
    for _, path in built:
        stripped.append(path.with_suffix(".stripped"))
        subprocess.run(["strip", "--strip-all", "-o", str(stripped[-1]), str(path)], check=True, capture_output=True)
    limits = {"least": how["least"], "most": how["most"], "limit": how["functions"], "seconds": how["backstop"]}
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda path: decompile_cached(path, CACHE, **limits), stripped)
        results = list(track(done, "decompiling", total=len(stripped)))
    trouble = {path.stem: result.trouble for (_, path), result in zip(built, results, strict=True) if result.trouble}
    for name, what in trouble.items():
        show(f"{name}: {what}")
    counts = dict.fromkeys(("found", "of_the_size", "decompiled", "failed", "with_truth", "with_names"), 0)
    records = []
    for (project, path), result in zip(built, results, strict=True):
        found = list(with_truth(project.name, path, result))
        good = [f for f in result.functions if "code" in f]
        counts["found"] += result.found
        counts["of_the_size"] += len(result.functions)
        counts["decompiled"] += len(good)
        counts["failed"] += len(result.functions) - len(good)
        counts["with_truth"] += len(found)
        counts["with_names"] += sum(bool(record.names) for record in found)
        records += found  # those without a name give context to others
    return records, counts


def with_truth(project: str, debug: Path, result) -> Iterator[Decompiled]:
    """The decompiled functions that the debug copy knows, with aligned names."""
    truth = {function.low: function for function in dwarf.functions(debug)}
    for found in result.functions:
        known = truth.get(found["address"])
        if known is None or "code" not in found:
            continue
        inside = {f"sub_{result.base + address:x}": function.name for address, function in truth.items()}
        named = {name: inside[name] for name in re.findall(r"\bsub_[0-9a-f]+\b", found["code"]) if name in inside}
        yield Decompiled(project, debug.stem, known.name, found["address"], found["size"], found["code"],
                         dwarf.align(found["variables"], known), named, (result.base, result.end))  # fmt: skip


def read(path: Path) -> list[Decompiled]:
    """What `prepare` wrote."""
    return [Decompiled(**row | {"image": tuple(row["image"])}) for row in map(json.loads, path.open(encoding="utf-8"))]
