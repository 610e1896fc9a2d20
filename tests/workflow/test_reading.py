"""What docs/reading.md and docs/reading.ipynb say is run on the annotated demo."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_runs import REPOSITORY

pytestmark = pytest.mark.workflow

LEROBOT = REPOSITORY / ".venv-lerobot" / "bin" / "python"
PAGE = (REPOSITORY / "docs/reading.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^<!-- run in ([^\n]+) -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
HERE = [code for place, code in BLOCKS if place == ".venv"]
THERE = [(place, code) for place, code in BLOCKS if place != ".venv"]


@pytest.fixture
def folder(finished_demo, tmp_path) -> Path:
    (tmp_path / "results").symlink_to(finished_demo.path / "results")
    return tmp_path


def run(python: str | Path, code: str, folder: Path, **environment: str) -> None:
    done = subprocess.run(
        [python, "-c", code],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "assert" not in code or done.stdout


def test_every_python_block_says_where_it_runs():
    assert len(BLOCKS) == PAGE.count("```python") == 6
    assert {place for place, _ in BLOCKS} == {
        ".venv",
        ".venv-lerobot",
        ".venv-lerobot with LeRobot 0.6.1",
    }


@pytest.mark.parametrize("code", HERE, ids=range(len(HERE)))
def test_the_blocks_for_the_workflows_environment_run(folder, code):
    run(sys.executable, code, folder)


@pytest.mark.lerobot
@pytest.mark.skipif(not LEROBOT.exists(), reason="no .venv-lerobot; run: make lerobot")
@pytest.mark.parametrize(("place", "code"), THERE, ids=range(len(THERE)))
def test_the_blocks_for_datasets_torch_and_lerobot_run(folder, place, code):
    path = ""
    if "0.6.1" in place:
        path = os.pathsep.join(map(str, (REPOSITORY / ".venv-lerobot/v061", REPOSITORY / "tests")))
        code = f"import lerobot_on_311\nlerobot_on_311.install()\n{code}"
    run(LEROBOT, code, folder, PYTHONPATH=path)


def test_the_notebook_runs_and_produces_as_many_images_as_stored(folder):
    path = REPOSITORY / "docs/reading.ipynb"
    run_notebook = runpy.run_path(str(REPOSITORY / "docs/run_notebook.py"))["run_notebook"]
    done, stored = run_notebook(path, folder), json.loads(path.read_text(encoding="utf-8"))
    assert _kinds(done) == _kinds(stored)
    assert sum(kind == "image/png" for kinds in _kinds(stored) for kind in kinds) == 3


def _kinds(notebook: dict) -> list[list[str]]:
    """The kinds of output of each code cell."""
    return [
        [kind for output in cell["outputs"] for kind in output.get("data", ["text"])]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
