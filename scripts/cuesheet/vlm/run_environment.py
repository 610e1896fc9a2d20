"""Environment variables through which the jobs of a run find its servers.

The value is a JSON object from the results folder of a run to what its jobs need. It usually has
one entry. A workflow that uses this one twice as a module starts two runs in the same process, and
every job takes the entry of the results folder that its own files are in.
"""

import json
import os
from pathlib import Path

# Path of the run's server.json.
SERVER_FILE_VARIABLE = "CUESHEET_SERVER_FILE"
# Folder of media that are sent as file URLs; no entry if they are sent as data URLs.
SHARED_FOLDER_VARIABLE = "CUESHEET_SHARED_FOLDER"
# Name under which another workflow uses this one as a module; no entry otherwise.
MODULE_VARIABLE = "CUESHEET_MODULE"


def publish(variable: str, results: Path | str, value: str) -> None:
    """Set the entry of the run whose results folder is `results`."""
    _write(variable, {**_read(variable), str(results): value})


def withdraw(variable: str, results: Path | str) -> str | None:
    """Remove the entry of a run and return it; None if there is none."""
    entries = _read(variable)
    value = entries.pop(str(results), None)
    _write(variable, entries)
    return value


def find(variable: str, file: Path | str) -> str | None:
    """Return the entry for a job that reads or writes `file`; None if there is none."""
    entries = _read(variable)
    if len(entries) == 1:  # with a storage provider, jobs work on copies in another folder
        return next(iter(entries.values()))
    folders = [folder for folder in entries if Path(file).is_relative_to(folder)]
    return entries[max(folders, key=len)] if folders else None


def explain_missing_server(file: Path | str) -> str:
    """Return why the job that reads or writes `file` has no model server, and what to do."""
    module = find(MODULE_VARIABLE, file)
    if not module:
        return (
            "there is no model server, because this job was not started by a run of Snakemake: "
            "start it with snakemake, which starts the server first"
        )
    return (
        f"there is no model server, because the workflow that uses Cuesheet as the module {module} "
        "does not forward its hooks. Add these lines below its `use rule` statement: "
        f"`onstart: {module}.onstart()`, `onsuccess: {module}.onsuccess()` and "
        f"`onerror: {module}.onerror()` (docs/module.md)"
    )


def _read(variable: str) -> dict[str, str]:
    return json.loads(os.environ.get(variable) or "{}")


def _write(variable: str, entries: dict[str, str]) -> None:
    if entries:
        os.environ[variable] = json.dumps(entries)
    else:
        os.environ.pop(variable, None)
