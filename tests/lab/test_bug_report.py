"""What goes into a bug report, and what does not."""

import getpass
import platform

from prefcore.lab import bug_report


def test_a_report_has_versions_hashes_and_the_machine_and_says_nothing_of_its_owner(tmp_path):
    (tmp_path / "params.yaml").write_text("profile: quick\n")
    found = bug_report.describe(tmp_path)
    assert found["torch"][0].isdigit() and len(found["sha256 of params.yaml"]) == 32
    assert found["sha256 of dvc.lock"] == "no such file" and "GiB" in found["memory"]
    words = " ".join(found.values())
    assert platform.node() not in words and str(tmp_path) not in words and getpass.getuser() not in words.split()


def test_a_package_that_is_not_there_is_said_to_be_missing():
    assert bug_report.version("no-such-package-at-all") == "not installed"


def test_a_system_that_tells_nothing_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(bug_report, "Path", lambda name: tmp_path / "none")
    assert bug_report.processor()["flags"] == "unknown"
