"""Shared fixtures: the demo dataset of the repository and the larger sets with ground truth."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dataset_variants import as_v21
from slowest import SLOWEST

REPOSITORY = Path(__file__).resolve().parents[1]
TEST_DATA = Path(os.environ.get("CUESHEET_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

# Otherwise each process of the many runs that the tests start compiles the whole library again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _test_data(relative: str) -> Path:
    path = TEST_DATA / relative
    if not path.exists():
        pytest.skip(f"{path} is not there; set CUESHEET_TEST_DATA to the folder that holds it")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def ordinary_priority():
    """A test that leaves this process a real-time one would starve what later tests start."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def demo_v3() -> Path:
    return REPOSITORY / "data" / "demo_v3"


@pytest.fixture(scope="session")
def demo_v21(demo_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo in format v2.1; tests copy it and do not change it."""
    return as_v21(demo_v3, tmp_path_factory.mktemp("v21") / "demo_v21")


@pytest.fixture(scope="session")
def dev_v3() -> Path:
    return _test_data("dev_v3")


@pytest.fixture(scope="session")
def ground_truth() -> Callable[[str], dict]:
    def load(name: str) -> dict:
        return json.loads(_test_data(f"ground_truth/{name}.json").read_text())

    return load
