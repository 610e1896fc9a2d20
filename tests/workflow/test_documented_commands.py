"""Every command in README.md and docs works as it is written, in a copy of the repository.

All commands share one run of the demo. Paths, models and addresses that a reader replaces are
replaced here too (`READERS_REPLACE`). A command that cannot run here is listed in `NOT_RUN` with
the reason and the test that covers it.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from processes import PATIENCE_S
from workflow_runs import CLUSTER_PYTHON, REPOSITORY

from cuesheet.artifacts.stage_files import read_stage_file

pytestmark = pytest.mark.workflow

PAGES = [
    "README.md",
    "config/README.md",
    *sorted(f"docs/{p.name}" for p in REPOSITORY.glob("docs/*.md")),
]
MODEL = "cuesheet-demo-1"
LIMIT_S = 600


class Command(NamedTuple):
    """A command and the page that has it."""

    page: str
    text: str


class Covered(NamedTuple):
    """Why a command is not run here, and the test that covers it."""

    reason: str
    test: str


VLLM = "tests/workflow/test_vllm.py::test_the_demo_is_annotated_and_every_reply_fits_at_once"
DOCKER = Covered(
    "needs Docker",
    "tests/unit/test_containers.py::test_the_workflow_image_has_what_the_rules_need",
)
INSTALL = Covered(
    "installs a package",
    "tests/unit/test_package.py::test_a_wheel_has_the_library_its_data_and_the_command",
)
PLUGINS = Covered(
    "installs packages",
    "tests/workflow/test_sharded_runs.py::test_the_slurm_profile_plans_shards_without_a_cluster",
)
PINNED = (
    "tests/unit/test_requirement_files.py"
    "::test_the_gpu_lock_has_the_vllm_and_torch_that_the_tests_run"
)
SLURM = (
    "tests/workflow/test_slurm.py"
    "::test_four_shards_on_slurm_give_the_files_of_a_local_run_byte_by_byte"
)
PUSH = (
    "tests/workflow/test_hub.py"
    "::test_push_makes_a_private_repository_with_card_and_tags_and_overwrites_nothing"
)
BENCH = (
    "tests/workflow/test_wgo_bench_runs.py::test_a_benchmark_file_is_converted_annotated_and_scored"
)
THROUGHPUT = (
    "tests/unit/app/test_check_server.py::test_the_measured_throughput_is_printed_as_settings"
)
NOT_RUN = {
    "make test": Covered(
        "runs all tests, this one among them",
        "tests/workflow/test_documented_commands.py::test_a_documented_command_works",
    ),
    "make vllm-env": Covered("installs vLLM for a GPU", PINNED),
    "vllm serve Qwen/Qwen3-VL-8B-Instruct --port 8000": Covered("needs a GPU", VLLM),
    "cuesheet check-server --throughput model.yaml": Covered("takes a minute", THROUGHPUT),
    "snakemake --workflow-profile profiles/slurm --config dataset=/path/to/dataset": Covered(
        "needs SLURM", SLURM
    ),
    "python -m pip install --require-hashes --requirement envs/cluster.lock.txt": PLUGINS,
    "cuesheet push results/name user/new-name [--public] [--tag v1]": Covered("needs a hub", PUSH),
    "make wgobench FILE=wgo_bench.parquet CONFIG=model.yaml": Covered("needs the benchmark", BENCH),
    "docker build --file containers/workflow.Dockerfile --tag cuesheet .": DOCKER,
    'docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" --volume /data:/data:ro '
    "cuesheet --cores 8 --config dataset=/data/pour_water": DOCKER,
    "docker build --file containers/vllm.Dockerfile --tag cuesheet-vllm .": DOCKER,
    "docker run --rm --gpus all --ipc host --publish 8000:8000 --volume "
    '"$HOME/.cache/huggingface:/models" cuesheet-vllm Qwen/Qwen3-VL-8B-Instruct '
    "--max-model-len 32768": DOCKER,
    "snakedeploy deploy-workflow https://github.com/OWNER/cuesheet annotations "
    "--tag v0.2.0": Covered(
        "needs the network",
        "tests/workflow/test_module.py::test_what_snakedeploy_writes_can_be_planned",
    ),
    "python -m pip install --editable /path/to/cuesheet": INSTALL,
    "python -m pip install "
    '"cuesheet-workflow @ git+https://github.com/OWNER/cuesheet@v0.2.0"': INSTALL,
}
# Text that stands for the reader's own data, model or server, and what this test uses.
READERS_REPLACE = {
    "/path/to/dataset": "data/demo_v3",
    "path/to/dev_v3": "data/demo_v3",
    "results/dataset": "results/demo_v3",
    "results/my_dataset": "results/demo_v3",
    "[0,3,5-9]": "[0,3]",
    "0,3-5": "0,3",
    "/tmp/demo_v3": "exported",
    "/shared/cuesheet/.venv": ".venv",
    "Qwen/Qwen3-VL-8B-Instruct": MODEL,
}
# The environment exists, and make must not touch it.
MAKE = "make --old-file=.venv/.packages-installed --old-file=.venv/.workflow-installed "


def commands_of(page: str) -> Iterator[Command]:
    """Yield the commands of the code blocks of a page: shell blocks, and lines after `$ `."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.M | re.S):
        if language in ("bash", "sh"):
            lines = block
        elif language in ("console", ""):
            lines = "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))
        else:
            continue
        for command in split_commands(lines):
            yield Command(page, command)


