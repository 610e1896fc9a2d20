"""Makes a run out of the configuration: every setting checked against the datasets it names."""

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from cuesheet.artifacts.corrections import (
    SEE,
    Correction,
    check_correction,
    files_below,
    read_correction,
)
from cuesheet.artifacts.layout import RESULTS, Layout, episode_name
from cuesheet.artifacts.stage_files import STAGES
from cuesheet.assemble.existing_rows import episodes_with_rows
from cuesheet.assemble.finalize import check_source
from cuesheet.config.hub_address import parse_hub_address
from cuesheet.config.load import load_config
from cuesheet.config.models import Config
from cuesheet.dataset import hub
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.dataset.subtask_labels import check_column
from cuesheet.errors import CuesheetError
from cuesheet.vlm import prompts
from cuesheet.workflow.checks import check_cameras, check_episodes, check_folder
from cuesheet.workflow.run import Run, RunDataset


def load_run(
    raw: dict[str, Any],
    repository: Path,
    shard: Mapping[str, Any] | None = None,
    *,
    online: bool = True,
) -> Run:
    """Check the configuration against itself and against the datasets it names.

    With `shard` (its `dataset`, `shard` and `episodes`) the run is about these episodes alone.
    `online`: whether a hub may be asked for datasets; the jobs of a run take what it fetched.
    Raises CuesheetError with one clear line a mistake.
    """
    config = load_config(raw)
    datasets = {}
    for name, entry in config.dataset_entries().items():
        if shard is not None and name != shard["dataset"]:
            continue
        place = parse_hub_address(entry.path)
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
        if online:  # the run itself; its jobs rely on its check
            for notice in check_source(source, config.output.extra_files):
                print(f"Cuesheet: {name}: {notice}", file=sys.stderr)
        if isinstance(entry.cameras, list):
            there = list(source.cameras)
            check_cameras("cameras", entry.cameras, there, source.unseen_cameras)
            source = source.seen_by(entry.cameras)
        cameras, unseen = list(source.cameras), source.unseen_cameras
        known = [episode.episode_index for episode in source.episodes]
        if entry.episodes is not None:
            check_episodes(name, entry.episodes, known)
        default_camera = cameras[0] if cameras else None
        if entry.default_camera is not None:
            check_cameras("default_camera", [entry.default_camera], cameras, unseen)
            default_camera = entry.default_camera
        vqa_cameras = config.vqa.cameras
        if isinstance(vqa_cameras, list):
            check_cameras("vqa.cameras", vqa_cameras, cameras, unseen)
        elif vqa_cameras == "default":
            vqa_cameras = [default_camera] if default_camera else []
        else:
            vqa_cameras = cameras
        selected = known if entry.episodes is None else entry.episodes
        if place is not None and online:
            hub.fetch(place, name, source.files_of(selected, unseen=True))
        if shard is not None:
            selected = shard["episodes"]
        kept = frozenset()
        if config.existing == "keep":
            kept = episodes_with_rows(source) & frozenset(selected)
            if kept and len(kept) == len(selected) and shard is None:
                print(
                    f"Cuesheet: {name}: existing is keep and every chosen episode has language "
                    "rows already: nothing is asked",
                    file=sys.stderr,
                )
        left_out = frozenset()
        if config.output.on_missing == "leave_unannotated":
            rules = {"extract_clip", "decode_keyframes", "validate_episode"}
            rules |= {f"annotate_{stage}" for stage in STAGES if getattr(config, stage).enabled}
            layout = Layout(RESULTS / name)
            left_out = _failed_before(layout, selected, rules)
            if left_out and len(left_out) == len(selected) and shard is None:
                raise CuesheetError(
                    f"{name}: output.on_missing is leave_unannotated and all {len(selected)} "
                    f"episodes failed when they were last tried; see {layout.failed}. Set "
                    "it to fail to try them again."
                )
        column = config.plan.subtask_column if config.plan.subtasks_from == "dataset" else None
        if column is not None and config.plan.enabled:
            check_column(source, column)
        corrections = read_corrections(Path(config.corrections_dir).expanduser() / name, source)
        prompts_dir = _resolve(str(entry.prompts_dir), repository)
        _check_prompts(prompts_dir, config)
        dataset = RunDataset(
            name,
            source,
            selected,
            default_camera,
            vqa_cameras,
            prompts_dir,
            left_out=left_out,
            corrections=corrections,
            kept=kept,
            output_format=config.output.format,
            subtask_column=column,
        )
        dataset.check_files()
        datasets[name] = dataset
        for notice in source.notices:
            print(f"Cuesheet: {name}: {notice}", file=sys.stderr)
    references = _references(config, datasets) if shard is None else {}
    run = Run(config, datasets, references, shard and shard["shard"])
    run.check_judge(remote=False)
    return run


