"""Every module of the library is strictly typed."""

import re
import tomllib
from pathlib import Path


def test_no_module_is_excepted_from_the_strict_mode(repository: Path):
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"]
    assert not settings.get("overrides")
    assert not settings.get("exclude")


def test_errors_are_ignored_by_their_name_and_not_for_a_whole_file(repository: Path):
    for path in (repository / "scripts").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not re.search(r"# mypy: *ignore|# type: *ignore(?!\[)", line), f"{path}: {line}"
