"""Windows of an episode: what the model sees of each, and the subtasks that it finds.

An episode with more frames than one request may show is divided into consecutive windows. For each
window, the model first describes what is visible and then divides it into subtasks. Both requests
begin with the same text and media, so that the server can reuse its prefix cache. Descriptions of
several windows are requested at the same time. The segmentations are requested in order, because
each gets the last label of the window before.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuesheet.annotate.consensus import consensus
from cuesheet.annotate.evidence import Evidence, table
from cuesheet.annotate.stage import CutClip, Stage
from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.subtasks import Subtask, Window, clean_spans, enforce_limits
from cuesheet.config.stages import FramesConfig, PlanConfig
from cuesheet.errors import CuesheetError
from cuesheet.vlm.client import Answer, Clip, Media
from cuesheet.vlm.replies import Description, Segmentation

# Tolerance for models that round the end of a clip up (s).
_CLOCK_SLACK_S = 1.0


@dataclass(frozen=True)
class WindowSource:
    """The media of windows. `grid`: the frames that may be shown."""

    grid: Sequence[Keyframe]
    layout: FramesConfig
    cut_clip: CutClip | None

    def show(self, stage: Stage, window: Window) -> tuple[list[Media], str]:
        """Return the media of a window and the text that explains them.

        Raises CuesheetError if the mode is clip and there is no clip.
        """
        shown = [f for f in self.grid if window.start_frame <= f.frame_index < window.end_frame]
        if self.layout.mode == "contact_sheets":
            return stage.sheets(shown, self.layout)
        if self.layout.mode == "single_frames":
            media, words = stage.frames(shown)
            order = "Each image is one frame of the same video, in the order of time."
            return media, f"{words}\n{order}"
        if self.cut_clip is None:
            raise CuesheetError(
                f"episode {stage.episode.name}: plan.frames.mode is clip but there is no clip"
            )
        clip = stage.clip(self.cut_clip, window.start_frame, window.end_frame, self.layout.clip_fps)
        return [clip], _clip_words(*_times(stage, window))


def split_windows(
    frames: Sequence[int], length: int, max_frames: int, overlap: int = 0
) -> list[Window]:
    """Cut an episode of `length` frames so that no window shows more than `max_frames` of `frames`.

    Consecutive windows share about `overlap` of the shown frames and hold equally many of them,
    give or take one. Windows of fewer than twice the overlap do not overlap.
    """
    if 2 * overlap > max_frames:
        overlap = 0
    if len(frames) <= max_frames:
        return [Window(0, length)]
    count = math.ceil((len(frames) - overlap) / (max_frames - overlap))
    firsts = [position * (len(frames) - overlap) // count for position in range(count + 1)]
    ends = [*(frames[first + overlap] for first in firsts[1:-1]), length]
    starts = [0, *(frames[first] for first in firsts[1:-1])]
    return [Window(start, end) for start, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class Segmented:
    """The subtasks of a window, and all samples of them. An unusable sample is empty."""

    subtasks: list[Subtask]
    samples: list[list[Subtask]]


def sample_settings(stage: Stage, settings: PlanConfig) -> list[dict[str, Any]]:
    """Return the sampling parameters of each sample that override the run's."""
    if settings.samples == 1:
        return [{}]
    first = stage.sampling.get("seed") or 0
    return [
        {"temperature": settings.sample_temperature, "seed": first + number}
        for number in range(settings.samples)
    ]


async def segment_windows(
    stage: Stage,
    settings: PlanConfig,
    source: WindowSource,
    windows: Sequence[Window],
    task: str,
    evidence: Evidence,
) -> list[Segmented]:
    """Return the subtasks of every window. Raises CuesheetError if one has none."""
    episode = stage.episode
    suggested = evidence.propagated.subtasks if evidence.propagated else ()

    async def one(window: Window, before: asyncio.Task[Segmented] | None) -> Segmented:
        # The semaphore is fair, so the first unfinished window always holds a slot.
        async with stage.slots:
            media, words = source.show(stage, window)
            start_s, end_s = _times(stage, window)
            values = {
                "frames": words,
                "task": task,
                "start_s": start_s,
                "end_s": end_s,
                "episode_s": episode.end_s,
                "more_before": window.start_frame > 0,
                "more_after": window.end_frame < episode.length,
                "recorded": table(
                    evidence.recording, episode, window.start_frame, window.end_frame
                ),
                "granularity": settings.granularity,
                "suggested": "\n".join(
                    f"- {one.start_s(episode):.2f} to {one.end_s(episode):.2f} s: {one.label}"
                    for one in suggested
                    if one.start_frame < window.end_frame and one.end_frame > window.start_frame
                ),
            }
            requests = _WindowRequests(stage, settings, window, media, values)
            description = await requests.describe() if settings.describe_first else ""
            under_way = _label_at((await before).subtasks, window.start_frame) if before else ""
            return await requests.segment(description, under_way)

    tasks: list[asyncio.Task[Segmented]] = []
    for window in windows:
        tasks.append(asyncio.create_task(one(window, tasks[-1] if tasks else None)))
    return await asyncio.gather(*tasks)


def from_episode_start(
    spans: Sequence[tuple[float, float, str]], start_s: float, end_s: float
) -> list[tuple[float, float, str]]:
    """Return the spans of a clip that shows [start_s, end_s), relative to the start of the episode.

    Some models count times from the first frame of the clip, whatever the prompt says. This is
    assumed if every span begins before the window and ends within the length of the window: all
    spans are then shifted by `start_s`. Otherwise, they are returned unchanged.
    """
    longest_s = end_s - start_s + _CLOCK_SLACK_S
    if all(0 <= begin < start_s and end <= longest_s for begin, end, _ in spans):
        return [(begin + start_s, end + start_s, words) for begin, end, words in spans]
    return list(spans)


