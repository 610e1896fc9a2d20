"""Builds a run from the configuration and checks every setting against the datasets it names."""

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.artifacts.corrections import (
    SEE,
    Correction,
    check_correction,
    files_below,
    read_correction,
)
from cuesheet.artifacts.failures import episode_failures
from cuesheet.artifacts.layout import RESULTS, Layout
from cuesheet.artifacts.stage_files import STAGES
from cuesheet.assemble.existing_rows import episodes_with_rows
from cuesheet.assemble.finalize import check_source
from cuesheet.config import prompt_files
from cuesheet.config.hub_address import HubDataset, parse_hub_address
from cuesheet.config.load import load_config
from cuesheet.config.models import Config, DatasetEntry
from cuesheet.dataset import hub
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.dataset.subtask_labels import check_column
from cuesheet.errors import CuesheetError
from cuesheet.workflow.checks import (
    check_cameras,
    check_episodes,
    check_folder,
    check_interpreter,
    check_vocabulary,
)
from cuesheet.workflow.run import Run
from cuesheet.workflow.run_dataset import RunDataset
from cuesheet.workflow.vocabulary import notice_of


@dataclass(frozen=True)
class _Cameras:
    """The cameras of a dataset that the run uses."""

    dataset: Dataset  # with these cameras only
    default: str | None
    vqa: list[str]


