"""Functions have at most 60 lines and modules 400, unless their docstring gives a reason."""

from pathlib import Path

import pytest
import sizes


def function(lines: int, docstring: str = "Do it.") -> str:
    return f'def work():\n    """{docstring}"""\n' + "    pass\n" * (lines - 2)


def test_the_library_has_no_function_or_module_that_is_too_long(repository: Path):
    assert sizes.main([str(repository / "scripts")]) == 0


@pytest.mark.parametrize(
    ("text", "status", "shown"),
    [
        (function(60), 0, "0 functions"),
        (function(61), 1, "   61 {path} work\n1 functions"),
        (function(61, "Do it. Longer than usual: one table."), 0, "work (with a reason)"),
        ("x = 1\n" * 400, 0, "0 functions"),
        ("x = 1\n" * 401, 1, "  401 {path} (module)\n1 functions"),
    ],
)
def test_what_is_too_long_is_listed_and_fails(tmp_path: Path, capsys, text, status, shown):
    path = tmp_path / "a.py"
    path.write_text(text)
    assert sizes.main([str(tmp_path)]) == status
    assert shown.format(path=path) in capsys.readouterr().out
