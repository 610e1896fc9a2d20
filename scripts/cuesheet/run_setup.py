"""Makes a run out of the configuration: every setting checked against the datasets it names."""

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from cuesheet import hub, prompts
from cuesheet.config import Config
from cuesheet.config_checks import check_cameras, check_episodes, check_folder
from cuesheet.config_errors import load_config
from cuesheet.corrections import read_corrections
from cuesheet.dataset import read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.existing_rows import episodes_with_rows
from cuesheet.imported_subtasks import check_column
from cuesheet.workflow import STAGES, Run, RunDataset


def load_run(raw: dict[str, Any], repository: Path, *, online: bool = True) -> Run:
    """Check the configuration against itself and against the datasets it names.

    `online`: whether a hub may be asked for datasets; the jobs of a run take what it fetched.
    Raises CuesheetError with one clear line a mistake.
    """
    config = load_config(raw)
    datasets = {}
    for name, entry in config.dataset_entries().items():
        place = hub.parse(entry.path)
        if place is None:
            root = _resolve(entry.path, repository)
            check_folder("dataset", root)
        else:
            root = hub.open_dataset(place, name, online=online)
        if Path.cwd().resolve().is_relative_to(root.resolve()):
            raise CuesheetError(
                f"{name}: the working directory {Path.cwd()} is inside the dataset {root}, which "
                "is not written to; run from a folder of its own (snakemake --directory FOLDER ...)"
            )
        source = read_dataset(root, name)
        cameras = list(source.cameras)
        known = [episode.episode_index for episode in source.episodes]
        if entry.episodes is not None:
            check_episodes(name, entry.episodes, known)
        default_camera = cameras[0] if cameras else None
        if entry.default_camera is not None:
            check_cameras("default_camera", [entry.default_camera], cameras)
            default_camera = entry.default_camera
        vqa_cameras = config.vqa.cameras
        if isinstance(vqa_cameras, list):
            check_cameras("vqa.cameras", vqa_cameras, cameras)
        elif vqa_cameras == "default":
            vqa_cameras = [default_camera] if default_camera else []
        else:
            vqa_cameras = cameras
        selected = known if entry.episodes is None else entry.episodes
        if place is not None and online:
            hub.fetch(place, name, source.files_of(selected))
        kept = frozenset()
        if config.existing == "keep":
            kept = episodes_with_rows(source) & frozenset(selected)
            if kept and len(kept) == len(selected):
                print(
                    f"Cuesheet: {name}: existing is keep and every chosen episode has language "
                    "rows already: nothing is asked",
                    file=sys.stderr,
                )
        left_out = frozenset()
        if config.output.on_missing == "leave_unannotated":
            rules = {"extract_clip", "decode_keyframes", "validate_episode"}
            rules |= {f"annotate_{stage}" for stage in STAGES if getattr(config, stage).enabled}
            left_out = _failed_before(Path("results") / name, selected, rules)
            if left_out and len(left_out) == len(selected):
                raise CuesheetError(
                    f"{name}: output.on_missing is leave_unannotated and all {len(selected)} "
                    f"episodes failed when they were last tried; see results/{name}/failed. Set it "
                    "to fail to try them again."
                )
        column = config.plan.subtask_column if config.plan.subtasks_from == "dataset" else None
        if column is not None and config.plan.enabled:
            check_column(source, column)
        corrections = read_corrections(Path(config.corrections_dir).expanduser() / name, source)
        dataset = RunDataset(
            name,
            source,
            selected,
            default_camera,
            vqa_cameras,
            left_out,
            corrections,
            kept,
            config.output.format,
            column,
        )
        dataset.check_files()
        datasets[name] = dataset
        for notice in source.notices:
            print(f"Cuesheet: {name}: {notice}", file=sys.stderr)
    prompts_dir = _resolve(config.prompts_dir, repository)
    _check_prompts(prompts_dir, config)
    return Run(config, datasets, prompts_dir)


def _check_prompts(folder: Path, config: Config) -> None:
    names = dict.fromkeys(
        name
        for stage in STAGES
        if getattr(config, stage).enabled
        for name in getattr(prompts, stage.upper())
    )
    missing = [name for name in names if not (folder / f"{name}.md").is_file()]
    if missing:
        raise CuesheetError(
            f"config: prompts_dir: {folder} has no {', '.join(f'{name}.md' for name in missing)}; "
            "copy the files of config/prompts and change what you like"
        )


def _resolve(path: str, repository: Path) -> Path:
    """A relative path counts from the working directory, else from the workflow's folder."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    inside = repository / given
    return inside if inside.exists() else given


def _failed_before(
    results: Path, episodes: Iterable[int], rules: Collection[str]
) -> frozenset[int]:
    """Episodes of which a job of `rules` failed when it was last tried (see `cuesheet.joblog`)."""
    failed = results / "failed"
    if not failed.is_dir():
        return frozenset()
    names = {path.stem for rule in rules for path in (failed / rule).rglob("*.json")}
    return frozenset(index for index in episodes if f"{index:06d}" in names)
