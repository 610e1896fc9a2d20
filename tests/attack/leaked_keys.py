"""Searches the files of a run for its keys."""

import json
from pathlib import Path

KEY = "sk-marked-5b1f0c7d93e2"
KEY_VARIABLE = "ATTACKED_MODEL_KEY"
GATEWAY_KEY_FILE = ".cuesheet/runs/*/server.json"


def leaks(folder: Path, output: str = "") -> list[str]:
    """Return where keys of a run were found.

    The model server's key may be in no file at all and not on the terminal. The key of the run's
    gateway may be only in its server.json, which only its owner may read.

    Args:
        folder: the working directory of the run: logs, cache, results, provenance.
        output: what the run printed.
    """
    gateway_keys = set()
    problems = []
    for path in folder.glob(GATEWAY_KEY_FILE):
        try:
            gateway_keys.add(json.loads(path.read_bytes()).get("api_key"))
        except (OSError, ValueError):
            problems.append(f"{path} cannot be read")
        if path.stat().st_mode & 0o077:
            problems.append(f"{path} can be read by others")
        if path.parent.stat().st_mode & 0o077:
            problems.append(f"{path.parent} can be entered by others")
    keys = [KEY.encode(), *(key.encode() for key in gateway_keys if key)]
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        for key in keys:
            if key in content and (key == keys[0] or path.name != "server.json"):
                problems.append(f"a key is in {path.relative_to(folder)}")
    if any(key.decode() in output for key in keys):
        problems.append("a key is on the terminal")
    return problems
