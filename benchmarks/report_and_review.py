"""Measures the duration and size of the report and the review page.

    python benchmarks/report_and_review.py results/dev_v3 [--episodes 1000]

It reads the results of a finished run. With --episodes, they are repeated to that number in a
temporary folder: the same annotations and images with new numbers. Everything is built from
scratch, and the review page once more without changes.
"""

import argparse
import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cuesheet.artifacts.results import annotated_episodes
from cuesheet.artifacts.stage_files import STAGES
from cuesheet.config.report import ReportConfig
from cuesheet.report.correction_files import CorrectionFolder
from cuesheet.report.data import gather
from cuesheet.report.html import prompt_texts, render, store_prompts
from cuesheet.report.review_site import build_site

PROMPTS = Path(__file__).resolve().parents[1] / "config" / "prompts"


def repeat(results: Path, target: Path, count: int) -> None:
    """Create `count` episodes from those of `results`, with links to images and clips."""
    for index, source in zip(range(count), itertools.cycle(annotated_episodes(results))):
        old, new = f"{source:06d}", f"{index:06d}"
        for folder in (*STAGES, "validation"):
            _renumbered(results / folder / f"{old}.json", target / folder / f"{new}.json", index)
        keyframes = target / "keyframes" / new
        name = "keyframes.json"
        _renumbered(results / "keyframes" / old / name, keyframes / name, index)
        for camera in (results / "keyframes" / old).iterdir():
            if camera.is_dir():
                os.symlink(camera.resolve(), keyframes / camera.name)


def _renumbered(source: Path, target: Path, index: int) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        data = json.loads(source.read_text(encoding="utf-8"))
        target.write_text(json.dumps({**data, "episode_index": index}), encoding="utf-8")


def timed(action: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that `action` takes, and its result."""
    before = time.perf_counter()
    value = action()
    return time.perf_counter() - before, value


def measure(results: Path, folder: Path) -> dict[str, float]:
    """Return seconds and bytes of both, written below `folder`."""
    corrections = CorrectionFolder(folder / "none", results.name, folder / "none")

    def report() -> int:
        data = gather(results, annotated_episodes(results))
        store_prompts(results, data, PROMPTS)
        page = render(data, ReportConfig(), prompt_texts(results, data))
        return (folder / "report.html").write_text(page, encoding="utf-8")

    report_s, _ = timed(report)
    first_s, episodes = timed(lambda: build_site(results, corrections, None))
    again_s, _ = timed(lambda: build_site(results, corrections, None))
    site = [path for path in (results / "review").rglob("*") if path.is_file()]
    return {
        "episodes": episodes,
        "report_s": report_s,
        "report_bytes": (folder / "report.html").stat().st_size,
        "review_s": first_s,
        "review_again_s": again_s,
        "review_bytes": sum(path.stat().st_size for path in site),
        "review_files": len(site),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Read the command line, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="the result folder of a finished run")
    parser.add_argument("--episodes", type=int, help="repeat them to so many; default: as they are")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / options.results.resolve().name
        count = options.episodes or len(annotated_episodes(options.results))
        repeat(options.results.resolve(), target, count)
        print(json.dumps(measure(target, Path(name)), indent=2))


if __name__ == "__main__":
    main()
