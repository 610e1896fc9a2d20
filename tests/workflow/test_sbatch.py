"""Arguments of `sbatch` for the SLURM profile and the configuration."""

import shlex
import sys
from pathlib import Path

import pytest
from workflow_runs import CLUSTER_PYTHON, REPOSITORY, Workdir, needs_cluster_plugins

pytestmark = [pytest.mark.workflow, needs_cluster_plugins]

# Entries of the profile that are comments until somebody fills them in.
FILLED_IN = (
    "slurm_partition: cpu",
    "slurm_account: my_account",
    "slurm_partition: gpu",
    "gpu_model: a100",
    'mem_mb: "48000 * attempt"',
    'runtime: "120 * attempt"',
    "constraint: nvlink",
    "qos: long",
    "slurm_extra: \"'--exclude=node13 --mail-type=FAIL'\"",
)
IMPATIENT = (
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1"),
)
RECORDER = """#!/bin/sh
printf '%s\\n' "$0 $*" "modules=$LOADEDMODULES" >> "$RECORDED"
exit 1
"""


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, demo_v3: Path) -> Workdir:
    """A working directory with the index of the demo, so that the first job is that of a shard."""
    work = Workdir(tmp_path_factory.mktemp("indexed") / "work")
    work.configure(dataset=str(demo_v3))
    work.run("results/demo_v3/signals/layout.json")
    return work


@pytest.fixture
def submit(indexed: Workdir, tmp_path: Path, demo_v3: Path, monkeypatch):
    """Returns a function that configures a run in one shard and gives its `sbatch` arguments."""
    recorded = tmp_path / "recorded"
    folder = tmp_path / "bin"
    folder.mkdir()
    # All that the plugin may ask: a SLURM of this machine, if there is one, is not meant.
    programs = dict.fromkeys(("squeue", "sacct", "sinfo", "scontrol"), "#!/bin/sh\n")
    programs |= dict.fromkeys(("sacctmgr", "sshare"), "#!/bin/sh\necho my_account\n")
    for name, script in {**programs, "sbatch": RECORDER}.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    workdir = indexed.copy_to(tmp_path / "work")
    workdir.python = CLUSTER_PYTHON
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("RECORDED", str(recorded))
    monkeypatch.setenv("LOADEDMODULES", "cuda/12.4")

    def submit(profile: Path = REPOSITORY / "profiles" / "slurm", **settings: object) -> list[str]:
        workdir.configure(dataset=str(demo_v3), **settings)
        recorded.unlink(missing_ok=True)
        profile_of_run = ("--workflow-profile", str(profile), "--slurm-no-account", *IMPATIENT)
        done = workdir.run(
            *profile_of_run, "--retries", "0", "--cores", "64", "annotations", check=False
        )
        assert recorded.exists(), done.output
        said = recorded.read_text()
        # Jobs inherit what is loaded when the run starts.
        assert "modules=cuda/12.4" in said
        return shlex.split(said.splitlines()[0])

    return submit


def managed(**settings: object) -> dict:
    replicas = settings.pop("replicas", 1)
    managed = {"python": sys.executable, **settings}
    return {"serve": "managed", "model": "org/model", "replicas": replicas, "managed": managed}


def test_replicas_get_their_gpus_in_one_job_that_is_put_back_if_preempted(submit):
    arguments = submit(vlm=managed(replicas=3, gpus_per_replica=2))
    assert {"--gpus=6", "--requeue"} <= set(arguments)


def test_clients_of_a_shared_server_ask_for_no_gpu(submit):
    urls = ["http://node7:8000/v1"]
    vlm = {"serve": "external", "model": "org/model", "base_urls": urls, "check": False}
    arguments = submit(vlm=vlm)
    assert not [word for word in arguments if "gpu" in word or "gres" in word]
    assert "--cpus-per-task=8" in arguments


def test_what_the_profile_leaves_to_the_user_reaches_sbatch(submit, tmp_path):
    text = (REPOSITORY / "profiles/slurm/profile.yaml").read_text()
    for entry in FILLED_IN:
        assert text.count(f"# {entry}\n") == 1, entry
        text = text.replace(f"# {entry}\n", f"{entry}\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/profile.yaml").write_text(text)
    arguments = submit(tmp_path / "mine", vlm=managed(tensor_parallel_size=2))
    joined = " ".join(arguments)
    for expected in (
        "-p gpu",
        "-A my_account",
        "--gpus=a100:2",
        "--mem 48000",
        "-t 120",
        "-C nvlink",
        "--qos=long",
        "--exclude=node13",
        "--mail-type=FAIL",
    ):
        assert expected in joined, joined


def test_media_of_their_own_run_on_the_partition_without_gpus(submit, tmp_path):
    text = (REPOSITORY / "profiles/slurm/profile.yaml").read_text()
    (tmp_path / "mine").mkdir()
    cpu = text.replace("# slurm_partition: cpu\n", "slurm_partition: cpu\n")
    (tmp_path / "mine/profile.yaml").write_text(cpu)
    settings = {"cluster": {"media": "separate"}, "vlm": managed(tensor_parallel_size=2)}
    joined = " ".join(submit(tmp_path / "mine", **settings))
    assert "prepare_shard" in joined
    assert "-p cpu" in joined
    assert "--cpus-per-task=16" in joined
    assert "--gpus" not in joined
