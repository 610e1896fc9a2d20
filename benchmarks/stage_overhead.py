"""CPU milliseconds of every job of a run that is answered from the cache alone.

    python benchmarks/stage_overhead.py [--dataset data/demo_v3] [--cores 2] [--keep FOLDER]

Runs the workflow twice in a folder of its own: first with the embedded default, which fills the
cache, then, without the annotation files, with `vlm.serve: replay`. Each Python process of the
second run reports its own CPU time (user and system, from its start to its exit), so what a job
costs Snakemake itself is not in its figure but in the line "snakemake". A Python that does nothing
is given for comparison.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("annotate_plan", "annotate_interjections", "annotate_vqa")
# Python imports a module of this name at its start, wherever it stands first on its path.
REPORTER = """
import atexit, json, os, sys, time

def report():
    record = {"argv": sys.argv, "cpu_s": time.process_time()}
    with open(os.path.join(os.environ["CUESHEET_CPU_DIR"], f"{os.getpid()}.json"), "w") as file:
        json.dump(record, file)

atexit.register(report)
"""


def run(work: Path, cores: int, settings: dict, extra: dict[str, str]) -> None:
    """Run the workflow in `work`; its output is shown if it fails."""
    (work / "config").mkdir(exist_ok=True)
    (work / "config" / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(work), "--cores", str(cores)]
    environment = {**os.environ, "CUESHEET_PROGRESS": "off", **extra}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"the workflow failed:\n{done.stdout[-4000:]}")


def name_of(argv: list[str]) -> str:
    """The rule of a script job, or what else the process is."""
    file = Path(argv[0] if argv else "")
    if ".snakemake" in file.parts or "scripts" in file.parts[-2:-1]:
        return file.name.split(".")[-2]
    return {"__main__.py": file.parent.name, "server.py": "gateway"}.get(file.name, "python")


def reported(folder: Path) -> dict[str, list[dict]]:
    """The processes that reported, by name."""
    found = defaultdict(list)
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        found[name_of(record["argv"])].append(record)
    return found


def calls_of(work: Path, rule: str) -> list[dict]:
    stage = rule.removeprefix("annotate_")
    return [
        call
        for path in (work / "results").glob(f"*/{stage}/*.json")
        for call in json.loads(path.read_text())["provenance"]["calls"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=REPOSITORY / "data" / "demo_v3")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it")
    options = parser.parse_args()
    work = options.keep or Path(tempfile.mkdtemp(prefix="stage_overhead."))
    try:
        measure(work, options.dataset.resolve(), options.cores)
    finally:
        if options.keep is None:
            shutil.rmtree(work)


def measure(work: Path, dataset: Path, cores: int) -> None:
    run(work, cores, {"dataset": str(dataset)}, {})
    for stage in (*(stage.removeprefix("annotate_") for stage in STAGES), "validation"):
        for folder in (work / "results").glob(f"*/{stage}"):
            shutil.rmtree(folder)
    reports, library = work / "cpu", work / "reporter"
    for folder in (reports, library):
        folder.mkdir(exist_ok=True)
    (library / "sitecustomize.py").write_text(REPORTER)
    path = os.pathsep.join(filter(None, [str(library), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, "CUESHEET_CPU_DIR": str(reports)}
    subprocess.run([sys.executable, "-c", "pass"], env={**os.environ, **environment}, check=True)
    settings = {"serve": "replay", "model": "cuesheet-offline-1"}
    run(work, cores, {"dataset": str(dataset), "vlm": settings}, environment)
    print(f"{'process':<26}{'jobs':>6}{'calls':>7}{'CPU ms: mean':>14}{'least':>8}{'most':>8}")
    found = reported(reports)
    for name in sorted(found, key=lambda name: (name not in STAGES, name)):
        used = [record["cpu_s"] * 1000 for record in found[name]]
        calls = calls_of(work, name) if name in STAGES else []
        if not all(call["cache_hit"] for call in calls):
            sys.exit(f"{name}: not every call was answered from the cache")
        print(
            f"{name:<26}{len(used):>6}{len(calls) or '':>7}{statistics.mean(used):>14.0f}"
            f"{min(used):>8.0f}{max(used):>8.0f}"
        )


if __name__ == "__main__":
    main()
