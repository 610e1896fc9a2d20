"""The Dockerfiles, which no test builds, copy what exists and name tested versions."""

import re
from pathlib import Path

import pytest

FILES = ("workflow", "vllm")


def instructions(repository: Path, name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined."""
    text = (repository / "containers" / f"{name}.Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", FILES)
def test_every_copied_path_exists_and_is_not_ignored(repository: Path, name: str):
    ignored = (repository / ".dockerignore").read_text().split()
    for instruction, arguments in instructions(repository, name):
        if instruction == "COPY":
            for path in arguments.split()[:-1]:
                assert (repository / path).exists(), path
                assert path.partition("/")[0] not in ignored


def test_the_workflow_image_has_what_the_rules_need(repository: Path):
    copied = {
        path.partition("/")[0]
        for instruction, arguments in instructions(repository, "workflow")
        if instruction == "COPY"
        for path in arguments.split()[:-1]
    }
    assert copied >= {"Snakefile", "rules", "scripts", "config", "envs", "docs", "profiles"}


def test_the_workflow_image_can_be_run_by_a_user_without_a_name(repository: Path):
    variables = dict(
        variable.split("=", 1)
        for instruction, arguments in instructions(repository, "workflow")
        if instruction == "ENV"
        for variable in arguments.split()
    )
    assert variables.keys() >= {"USER", "HOME"}  # otherwise Snakemake looks the number up and fails


def test_the_images_have_the_versions_that_are_tested(repository: Path):
    python = dict(instructions(repository, "workflow"))["FROM"]
    assert python.startswith("python:3.11")  # as in .github/workflows/ci.yml and the lock files
    tag = dict(instructions(repository, "vllm"))["FROM"].rpartition(":v")[2]
    lock = (repository / "envs" / "vllm-test.lock.txt").read_text()
    assert re.search(rf"^vllm(-cpu)?=={re.escape(tag)}\b", lock, re.MULTILINE)
