"""Lists functions over 60 lines and modules over 400 lines of the library: `make sizes`.

Prints `LINES PATH NAME`, the longest first. What is long for a reason has a docstring with the
words `Longer than usual`, and is marked.
"""

import ast
import sys
from pathlib import Path

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 400
REASON = "Longer than usual"

Found = tuple[int, str, str, bool]  # lines, path, name, has a reason


def long_parts(path: Path) -> list[Found]:
    """Return the module and the functions of a file that are too long."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    found: list[Found] = []
    lines = len(source.splitlines())
    if lines > MAX_MODULE_LINES:
        found.append((lines, str(path), "(module)", REASON in (ast.get_docstring(tree) or "")))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                reason = REASON in (ast.get_docstring(node) or "")
                found.append((lines, str(path), node.name, reason))
    return found


def main(folders: list[str]) -> None:
    parts = [
        part
        for folder in folders
        for path in sorted(Path(folder).rglob("*.py"))
        for part in long_parts(path)
    ]
    for lines, path, name, reason in sorted(parts, reverse=True):
        print(f"{lines:5} {path} {name}{' (with a reason)' if reason else ''}")
    print(
        f"{len(parts)} functions over {MAX_FUNCTION_LINES} lines or modules over {MAX_MODULE_LINES}"
    )


if __name__ == "__main__":
    main(sys.argv[1:] or ["scripts"])