class _Problems:
    """Collects the problems of independent checks, so that one run reports all of them."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except CuesheetError as error:
            self.add(error)

    def add(self, error: CuesheetError) -> None:
        if str(error) not in self._lines:  # the same folder of prompts for two datasets
            self._lines.append(str(error))

    def as_error(self) -> CuesheetError:
        return CuesheetError("\n".join(self._lines))

    def report(self) -> None:
        """Raise CuesheetError if there are problems."""
        if self._lines:
            raise self.as_error()


def load_run(
    raw: dict[str, Any],
    repository: Path,
    shard: Mapping[str, Any] | None = None,
    *,
    results_root: Path = RESULTS,
    online: bool = True,
) -> Run:
    """Check the configuration against itself and against the datasets it names.

    Args:
        raw: the configuration as Snakemake read it.
        repository: the workflow's own folder; relative paths may refer to it.
        shard: in the inner run of a shard's job, its `dataset`, `shard` and `episodes`.
        results_root: the results folder.
        online: whether a hub may be contacted; the jobs of a run use what the run fetched.

    Raises:
        CuesheetError: a setting is wrong; one line per problem.
    """
    check_interpreter()
    problems = _Problems()
    config = _read_config(raw, problems)
    datasets: dict[str, RunDataset] = {}
    references: dict[str, str] = {}
    for name, entry in config.dataset_entries().items():
        if shard is None or name == shard["dataset"]:
            with problems.collected():
                datasets[name] = _load_dataset(
                    name, entry, config, repository, shard, results_root, online
                )
    if shard is None:
        with problems.collected():
            references = _references(config, config.dataset_entries())
    problems.report()
    if shard is None and online:
        check_vocabulary(config.plan.vocabulary, datasets.values())
    run = Run(config, datasets, references, shard["shard"] if shard else None, results_root)
    run.check_judge(remote=False)
    return run


def _read_config(raw: dict[str, Any], problems: _Problems) -> Config:
    """Return the configuration.

    If only the section `vlm` is wrong, that is a problem, and the other settings are returned, so
    that datasets are checked in the same run. Raises CuesheetError if another section is wrong.
    """
    try:
        return load_config(raw)
    except CuesheetError as error:
        try:
            config = load_config({key: value for key, value in raw.items() if key != "vlm"})
        except CuesheetError:
            raise error from None
        problems.add(error)
        return config


def _load_dataset(
    name: str,
    entry: DatasetEntry,
    config: Config,
    repository: Path,
    shard: Mapping[str, Any] | None,
    results_root: Path,
    online: bool,
) -> RunDataset:
    problems = _Problems()
    prompts_dir = _resolve(str(entry.prompts_dir), repository)
    with problems.collected():
        _check_prompts(prompts_dir, config, parse=online)
    try:
        source, address = _open_source(name, entry, repository, online)
        notices = check_source(source, config.output.extra_files) if online else []
    except CuesheetError as error:
        problems.add(error)
        raise problems.as_error() from None
    with problems.collected():
        cameras = _select_cameras(source, entry, config)
    with problems.collected():
        selected = _select_episodes(source, entry)
    problems.report()
    dataset = cameras.dataset
    if address is not None and online:
        files = dataset.files_of(selected)
        every = dataset.files_of(selected, include_excluded=True)
        hub.fetch(address, name, files, optional=every)
    if shard is not None:
        selected = shard["episodes"]
    layout, is_main_run = Layout(results_root / name), shard is None
    found = RunDataset(
        name,
        dataset,
        selected,
        cameras.default,
        cameras.vqa,
        prompts_dir,
        left_out=_failed_before(name, selected, config, layout, is_main_run),
        corrections=read_corrections(Path(config.corrections_dir).expanduser() / name, dataset),
        kept=_kept(dataset, selected, config, is_main_run),
        output_format=config.output.format,
        subtask_column=_subtask_column(dataset, config),
        results_root=results_root,
    )
    found.check_files()
    notices += [notice] if online and (notice := notice_of(found, config)) else []
    for notice in (*notices, *dataset.notices):
        print(f"Cuesheet: {name}: {notice}", file=sys.stderr)
    return found


def _open_source(
    name: str, entry: DatasetEntry, repository: Path, online: bool
) -> tuple[Dataset, HubDataset | None]:
    """Read the metadata of a source dataset; return its address too if it is on a hub."""
    address = parse_hub_address(entry.path)
    if address is None:
        root = _resolve(entry.path, repository)
        check_folder("dataset", root)
    else:
        root = hub.open_dataset(address, name, online=online)
    if set("{}") & set(str(root)):
        raise CuesheetError(
            f"config: dataset: the path {root} contains a brace, which Snakemake would read as a "
            "wildcard; rename the folder, or use a symbolic link to it"
        )
    if Path.cwd().resolve().is_relative_to(root.resolve()):
        raise CuesheetError(
            f"{name}: the working directory {Path.cwd()} is inside the dataset {root}, which "
            "is read-only; run in another folder (snakemake --directory FOLDER ...)"
        )
    return read_dataset(root, name), address


def _select_cameras(dataset: Dataset, entry: DatasetEntry, config: Config) -> _Cameras:
    """Apply the settings `cameras`, `default_camera` and `vqa.cameras`."""
    if isinstance(entry.cameras, list):
        check_cameras("cameras", entry.cameras, list(dataset.cameras), dataset.excluded_cameras)
        dataset = dataset.with_cameras(entry.cameras)
    cameras, excluded = list(dataset.cameras), dataset.excluded_cameras
    default_camera = cameras[0] if cameras else None
    if entry.default_camera is not None:
        check_cameras("default_camera", [entry.default_camera], cameras, excluded)
        default_camera = entry.default_camera
    vqa_cameras = cameras
    if isinstance(config.vqa.cameras, list):
        check_cameras("vqa.cameras", config.vqa.cameras, cameras, excluded)
        vqa_cameras = config.vqa.cameras
    elif config.vqa.cameras == "default":
        vqa_cameras = [default_camera] if default_camera else []
    return _Cameras(dataset, default_camera, vqa_cameras)


def _select_episodes(dataset: Dataset, entry: DatasetEntry) -> Sequence[int]:
    """Apply the setting `episodes`."""
    known = [episode.episode_index for episode in dataset.episodes]
    if entry.episodes is None:
        return known
    check_episodes(dataset.name, entry.episodes, known)
    return entry.episodes


def _kept(
    dataset: Dataset, selected: Sequence[int], config: Config, is_main_run: bool
) -> frozenset[int]:
    """Apply the setting `existing`: return the episodes that keep their language rows."""
    if config.existing != "keep":
        return frozenset()
    kept = episodes_with_rows(dataset) & frozenset(selected)
    if kept and len(kept) == len(selected) and is_main_run:
        print(
            f"Cuesheet: {dataset.name}: existing is keep and every selected episode has language "
            "rows already, so the model is not used",
            file=sys.stderr,
        )
    return kept


def _failed_before(
    name: str, selected: Sequence[int], config: Config, layout: Layout, is_main_run: bool
) -> frozenset[int]:
    """Apply the setting `output.on_missing`: return the episodes that are left out."""
    if config.output.on_missing != "leave_unannotated":
        return frozenset()
    rules = {"extract_clip", "decode_keyframes", "extract_signals", "validate_episode"}
    rules |= {f"annotate_{stage}" for stage in STAGES if getattr(config, stage).enabled}
    rules |= {"inspect_episode"} if config.inspect.enabled else set()
    left_out = frozenset(episode_failures(layout.folder, selected, rules=rules))
    if left_out and len(left_out) == len(selected) and is_main_run:
        raise CuesheetError(
            f"{name}: output.on_missing is leave_unannotated, but all {len(selected)} episodes "
            f"failed in the last run; the causes are in {layout.failed}. Set it to fail to try "
            "them again."
        )
    return left_out


def _subtask_column(dataset: Dataset, config: Config) -> str | None:
    """Apply the setting `plan.subtasks_from`."""
    if not config.plan.enabled or config.plan.subtasks_from != "dataset":
        return None
    check_column(dataset, config.plan.subtask_column)
    return config.plan.subtask_column


def read_corrections(folder: Path, dataset: Dataset) -> dict[int, Correction]:
    """Return every correction of a dataset by episode, checked against its metadata.

    Raises:
        CuesheetError: names every invalid file and what is expected there.
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
            named = str(error).startswith(str(path))
            problems.append(str(error) if named else f"{path}: {error}")
        else:
            corrections[index] = correction
    if problems:
        raise CuesheetError(
            "these correction files are invalid; correct or remove them:\n  "
            + "\n  ".join(problems[:20])
            + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
            + f"\n{SEE}"
        )
    return corrections


