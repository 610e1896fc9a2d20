"""Cuesheet as a module of another workflow, in another folder (docs/module.md)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from workflow_runs import REPOSITORY, Finished

pytestmark = pytest.mark.workflow

OUTER = REPOSITORY / "tests" / "module" / "Snakefile"


def run(folder: Path, *arguments: str, snakefile: Path = OUTER, **environment: str) -> Finished:
    """Run the workflow `snakefile` in `folder`."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)),
            *("--directory", str(folder), "--cores", "2", *arguments),
        ],
        env={**os.environ, **environment},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return Finished(done.returncode, done.stdout)


def settings(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.yaml").write_text(
        yaml.safe_dump({"snakefile": str(REPOSITORY / "Snakefile"), **values})
    )


def test_a_workflow_uses_the_module_twice_next_to_its_own_rules(tmp_path: Path, demo_v3: Path):
    settings(
        tmp_path,
        forward_hooks=True,
        cuesheet={"dataset": str(demo_v3), "episodes": [0], "vqa": {"enabled": False}},
        # A relative path of the repository, a model server and a cache of its own, and shards.
        other={
            "dataset": "data/demo_v3",
            "episodes": [1],
            "interjections": {"enabled": False},
            "vlm": {"cache_dir": "second/cache"},
            "cluster": {"shards": "always"},
        },
    )
    done = run(tmp_path)
    assert done.returncode == 0, done.output[-6000:]
    assert set(done.jobs) >= {"count_subtasks", "cuesheet_annotate_plan", "other_annotate_shard"}

    first, second = tmp_path / "results/demo_v3", tmp_path / "second/results/demo_v3"
    plan = json.loads((first / "plan/000000.json").read_text())
    counted = (tmp_path / "counts.txt").read_text().split()
    # The rule's own shell block runs to its end: a module does not change how others' jobs start.
    assert int(counted[0]) == len(plan["subtasks"])
    assert counted[1:] == ["counted"]
    assert not (first / "vqa").exists()
    assert [path.name for path in (second / "vqa").glob("*.json")] == ["000001.json"]
    assert not (second / "interjections").exists()
    assert (tmp_path / "second/cache").is_dir()
    for results, annotated in ((first, 0), (second, 1)):
        (data,) = (results / "annotated/data").rglob("*.parquet")
        rows = pq.read_table(data, columns=["episode_index", "language_persistent"]).to_pylist()
        found = {row["episode_index"] for row in rows if row["language_persistent"]}
        assert found == {annotated}

    again = run(tmp_path, "--dry-run")
    assert "Nothing to be done" in again.output


def test_without_the_hooks_the_error_says_which_lines_are_missing(tmp_path: Path, demo_v3: Path):
    config = {"dataset": str(demo_v3), "episodes": [0], "vqa": {"enabled": False}}
    settings(tmp_path, forward_hooks=False, cuesheet=config, other=config)
    done = run(tmp_path, "second/results/demo_v3/plan/000000.json")
    assert done.returncode == 1
    log = (tmp_path / "second/results/demo_v3/logs/annotate_plan/000000.log").read_text()
    assert "does not forward its hooks" in log
    for hook in ("onstart", "onsuccess", "onerror"):
        assert f"`{hook}: other.{hook}()`" in log


def test_what_snakedeploy_writes_can_be_planned(tmp_path: Path, demo_v3: Path):
    """`snakedeploy deploy-workflow` copies config/ and profiles/ and writes such a Snakefile."""
    for folder in ("config", "profiles"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    snakefile = tmp_path / "workflow" / "Snakefile"
    snakefile.parent.mkdir()
    snakefile.write_text(
        "from snakemake.utils import min_version\n"
        'min_version("6.10.0")\n'
        'configfile: "config/config.yaml"\n'
        "module cuesheet:\n"
        f'    snakefile: "{REPOSITORY / "Snakefile"}"\n'
        "    config: config\n"
        "use rule * from cuesheet\n"
    )
    done = run(tmp_path, "--dry-run", "--config", f"dataset={demo_v3}", snakefile=snakefile)
    assert done.returncode == 0, done.output[-6000:]
    assert "annotate_plan                 4" in done.output
    assert "write_report                  1" in done.output


def test_the_module_can_come_from_a_git_host(tmp_path: Path, demo_v3: Path):
    """With github(), Snakemake fetches single files, so there is no folder of the workflow."""
    host = tmp_path / "host"
    clone = host / "owner" / "cuesheet"
    git = ["git", "-c", "user.email=test@example.org", "-c", "user.name=test", "-C", str(clone)]
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "-co", "--exclude-standard"]
    files = subprocess.check_output([*listed, "Snakefile", "rules", "scripts", "envs"], text=True)
    for file in files.split():
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / file).write_bytes((REPOSITORY / file).read_bytes())
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)

    outer = tmp_path / "outer" / "Snakefile"
    config = {"dataset": str(demo_v3), "episodes": [0]}
    outer.parent.mkdir()
    outer.write_text(
        "module cuesheet:\n"
        '    snakefile: github("owner/cuesheet", path="Snakefile", tag="v1")\n'
        f"    config: {config}\n"
        '    pathvars: results="annotations"\n'
        "use rule * from cuesheet as cuesheet_*\n"
        "onstart: cuesheet.onstart()\n"
        "onsuccess: cuesheet.onsuccess()\n"
        "onerror: cuesheet.onerror()\n"
    )
    done = run(
        outer.parent,
        "annotations/demo_v3/plan/000000.json",
        snakefile=outer,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0=f"url.file://{host}/.insteadOf",
        GIT_CONFIG_VALUE_0="https://github.com/",
    )
    assert done.returncode == 0, done.output[-6000:]
    plan = json.loads((outer.parent / "annotations/demo_v3/plan/000000.json").read_text())
    assert plan["subtasks"]
