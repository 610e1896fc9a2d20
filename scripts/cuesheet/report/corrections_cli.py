"""Export the subtasks of annotated episodes as correction files, so that they can be edited.

`cuesheet corrections export RESULTS` (docs/corrections.md).
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cuesheet.artifacts.corrections import FORMAT, files_below, read_correction
from cuesheet.artifacts.episode import read_episode
from cuesheet.artifacts.layout import Layout, episode_name
from cuesheet.artifacts.results import episode_files
from cuesheet.artifacts.stage_files import StageFile, read_stage_file
from cuesheet.config.types import parse_episodes
from cuesheet.errors import CuesheetError
from cuesheet.files import write_json, write_text
from cuesheet.text import counted

# Keys of a correction file that an export does not write and that therefore stay.
_OTHER_KEYS = (
    *("rephrasings", "interjections", "vqa"),
    *("verdict", "note", "done", "reviewer"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    results = Path(given.results)
    folder = Path(given.to) if given.to else Path("corrections") / results.resolve().name
    written, left = export(
        results, folder, given.episodes, as_csv=given.csv, overwrite=given.overwrite
    )
    print(f"{counted(written, 'file')} written to {folder}")
    if left:
        verb = "was" if left == 1 else "were"
        print(f"{counted(left, 'existing file')} {verb} not changed (--overwrite replaces)")


def export(
    results: Path,
    folder: Path,
    episodes: str | None = None,
    *,
    as_csv: bool = False,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write one file per episode; return how many were written and how many were skipped.

    Raises CuesheetError if there is nothing to export or a file is invalid.
    """
    try:
        wanted = parse_episodes(episodes)
    except ValueError as error:
        raise CuesheetError(f"--episodes: {error}") from None
    plans = dict(episode_files(results, "plan"))
    missing = sorted(set(wanted or ()) - set(plans))
    if missing or not plans:
        what = f"plan of episode {missing[0]}" if missing else "plan"
        raise CuesheetError(f"{results} has no {what}; run the workflow for it first")
    existing = files_below(folder)
    written = left = 0
    for index in tqdm(wanted or list(plans), unit="episode", mininterval=2, disable=None):
        if index in existing and not overwrite:
            left += 1
            continue
        plan = read_stage_file(plans[index], "plan")
        layout = Layout(results)
        length = read_episode(layout.keyframes(index), needs_images=False).length
        _write(plan, length, folder, existing.get(index), as_csv)
        written += 1
    return written, left


def _write(plan: StageFile, length: int, folder: Path, existing: Path | None, as_csv: bool) -> None:
    target = folder / f"{episode_name(plan.episode_index)}{'.csv' if as_csv else '.json'}"
    spans = [
        {"start_s": subtask.start_s, "end_s": subtask.end_s, "label": subtask.label}
        for subtask in plan.subtasks
    ]
    unchanged = {}
    if existing is not None and existing.suffix == ".json":
        old = read_correction(existing, plan.dataset)
        unchanged = {
            key: value
            for key in _OTHER_KEYS
            if (value := old.model_dump(mode="json", exclude_unset=True).get(key)) is not None
        }
        if unchanged and as_csv:
            raise CuesheetError(
                f"{existing} has {', '.join(unchanged)}, which a CSV file cannot hold; remove --csv"
            )
    if as_csv:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("start", "end", "text"))
        table.writerows((span["start_s"], span["end_s"], span["label"]) for span in spans)
        write_text(target, text.getvalue())
    else:
        value = {"format": FORMAT, "dataset": plan.dataset, "episode_index": plan.episode_index}
        write_json(target, {**value, "length": length, "subtasks": spans or None, **unchanged})
    if existing is not None and existing != target:
        existing.unlink()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cuesheet corrections", description=__doc__)
    export_command = parser.add_subparsers(required=True).add_parser(
        "export", help="write the current subtasks as correction files"
    )
    export_command.add_argument("results", help="result folder, results/DATASET")
    export_command.add_argument("--to", help="folder to write to (default: corrections/DATASET)")
    export_command.add_argument(
        "--episodes", help="episodes to export, such as 0,3-5 (default: all)"
    )
    export_command.add_argument("--csv", action="store_true", help="write CSV instead of JSON")
    export_command.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser
