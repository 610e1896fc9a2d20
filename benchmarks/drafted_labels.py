"""Distinct labels per task without and with a drafted list (`plan.vocabulary: auto`).

    python benchmarks/drafted_labels.py DATASET [--cores N]

The plans of all episodes are made twice by the workflow, with the demo model. Nothing else is made.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from measuring import REPOSITORY

from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import read_stage_file
from cuesheet.artifacts.vocabulary import VocabularyFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    dataset = options.dataset.resolve()
    with TemporaryDirectory() as folder:
        for vocabulary in ("off", "auto"):
            run_plans(Path(folder) / vocabulary, dataset, vocabulary, options.cores)
        print_labels(
            *(Layout(Path(folder) / name / "results" / dataset.name) for name in ("off", "auto"))
        )


def run_plans(work: Path, dataset: Path, vocabulary: str, cores: int) -> None:
    """Make the plans of all episodes in the folder `work`."""
    (work / "config").mkdir(parents=True)
    plan = {"vocabulary": vocabulary, "memory": False, "rephrasings": {"mode": "off"}}
    off = {"enabled": False}
    config = {"dataset": str(dataset), "plan": plan, "vqa": off, "interjections": off}
    (work / "config/config.yaml").write_text(json.dumps(config))
    command = [
        *(sys.executable, "-m", "snakemake", "annotations", "--cores", str(cores)),
        *("--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(work)),
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)


def print_labels(without: Layout, with_list: Layout) -> None:
    """Print the distinct labels of each task: in the drafts, in the lists, and in the plans."""
    names = ("plans before", "drafts", "list", "plans after")
    print(f"{'task':<44}{'episodes':>9}" + "".join(f"{name:>14}" for name in names))
    before, after, lists = defaultdict(set), defaultdict(set), {}
    episodes: dict[str, int] = defaultdict(int)
    for path in sorted(with_list.stage_folder("plan").glob("*.json")):
        plan = read_stage_file(path, "plan")
        task = plan.vocabulary.task
        episodes[task] += 1
        after[task].update(part.label for part in plan.subtasks)
        first = read_stage_file(without.plan(plan.episode_index), "plan")
        before[task].update(part.label for part in first.subtasks)
    for path in with_list.vocabulary("any").parent.glob("*.json"):
        found = VocabularyFile.read(path)
        lists[found.task] = found
    for task, one in sorted(lists.items()):
        counts = (len(before[task]), len(one.drafted_labels), len(one.labels), len(after[task]))
        print(f"{task[:43]:<44}{episodes[task]:>9}" + "".join(f"{count:>14}" for count in counts))


if __name__ == "__main__":
    sys.exit(main())
