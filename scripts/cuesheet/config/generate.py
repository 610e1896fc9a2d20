"""Generate the files that are derived from the settings models: `cuesheet config [--check]`.

Makes `config/config.yaml` (every setting with its default and meaning), `config/config.schema.json`
(for editors), `docs/configuration.md` (the reference) and `docs/prompts.md` (the variables of the
prompt files). `--check` writes nothing and exits with status 1 if a file is outdated.
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cuesheet.config import prompt_files
from cuesheet.config.describe import choices, describe_expected, descriptions, section_of, settings
from cuesheet.config.models import Config, DatasetEntry
from cuesheet.config.types import Expected, parse_episodes
from cuesheet.files import write_text

REPOSITORY = Path(__file__).resolve().parents[3]
COMMAND = "cuesheet config"
_WIDTH = 98


def default_of(field: FieldInfo) -> Any:
    """Return a field's default as plain data, as a person would write it."""
    default = field.get_default(call_default_factory=True)
    if default is None and any(getattr(m, "func", None) is parse_episodes for m in field.metadata):
        return "all"
    return default


def yaml_value(value: Any) -> str:
    """Return one line of YAML for a plain value, e.g. `[bbox, count]`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def yaml_text() -> str:
    """Return the documented `config/config.yaml`."""
    lines = [
        "# yaml-language-server: $schema=config.schema.json",
        *_comment(str(Config.__doc__), 0),
        "#",
        *_comment(
            "Change the values to your liking, or put only those that differ into a file of your "
            "own and name it with --configfile. The comments and defaults come from "
            "scripts/cuesheet/config; after a change there run: cuesheet config",
            0,
        ),
        "",
        *_yaml_section(Config, 0),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _yaml_section(model: type[BaseModel], indent: int) -> list[str]:
    lines: list[str] = []
    margin = " " * indent
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section:
            if not lines or lines[-1]:
                lines.append("")
            lines += _comment(str(section.__doc__), indent)
            lines += [f"{margin}{name}:", *_yaml_section(section, indent + 2), ""]
        else:
            text = descriptions(model)[name]
            lines += _comment(f"{text}{_accepts(field, text)}", indent)
            lines.append(f"{margin}{name}: {yaml_value(default_of(field))}")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _accepts(field: FieldInfo, text: str) -> str:
    """Return the accepted values of a setting for its comment, e.g. ` [whole number, 1 to 64]`."""
    words = describe_expected(field)
    said = field.annotation in (bool, str) or any(isinstance(m, Expected) for m in field.metadata)
    allowed = choices(field)
    if said or (allowed and all(f"`{choice}`" in text for choice in allowed)):
        return ""
    return f" [{words}]"


def _comment(text: str, indent: int) -> list[str]:
    mark = " " * indent + "# "
    return textwrap.wrap(
        _plain(" ".join(text.split())),
        width=_WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(text: str) -> str:
    return text.replace("`", "")


def schema_text() -> str:
    """Return the JSON schema (draft 2020-12) for editors that complete and check YAML."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_titles(Config.model_json_schema()),
        "title": "Cuesheet configuration",
    }
    models: list[type[BaseModel]] = [Config, DatasetEntry]
    models += [section for _, field in settings(Config) if (section := section_of(field))]
    for model in models:
        properties = (schema if model is Config else schema["$defs"][model.__name__])["properties"]
        for name, text in descriptions(model).items():
            properties[name] = dict(sorted({**properties[name], "description": text}.items()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _without_titles(node: Any) -> Any:
    """Drop the titles that pydantic derives from field names; they only repeat the key."""
    if isinstance(node, dict):
        return {
            key: _without_titles(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(item) for item in node] if isinstance(node, list) else node


def reference_text() -> str:
    """Return the reference page `docs/configuration.md`."""
    lines = [
        "# Configuration reference",
        "",
        "<!-- Generated from scripts/cuesheet/config by `cuesheet config`; do not edit. -->",
        "",
        "All settings with their accepted values, defaults and meanings. "
        "[config/README.md](../config/README.md) shows how to use them. Times are in seconds "
        "(`_s`). Unknown keys are errors.",
        "",
        "## Top level",
        "",
        *_table(Config),
        "### One dataset of several",
        "",
        "An entry of `dataset: {name: {...}}`.",
        "",
        *_table(DatasetEntry),
        *_reference_sections(Config, "", "##"),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _reference_sections(model: type[BaseModel], above: str, level: str) -> list[str]:
    lines: list[str] = []
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section:
            path = f"{above}{name}"
            lines += [
                f"{level} `{path}`",
                "",
                " ".join(str(section.__doc__).split()),
                "",
                *_table(section),
            ]
            lines += _reference_sections(section, f"{path}.", level + "#")
    return lines


def _table(model: type[BaseModel]) -> list[str]:
    rows = ["| key | accepts | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if section_of(field):
            continue
        default = "required" if field.is_required() else f"`{yaml_value(default_of(field))}`"
        cells = (f"`{name}`", describe_expected(field), default, descriptions(model)[name])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


def generated() -> dict[str, str]:
    """Return path (relative to the repository) -> text of every generated file."""
    return {
        "config/config.yaml": yaml_text(),
        "config/config.schema.json": schema_text(),
        "docs/configuration.md": reference_text(),
        "docs/prompts.md": prompt_files.reference_text(),
    }


def drifted(repository: Path) -> list[str]:
    """Return the generated files that are missing or outdated."""
    return [
        name
        for name, text in generated().items()
        if not (repository / name).is_file()
        or (repository / name).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="cuesheet config", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on drift")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = drifted(options.repository)
    if not options.check:
        for name in names:
            write_text(options.repository / name, generated()[name])
            print(f"wrote {name}")
        return 0
    for name in names:
        print(
            f"{name} is outdated; run: {COMMAND}",
            file=sys.stderr,
        )
    return 1 if names else 0
