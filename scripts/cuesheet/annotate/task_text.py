"""The task of an episode: whether it is informative, the text that is used, and rephrasings."""

import re
from collections.abc import Sequence

from cuesheet.annotate.frame_selection import sample_evenly
from cuesheet.annotate.stage import Stage
from cuesheet.artifacts.episode import Keyframe
from cuesheet.config.stages import PlanConfig
from cuesheet.text import is_placeholder
from cuesheet.vlm.replies import AxisRephrasings, Rephrasings, TaskFromVideo

# Scripts that are written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han (with its
# extensions), half-width kana.
_UNSPACED_SCRIPTS = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
_FEWEST_WORDS = 3
_FEWEST_CHARACTERS = 4  # for scripts without spaces
_AXES = ("synonym", "omit_arm", "omit_orientation", "omit_grasp", "combined")


def is_short(task: str) -> bool:
    """Return whether a task is empty, a placeholder, or shorter than 3 words.

    In scripts without spaces, words cannot be counted: there a task needs 4 characters.
    """
    if is_placeholder(task):
        return True
    if _UNSPACED_SCRIPTS.search(task):
        return len(re.findall(r"\w", task)) < _FEWEST_CHARACTERS
    return len(task.split()) < _FEWEST_WORDS


async def choose_task(
    stage: Stage, settings: PlanConfig, grid: Sequence[Keyframe]
) -> dict[str, str]:
    """Return the task to use: the dataset's, or one derived from a sheet of the whole episode."""
    given = stage.episode.task.strip()
    if settings.derive_task == "always" or (settings.derive_task == "if_short" and is_short(given)):
        media, words = stage.sheets(sample_evenly(grid, settings.frames.per_sheet), settings.frames)
        reply = await stage.ask_or_warn(
            "task_from_video",
            "plan_task_from_video",
            TaskFromVideo,
            media,
            {"frames": words},
            warning="no usable task was derived from the video; the dataset's task is used",
        )
        if reply is not None:
            return {"text": reply.task, "source": "video"}
    return {"text": given, "source": "dataset"}


async def write_task_rows(
    stage: Stage, settings: PlanConfig, task: str, rephrasings: Sequence[str] | None = None
) -> None:
    """Write `task_aug` rows: the task itself, then its distinct rephrasings.

    They are at the first frame. If the episode has several tasks, the rows of each one are at the
    frame where it begins. Rephrasings are requested from the model, except for those of the first
    task if a person wrote them (`rephrasings`).
    """
    if not task:
        stage.warn(f"episode {stage.episode.name} has no task: no task_aug rows written")
        return
    is_derived = task != stage.episode.task.strip()
    starts = (not is_derived and stage.episode.task_starts) or [(0, task)]
    texts: dict[str, list[str]] = {}
    if rephrasings is not None:
        first = starts[0][1]
        texts[first] = [first, *_distinct([first], rephrasings)]
    for frame_index, one in starts:
        if one not in texts:
            texts[one] = [one, *await _rephrase(stage, settings, one)]
        for text in texts[one]:
            stage.add_persistent("task_aug", "user", text, stage.episode.timestamps_s[frame_index])


async def _rephrase(stage: Stage, settings: PlanConfig, task: str) -> list[str]:
    """Return at most the requested number of rephrasings, distinct from the task and each other."""
    wanted = settings.rephrasings
    if wanted.mode == "off":
        return []
    warning = "the model gave no usable rephrasing of the task"
    groups: list[tuple[list[str], int]] = []  # rephrasings, and how many of them are used
    if wanted.mode == "free":
        values: dict[str, object] = {"task": task, "count": wanted.count}
        free = await stage.ask_or_warn(
            "rephrase", "plan_rephrase", Rephrasings, None, values, warning=warning
        )
        if free is not None:
            groups = [(free.rephrasings, wanted.count)]
    else:
        counts = {axis: getattr(wanted, axis) for axis in _AXES}
        values = {"task": task, "axes": counts}
        by_axis = await stage.ask_or_warn(
            "rephrase", "plan_rephrase_axes", AxisRephrasings, None, values, warning=warning
        )
        if by_axis is not None:
            groups = [(getattr(by_axis, axis), count) for axis, count in counts.items()]
    found: list[str] = []
    for texts, count in groups:
        found += _distinct([task, *found], texts)[:count]
    if groups and not found:
        stage.warn(warning)
    return found


def _distinct(known: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Return the candidates that differ from `known` and each other, ignoring case and spaces."""
    seen = {" ".join(text.casefold().split()).rstrip(".!?") for text in known}
    fresh = []
    for candidate in candidates:
        text = " ".join(candidate.split())
        key = text.casefold().rstrip(".!?")
        if key and key not in seen:
            seen.add(key)
            fresh.append(text)
    return fresh
