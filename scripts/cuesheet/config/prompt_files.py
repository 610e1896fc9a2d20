"""The prompt files: which stage reads which, and the variables that each may use.

`docs/prompts.md` is generated from this module (`cuesheet config`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class PromptFile:
    """What a prompt asks for, and its template variables with their meaning."""

    purpose: str
    variables: dict[str, str] = field(default_factory=dict)


_TASK = {"task": "Task of the episode; empty if it is missing or a placeholder."}
_FRAMES = {"frames": "Lines that say which time each image shows, and how to read a contact sheet."}
_WINDOW = {
    **_FRAMES,
    **_TASK,
    "start_s": "Start of the window.",
    "end_s": "End of the window.",
    "episode_s": "Length of the episode.",
    "more_before": "True if the episode has frames before the window.",
    "more_after": "True if the episode has frames after the window.",
    "recorded": "Events that the robot recorded in the window, one per line; may be empty.",
    "suggested": "Segments from a corrected episode (`plan.propagate`); may be empty.",
    "granularity": "`events` or `phases` (setting `plan.granularity`).",
}
_SEGMENT = {
    **_FRAMES,
    **_TASK,
    "start_s": "Start of the segment.",
    "end_s": "End of the segment.",
    "label": "Label from the segmentation.",
}
_VOCABULARY = {
    "vocabulary": "Labels that may be used (setting `plan.vocabulary`); empty for any.",
    "own_words": "True if the reply may have another label (`plan.vocabulary: auto`).",
}
# Their replies have labels.
VOCABULARY_PROMPTS = frozenset({"plan_segment", "plan_second_look", "plan_relabel"})
_NEIGHBORS = {
    "previous_label": "Label of the segment before; empty unless `plan.relabel` is `neighbors`.",
    "next_label": "Label of the segment after; empty unless `plan.relabel` is `neighbors`.",
}
_MANNER = {"manner": "How the robot words its sentence; drawn by seed."}
_TOPIC = {"topic": "The lines of `vqa_topic` for this question."}
PROMPT_FILES = {
    "system": PromptFile("First message of every request, the same for all stages."),
    "plan_task_from_video": PromptFile(
        "Derives the task from the video (`plan.derive_task`).", _FRAMES
    ),
    "plan_rephrase": PromptFile(
        "Rephrases the task (`plan.rephrasings.mode: free`).",
        {**_TASK, "count": "Number of rephrasings."},
    ),
    "plan_rephrase_axes": PromptFile(
        "Rephrases the task along five axes (`plan.rephrasings.mode: axes`).",
        {**_TASK, "axes": "Mapping of each axis to its number of rephrasings."},
    ),
    "plan_describe": PromptFile("Describes a window (`plan.describe_first`).", _WINDOW),
    "plan_segment": PromptFile(
        "Divides a window into subtasks.",
        {
            **_WINDOW,
            "description": "Reply to `plan_describe` as text; empty without it.",
            "under_way": "Last label of the window before; empty for the first window.",
            "max_subtasks": "Maximum number of subtasks per window (setting `plan.max_subtasks`).",
            **_VOCABULARY,
            "min_subtask_s": "Shortest subtask (setting `plan.min_subtask_s`).",
        },
    ),
    "plan_relabel": PromptFile(
        "Labels one segment again (`plan.relabel`).",
        {
            **_SEGMENT,
            **_NEIGHBORS,
            "count": "Number of labels (setting `plan.label_candidates`).",
            **_VOCABULARY,
        },
    ),
    "plan_select_label": PromptFile(
        "Selects one of several labels of a segment (`plan.label_candidates`).",
        {
            **_SEGMENT,
            **_NEIGHBORS,
            "labels": "The labels to choose from.",
        },
    ),
    "plan_second_look": PromptFile(
        "Lists the events that are completed within a segment (`plan.second_look`).",
        {
            **_SEGMENT,
            **_VOCABULARY,
        },
    ),
    "plan_memory": PromptFile(
        "Writes the robot's memory at the start of a subtask (`plan.memory`).",
        {
            **_FRAMES,
            **_TASK,
            "memory": "The memory before; empty for the first one.",
            "finished": "Label of the subtask that has just ended.",
            "starting": "Label of the subtask that starts.",
            "remaining": "Labels of the subtasks that come after it, in order.",
        },
    ),
    "vocabulary_draft": PromptFile(
        "Lists the steps of an episode for the labels of its task (`plan.vocabulary: auto`).",
        {
            **_FRAMES,
            **_TASK,
            "end_s": "Length of the episode.",
            "granularity": "`events` or `phases` (setting `plan.granularity`).",
        },
    ),
    "vocabulary_build": PromptFile(
        "Makes the labels of a task from the steps of a few episodes (`plan.vocabulary: auto`).",
        {
            **_TASK,
            "drafts": "The steps of each episode, a list with `number` and `label` of each step.",
        },
    ),
    "interjections_acknowledge": PromptFile(
        "The robot's first sentence, in reply to the task.", {**_TASK, **_MANNER}
    ),
    "interjections_interject": PromptFile(
        "What a person says at the start of a subtask, and the robot's reply.",
        {
            **_FRAMES,
            **_TASK,
            "last": "Label of the subtask that has just ended; `none` for the first one.",
            "coming": "Label of the subtask that starts.",
            "time_s": "Time of the interjection.",
            "kind": (
                "Kind of the interjection: `reminder`, `correction`, `preference`, `permission` "
                "or `question`; drawn by seed."
            ),
            **_MANNER,
        },
    ),
    "vqa_frame": PromptFile(
        "Request about one image: what is known of it, then what each question is about.",
        {
            "time_s": "Time of the image.",
            "camera": "Camera key of the image.",
            **_TASK,
            "coordinates": (
                "Line that names the unit of coordinates (setting `vlm.coordinates`); empty if no "
                "question needs it."
            ),
            "already_asked": "Questions that must not be asked again; usually empty.",
            "questions": (
                "List with `type` (such as `bbox`) and `text` (that type's prompt) of each "
                "question (setting `vqa.per_call`)."
            ),
        },
    ),
    "vqa_topic": PromptFile(
        "The object that a question is about; part of the prompts below.",
        {
            "target": "Object to ask about; empty if the model chooses.",
            "names": "Objects that earlier questions of the type and camera are about.",
        },
    ),
    "vqa_bbox": PromptFile("Question and answer about boxes.", _TOPIC),
    "vqa_keypoint": PromptFile("Question and answer about a point.", _TOPIC),
    "vqa_count": PromptFile("Question and answer about a number of objects.", _TOPIC),
    "vqa_attribute": PromptFile("Question and answer about a property of an object.", _TOPIC),
    "vqa_spatial": PromptFile("Question and answer about the relation of two objects.", _TOPIC),
    "inspect_subtask": PromptFile(
        "Whether a subtask is complete at its end (`inspect.enabled`).",
        {
            **_FRAMES,
            **_TASK,
            "label": "Label of the subtask.",
            "start_s": "Start of the subtask.",
            "end_s": "End of the subtask.",
        },
    ),
    "inspect_episode": PromptFile(
        "Whether the task was achieved (`inspect.enabled`).",
        {**_FRAMES, **_TASK, "labels": "Labels of all subtasks, in order."},
    ),
    "evaluate_judge": PromptFile(
        "Decides whether two labels mean the same (`evaluate.judge`).",
        {
            **_TASK,
            "predicted": "Label of the annotated segment.",
            "reference": "Label of the reference segment.",
        },
    ),
}


def _names(prefix: str) -> tuple[str, ...]:
    return ("system", *(name for name in PROMPT_FILES if name.startswith(prefix)))


# The prompts that each stage reads.
PLAN, INTERJECTIONS, VQA = _names("plan_"), _names("interjections_"), _names("vqa_")
INSPECT = _names("inspect_")
DRAFT, BUILD = ("system", "vocabulary_draft"), ("system", "vocabulary_build")
# Read only if labels are judged (evaluate.judge).
JUDGE = _names("evaluate_")
_OF_STAGE = {
    "plan": PLAN,
    "interjections": INTERJECTIONS,
    "vqa": VQA,
    "inspection": INSPECT,
    "vocabulary": _names("vocabulary_"),
}


def bundled_files() -> Path:
    """Return the folder with `config/prompts` that was installed with the library.

    A wheel has a copy inside the package; an installation in place uses the repository.
    """
    package = Path(__file__).parents[1]
    return package if (package / "config" / "prompts").is_dir() else package.parents[1]


def of_stages(stages: Iterable[str]) -> list[str]:
    """Return the names of the prompts that these stages read, each once."""
    return list(dict.fromkeys(name for stage in stages for name in _OF_STAGE[stage]))


def reference_text() -> str:
    """Return the page `docs/prompts.md`."""
    lines = [
        "# Prompt files",
        "",
        "<!-- Generated from scripts/cuesheet/config/prompt_files.py by `cuesheet config`. -->",
        "",
        "Every prompt is a Jinja2 template in the folder `prompts_dir` (default `config/prompts`). "
        "To write your own, copy the folder, edit the files and set `prompts_dir`. An edited file "
        "reruns its stage, and only requests that changed are sent. A variable that a prompt does "
        "not have is an error before any job starts, also in a dry run. All times are seconds "
        "from the start of the episode.",
        "",
        "The form of each reply is a JSON schema that is sent with the request. Its fields are in "
        "the order in which the model should fill them in: what it sees first, then what it "
        "concludes.",
        "",
        "A prompt may be worded freely, but the demo model finds its facts in the lines that the "
        "default prompts begin with a name and a colon, such as `Task:` and `Window:`. Keep these "
        "lines if you use the demo model.",
        "",
    ]
    for name, prompt in PROMPT_FILES.items():
        lines += [f"## `{name}.md`", "", prompt.purpose, ""]
        if not prompt.variables:
            lines += ["It has no variables.", ""]
            continue
        lines += ["| variable | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {meaning} |" for name, meaning in prompt.variables.items()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
