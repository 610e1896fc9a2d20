"""Dry runs of profiles/kubernetes: Snakemake loads the real executor and reads the profile."""

import shutil
import subprocess
import sys

import pytest
from workflow_runs import CLUSTER_PYTHON, REPOSITORY, Finished, Workdir, needs_cluster_plugins

pytestmark = [pytest.mark.workflow, needs_cluster_plugins]


COPIED = ("Snakefile", "rules", "scripts", "config", "envs", "profiles", "data")


def dry_run(workdir: Workdir, *arguments: str) -> Finished:
    """Plan a run in a copy of the repository, as the storage maps paths below the run's folder."""
    workdir.path.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, workdir.path / name)
    done = subprocess.run(
        [
            *(CLUSTER_PYTHON, "-m", "snakemake", "--dry-run", "--quiet", "host"),
            *("--workflow-profile", "profiles/kubernetes"),
            *("--default-storage-prefix", str(workdir.path)),
            *("--config", "dataset=data/demo_v3", *arguments),
        ],
        cwd=workdir.path,
        env=workdir.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return Finished(done.returncode, done.stdout)


def test_a_dry_run_plans_one_job_per_shard_with_the_gpus_of_its_model_server(workdir):
    managed = f"{{python: {sys.executable}, tensor_parallel_size: 2}}"
    vlm = f"vlm={{serve: managed, model: org/model, managed: {managed}}}"
    done = dry_run(workdir, "cluster={episodes_per_shard: 2}", vlm)
    assert done.jobs["annotate_shard"] == 2
    assert "gpu=2, gpu_manufacturer=nvidia" in done.output
