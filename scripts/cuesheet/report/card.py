"""The card of an annotated dataset: what was added, by which model and prompts, how much of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.stage_files import STAGES, read_stage_file
from cuesheet.dataset.metadata import Dataset
from cuesheet.files import read_json
from cuesheet.report.html import score_table
from cuesheet.report.summary import DEMO_MODEL_NOTE, is_demo_model

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LICENSE = re.compile(r"^license:.*$", re.MULTILINE)


def make_card(
    dataset: Dataset,
    summary: Mapping[str, Any],
    results: Path,
    source: Mapping[str, Any] | None,
    repo_id: str,
) -> str:
    """Return the README.md of the repository.

    Args:
        dataset: the annotated dataset.
        summary: content of summary.json.
        results: the results folder. Prompts and sampling are read from its stage files, and scores
            from evaluation.json, if it exists.
        source: repository and commit of the source on a hub, or None.
        repo_id: user/name of the repository.
    """
    before = dataset.root / "README.md"
    old = before.read_text(encoding="utf-8") if before.is_file() else ""
    front = _FRONT_MATTER.match(old)
    license_line = _LICENSE.search(front[1]) if front else None
    episodes, rows = summary["episodes"], summary["rows"]
    parts = [
        "\n".join(
            [
                "---",
                *([license_line[0]] if license_line else []),
                "task_categories:",
                "- robotics",
                "tags:",
                "- LeRobot",
                "- cuesheet",
                "configs:",
                "- config_name: default",
                "  data_files: data/*/*.parquet",
                "---",
            ]
        ),
        f"# {repo_id.partition('/')[2]}",
        "A LeRobot dataset with timed language in two columns of every data file, "
        "`language_persistent` and `language_events`, written by Cuesheet.",
        "## Annotations",
        f"{episodes['annotated']} of {episodes['total']} episodes of format {dataset.version}, "
        f"{dataset.fps:g} frames per second.",
        _table(("rows", "count"), rows.items()),
        *_people(summary["people"]),
        "## How the annotations were created",
        *_models(summary),
        *_prompts(results),
        *_scores(results),
    ]
    if source:
        parts += ["## Source", f"`{source['dataset']}`, commit `{source['commit']}`."]
    body = old[front.end() :].strip() if front else old.strip()
    if body:
        parts += ["## Card of the source", re.sub(r"^(#+ )", r"##\1", body, flags=re.MULTILINE)]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _people(people: Mapping[str, Any]) -> list[str]:
    said = [
        f"{len(people[key])} {'episode was' if len(people[key]) == 1 else 'episodes were'} {words}"
        for key, words in (
            ("corrected", "corrected by people"),
            ("good", "judged good"),
            ("bad", "judged bad and got no rows"),
        )
        if people[key]
    ]
    return [f"{', '.join(said)}."] if said else []


def _models(summary: Mapping[str, Any]) -> list[str]:
    calls = summary["calls"]
    listed = []
    for model in summary["models"]:
        note = f": {DEMO_MODEL_NOTE}" if is_demo_model(model) else ""
        listed.append(f"- `{model['name']}`{note}")
    return [
        "\n".join(listed) or "No model was asked.",
        f"{calls['total']:,} calls, of which {calls['retried']:,} were retried and "
        f"{calls['invalid']:,} invalid.",
    ]


def _prompts(results: Path) -> list[str]:
    """Return the prompt files by hash and the sampling, from the first episode of each stage."""
    hashes: dict[str, str] = {}
    sampling: dict[str, Any] = {}
    for stage in STAGES:
        for path in sorted(Layout(results).stage_folder(stage).glob("*.json"))[:1]:
            provenance = read_stage_file(path, stage).provenance
            hashes |= provenance.prompts
            sampling = provenance.sampling or sampling
    if not hashes:
        return []
    rows = [(f"`{name}`", f"`{digest[:16]}`") for name, digest in sorted(hashes.items())]
    settings = ", ".join(f"{key} {value}" for key, value in sampling.items() if value is not None)
    return [_table(("prompt", "sha256"), rows), f"Sampling: {settings or 'the server’s own'}."]


def _scores(results: Path) -> list[str]:
    """Return the scores of evaluation.json, compared with baselines, if there are any."""
    scores = read_json(Layout(results).evaluation())
    if not scores:
        return []
    table = score_table(scores)
    count = table["episodes"]
    return [
        "## Scores",
        f"Against reference segments of {count} {'episode' if count == 1 else 'episodes'}.",
        _table(("score", *table["names"]), [(title, *cells) for title, cells in table["rows"]]),
    ]
