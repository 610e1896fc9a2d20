"""Shards on Kubernetes: its real executor and our example profile, with pods that are processes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_api import Kubernetes
from slurm_runs import annotations
from workflow_runs import REPOSITORY, Finished, Workdir

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not shutil.which("rsync"), reason="no rsync, which the storage plugin uses"),
]

PATH_ON_THE_VOLUME = "/shared/cuesheet"
OF_THE_REPOSITORY = ("Snakefile", "rules", "scripts", "config", "envs", "profiles", "data")


class Volume(Workdir):
    """A folder on the volume: a copy of the repository, with the profile filled in for it."""

    def __init__(self, path: Path, kubernetes: Kubernetes) -> None:
        super().__init__(path)
        self._kubernetes = kubernetes
        path.mkdir()
        for name in OF_THE_REPOSITORY:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, path / name)
        profile = path / "profiles/kubernetes/profile.yaml"
        text = profile.read_text()
        assert text.count(PATH_ON_THE_VOLUME) == 2
        profile.write_text(text.replace(PATH_ON_THE_VOLUME, str(path)))

    def run(self, *arguments: str) -> Finished:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake"),
                *("--workflow-profile", "profiles/kubernetes"),
                *("--seconds-between-status-checks", "1"),
                *("--config", "dataset=data/demo_v3", "cluster={episodes_per_shard: 2}"),
                *arguments,
            ],
            cwd=self.path,
            env={**self.environment(), "KUBECONFIG": str(self._kubernetes.kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return Finished(done.returncode, done.stdout)


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    """Pods have what the image has: no environment of the head's, and no need to install."""
    folder = tmp_path / "cluster"
    (folder / "bin").mkdir(parents=True)
    pip = folder / "bin" / "pip"
    pip.write_text("#!/bin/sh\nexit 0\n")
    pip.chmod(0o755)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    kubernetes = Kubernetes(folder, {"PATH": path, "HOME": str(tmp_path)})
    yield kubernetes
    kubernetes.close()


def test_shards_in_pods_give_the_files_of_a_run_without(kubernetes, tmp_path, finished_demo):
    volume = Volume(tmp_path / "volume", kubernetes)
    done = volume.run()
    assert done.jobs["annotate_shard"] == 2
    local, cluster = annotations(finished_demo, "demo_v3"), annotations(volume, "demo_v3")
    assert local.keys() == cluster.keys()
    assert [name for name in local if local[name] != cluster[name]] == []
    assert (volume.path / "results/demo_v3/review/index.html").is_file()

    status = [sys.executable, "-m", "cuesheet.cluster.status"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    said = subprocess.check_output(status, cwd=volume.path, env=environment, text=True)
    assert "4 done" in said
    assert "2 done" in said
    state = volume.json("results/demo_v3/shards/00000.state.json")
    assert state["log"] == "results/demo_v3/logs/annotate_shard/00000.log"
    assert (volume.path / state["log"]).is_file()

    # GPUs have limits, since Kubernetes refuses requests alone; the demo model needs none.
    shards = [job for job in kubernetes.jobs.values() if "annotate_shard" in str(job)]
    assert len(shards) == 2
    for job in shards:
        container = job["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "0"
        assert container["resources"]["limits"]["memory"] == "8000M"
        assert {"mountPath": "/shared", "name": "cuesheet"} in container["volumeMounts"]


def test_a_shard_asks_for_the_gpus_of_its_model_server(kubernetes, tmp_path):
    """The dry run loads the executor, reads the profile, and says what a job would ask for."""
    volume = Volume(tmp_path / "volume", kubernetes)
    managed = f"{{python: {sys.executable}, tensor_parallel_size: 2}}"
    vlm = f"vlm={{serve: managed, model: org/model, managed: {managed}}}"
    done = volume.run(vlm, "--dry-run", "--quiet", "host")
    assert done.jobs["annotate_shard"] == 2
    assert "gpu=2, gpu_manufacturer=nvidia" in done.output
    assert kubernetes.jobs == {}
