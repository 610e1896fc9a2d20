"""The files of the tests themselves."""

from collections import Counter
from pathlib import Path

from slowest import SLOWEST


def test_test_files_have_different_names_and_the_slowest_ones_exist(repository: Path):
    """Pytest imports test files by their name alone, so two of one name are an error."""
    names = Counter(path.name for path in (repository / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
    assert set(SLOWEST) <= names.keys()
