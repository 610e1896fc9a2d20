"""The review page: a static site that works from the file system and reads no network.

`results/{dataset}/review/` holds index.html, assets/ and data/: `site.js`, `list/{chunk}.js` (1,000
episodes each), `episodes/{episode}.js` and `thumbs/{episode}.jpg`. Data files are scripts because a
page that was opened as a file may not fetch others. The clips are those of the run.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from cuesheet.artifacts.layout import KEYFRAMES_FILE, Layout, episode_name
from cuesheet.artifacts.results import EpisodeView, annotated_episodes, read_view
from cuesheet.artifacts.signals_file import SignalsFile
from cuesheet.files import atomic_path, write_text
from cuesheet.report.correction_files import CorrectionFolder, marks
from cuesheet.report.data import verb_colors
from cuesheet.report.summary import is_demo_model

PAGES = Path(__file__).parent / "pages"
CHUNK = 1000  # episodes in a file of the list
_STRIP = (576, 64)  # px; approximate width and exact height of a strip of thumbnails
_MAX_CURVE_POINTS = 2000  # per curve of the signals lane


def build_site(
    results: Path,
    corrections: CorrectionFolder,
    default_camera: str | None,
    hints: Sequence[str] = (),
) -> int:
    """Write the site of a dataset's results and return the number of episodes.

    Files whose content is unchanged are not written again, nor are thumbnails that are newer than
    their keyframes. Files of episodes that no longer exist are deleted.

    Args:
        results: the dataset's result folder.
        corrections: the corrections of the dataset, which the page shows.
        default_camera: the camera whose frames the list shows.
        hints: sentences above the list, such as which episode to correct next.

    Raises:
        CuesheetError: a file of an annotated episode is broken.
    """
    site = Layout(results).review
    episodes = annotated_episodes(results)
    entries = []
    verbs: Counter[str] = Counter()
    models: set[tuple[str, str]] = set()
    for index in tqdm(episodes, unit="episode", mininterval=2):
        view = read_view(results, index)
        saved = corrections.read(index).content
        name = episode_name(index)
        thumb = _write_strip(view, default_camera, site / "data" / "thumbs" / f"{name}.jpg")
        _deliver(site, f"episodes/{name}", episode_data(view, saved))
        entries.append(_entry(view, saved, thumb))
        verbs.update(_first_word(subtask.label) for subtask in view.subtasks)
        models |= {(m.model or "", m.served_by or "") for m in view.made_by.values() if m.calls}
    for chunk, start in enumerate(range(0, len(entries), CHUNK)):
        _deliver(site, f"list/{chunk:04d}", entries[start : start + CHUNK])
    _deliver(
        site,
        "site",
        {
            "dataset": results.name,
            "command": last_command(results),
            "episodes": len(entries),
            "hints": list(hints),
            "chunks": -(-len(entries) // CHUNK),
            "model": ", ".join(sorted({model for model, _ in models})),
            "sampled": any(entry["agreement"] is not None for entry in entries),
            "demo": any(is_demo_model({"name": m, "served_by": s}) for m, s in models),
            "colors": verb_colors(verbs),
        },
    )
    _delete_others(site / "data", {episode_name(index) for index in episodes}, len(entries))
    _copy_assets(site)
    return len(entries)


def last_command(results: Path) -> str:
    """Return the command that runs the workflow again; without a record, the usual one."""
    path = Layout(results).command
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "snakemake --cores all"


def _first_word(label: str) -> str:
    """Return the word that sets the color of a subtask, as `colorOf` in the page's scripts does."""
    words = label.casefold().split()
    return words[0].strip(".,;:!?") if words else ""


def episode_data(view: EpisodeView, correction: dict[str, Any] | None) -> dict[str, Any]:
    """Return the data of an episode for the page."""
    plan = [row.model_dump(exclude={"camera"}) for row in view.persistent]
    events = [
        row.model_dump(exclude={"camera"})
        for row in sorted(view.events, key=lambda row: row.timestamp)
        if row.style != "vqa"
    ]
    return {
        "index": view.episode_index,
        "task": view.task,
        "fps": view.keyframes.fps,
        "length": view.keyframes.length,
        "end_s": view.duration_s,
        "timestamps": view.keyframes.timestamps_s,
        "cameras": [
            {
                "name": name,
                "width": size.width,
                "height": size.height,
                "keyframes": [one.frame_index for one in view.keyframes.keyframes.get(name, ())],
            }
            for name, size in view.keyframes.cameras.items()
        ],
        "subtasks": [subtask.model_dump() for subtask in view.subtasks],
        "samples": len(view.samples),
        "persistent": sorted(plan, key=lambda row: row["timestamp"]),
        "events": events,
        "pairs": [pair.model_dump() for pair in view.pairs],
        "warnings": [f"{w.where}: {w.message}" for w in view.validation.warnings],
        "signals": _signals(view),
        "motion": [span.model_dump() for span in view.motion],
        "correction": correction,
    }


