"""Fixtures of the tests that run the workflow."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import PATIENCE_S, kill_all, processes_in
from workflow_runs import CountingServer, Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir(tmp_path / "work")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workdir]:
    """A working directory; whatever still runs in it after the test is ended."""
    (tmp_path / "work").mkdir()
    yield Workdir(tmp_path / "work")
    kill_all(processes_in(tmp_path / "work"))


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory, demo_v3: Path) -> Workdir:
    """The demo, annotated with the defaults; tests copy it and do not change it."""
    work = Workdir(tmp_path_factory.mktemp("finished") / "work")
    work.configure(dataset=str(demo_v3))
    work.output = work.run().output
    return work


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
