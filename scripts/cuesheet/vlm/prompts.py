"""Prompt files: Jinja2 templates, hashed for the provenance."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateError, meta

from cuesheet.config.prompt_files import PROMPT_FILES
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean

_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


class Prompts:
    """The templates of one stage. Raises CuesheetError if a file is missing or invalid."""

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self.hashes: dict[str, str] = {}
        self._templates: dict[str, Template] = {}
        for path in map(Path, paths):
            text = _read(path)
            with _naming(path):
                self._templates[path.stem] = _template(text)
            self.hashes[path.stem] = hashlib.sha256(text.encode()).hexdigest()

    def render(self, name: str, **values: object) -> str:
        """Return the text of prompt `name` with its variables filled in, stripped.

        Raises CuesheetError if the template uses another variable, and ValueError if the caller
        passes one that `config.prompt_files` does not document.
        """
        known = PROMPT_FILES.get(name)
        if known is not None and not values.keys() <= known.variables.keys():
            extra = ", ".join(sorted(values.keys() - known.variables.keys()))
            raise ValueError(f"prompt {name}: {extra} is not documented in config.prompt_files")
        try:
            return self._templates[name].render(**values).strip()
        except TemplateError as error:
            raise CuesheetError(
                f"prompt {name}: {error}; it may use {', '.join(sorted(values)) or 'no variables'}"
            ) from error


def check_files(paths: Sequence[Path]) -> None:
    """Raise CuesheetError, with one line per file, if a template is invalid.

    A variable that its prompt does not have is found here, before any request.
    """
    problems: list[str] = []
    for path in paths:
        try:
            text = _read(path)
            with _naming(path):
                used = meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
        except CuesheetError as error:
            problems.append(str(error))
            continue
        known = PROMPT_FILES[path.stem].variables
        for name in sorted(used - known.keys()):
            near = did_you_mean(name, known)
            advice = f"did you mean {near}?" if near else f"it has {', '.join(known) or 'none'}"
            problems.append(
                f"prompt file {path}: the variable {name} is unknown; {advice} (docs/prompts.md)"
            )
    if problems:
        raise CuesheetError("\n".join(problems))


@functools.cache
def _template(text: str) -> Template:
    """Return a compiled prompt. Compiling takes as much CPU time as the rest of a short job."""
    return _ENVIRONMENT.from_string(text)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CuesheetError(f"prompt file {path} cannot be read: {error}") from error
    if not text.strip():
        raise CuesheetError(
            f"prompt file {path} is empty; write the prompt, or copy the default one from "
            "config/prompts"
        )
    return text


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors of Jinja2 in the block, which reads a prompt file, into errors of the user."""
    try:
        yield
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        place = f"line {line} of {path}" if line else str(path)
        raise CuesheetError(
            f"prompt file {place} is not a valid Jinja2 template: {error}"
        ) from error
