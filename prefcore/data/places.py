"""Where rows lie: the files that a name stands for, opened as plain bytes whatever they are packed in."""

import bz2
import glob
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefcore.data.types import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".ndjson", ".tsv", ".arrow")
PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip")
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError)  # of torn or locked files
POINTER = b"version https://git-lfs.github.com/spec/"  # the first words of a file that Git LFS has not fetched
_ABOUT = re.compile(r"(dataset_infos?|dataset_dict|state|metadata|config)\.json", re.IGNORECASE)  # no rows in these
_SHARD = re.compile(r"[-_.]?(part|shard)?[-_.]?\d+(-of-(?P<total>\d+))?$", re.IGNORECASE)


def plain_name(path: str | Path) -> str:
    """The file's name without the suffix of its packing; of a .zip the name of the one file in it."""
    path = Path(path)
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as box:
            return Path(_member(box, path)).name
    return path.stem if path.suffix.lower() in PACKED else path.name


def suffix(path: str | Path) -> str:
    """The suffix that says the format, in small letters, by the name alone."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def find(source: str) -> list[str]:
    """The files of a name, in the order of their rows: a file, a pattern with *, or a folder that holds one data set.

    Files whose names differ in their number alone are parts of one set. DataError where there is none, where a folder
    holds several sets, or where parts that the names promise are missing.
    """
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if not path.exists() and re.search(r"[*?\[]", source):
        found = sorted(name for name in glob.glob(source) if Path(name).is_file())
        if not found:
            raise DataError(f"{source}: no file has such a name; check the pattern")
        return _whole(found)
    if Path(source).suffix.lower() != ".zip" and suffix(path) not in SUFFIXES:
        kinds = f"{', '.join(SUFFIXES)} file (or one packed as {', '.join(PACKED)})"
        raise DataError(f"{source}: neither a {kinds}, nor a folder of such, nor a hub dataset owner/name")
    if not path.exists():
        raise DataError(f"{source}: no such file; check the path")
    return [source]


def _in_folder(folder: Path) -> list[str]:
    inside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    found = [path for path in inside if suffix(path) in SUFFIXES and not _ABOUT.fullmatch(path.name)]
    if not found and (folder / "data").is_dir():
        return _in_folder(folder / "data")
    sets = sorted({_set_name(path) for path in found})
    if len(sets) != 1:
        what = f"holds several data sets ({', '.join(sets)})" if sets else f"no {', '.join(SUFFIXES)} file is in it"
        example = f", as {folder / sets[0]}*" if sets else ""
        raise DataError(f"{folder}: is a folder, and {what}; name one file, or a pattern of names{example}")
    return _whole([str(path) for path in found])


def _set_name(path: Path) -> str:
    return _SHARD.sub("", Path(plain_name(path)).stem)


def _whole(found: list[str]) -> list[str]:
    """The parts, all of them: train-00001-of-00003 promises three."""
    totals = {match["total"] for name in found if (match := _SHARD.search(Path(plain_name(name)).stem))} - {None}
    if len(totals) == 1 and int(total := totals.pop()) != len(found):
        raise DataError(f"{found[0]}: {len(found)} of {int(total)} parts are here; fetch the others")
    return found


@contextmanager
def opened(path: str | Path) -> Iterator:
    """The bytes of a file, unpacked; DataError where it is torn, or a .zip of several files."""
    packing = Path(path).suffix.lower()
    try:
        if packing == ".zip":
            with zipfile.ZipFile(path) as box, box.open(_member(box, path)) as raw:
                yield raw
        elif packing == ".zst":
            import pyarrow

            with pyarrow.input_stream(str(path), compression="zstd") as raw:
                yield raw
        else:
            unpack = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(packing, open)
            with unpack(path, "rb") as raw:
                yield raw
    except BROKEN as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({what}); is it whole?") from error


def head(path: str | Path) -> bytes:
    """The first bytes of a file, unpacked. DataError for what only looks like data: Git LFS's pointer, a web page."""
    with opened(path) as raw:
        start = raw.read(4096)
    check_fetched(start, path)
    if re.match(rb"\s*<(!doctype\s+html|html)\b", start, re.IGNORECASE):
        raise DataError(f"{path}:1: is a web page, no data (one to sign in on?); download the file itself")
    return start


def check_fetched(start: bytes, where: str | Path) -> None:
    """DataError for the pointer that Git LFS leaves in place of a file."""
    if start.startswith(POINTER):
        raise DataError(f"{where}: is a pointer of Git LFS, and the file itself is not here; call `git lfs pull`")


def _member(box: zipfile.ZipFile, path: str | Path) -> str:
    names = [name for name in box.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
    if len(names) != 1:
        raise DataError(f"{path}: holds {len(names)} files ({', '.join(names[:3])}); unpack it and name one of them")
    return names[0]
