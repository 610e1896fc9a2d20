"""Reads the settings of a command from a configuration file, as Snakemake reads those of a run."""

from pathlib import Path
from typing import Any

import yaml

from cuesheet.errors import CuesheetError

DEFAULT_CONFIG = Path("config") / "config.yaml"


def read_settings(path: Path | None) -> dict[str, Any]:
    """Return the settings of config/config.yaml, if it exists, overridden by those of `path`.

    Raises CuesheetError if a file cannot be read.
    """
    config: dict[str, Any] = {}
    for file in (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None, path):
        if file is None:
            continue
        if not file.is_file():
            found = "is a folder" if file.is_dir() else "does not exist"
            raise CuesheetError(f"{file} {found}; expected a YAML file with settings")
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CuesheetError(f"the configuration {file} cannot be read: {error}") from error
        if not isinstance(content, dict | None):
            raise CuesheetError(
                f"the configuration {file} is not a mapping of settings; expected lines "
                "such as `dataset: FOLDER`"
            )
        config = _merged(config, content or {})
    return config


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