def _signals(view: EpisodeView) -> dict[str, Any] | None:
    """Return gripper openings and arm speeds (at `times`, s) and strokes; None without signals."""
    path = Layout(view.results).signals(view.episode_index)
    if not path.is_file():
        return None
    signals = SignalsFile.read(path)
    step = -(-len(signals.times_s) // _MAX_CURVE_POINTS) or 1
    return {
        "times": [round(time_s, 3) for time_s in signals.times_s[::step]],
        "grippers": [
            {"name": one.name, "opening": [round(value, 3) for value in one.opening[::step]]}
            for one in signals.grippers
        ],
        "arms": [
            {"name": one.name, "speed": [round(value, 3) for value in one.speed[::step]]}
            for one in signals.arms
        ],
        "strokes": [
            {"gripper": one.name, **stroke.model_dump(include={"kind", "start_frame", "end_frame"})}
            for one in signals.grippers
            for stroke in one.strokes
        ],
    }


def _entry(view: EpisodeView, correction: dict[str, Any] | None, thumb: bool) -> dict[str, Any]:
    return {
        "index": view.episode_index,
        "task": view.task,
        "labels": [subtask.label for subtask in view.subtasks],
        "subtasks": len(view.subtasks),
        "warnings": len(view.validation.warnings),
        "agreement": view.agreement,
        "duration": view.duration_s,
        "checks": sorted({warning.code for warning in view.validation.warnings}),
        "thumb": thumb,
        **marks(correction),
    }


def _deliver(site: Path, name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON allows these two characters in strings, but older script engines do not.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    _write_changed(site / "data" / f"{name}.js", f"Cuesheet.deliver({json.dumps(name)},{text});\n")


def _write_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path, sync=False) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _write_strip(view: EpisodeView, camera: str | None, path: Path) -> bool:
    """Write some keyframes side by side; return False if the episode has no images."""
    if camera not in view.keyframes.keyframes:
        camera = next(iter(view.keyframes.keyframes), None)
    frames = [one.frame_index for one in view.keyframes.keyframes.get(camera or "", ())]
    if camera is None or not frames:
        return False
    source = Layout(view.results).keyframes(view.episode_index) / KEYFRAMES_FILE
    if path.is_file():
        made = path.stat()
        if made.st_size and made.st_mtime >= source.stat().st_mtime:
            return True
    size = view.keyframes.cameras[camera]
    width, height = max(1, round(_STRIP[1] * size.width / size.height)), _STRIP[1]
    count = max(1, min(_STRIP[0] // width, len(frames)))
    chosen = [frames[i * (len(frames) - 1) // max(count - 1, 1)] for i in range(count)]
    files = [view.keyframe_file(camera, frame) for frame in chosen]
    images = [file for file in files if file is not None]
    if len(images) < len(files):
        return path.is_file()
    strip = Image.new("RGB", (width * count, height))
    for place, path_of_image in enumerate(images):
        with Image.open(path_of_image) as image:
            small = image.convert("RGB").resize((width, height), reducing_gap=2.0)
        strip.paste(small, (place * width, 0))
    with atomic_path(path, sync=False) as temporary:
        strip.save(temporary, "JPEG", quality=70)
    return True


def _delete_others(data: Path, episodes: set[str], entries: int) -> None:
    chunks = {f"{chunk:04d}" for chunk in range(-(-entries // CHUNK))}
    for folder, names in (("episodes", episodes), ("thumbs", episodes), ("list", chunks)):
        for path in (data / folder).glob("*"):
            if path.stem not in names:
                path.unlink()


def _copy_assets(site: Path) -> None:
    """Copy the page. index.html is written last, so a site that has one is complete."""
    assets = site / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    for source in (PAGES / "theme.css", PAGES / "review" / "review.css"):
        shutil.copyfile(source, assets / source.name)
    for source in (PAGES / "review" / "js").glob("*.js"):
        shutil.copyfile(source, assets / source.name)
    write_text(site / "index.html", (PAGES / "review" / "index.html").read_text(encoding="utf-8"))
