"""A dataset of a run: the selected episodes, their sources, and the files that the run creates.

Only metadata is read here, because every job parses the Snakefile. Paths below the results folder
are relative to the working directory.
"""

import functools
import hashlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuesheet.artifacts.corrections import Correction
from cuesheet.artifacts.failures import failed_episodes
from cuesheet.artifacts.layout import RESULTS, Layout
from cuesheet.artifacts.signals_file import SignalsLayout
from cuesheet.config.signals import SignalsConfig
from cuesheet.dataset.index_state import file_state, is_current
from cuesheet.dataset.metadata import Dataset, Episode
from cuesheet.dataset.subtask_labels import labels_file
from cuesheet.dataset.task_table import task_files
from cuesheet.errors import CuesheetError
from cuesheet.files import remove_leftovers, write_json
from cuesheet.text import counted, describe_range


@dataclass(frozen=True)
class RunDataset:
    """A dataset of a run: its source, the selected episodes and the files that the run makes."""

    name: str
    source: Dataset
    selected: Sequence[int]  # episode indices
    default_camera: str | None  # None if the dataset has no camera
    vqa_cameras: Sequence[str]
    prompts_dir: Path
    left_out: frozenset[int] = frozenset()  # failed before, with on_missing: leave_unannotated
    corrections: Mapping[int, Correction] = field(default_factory=dict)  # by episode
    kept: frozenset[int] = frozenset()  # have language rows already, with existing: keep
    output_format: str = "source"
    subtask_column: str | None = None  # column of the dataset's own labels, if they are used
    results_root: Path = RESULTS

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def results(self) -> Path:
        return self.results_root / self.name

    @property
    def layout(self) -> Layout:
        return Layout(self.results)

    @property
    def cameras(self) -> list[str]:
        return list(self.source.cameras)

    def cameras_of(self, episode_index: int) -> list[str]:
        """Return the cameras that an episode has: all image cameras, and those with a video."""
        videos = self.episode(episode_index).videos
        cameras = self.source.cameras.values()
        return [camera.key for camera in cameras if camera.kind == "image" or camera.key in videos]

    def default_camera_of(self, episode_index: int) -> str | None:
        """Return the default camera, or the first one that the episode has; None if it has none."""
        cameras = self.cameras_of(episode_index)
        if self.default_camera in cameras:
            return self.default_camera
        return cameras[0] if cameras else None

    def vqa_cameras_of(self, episode_index: int) -> list[str]:
        """Return the cameras of an episode that visual questions are about."""
        cameras = self.cameras_of(episode_index)
        return [camera for camera in self.vqa_cameras if camera in cameras]

    @functools.cached_property
    def tasks(self) -> list[str]:
        """The distinct tasks of all episodes of the dataset."""
        return list(dict.fromkeys(episode.task for episode in self.source.episodes))

    # Selected episodes

    @property
    def worked_on(self) -> list[int]:
        """The selected episodes without those that are left out or keep their rows."""
        excluded = self.left_out | self.kept
        return [index for index in self.selected if index not in excluded]

    def selected_in(self, data_file: str) -> list[int]:
        """Return the episodes of one data file of the source that this run annotates."""
        wanted = frozenset(self.worked_on)
        return [index for index in self._episodes_in(data_file) if index in wanted]

    def others_in(self, data_file: str) -> list[int]:
        """Return the episodes of a data file that an earlier run annotated; their rows stay."""
        selected = frozenset(self.selected)
        return [
            index
            for index in self._episodes_in(data_file)
            if index not in selected and index in self._validated
        ]

    @property
    def others(self) -> list[int]:
        """The episodes that only an earlier run annotated; their rows stay."""
        return sorted(
            self._validated & {e.episode_index for e in self.source.episodes} - {*self.selected}
        )

    @functools.cached_property
    def _validated(self) -> frozenset[int]:
        names = (path.stem for path in self.layout.stage_folder("validation").glob("*.json"))
        found = {int(name) for name in names if name.isdigit()}
        return frozenset(found - failed_episodes(self.results, found))

    def _episodes_in(self, data_file: str) -> list[int]:
        try:
            return [episode.episode_index for episode in self.source.data_files[data_file]]
        except KeyError:
            raise CuesheetError(
                f"{self.name}: the dataset has no data file {data_file}; it has "
                f"{', '.join(list(self.source.data_files)[:5])}"
            ) from None

    # Source files

    def check_wildcards(self, wildcards: Mapping[str, str]) -> None:
        """Raise CuesheetError if the episode, camera or data file of a target does not exist."""
        if "episode" in wildcards:
            self.episode(int(wildcards["episode"]))
        if "camera" in wildcards:
            self.source.camera(wildcards["camera"])
        if "data_file" in wildcards:
            self._episodes_in(f"{wildcards['data_file']}.parquet")

    def episode(self, episode_index: int) -> Episode:
        return self.source.episode(episode_index)

    @functools.cached_property
    def metadata_files(self) -> list[str]:
        meta = self.root / "meta"
        found = [meta / "info.json", *sorted((meta / "episodes").rglob("*.parquet"))]
        found += [*task_files(self.root), *sorted(meta.glob("*.jsonl"))]
        return [str(path) for path in dict.fromkeys(found) if path.exists()]

    def _image_file(self, episode_index: int, camera: str) -> str:
        """Return the video file of an episode, or for an image camera its data file."""
        episode = self.episode(episode_index)
        if camera not in self.cameras_of(episode_index):
            self.source.camera(camera)  # raises for a camera that the dataset does not have
            raise CuesheetError(f"{self.name}: episode {episode_index} has no video of {camera}.")
        video = episode.videos.get(camera)
        return video.file if video else episode.data_file

    def clip_source(self, episode_index: int, camera: str) -> dict[str, Any]:
        """Return what `extract_clip` needs to know; it changes if the episode changes.

        Paths are relative to the dataset's root: a dataset that moved is not a change.
        """
        episode = self.episode(episode_index)
        video = episode.videos.get(camera)
        return {
            "kind": self.source.camera(camera).kind,
            "file": self._image_file(episode_index, camera),
            "file_state": self._image_file_state(episode_index, camera),
            "from_s": video.from_s if video else None,
            "to_s": video.to_s if video else None,
            "length": episode.length,
            "fps": self.source.fps,
            "fingerprint": episode.fingerprint,
        }

    def keyframes_source(self, episode_index: int) -> dict[str, Any]:
        """Return a value that changes if the images or timestamps of an episode change."""
        return {
            "fingerprint": self.episode(episode_index).fingerprint,
            "files": [
                self._image_file_state(episode_index, camera)
                for camera in self.cameras_of(episode_index)
            ],
        }

    def _image_file_state(self, episode_index: int, camera: str) -> str:
        return self._file_state(str(self.root / self._image_file(episode_index, camera)))

    @functools.cached_property
    def _file_state(self) -> Callable[[str], str]:
        return functools.cache(file_state)

    def check_files(self) -> None:
        """Raise CuesheetError if source files of the selected episodes do not exist.

        A conversion to another format needs the files of all episodes and cameras.
        """
        source, advice = self.source, "leave these episodes out (episodes: [...])"
        needed = source.files_of(self.worked_on)
        if self.is_converted:
            advice = "set output.format to source, which needs only the selected episodes"
            every = (episode.episode_index for episode in source.episodes)
            needed = source.files_of(every, include_excluded=True)
        missing = [file for file in sorted(needed) if not source.has_file(file)]
        if missing:
            lines = [
                f"  {self.root / file}, needed by {describe_range(needed[file])}"
                for file in missing[:20]
            ]
            raise CuesheetError(
                f"{self.name}: meta/ names {counted(len(missing), 'file')} that cannot be found:\n"
                + "\n".join(lines)
                + f"\nCopy or download the dataset again, or {advice}."
            )

    def refresh_index(self) -> bool:
        """Remove leftovers of killed runs; re-create an index that no longer matches the source.

        Returns whether the index was re-created. Raises CuesheetError if the source's files
        disagree with its metadata; the existing index is kept.
        """
        removed = remove_leftovers(self.results)
        if removed:
            print(
                f"Cuesheet: {self.name}: removed {removed} temporary files of a killed run",
                file=sys.stderr,
            )
        path = self.layout.index
        if not path.exists() or is_current(path, self.source, self.worked_on):
            return False
        # These import pyarrow and a video library, which jobs should not.
        from cuesheet.artifacts import source_changes
        from cuesheet.dataset.index import make_index

        print(f"Cuesheet: {self.name}: the source changed; checking it", file=sys.stderr)
        before = source_changes.read_fingerprints(path)
        notices = [  # those of the metadata are on the terminal already
            notice
            for notice in make_index(path, self.source, self.worked_on)
            if notice not in self.source.notices
        ]
        after = source_changes.read_fingerprints(path)
        if before is not None and after is not None:
            changes = source_changes.compare(before, after)
            if changes:
                source_changes.record(self.results, changes)
                notices = [f"episodes: {source_changes.describe(vars(changes))}", *notices]
        for notice in notices:
            print(f"Cuesheet: {self.name}: {notice}", file=sys.stderr)
        return True

    def refresh_signals_layout(self, settings: SignalsConfig, *, source_changed: bool) -> None:
        """Detect arms and grippers again if the source or the settings changed.

        The layout is written only if other arms or grippers are found, so that added, removed or
        replaced episodes do not change the signals of the others.
        """
        path = self.layout.signals_layout
        if not settings.enabled or not path.exists() or not self.layout.index.exists():
            return
        before = SignalsLayout.read(path)
        if before.wanted == settings.gripper and not source_changed:
            return
        from cuesheet.signals.detect import detect  # imports numpy and pyarrow

        found = detect(self.root, self.layout.index, self.name, **settings.detection)
        if found.is_same_robot(before):
            return
        write_json(path, found.model_dump())
        if source_changed:
            print(
                f"Cuesheet: {self.name}: the source changed; {found.describe()} (before: "
                f"{before.describe()}). The next run measures all episodes again",
                file=sys.stderr,
            )

    def signals_source(self, episode_index: int) -> str:
        """Return a value that changes if the state or action of an episode changes."""
        return self.episode(episode_index).fingerprint

    # What people decided

    def given_subtasks(self, episode_index: int) -> dict[str, Any] | None:
        """Return the subtasks that replace the model's; None if the model is asked."""
        correction = self.corrections.get(episode_index)
        if correction is not None and correction.subtasks is not None:
            return {"spans": [span.model_dump() for span in correction.subtasks]}
        if self.subtask_column is None:
            return None
        data_file = self.episode(episode_index).data_file
        labels = labels_file(self.root, self.subtask_column)
        return {
            "data_file": data_file,
            "column": self.subtask_column,
            "states": [self._file_state(str(f)) for f in (self.root / data_file, labels) if f],
        }

    def corrected_rephrasings(self, episode_index: int) -> list[str] | None:
        """Return the rephrasings that a person wrote; None if the model is asked."""
        correction = self.corrections.get(episode_index)
        return correction.rephrasings if correction else None

    def corrected_interjections(self, episode_index: int) -> list[dict[str, Any]] | None:
        """Return the interjections that a person wrote; None if the model is asked."""
        correction = self.corrections.get(episode_index)
        if correction is None or correction.interjections is None:
            return None
        return [entry.model_dump() for entry in correction.interjections]

    def vqa_corrections(self, episode_index: int) -> list[dict[str, Any]]:
        correction = self.corrections.get(episode_index)
        return [entry.model_dump() for entry in (correction and correction.vqa) or ()]

    def verdict(self, episode_index: int) -> str | None:
        """Return a person's verdict on an episode: good, bad, or None."""
        correction = self.corrections.get(episode_index)
        return correction.verdict if correction else None

    @functools.cached_property
    def corrections_state(self) -> str:
        """A hash of all corrections that change annotations, also of those that repeat the model.

        The review page compares the corrections that it was built with to the current ones.
        """
        states = []
        for index, correction in sorted(self.corrections.items()):
            texts = {"subtasks", "rephrasings", "interjections", "vqa"}
            changes = correction.model_dump_json(include=texts, exclude_defaults=True)
            is_bad = correction.verdict == "bad"
            if is_bad or changes != "{}":
                states.append(f"{index} {is_bad} {changes}")
        return hashlib.sha256("\n".join(states).encode()).hexdigest()[:16]

    # Files of the run

    @property
    def clips(self) -> list[str]:
        return [
            str(self.layout.clip(camera, index))
            for index in self.worked_on
            for camera in self.cameras_of(index)
        ]

    @property
    def keyframe_folders(self) -> list[str]:
        return [str(self.layout.keyframes(index)) for index in self.worked_on]

    def stage_files(self, episodes: Collection[int], stages: Collection[str]) -> list[str]:
        return [str(self.layout.stage_file(stage, index)) for stage in stages for index in episodes]

    def validations(self, episodes: Iterable[int]) -> list[str]:
        return [str(self.layout.validation(index)) for index in episodes]

    @property
    def is_converted(self) -> bool:
        """Whether the output has another format than the source."""
        return self.output_format != "source" and self.output_format != self.source.version

    @property
    def merged_data_files(self) -> list[str]:
        """Data files with language columns. If the output is converted, these are its input.

        Files of the source that do not exist (they hold no selected episode) are left out.
        """
        tree = self.layout.merged if self.is_converted else self.layout.annotated
        present = (file for file in self.source.data_files if self.source.has_file(file))
        return [str(tree / file) for file in present]
