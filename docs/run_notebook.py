"""Runs a notebook and stores what its cells print, return and plot.

    .venv/bin/python docs/run_notebook.py docs/reading.ipynb [FOLDER]

The cells run in FOLDER (default: the current one), which has the results of `make demo`. Needs no
Jupyter: cells are plain Python, and figures are those of matplotlib.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def run_notebook(path: Path, folder: Path) -> dict[str, Any]:
    """Run all code cells in one namespace; return the notebook with their outputs.

    Exceptions of cells are raised.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    with contextlib.chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = _run_cell("".join(cell["source"]), names, count)
    return notebook


def _run_cell(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"<cell {count}>", "exec"), names)
        value = None
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        lines = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
    if value is not None and not source.rstrip().endswith(";"):
        outputs.append({"output_type": "execute_result", "execution_count": count} | _shown(value))
    for number in pyplot.get_fignums():
        image = io.BytesIO()
        pyplot.figure(number).savefig(image, format="png", dpi=80, bbox_inches="tight")
        data = {"image/png": base64.b64encode(image.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    pyplot.close("all")
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    data = {"text/plain": str(value).splitlines(keepends=True)}
    if hasattr(value, "to_html"):
        data["text/html"] = value.to_html().splitlines(keepends=True)
    return {"metadata": {}, "data": data}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    result = run_notebook(file, Path(sys.argv[2] if len(sys.argv) > 2 else os.curdir))
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
