"""Validates the annotations of an episode before they are merged into the dataset.

`validate_episode` reads the keyframes file and the annotation files of one episode and returns a
report: errors (the episode must not be merged) and warnings, each with a code, a place and a
message, and the number of rows by style.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from cuesheet.artifacts.episode import Episode
from cuesheet.artifacts.language import (
    EVENTS_COLUMN,
    PERSISTENT_COLUMN,
    STYLES,
    count_styles,
    style_name,
)
from cuesheet.artifacts.stage_files import (
    MotionSpan,
    StageFile,
    ValidationFile,
    frames_by_timestamp,
    to_float32,
)
from cuesheet.assemble.validate_vqa import PlacedRow, check_vqa


def validate_episode(
    episode: Episode, stages: Mapping[str, StageFile], cameras: Collection[str]
) -> ValidationFile:
    """Check the annotations of one episode; stages that are switched off have no file."""
    report = ValidationFile.empty(episode.episode_index)
    by_timestamp = frames_by_timestamp(episode.timestamps_s)
    rows: list[PlacedRow] = []
    for stage, data in stages.items():
        _check_identity(report, episode, stage, data)
        rows += _placed_rows(stage, data, by_timestamp)
        for warning in data.warnings:
            report.warn("stage_warning", stage, warning)
    for placed in rows:
        _check_time(report, placed, episode)
        _check_style(report, placed, cameras)
        _check_content(report, placed)
    _check_duplicates(report, rows)
    starts = _check_subtasks(report, rows, episode, "plan" in stages)
    if "plan" in stages:
        _check_spans(report, stages["plan"], starts, episode)
        _check_motion(report, rows, stages["plan"].motion, episode.length)
    _check_memory(report, rows, starts)
    _check_plans(report, rows)
    _check_task_rephrasings(report, rows, episode)
    _check_speech(report, rows)
    if "vqa" in stages:
        events = [r for r in rows if r.row.style == "vqa" and r.column == EVENTS_COLUMN]
        check_vqa(report, events, stages["vqa"].pairs, episode)
    report.counts = count_styles({"style": placed.row.style} for placed in rows)
    return report


def _check_identity(report: ValidationFile, episode: Episode, stage: str, data: StageFile) -> None:
    if (data.dataset, data.episode_index) != (episode.dataset, episode.episode_index):
        report.error(
            "wrong_episode",
            stage,
            f"the file belongs to episode {data.episode_index} of {data.dataset!r}; expected "
            f"episode {episode.episode_index} of {episode.dataset!r}. Delete the file and run "
            "again.",
        )


def _placed_rows(
    stage: str, data: StageFile, by_timestamp: Mapping[float, int]
) -> Iterator[PlacedRow]:
    columns = ((PERSISTENT_COLUMN, "row", data.persistent), (EVENTS_COLUMN, "event", data.events))
    for column, noun, rows in columns:
        for number, row in enumerate(rows):
            timestamp = to_float32(row.timestamp)
            frame_index = None if timestamp is None else by_timestamp.get(timestamp)
            yield PlacedRow(row, column, f"{stage} {noun} {number}", frame_index)


def _check_time(report: ValidationFile, placed: PlacedRow, episode: Episode) -> None:
    if placed.frame_index is not None:
        return
    is_event = placed.column == EVENTS_COLUMN
    near = min(episode.timestamps_s, key=lambda t: abs(t - placed.row.timestamp))
    report.error(
        "event_not_on_frame" if is_event else "persistent_not_on_frame",
        placed.label,
        f"timestamp {placed.row.timestamp} s is not that of any frame; the nearest frame is at "
        f"{near} s (the episode has {episode.length} frames, the last at "
        f"{episode.timestamps_s[-1]} s).",
    )


def _check_style(report: ValidationFile, placed: PlacedRow, cameras: Collection[str]) -> None:
    row, label = placed.row, placed.label
    if row.style not in STYLES:
        known = ", ".join(style for style in STYLES if style)
        report.error("style_unknown", label, f"style {row.style!r}; known are {known}.")
        return
    style = STYLES[row.style]
    name = style_name(row.style)
    if placed.column != style.column:
        report.error(
            "style_wrong_column", label, f"{name} is in {placed.column}, not {style.column}."
        )
    if row.role not in style.roles:
        report.error(
            "style_wrong_role",
            label,
            f"role {row.role!r}; {name} has the role {' or '.join(style.roles)}.",
        )
    if style.camera == "none" and row.camera is not None:
        report.error("camera_not_allowed", label, f"{name} has no camera; found {row.camera!r}.")
    elif style.camera == "required" and row.camera is None:
        report.error("camera_missing", label, f"{name} must name its camera.")
    elif row.camera is not None and row.camera not in cameras:
        report.error(
            "camera_unknown",
            label,
            f"the dataset has no camera {row.camera!r}; it has {', '.join(cameras) or 'none'}.",
        )


def _check_content(report: ValidationFile, placed: PlacedRow) -> None:
    row, label = placed.row, placed.label
    if row.style is None:
        calls = row.tool_calls or []
        well_formed = (
            row.content is None
            and len(calls) == 1
            and (calls[0].type, calls[0].function.name) == ("function", "say")
        )
        if not well_formed:
            report.error(
                "speech_form",
                label,
                "a row without a style is speech: no content and exactly one tool call say(text).",
            )
        elif not calls[0].function.arguments.text.strip():
            report.error("empty_text", label, "the text to speak is empty.")
        return
    if row.tool_calls is not None:
        report.error("tool_calls_not_allowed", label, f"{row.style} has no tool calls.")
    if row.content is None or not row.content.strip():
        is_question = row.style == "vqa" and row.role == "user"
        code = "vqa_question_empty" if is_question else "empty_text"
        report.error(code, label, f"the text of this {row.style} row is empty.")


def _check_duplicates(report: ValidationFile, rows: list[PlacedRow]) -> None:
    seen: dict[str, str] = {}
    for placed in rows:
        if placed.row.style == "vqa":
            continue  # check_vqa reports two pairs on one frame and camera
        key = placed.column + placed.row.model_dump_json()
        if key in seen:
            report.warn("duplicate_row", placed.label, f"the same row as {seen[key]}.")
        seen.setdefault(key, placed.label)


def _of_style(rows: list[PlacedRow], style: str | None) -> list[PlacedRow]:
    column = STYLES[style].column
    return [placed for placed in rows if placed.row.style == style and placed.column == column]


def _repeated(rows: list[PlacedRow]) -> Iterator[tuple[PlacedRow, PlacedRow]]:
    """Yield every row on the frame of an earlier one, after the first row on that frame."""
    first: dict[int, PlacedRow] = {}
    for placed in rows:
        if placed.frame_index is not None:
            before = first.setdefault(placed.frame_index, placed)
            if before is not placed:
                yield before, placed


def _frames(rows: list[PlacedRow]) -> set[int]:
    return {placed.frame_index for placed in rows if placed.frame_index is not None}


def _check_subtasks(
    report: ValidationFile, rows: list[PlacedRow], episode: Episode, has_plan: bool
) -> set[int]:
    """Check that exactly one subtask is active on every frame; return the start frames."""
    subtasks = _of_style(rows, "subtask")
    starts = _frames(subtasks)
    if not subtasks:
        if has_plan and episode.cameras:
            report.error("subtask_none", "plan", "there is no subtask; every frame needs one.")
        elif has_plan:
            report.warn("subtask_none", "plan", "there is no subtask: the dataset has no camera.")
        return starts
    for first, placed in _repeated(subtasks):
        report.error(
            "subtask_starts_not_distinct",
            placed.label,
            f"starts on frame {placed.frame_index}, like {first.label}; exactly one subtask may be "
            "active.",
        )
    if starts and 0 not in starts:
        report.error(
            "subtask_first_not_at_start",
            "plan",
            f"the first subtask starts on frame {min(starts)}; no subtask is active before it.",
        )
    return starts


def _check_spans(
    report: ValidationFile, plan: StageFile, starts: set[int], episode: Episode
) -> None:
    """Check that the spans agree with the rows and cover the episode without gaps."""
    spans = sorted(plan.subtasks, key=lambda span: span.start_frame)
    if {span.start_frame for span in spans} != starts:
        report.error(
            "subtask_spans_disagree",
            "plan subtasks",
            f"the spans start on frames {sorted({s.start_frame for s in spans})}, the subtask rows "
            f"on {sorted(starts)}.",
        )
        return
    ends = [span.start_frame for span in spans[1:]] + [episode.length]
    for number, (span, end) in enumerate(zip(spans, ends, strict=False)):
        if not span.label.strip():
            report.error("empty_text", f"plan subtask {number}", "the label is empty.")
        if span.end_frame != end:
            report.error(
                "subtask_spans_not_covering",
                f"plan subtask {number}",
                f"covers frames {span.start_frame} to {span.end_frame}; expected the end {end}, "
                "the start of the next span or the end of the episode.",
            )


def _check_motion(
    report: ValidationFile, rows: list[PlacedRow], spans: Sequence[MotionSpan], length: int
) -> None:
    """Check that an arm has one motion at a time, and that rows, which only start, have spans."""
    ordered = sorted(spans, key=lambda span: (span.arm, span.start_frame, span.end_frame))
    for arm, group in groupby(ordered, key=lambda span: span.arm):
        before = 0
        for span in group:
            covered = f"{span.text!r} covers frames {span.start_frame} to {span.end_frame}"
            if not 0 <= span.start_frame < span.end_frame <= length:
                report.error(
                    "motion_span_invalid",
                    f"motion of {arm}",
                    f"{covered}; the episode has {length} frames.",
                )
            elif span.start_frame < before:
                report.error(
                    "motion_overlaps",
                    f"motion of {arm}",
                    f"{covered}, but the motion before it ends at frame {before}; an arm has one "
                    "motion at a time.",
                )
            before = max(before, span.end_frame)
    expected = {(span.start_frame, span.text) for span in spans}
    found = {
        (placed.frame_index, placed.row.content or "")
        for placed in _of_style(rows, "motion")
        if placed.frame_index is not None
    }
    for frame, text in sorted(expected ^ found):
        what = "a span without a row" if (frame, text) in expected else "a row without a span"
        report.error("motion_rows_disagree", "motion", f"frame {frame}: {text!r} is {what}.")


def _check_memory(report: ValidationFile, rows: list[PlacedRow], starts: set[int]) -> None:
    memory = _of_style(rows, "memory")
    for placed in memory:
        frame_index = placed.frame_index
        if frame_index is None:
            continue
        if frame_index not in starts:
            report.error(
                "memory_not_at_subtask_start",
                placed.label,
                f"memory at {placed.row.timestamp} s, but no subtask starts there.",
            )
        elif frame_index == min(starts):
            report.warn("memory_at_first_start", placed.label, "nothing has been done yet.")
    for first, placed in _repeated(memory):
        report.error("memory_twice", placed.label, f"{first.label} is also memory at this time.")


def _check_plans(report: ValidationFile, rows: list[PlacedRow]) -> None:
    for first, placed in _repeated(_of_style(rows, "plan")):
        if first.row.content != placed.row.content:
            report.error(
                "plans_disagree",
                placed.label,
                f"{first.label} is a different plan at the same time, {placed.row.timestamp} s.",
            )


def _check_task_rephrasings(
    report: ValidationFile, rows: list[PlacedRow], episode: Episode
) -> None:
    starts = {0, *(frame_index for frame_index, _ in episode.task_starts)}
    for placed in _of_style(rows, "task_aug"):
        if placed.frame_index not in starts | {None}:
            report.warn(
                "task_aug_not_at_start",
                placed.label,
                f"rephrasings of a task must be at the frame where it begins, not at "
                f"{placed.row.timestamp} s.",
            )


def _check_speech(report: ValidationFile, rows: list[PlacedRow]) -> None:
    """Check that interjections have speech and a plan, and speech an interjection.

    The exception is the speech on the first frame.
    """
    interjections = _of_style(rows, "interjection")
    speech = _of_style(rows, None)
    spoken, planned = _frames(speech), _frames(_of_style(rows, "plan"))
    interjected = _frames(interjections)
    for placed in interjections:
        frame_index = placed.frame_index
        if frame_index is None:
            continue
        at = f"at {placed.row.timestamp} s"
        if frame_index not in spoken:
            report.error("interjection_without_speech", placed.label, f"no speech {at}.")
        if frame_index not in planned:
            report.error("interjection_without_plan", placed.label, f"no plan {at}.")
    for first, placed in _repeated(interjections):
        at = f"at {placed.row.timestamp} s"
        message = f"{first.label} is also an interjection {at}."
        report.error("interjection_twice", placed.label, message)
    seen: dict[int, str] = {}
    for placed in speech:
        frame_index = placed.frame_index
        if frame_index is None:
            continue
        at = f"at {placed.row.timestamp} s"
        if frame_index in seen:
            report.error("speech_twice", placed.label, f"{seen[frame_index]} is also speech {at}.")
        elif frame_index != 0 and frame_index not in interjected:
            report.error(
                "speech_without_interjection",
                placed.label,
                f"speech {at} answers no interjection; only the first frame's may.",
            )
        seen.setdefault(frame_index, placed.label)
