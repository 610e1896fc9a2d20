"""Prompt files: Jinja2 templates, hashed for the provenance."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, StrictUndefined, TemplateError

from cuesheet.errors import CuesheetError

# The prompts that each stage reads; `system` is the constant first message of every request.
PLAN = (
    "system",
    "plan_task_from_video",
    "plan_rephrase",
    "plan_rephrase_axes",
    "plan_describe",
    "plan_segment",
    "plan_relabel",
    "plan_memory",
)
INTERJECTIONS = ("system", "interjections_acknowledge", "interjections_interject")
VQA = ("system", "vqa_bbox", "vqa_keypoint", "vqa_count", "vqa_attribute", "vqa_spatial")
# Read only if labels are judged (evaluate.judge).
JUDGE = ("system", "evaluate_judge")
_OF_STAGE = {"plan": PLAN, "interjections": INTERJECTIONS, "vqa": VQA}


def of_stages(stages: Iterable[str]) -> list[str]:
    """Return the names of the prompts that these stages read, each once."""
    return list(dict.fromkeys(name for stage in stages for name in _OF_STAGE[stage]))


class Prompts:
    """The templates of one stage. Raises CuesheetError if a file is missing or invalid."""

    def __init__(self, paths: Iterable[Path | str]) -> None:
        environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self.hashes: dict[str, str] = {}
        self._templates = {}
        for path in map(Path, paths):
            try:
                text = path.read_text(encoding="utf-8")
                self._templates[path.stem] = environment.from_string(text)
            except (OSError, UnicodeDecodeError) as error:
                raise CuesheetError(f"prompt file {path} cannot be read: {error}") from error
            except TemplateError as error:
                raise CuesheetError(
                    f"prompt file {path} is not a valid Jinja2 template: {error}"
                ) from error
            if not text.strip():
                raise CuesheetError(
                    f"prompt file {path} is empty; write the prompt, or copy Cuesheet's own from "
                    "config/prompts"
                )
            self.hashes[path.stem] = hashlib.sha256(text.encode()).hexdigest()

    def render(self, name: str, **values: object) -> str:
        """Return the text of prompt `name` with its variables filled in, stripped."""
        try:
            return self._templates[name].render(**values).strip()
        except TemplateError as error:
            raise CuesheetError(
                f"prompt {name}: {error}; the variables it may use are {', '.join(sorted(values))}"
            ) from error
