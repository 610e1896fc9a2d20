"""CI requires a share of the library that the small suite runs, without running it twice."""

import os
import re
import subprocess
import tomllib
from pathlib import Path


def test_less_than_nine_tenths_is_a_failure(repository: Path):
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["coverage"]
    assert settings["report"]["fail_under"] >= 90
    # Most of the library runs in the processes of a run.
    assert "subprocess" in settings["run"]["patch"]


def test_the_tests_that_ci_runs_measure_the_coverage(repository: Path):
    def commands(*arguments: str) -> str:
        command = ["make", "--dry-run", "--always-make", *arguments]
        # Not the settings of a make that runs this test.
        own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        own.pop("COVERAGE", None)
        done = subprocess.run(command, cwd=repository, env=own, capture_output=True, text=True)
        return done.stdout

    ci = (repository / ".ci/run").read_text().replace("\\\n", " ")
    (tests,) = re.findall(r"^make .*COVERAGE=1 .*$", ci, re.MULTILINE)
    assert tests.split()[-1] == "test"
    assert "tests/unit tests/attack" in commands("unit")
    assert "--cov" not in commands("unit")
    assert "--cov" in commands("unit", "COVERAGE=1")
    workflow = (repository / ".github/workflows/ci.yml").read_text()
    assert "make coverage" in workflow
    assert "make suite\n" not in workflow
