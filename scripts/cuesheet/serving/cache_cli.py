"""Verify, summarize or prune a response cache: `cuesheet cache verify|stats|prune [--cache DIR]`.

verify   hash every entry and every image of the cache again, and list the damaged ones (exit
         status 1)
stats    count entries and bytes by model, reply class and age
prune    delete the entries that meet all of the given conditions --older-than, --model and
         --unused-by, of which at least one is required; with --dry-run, list them
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cuesheet.artifacts.layout import is_episode_name
from cuesheet.artifacts.stage_files import STAGES
from cuesheet.errors import CuesheetError
from cuesheet.serving.response_cache import ResponseCache, is_usable, read_entry
from cuesheet.text import counted

DEFAULT_CACHE = Path(".cache/vlm")
_ENTRY = re.compile(r"[0-9a-f]{64}\.json")
_MEDIUM = re.compile(r"[0-9a-f]{64}\.[a-z0-9]+")
_AGE = re.compile(r"(\d+)([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_AGES = (("1 day", 1), ("1 week", 7), ("30 days", 30), ("1 year", 365))


@dataclass(frozen=True)
class Entry:
    """Properties of a readable entry."""

    key: str
    path: Path
    size: int  # bytes
    model: str
    reply_class: str
    asked_at: datetime
    usable: bool


def entry_files(cache: Path) -> list[Path]:
    """Return the files of entries, sorted, without files that are still being written."""
    return sorted(path for path in cache.glob("??/*.json") if _ENTRY.fullmatch(path.name))


def media_files(cache: Path) -> list[Path]:
    """Return the images and clips that were sent as file URLs, named by their sha256; sorted."""
    return sorted(p for p in cache.glob("media/??/*") if _MEDIUM.fullmatch(p.name))


def damaged(cache: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file that does not match its name, and what is wrong with it."""
    for path in entry_files(cache):
        try:
            read_entry(path)
            if path.parent.name != path.name[:2]:
                yield path, f"it belongs in the folder {path.name[:2]}"
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            yield path, str(error)
    for path in media_files(cache):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            yield path, str(error)
            continue
        if digest != path.stem:
            yield path, "its content does not match its name"


