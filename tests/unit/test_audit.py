"""`.ci/audit.py`: what it makes of the report of pip-audit."""

import importlib.util
import json
import subprocess

import pytest

SAFE = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {
    "name": "b",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def audit(repository, monkeypatch):
    """Return a function that runs the audit with the given output of pip-audit."""
    spec = importlib.util.spec_from_file_location("audit", repository / ".ci/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(output: str) -> int:
        done = subprocess.CompletedProcess([], 0, output, "")
        monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
        return module.main(["one.lock.txt", "two.lock.txt"])

    return run


def report(*packages: dict) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_vulnerable_package_fails_and_is_named_with_the_version_that_fixes_it(audit, capsys):
    assert audit(report(SAFE, VULNERABLE, UNKNOWN)) == 1
    out = capsys.readouterr().out
    assert "one.lock.txt: 2 of 3 packages checked" in out
    assert "b 2: PYSEC-1, fixed in 2.1" in out


def test_safe_packages_pass(audit, capsys):
    assert audit(report(SAFE)) == 0
    assert "two.lock.txt: 1 of 1 packages checked" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["", "no network", report(UNKNOWN)])
def test_without_the_database_it_is_skipped_with_a_message(audit, capsys, output):
    assert audit(output) == 0
    assert "skipped, the database of vulnerabilities cannot be reached" in capsys.readouterr().out