def split_commands(block: str) -> Iterator[str]:
    """Yield the commands of a shell block, without comments, with their heredocs."""
    lines = iter(block.splitlines())
    for line in lines:
        command = re.sub(r"(^|\s+)#.*$", "", line).rstrip()
        while command.endswith("\\"):
            command = command[:-1].rstrip() + " " + next(lines).strip()
        heredoc = re.search(r"<<'?(\w+)'?", command)
        while heredoc and command.rpartition("\n")[2] != heredoc[1]:
            command += "\n" + next(lines)
        if command.strip():
            yield command.strip()


def with_replacements(command: str) -> str:
    """Return a documented command with what its reader replaces."""
    for text, used in READERS_REPLACE.items():
        command = command.replace(text, used)
    return command


DOCUMENTED: list[Command] = []
for command in (command for page in PAGES for command in commands_of(page)):
    if command.text not in {other.text for other in DOCUMENTED}:
        DOCUMENTED.append(command)
RUN_HERE: list[Command] = []
for command in (command for command in DOCUMENTED if command.text not in NOT_RUN):
    # The same command of another environment or for another name of the dataset is run once.
    same = with_replacements(command.text).removeprefix(".venv/bin/")
    if same not in {with_replacements(other.text) for other in RUN_HERE}:
        RUN_HERE.append(command)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, demo_vlm_url: str) -> Path:
    """A copy of the repository in which the demo was annotated, with the files that pages name."""
    folder = tmp_path_factory.mktemp("documented") / "cuesheet"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "results", "site", "corrections")
    shutil.copytree(REPOSITORY, folder, ignore=ignored)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".venv-cluster").symlink_to(Path(CLUSTER_PYTHON).parents[1])
    done = run(folder, as_run("make demo", demo_vlm_url))
    assert done.returncode == 0, done.stdout[-3000:]
    page = (REPOSITORY / "docs" / "first-annotation.md").read_text(encoding="utf-8")
    settings = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```", page, re.M | re.S)[1])
    vlm = {"serve": "external", "model": MODEL, "base_urls": [f"{demo_vlm_url}/v1"]}
    (folder / "model.yaml").write_text(yaml.safe_dump({**settings, "vlm": vlm}))
    for name in ("first", "second", "small_model", "large_model"):
        (folder / "results" / name).symlink_to("demo_v3")
    write_references(folder)
    return folder


def write_references(folder: Path) -> None:
    """Write the references that pages name, from the annotations of the demo."""
    rows = [
        {"episode": episode, "start_s": part.start_s, "end_s": part.end_s, "text": part.label}
        for episode in range(4)
        for part in read_stage_file(
            folder / f"results/demo_v3/plan/{episode:06d}.json", "plan"
        ).subtasks
    ]
    (folder / "truth.json").write_text(json.dumps(rows))
    with (folder / "truth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "DATA/ground_truth").mkdir(parents=True)
    for name in ("demo_v3", "dev_v3"):
        shutil.copytree(folder / "data/demo_v3", folder / "DATA" / name)
        shutil.copy(folder / "truth.json", folder / f"DATA/ground_truth/{name}.json")


def as_run(command: str, demo_vlm_url: str) -> str:
    """Return what is run for a documented command."""
    command = re.sub("^make ", MAKE, with_replacements(command))
    if "--workflow-profile" in command:
        command = re.sub("^snakemake ", ".venv-cluster/bin/python -m snakemake ", command)
    command = re.sub("^pytest ", "pytest --collect-only --quiet ", command)
    return command.replace("http://127.0.0.1:8000", demo_vlm_url)


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join((str(folder / ".venv/bin"), os.environ["PATH"]))
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(folder / "scripts"),
        "BROWSER": "true",
        "CUESHEET_PROGRESS": "off",
        "CORES": "2",
    }


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize("command", RUN_HERE, ids=lambda c: f"{Path(c.page).stem}: {c.text[:60]}")
def test_a_documented_command_works(command, clone, demo_vlm_url, tmp_path):
    if "profiles/" in command.text and not Path(CLUSTER_PYTHON).exists():
        pytest.skip("no .venv-cluster; run: make .venv-cluster/.installed")
    folder = tmp_path / "cuesheet"
    shutil.copytree(clone, folder, symlinks=True)
    text = as_run(command.text, demo_vlm_url)
    if text.startswith("cuesheet review "):
        assert_serves(folder, text)
        return
    done = run(folder, text)
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}"
    if text == "cuesheet status":
        assert "4 done, 0 running, 0 failed, 0 waiting of 4" in done.stdout


def assert_serves(folder: Path, command: str) -> None:
    """The command prints an address, a browser gets a page from it, and ctrl-C ends it."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env={**environment(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline, output, address = time.monotonic() + PATIENCE_S, "", None
        while address is None and time.monotonic() < deadline:
            output += process.stdout.readline()
            address = re.search(r"http://[\w.:]+/\S*", output)
            assert process.poll() is None, output
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address[0], timeout=PATIENCE_S) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) in (0, 130), process.stdout.read()
    finally:
        process.kill()


def test_commands_that_are_not_run_are_documented_and_covered_by_a_test():
    texts = {command.text for command in DOCUMENTED}
    assert NOT_RUN.keys() <= texts, f"not documented: {sorted(NOT_RUN.keys() - texts)}"
    for command, covered in NOT_RUN.items():
        file, _, name = covered.test.partition("::")
        assert (REPOSITORY / file).is_file(), f"{command}: there is no {file}"
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text or not name, f"{command}: {file} has no {name}"


def test_the_commands_that_every_reader_meets_are_run_here():
    texts = {command.text for command in RUN_HERE}
    assert {"make demo", "cuesheet status", "cuesheet check-server model.yaml"} <= texts
