"""rules/concurrency.smk depends on Snakemake's internals, which may change with its version."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def test_snakemake_is_the_version_that_its_settings_were_checked_with() -> None:
    text = (REPOSITORY / "rules" / "concurrency.smk").read_text()
    (checked,) = re.findall(r'CHECKED_WITH_SNAKEMAKE = "(.+)"', text)
    assert version("snakemake") == checked, (
        "check every function of rules/concurrency.smk with this version of Snakemake, then set "
        "CHECKED_WITH_SNAKEMAKE"
    )


def test_no_other_rules_file_touches_the_settings_of_snakemake() -> None:
    private = (
        r"workflow\.(resource_settings|global_resources|execution_settings|deployment_settings)"
    )
    private += r"|workflow\.(deployment_settings|remote_exec|non_local_exec)|shell\.prefix"
    files = [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]
    found = [path.name for path in files if re.search(private, path.read_text())]
    assert found == ["concurrency.smk"]


def test_the_scheduler_selects_jobs_only_if_one_starts_or_ends(tmp_path: Path) -> None:
    rules = f"""
include: {str(REPOSITORY / "rules" / "concurrency.smk")!r}

onstart:
    if config.get("lift"):
        lift_job_rate()

rule all:
    input:
        expand("{{number}}.txt", number=range(6)),

rule sleep:
    output:
        "{{number}}.txt",
    shell:
        "sleep 1.2; touch {{output}}"
"""
    (tmp_path / "Snakefile").write_text(rules)

    def selections(*options: str) -> int:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--forceall", "--verbose"]
        done = subprocess.run(
            [*command, "--scheduler", "greedy", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return (done.stdout + done.stderr).count("Resources before job selection")

    # Twice per job and once at the start. If that holds without the function too, delete it.
    lifted, limited = selections("--config", "lift=true"), selections()
    assert lifted <= 2 * 7 + 1 < limited, (lifted, limited)


def test_sigterm_ends_a_run_whose_scheduler_is_at_work(tmp_path: Path) -> None:
    rules = f"""
import time

include: {str(REPOSITORY / "rules" / "concurrency.smk")!r}

onstart:
    if config.get("in_thread"):
        receive_sigterm_in_thread()
    with workflow.scheduler._lock:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

rule second:
    input:
        "first.txt",
    output:
        "second.txt",
    shell:
        "touch {{output}}"

rule first:
    output:
        "first.txt",
    shell:
        "sleep 2; touch {{output}}"
"""
    (tmp_path / "Snakefile").write_text(rules)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock"]
    ended = subprocess.run([*command, "--config", "in_thread=true"], cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert not (tmp_path / "second.txt").exists()
    # If the run ends without the function too, delete it.
    with subprocess.Popen(command, cwd=tmp_path) as stuck:
        with pytest.raises(subprocess.TimeoutExpired):
            stuck.wait(15)
        stuck.kill()


def test_a_job_that_the_job_server_measures_is_not_measured_twice_per_second(
    tmp_path: Path,
) -> None:
    rules = f"""
from snakemake.benchmark import BenchmarkTimer

include: {str(REPOSITORY / "rules" / "concurrency.smk")!r}

measure = BenchmarkTimer.work

def work(timer):
    print("measured", flush=True)
    measure(timer)

BenchmarkTimer.work = work

onstart:
    if config.get("job_server"):
        use_job_server("set -euo pipefail; ")

rule sleep:
    output:
        "slept.txt",
    benchmark:
        "sleep.tsv"
    shell:
        "sleep 1.7; touch {{output}}"
"""
    (tmp_path / "Snakefile").write_text(rules)

    def measurements(*options: str) -> int:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--forceall"]
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.count("measured")

    # At the start, and every half second. If the first holds without the function, delete it.
    assert measurements("--config", "job_server=true") == 1
    assert measurements() > 1
    assert (tmp_path / "sleep.tsv").is_file()