def _check_prompts(folder: Path, config: Config, *, parse: bool) -> None:
    """Check that the prompt files exist; with `parse`, also that their templates are valid."""
    names = prompt_files.of_stages(stage for stage in STAGES if getattr(config, stage).enabled)
    names += [name for name in prompt_files.INSPECT if config.inspect.enabled]
    if config.plan.drafts_vocabulary:
        names += prompt_files.of_stages(["vocabulary"])
    if config.evaluate.judge and config.evaluate.reference is not None:
        names += [name for name in prompt_files.JUDGE if name not in names]
    paths = {name: folder / f"{name}.md" for name in names}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise CuesheetError(
            f"config: prompts_dir: {folder} has no {', '.join(missing)}; copy the missing files "
            "from config/prompts"
        )
    if parse:
        # Jobs do not check again what the run checked, so they need not import Jinja2.
        from cuesheet.vlm import prompts

        prompts.check_files(list(paths.values()))


def _references(config: Config, datasets: Collection[str]) -> dict[str, str]:
    """Return the reference of each dataset. Raises CuesheetError if one does not exist."""
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
            raise CuesheetError(f"config: evaluate.reference: {path} does not exist")
    return references


def _resolve(path: str, repository: Path) -> Path:
    """Resolve a relative path against the working directory, then the workflow's folder.

    Every spelling of a path in the working directory gives the same relative path. Otherwise jobs
    would run again if a dataset is named by its absolute path first and its relative path later.
    """
    given = Path(path).expanduser()
    if not given.is_absolute() and not given.exists() and (repository / given).exists():
        given = repository / given
    if not given.exists():
        return given
    absolute = Path(os.path.abspath(given))
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
