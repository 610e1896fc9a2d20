"""Reads the configuration, and reports every error in one line."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from cuesheet.config.describe import choices, describe_expected, section_of, settings, takes_list
from cuesheet.config.models import Config, DatasetEntry
from cuesheet.errors import CuesheetError
from cuesheet.text import did_you_mean

# Values of earlier versions, and what replaces them.
RENAMED_VALUES: dict[tuple[str, str], str] = {("vlm.serve", "offline"): "demo"}

_SNAKEMAKE_KEY = "pathvars"  # Snakemake reads it itself
_SHOWN = 60  # characters of a found value
_NAMES = 8  # keys listed if no name is similar


def load_config(raw: Mapping[str, Any] | None) -> Config:
    """Convert the values of YAML files and `--config` into a Config.

    Raises CuesheetError with one line per problem: the key, what was found, what is expected, and
    the closest valid name.
    """
    problems: list[str] = []
    ours = {key: value for key, value in (raw or {}).items() if key != _SNAKEMAKE_KEY}
    known = _drop_unknown(Config, ours, "", problems)
    if "dataset" in known:
        before = len(problems)
        known["dataset"] = _read_dataset(known["dataset"], problems)
        if len(problems) > before:
            del known["dataset"]
    config = _validate(Config, known, "", problems)
    if config is not None and not problems:
        try:
            config.dataset_entries()
        except ValueError as error:
            problems.append(str(error))
    if config is None or problems:
        raise CuesheetError("\n".join(f"config: {problem}" for problem in problems))
    return config


def _validate(
    model: type[BaseModel], values: dict[str, Any], above: str, problems: list[str]
) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for details in error.errors(include_url=False):
            label, line = _describe(model, details, values, above)
            lines.setdefault(label, line)  # each branch of a union reports by itself
        for label, line in lines.items():
            if not any(other.startswith(f"{label}[") for other in lines):
                problems.append(line)
        return None


def _drop_unknown(
    model: type[BaseModel], raw: Any, above: str, problems: list[str]
) -> dict[str, Any]:
    """Copy `raw` without unknown keys and without values that should be sections."""
    kept: dict[str, Any] = {}
    for key, value in raw.items():
        field = model.model_fields.get(key) if isinstance(key, str) else None
        path = f"{above}{key}"
        if field is None:
            problems.append(_unknown_key(model, str(key), above))
            continue
        if isinstance(value, str) and (path, value) in RENAMED_VALUES:
            new = RENAMED_VALUES[path, value]
            problems.append(f"{path}: the value {value} is now called {new}; write {new}")
            continue
        section = section_of(field)
        if section is None:
            kept[key] = value
        elif isinstance(value, Mapping):
            kept[key] = _drop_unknown(section, value, f"{path}.", problems)
        elif value is not None:  # a section without a line below it means its defaults
            problems.append(
                f"{path}: found {show(value)}, expected a section with "
                f"{_some(section.model_fields)}, for example {{{_example(section)}}}"
            )
    return kept


def _example(section: type[BaseModel]) -> str:
    name, field = next(iter(section.model_fields.items()))
    return f"{name}: {str(field.default).lower()}"


def _unknown_key(model: type[BaseModel], key: str, above: str) -> str:
    line = f"{above}{key}: there is no such key"
    wanted = key.lower().replace("-", "_")
    by_name: dict[str, list[str]] = {}
    for path, _ in settings(Config):
        by_name.setdefault(path.rpartition(".")[2], []).append(path)
        if path == wanted:
            return f"{line}; keys are nested: {_nested(path)}"
    if wanted in model.model_fields:
        return f"{line}; did you mean {wanted}?"
    if wanted in by_name:
        return f"{line} here; it exists as {' and '.join(by_name[wanted])}"
    near = did_you_mean(wanted, model.model_fields)
    if near:
        return f"{line}; did you mean {near}?"
    near = did_you_mean(wanted, by_name, cutoff=0.75)
    if near:
        return f"{line}; did you mean {' or '.join(by_name[near])}?"
    section = f"section {above[:-1]}" if above else "top level"
    return f"{line}; the {section} has {', '.join(model.model_fields)}"


def _nested(path: str) -> str:
    *sections, key = path.split(".")
    return "".join(f"{name}: {{" for name in sections) + f"{key}: ..." + "}" * len(sections)


def _read_dataset(value: Any, problems: list[str]) -> Any:
    """Check the form of `dataset`, so that an error gives one line; return it for validation."""
    if isinstance(value, Mapping):
        if "path" in value and set(value) <= set(DatasetEntry.model_fields):
            problems.append(
                "dataset: found a mapping with path but no name; name the dataset: "
                f"{{my_name: {{{', '.join(f'{key}: ...' for key in value)}}}}}"
            )
            return value
        if value:
            return {name: _read_entry(name, entry, problems) for name, entry in value.items()}
    elif isinstance(value, list):
        wrong = [(i, path) for i, path in enumerate(value) if not _is_folder(path)]
        problems.extend(f"dataset[{i}]: found {show(path)}, expected a folder" for i, path in wrong)
        if value:
            return value
    elif _is_folder(value):
        return value
    field = Config.model_fields["dataset"]
    problems.append(f"dataset: found {show(value)}, expected {_plain(describe_expected(field))}")
    return value


def _is_folder(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_entry(name: Any, entry: Any, problems: list[str]) -> Any:
    label = f"dataset.{name}"
    if not isinstance(name, str):
        problems.append(f"{label}: the name is {show(name)}, expected text; put it in quotes")
    elif isinstance(entry, Mapping):
        before = len(problems)
        known = _drop_unknown(DatasetEntry, entry, f"{label}.", problems)
        if "path" in known or len(problems) == before:  # a misspelled path is one problem, not two
            _validate(DatasetEntry, known, f"{label}.", problems)
        return known
    elif not _is_folder(entry):
        problems.append(
            f"{label}: found {show(entry)}, expected a folder, or a section with path, episodes "
            "and default_camera"
        )
    return entry


def _describe(
    model: type[BaseModel], details: ErrorDetails, values: Any, above: str
) -> tuple[str, str]:
    """Return (full key, line) for one of pydantic's errors."""
    field: FieldInfo | None = None
    value, label, item = values, above, False
    current: type[BaseModel] | None = model
    for part in details["loc"]:
        if current is not None and part in current.model_fields:
            field = current.model_fields[str(part)]
            label += f"{part}."
            value = value.get(part) if isinstance(value, Mapping) else None
            current = section_of(field)
        elif isinstance(part, int) and isinstance(value, list) and part < len(value):
            label, value, item = f"{label.rstrip('.')}[{part}].", value[part], True
        # anything else is the name of a branch of a union
    label = label.rstrip(".")
    if details["type"] == "value_error":
        message = str(details.get("ctx", {}).get("error", details["msg"]))
        return label, f"{label}: {message}" if label else message
    if details["type"] == "missing" or field is None:
        return label, f"{label}: the key is missing, expected {_plain(_words(field))}"
    line = f"{label}: found {show(value)}, expected {_plain(_words(field, item))}"
    return label, line + _hint(field, value, item)


def _words(field: FieldInfo | None, item: bool = False) -> str:
    return "a value" if field is None else describe_expected(field, item)


def _hint(field: FieldInfo, value: Any, item: bool) -> str:
    if not isinstance(value, str):
        return ""
    near = did_you_mean(value, choices(field))
    if near:
        wrapped = f"[{near}]" if takes_list(field) and not item and _only_list(field) else near
        return f"; did you mean {wrapped}?"
    if takes_list(field) and not item:
        return f"; for one write [{value[:_SHOWN]}]"
    return ""


def _only_list(field: FieldInfo) -> bool:
    return field.annotation is not None and getattr(field.annotation, "__origin__", None) is list


def _plain(words: str) -> str:
    article = "a " if words.startswith(("whole", "number", "list", "mapping", "text")) else ""
    return article + words.replace("`", "")


def show(value: Any) -> str:
    """Return a value as the user wrote it, with its type if that is not obvious."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list) and not value:
        return "an empty list"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
