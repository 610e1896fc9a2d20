"""Fixtures of the tests that run the workflow."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import PATIENCE_S, kill_all, processes_in
from workflow_runs import REPOSITORY, CountingServer, Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir(tmp_path / "work")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workdir]:
    """A working directory; whatever still runs in it after the test is ended."""
    (tmp_path / "work").mkdir()
    yield Workdir(tmp_path / "work")
    kill_all(processes_in(tmp_path / "work"))


Make = Callable[[Workdir], str]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Make], Workdir]:
    """Return a function that runs something in a folder that all processes of the tests share.

    The first process that needs the folder makes it, and the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made_once(name: str, make: Make) -> Workdir:
        work, output = Workdir(shared / name / "work"), shared / name / "output.txt"
        work.path.parent.mkdir(exist_ok=True)
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not output.exists():
                shutil.rmtree(work.path, ignore_errors=True)
                output.write_text(make(work))
        work.output = output.read_text()
        return work

    return made_once


@pytest.fixture(scope="session")
def finished_demo(made_once: Callable[[str, Make], Workdir], demo_v3: Path) -> Workdir:
    """The demo, annotated with the defaults; tests copy it and do not change it."""

    def make(work: Workdir) -> str:
        work.configure(dataset=str(demo_v3))
        return work.run().output

    return made_once("finished_demo", make)


@pytest.fixture(scope="session")
def two_episodes(
    made_once: Callable[[str, Make], Workdir], demo_vlm_url: str, demo_v3: Path
) -> Workdir:
    """Two episodes of the demo, annotated by a server of others; tests copy them."""

    def make(work: Workdir) -> str:
        shutil.copytree(REPOSITORY / "config/prompts", work.path / "prompts")
        vlm = {"serve": "external", "model": "cuesheet-demo-1", "base_urls": [f"{demo_vlm_url}/v1"]}
        settings = {"dataset": str(demo_v3), "episodes": [0, 1], "prompts_dir": "prompts"}
        work.configure(**settings, vlm=vlm)
        return work.run().output

    return made_once("two_episodes", make)


@pytest.fixture(scope="session")
def demo_vlm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running demo model."""
    port_file = tmp_path_factory.mktemp("demo_vlm") / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_vlm", "--port", "0", "--port-file", port_file],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not port_file.exists():
            assert process.poll() is None, "the demo model ended"
            assert time.monotonic() < deadline, "the demo model did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def counting_server(demo_vlm_url: str) -> Iterator[CountingServer]:
    server = CountingServer(demo_vlm_url)
    yield server
    server.close()