def entries(cache: Path) -> Iterator[Entry]:
    """Yield the entries that can be read; `damaged` yields the others."""
    for path in entry_files(cache):
        try:
            raw = json.loads(path.read_bytes())
            form = raw["request"].get("response_format") or {}
            asked_at = datetime.fromisoformat(raw["asked_at"])
            yield Entry(
                key=path.stem,
                path=path,
                size=path.stat().st_size,
                model=str(raw["request"].get("model")),
                reply_class=str(form.get("json_schema", {}).get("name", "none")),
                asked_at=asked_at if asked_at.tzinfo else asked_at.replace(tzinfo=UTC),
                usable=is_usable(raw),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue


def statistics(cache: Path, now: datetime) -> dict[str, Any]:
    """Return counts of a cache by model, reply class and age."""
    found = list(entries(cache))
    by_age = dict.fromkeys([*(name for name, _ in _AGES), "older"], 0)
    for entry in found:
        days = (now - entry.asked_at) / timedelta(days=1)
        by_age[next((name for name, limit in _AGES if days < limit), "older")] += 1
    times = [entry.asked_at for entry in found]
    media = [path.stat().st_size for path in media_files(cache)]
    return {
        **_sizes(found),
        "without_text": sum(not entry.usable for entry in found),
        "unreadable": len(entry_files(cache)) - len(found),
        "media": {"files": len(media), "bytes": sum(media)},
        "by_model": {
            model: _sizes(entry for entry in found if entry.model == model)
            for model in sorted({entry.model for entry in found})
        },
        "by_reply_class": {
            name: _sizes(entry for entry in found if entry.reply_class == name)
            for name in sorted({entry.reply_class for entry in found})
        },
        "by_age": by_age,
        "oldest": min(times).isoformat() if times else None,
        "newest": max(times).isoformat() if times else None,
    }


def _sizes(found: Iterable[Entry]) -> dict[str, int]:
    sizes = [entry.size for entry in found]
    return {"entries": len(sizes), "bytes": sum(sizes)}


def used_keys(results: Iterable[Path]) -> set[str]:
    """Return the keys of all requests that the stage files below results folders depend on.

    Raises CuesheetError if a folder has no stage file or one cannot be read, because unused entries
    cannot be determined then.
    """
    keys: set[str] = set()
    for folder in results:
        found = [
            path
            for path in sorted(folder.rglob("*.json"))
            if is_episode_name(path.stem) and path.parent.name in STAGES
        ]
        if not found:
            raise CuesheetError(
                f"{folder} has no stage files (plan/, interjections/, vqa/), so every entry would "
                "count as unused; name a results folder"
            )
        for path in found:
            try:
                calls = json.loads(path.read_bytes())["provenance"]["calls"]
                keys |= {call[name] for call in calls for name in ("key", "correction_key")}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CuesheetError(
                    f"{path} cannot be read or does not name its cache entries ({error!r}); "
                    "nothing is deleted. Delete the file and run again, or omit --unused-by"
                ) from error
    return keys


def select(
    cache: Path,
    now: datetime,
    older_than: timedelta | None = None,
    models: Collection[str] = (),
    used: Collection[str] | None = None,
) -> list[Entry]:
    """Return the entries that meet all given conditions. Raises ValueError if none is given."""
    if older_than is None and not models and used is None:
        raise ValueError("at least one condition is needed")
    return [
        entry
        for entry in entries(cache)
        if (older_than is None or now - entry.asked_at > older_than)
        and (not models or entry.model in models)
        and (used is None or entry.key not in used)
    ]


def _age(text: str) -> timedelta:
    match = _AGE.fullmatch(text.strip())
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an age; write for example 12h, 90d or 4w"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _verify(options: argparse.Namespace) -> int:
    checked = len(entry_files(options.cache)) + len(media_files(options.cache))
    bad = 0
    for path, what in damaged(options.cache):
        bad += 1
        print(f"{path}: {what}")
    print(f"{counted(checked, 'file')} checked, {bad} damaged" + ("; delete them" if bad else ""))
    return 1 if bad else 0


def _stats(options: argparse.Namespace) -> int:
    found = statistics(options.cache, datetime.now(UTC))
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print(f"{options.cache}: {counted(found['entries'], 'entry')}, {_bytes(found['bytes'])}")
    for title, name in (("model", "by_model"), ("reply class", "by_reply_class")):
        for key, counts in found[name].items():
            noun = "entry  " if counts["entries"] == 1 else "entries"
            line = f"{counts['entries']:>9,} {noun}  {_bytes(counts['bytes']):>9}"
            print(f"  {title + ' ' + key:<48}{line}")
    if found["entries"]:
        ages = ", ".join(
            f"{name if name == 'older' else f'up to {name}'}: {count:,}"
            for name, count in found["by_age"].items()
            if count
        )
        print(f"  requested {found['oldest']} to {found['newest']}; age {ages}")
    for name, what in (
        ("without_text", "have no text (for replays only)"),
        ("unreadable", "cannot be read (see verify)"),
    ):
        if found[name]:
            print(f"  {found[name]} {what}")
    if found["media"]["files"]:
        files, size = found["media"]["files"], found["media"]["bytes"]
        print(f"  media: {counted(files, 'file')}, {_bytes(size)}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    if options.older_than is None and not options.model and not options.unused_by:
        raise CuesheetError(
            "prune deletes responses that were paid for, so it needs a condition: "
            "--older-than 90d, --model NAME, --unused-by results (entries must meet all of them)"
        )
    used = used_keys(options.unused_by) if options.unused_by else None
    chosen = select(options.cache, datetime.now(UTC), options.older_than, options.model, used)
    for entry in chosen:
        if options.dry_run:
            print(f"{entry.path}  {entry.asked_at:%Y-%m-%d}  {entry.model}  {entry.reply_class}")
        else:
            entry.path.unlink(missing_ok=True)
    if not options.dry_run:
        ResponseCache(options.cache).prune_notes()
    size = _bytes(sum(entry.size for entry in chosen))
    done = "would be deleted (--dry-run)" if options.dry_run else "deleted"
    print(f"{counted(len(chosen), 'entry')}, {size}, {done}")
    return 0


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cuesheet cache",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="hash every entry again, list damaged ones")
    stats = commands.add_parser("stats", help="count entries and bytes")
    prune = commands.add_parser("prune", help="delete entries that meet all given conditions")
    for command, run in ((verify, _verify), (stats, _stats), (prune, _prune)):
        command.set_defaults(run=run)
        command.add_argument(
            "--cache",
            type=Path,
            default=DEFAULT_CACHE,
            help="folder of the cache, vlm.cache_dir (default: %(default)s)",
        )
    stats.add_argument("--json", action="store_true", help="print JSON")
    prune.add_argument("--older-than", type=_age, help="requested longer ago, e.g. 12h, 90d, 4w")
    prune.add_argument(
        "--model", action="append", default=[], help="responses of this model (can be repeated)"
    )
    prune.add_argument(
        "--unused-by",
        type=Path,
        action="append",
        default=[],
        help="not used by the stage files below this results folder (can be repeated)",
    )
    prune.add_argument("--dry-run", action="store_true", help="list the entries, delete nothing")
    options = parser.parse_args(arguments)
    try:
        if not options.cache.is_dir():
            raise CuesheetError(
                f"the folder {options.cache} does not exist; name the cache with --cache"
            )
        return options.run(options)
    except CuesheetError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