def read_corrections(folder: Path, dataset: Dataset) -> dict[int, Correction]:
    """Every correction of a dataset, checked against its metadata; by episode.

    Raises:
        CuesheetError: names every file that is not right, and what is expected there.
    """
    corrections: dict[int, Correction] = {}
    problems: list[str] = []
    known = {episode.episode_index: episode for episode in dataset.episodes}
    for index, path in files_below(folder).items():
        try:
            if index not in known:
                dataset.episode(index)  # raises
            correction = read_correction(path, dataset.name)
            check_correction(correction, known[index].length, dataset.fps, dataset.cameras)
        except CuesheetError as error:
            problems.append(f"{path}: {str(error).removeprefix(f'{path}: ')}")
        else:
            corrections[index] = correction
    if problems:
        raise CuesheetError(
            "corrections that cannot be used; correct them, or move them away:\n  "
            + "\n  ".join(problems[:20])
            + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
            + f"\n{SEE}"
        )
    return corrections


def _check_prompts(folder: Path, config: Config) -> None:
    names = dict.fromkeys(
        name
        for stage in STAGES
        if getattr(config, stage).enabled
        for name in getattr(prompts, stage.upper())
    )
    if config.evaluate.judge and config.evaluate.reference is not None:
        names |= dict.fromkeys(prompts.JUDGE)
    paths = {name: folder / f"{name}.md" for name in names}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise CuesheetError(
            f"config: prompts_dir: {folder} has no {', '.join(missing)}; copy the files of "
            "config/prompts and change what you like"
        )
    empty = [path.name for path in paths.values() if not path.read_bytes().strip()]
    if empty:
        raise CuesheetError(
            f"config: prompts_dir: in {folder}, {', '.join(empty)} is empty; write the prompt, or "
            "copy Cuesheet's own from config/prompts"
        )


def _references(config: Config, datasets: Collection[str]) -> dict[str, str]:
    """What each dataset is scored against. Raises CuesheetError for a file that is not there."""
    given = config.evaluate.reference
    if given is None:
        return {}
    if isinstance(given, str):
        if len(datasets) > 1:
            raise CuesheetError(
                f"config: evaluate.reference: found {given} for {len(datasets)} datasets; name the "
                f"dataset it belongs to: {{{next(iter(datasets))}: {given}}}"
            )
        given = dict.fromkeys(datasets, given)
    references = {name: str(Path(path).expanduser()) for name, path in given.items()}
    for name, path in references.items():
        if name not in datasets:
            raise CuesheetError(
                f"config: evaluate.reference: there is no dataset called {name} in this run; it "
                f"has {', '.join(datasets)}"
            )
        if not Path(path).exists():
            raise CuesheetError(f"config: evaluate.reference: {path} is not there")
    return references


def _resolve(path: str, repository: Path) -> Path:
    """A relative path counts from the working directory, else from the workflow's folder."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    inside = repository / given
    return inside if inside.exists() else given


def _failed_before(
    layout: Layout, episodes: Iterable[int], rules: Collection[str]
) -> frozenset[int]:
    """Episodes of which a job of `rules` failed when it was last tried (see `cuesheet.job_log`)."""
    failed = layout.failed
    if not failed.is_dir():
        return frozenset()
    names = {path.stem for rule in rules for path in (failed / rule).rglob("*.json")}
    return frozenset(index for index in episodes if episode_name(index) in names)