def _label_at(subtasks: Sequence[Subtask], frame: int) -> str:
    """Return the label of the subtask at a frame, or of the last subtask."""
    found = [
        subtask.label for subtask in subtasks if subtask.start_frame <= frame < subtask.end_frame
    ]
    return found[0] if found else subtasks[-1].label


def _clip_words(start_s: float, end_s: float) -> str:
    words = f"Clip: {start_s:.2f} to {end_s:.2f} s"
    if start_s > 0:
        words += (
            f"\nThe clip is cut out of a longer video: its first frame is at {start_s:.2f} s of "
            "the episode. Give all times from the start of the episode: what is seen "
            f"1.00 s into the clip happens at {start_s + 1:.2f} s."
        )
    return words


def _times(stage: Stage, window: Window) -> tuple[float, float]:
    subtask = Subtask(window.start_frame, window.end_frame, "")
    return subtask.start_s(stage.episode), subtask.end_s(stage.episode)


@dataclass(frozen=True)
class _WindowRequests:
    """The requests about a window. `shared`: values of the text with which they begin."""

    stage: Stage
    settings: PlanConfig
    window: Window
    media: list[Media]
    shared: dict[str, Any]

    @property
    def between(self) -> str:
        return f"{self.shared['start_s']:.2f} to {self.shared['end_s']:.2f} s"

    async def describe(self) -> str:
        """Return a description of the window as text for the segmentation; it may be empty."""
        start_s = self.shared["start_s"]
        reply = await self.stage.ask_or_warn(
            f"describe {start_s:.2f}",
            "plan_describe",
            Description,
            self.media,
            self.shared,
            warning=f"the model gave no usable description of {self.between}",
        )
        if reply is None:
            return ""
        events = [(event.at_s, event.at_s, event.what) for event in reply.events]
        events = self._on_episode_clock(events, "description")
        lines = [f"- {max(at_s, start_s):.2f} s: {what}" for at_s, _, what in sorted(events)]
        return "\n".join([reply.scene, *lines])

    async def segment(self, description: str, under_way: str) -> Segmented:
        """Segment the window. `under_way`: the last label of the window before, if any."""
        values = {
            **self.shared,
            "description": description,
            "under_way": under_way,
            "max_subtasks": self.settings.max_subtasks,
            "min_subtask_s": self.settings.shortest_s,
        }

        async def sample(number: int, sampling: dict[str, Any]) -> Answer[Segmentation]:
            name = f"segment {self.shared['start_s']:.2f}{_which(number, sampling)}"
            return await self.stage.ask(
                name, "plan_segment", Segmentation, self.media, values, sampling
            )

        samplings = list(enumerate(sample_settings(self.stage, self.settings)))
        answers = await asyncio.gather(*(sample(*one) for one in samplings))
        samples = [
            self._subtasks_of(answer.value, f"segmentation{_which(*one)}")
            for answer, one in zip(answers, samplings, strict=True)
        ]
        usable = [subtasks for subtasks in samples if subtasks]
        if not usable:
            raise self._no_segmentation(answers[0])
        if len(usable) < len(samples):
            self.stage.warn(
                f"{len(samples) - len(usable)} of {len(samples)} samples of {self.between} were "
                "not usable; they count as empty"
            )
        if len(samples) == 1:
            return Segmented(usable[0], samples)
        subtasks = enforce_limits(
            consensus(usable, self.stage.episode),
            self.stage.episode,
            min_subtask_s=self.settings.shortest_s,
            max_subtasks=self.settings.max_subtasks,
        )
        return Segmented(subtasks, samples)

    def _subtasks_of(self, reply: Segmentation | None, what: str) -> list[Subtask]:
        """Return the subtasks of a reply; none if it is unusable. `what` names it in warnings."""
        spans = [(one.start_s, one.end_s, one.label) for one in (reply.subtasks if reply else [])]
        return clean_spans(
            self._on_episode_clock(spans, what),
            self.window,
            self.stage.episode,
            min_subtask_s=self.settings.shortest_s,
            max_subtasks=self.settings.max_subtasks,
        )

    def _no_segmentation(self, answer: Answer[Segmentation]) -> CuesheetError:
        found = (
            "two replies in a row did not match the schema"
            if answer.value is None
            else f"none of its {len(answer.value.subtasks)} spans is within the window"
        )
        key = answer.call["key"]
        return CuesheetError(
            f"episode {self.stage.episode.name}: the model gave no usable segmentation of "
            f"{self.between}: {found}. Its reply is in the response cache (vlm.cache_dir) as "
            f"{key[:2]}/{key}.json. Run the same command to request it again, or change the "
            "prompt, the sampling or the model."
        )

    def _on_episode_clock(
        self, spans: list[tuple[float, float, str]], what: str
    ) -> list[tuple[float, float, str]]:
        """Apply `from_episode_start` if the window is a clip. Warn if times were shifted."""
        if not spans or not any(isinstance(item, Clip) for item in self.media):
            return spans
        start_s = self.shared["start_s"]
        moved = from_episode_start(spans, start_s, self.shared["end_s"])
        if moved != spans:
            self.stage.warn(
                f"the {what} of {self.between} counted from the clip's first frame; its times were "
                f"moved by {start_s:.2f} s"
            )
        return moved


def _which(number: int, sampling: dict[str, Any]) -> str:
    return f" sample {number}" if sampling else ""
