"""Lists functions over 60 lines and modules over 400 lines of the library: `make sizes`.

Prints `LINES PATH NAME`, the longest first. A function or module that has a reason to be longer
gives it in its docstring, in a sentence that starts with `Longer than usual`. Exits with status 1
if any other is listed; `make lint` runs this too.
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


def main(folders: list[str]) -> int:
    """Print what is too long, and return the exit status."""
    found = [
        part
        for folder in folders
        for path in sorted(Path(folder).rglob("*.py"))
        for part in long_parts(path)
    ]
    for lines, path, name, has_reason in sorted(found, reverse=True):
        print(f"{lines:5} {path} {name}{' (with a reason)' if has_reason else ''}")
    without_reason = sum(not has_reason for *_, has_reason in found)
    print(
        f"{len(found)} functions over {MAX_FUNCTION_LINES} lines or modules over "
        f"{MAX_MODULE_LINES}, {without_reason} of them without a reason in the docstring"
    )
    return 1 if without_reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["scripts"]))
