"""The summary of one dataset's results: totals over its files, as JSON and as text."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cuesheet.artifacts.inspection import InspectionFile
from cuesheet.artifacts.language import STYLES, style_name
from cuesheet.artifacts.layout import Layout
from cuesheet.artifacts.source_changes import describe, read_changes
from cuesheet.artifacts.stage_files import (
    STAGES,
    Provenance,
    ValidationFile,
    read_stage_file,
)
from cuesheet.report.evidence import EvidenceSummary, evidence_entries
from cuesheet.report.vocabulary import VocabularySummary, vocabulary_entries
from cuesheet.report.wording import Wording
from cuesheet.report.wording import as_text as wording_text
from cuesheet.text import as_ranges, counted

_SHOWN_WARNINGS = 20
DEMO_MODEL_NOTE = (
    "the built-in demo model: classical vision on pixels, not a language model; "
    "its texts show that the workflow works, but are useless for training"
)


@dataclass
class _Totals:
    """Totals over the files of the annotated episodes."""

    rows: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, list[int]] = field(default_factory=lambda: {"good": [], "bad": []})
    corrected: list[int] = field(default_factory=list)
    inspected: dict[str, list[int]] = field(
        default_factory=lambda: {"ok": [], "doubtful": [], "failed": []}
    )
    without_rows: list[int] = field(default_factory=list)  # because of their inspection
    invalid: set[int] = field(default_factory=set)
    not_cached: int = 0
    evidence: EvidenceSummary = field(default_factory=EvidenceSummary)
    wording: Wording = field(default_factory=Wording)
    vocabulary: VocabularySummary = field(default_factory=VocabularySummary)

    def add_episode(self, layout: Layout, index: int) -> None:
        """Add the files of one episode. Raises CuesheetError if one of them is broken."""
        checked = ValidationFile.read(layout.validation(index))
        if checked.verdict:
            self.verdicts[checked.verdict].append(index)
        if checked.left_out:
            self.without_rows.append(index)
        if checked.has_rows:
            self.rows.update(checked.counts)
        self.warnings += [{"episode_index": index, **w.model_dump()} for w in checked.warnings]
        if checked.inspection:
            self.inspected[checked.inspection].append(index)
            self._add_calls(InspectionFile.read(layout.inspection(index)).provenance, index)
        for stage in STAGES:
            path = layout.stage_file(stage, index)
            if not path.is_file():
                continue
            data = read_stage_file(path, stage)
            if data.is_corrected and index not in self.corrected:
                self.corrected.append(index)
            if stage == "plan":
                self.evidence.add(data)
                self.vocabulary.add(data)
            self.wording.add(data)
            self._add_calls(data.provenance, index)

    def add_vocabulary(self, layout: Layout) -> None:
        """Add the requests behind the drafted labels. All episodes must be added before."""
        for index, provenance in self.vocabulary.provenances(layout):
            self._add_calls(provenance, index)

    def warnings_summary(self) -> dict[str, Any]:
        """Return the number of warnings, in total and by code, and the first of them."""
        return {
            "total": len(self.warnings),
            "by_code": dict(Counter(w["code"] for w in self.warnings).most_common()),
            "first": self.warnings[:_SHOWN_WARNINGS],
        }

    def _add_calls(self, provenance: Provenance, index: int | None) -> None:
        """Add the calls of one file. `index`: its episode; None if it is about several."""
        if provenance.model and provenance.calls:
            self.models[provenance.model] = provenance.served_by or ""
        for call in provenance.calls:
            self.calls.update(["total", call.outcome, *(["cache_hits"] if call.cache_hit else [])])
            if call.outcome == "invalid" and index is not None:
                self.invalid.add(index)
            self.not_cached += not call.stored
            source = "_from_cache" if call.cache_hit else ""
            self.tokens[f"prompt{source}"] += call.prompt_tokens or 0
            self.tokens[f"completion{source}"] += call.completion_tokens or 0


def summarize(
    results: Path,
    episodes: Collection[int],
    left_out: Collection[int],
    kept: Collection[int] = (),
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the summary of a dataset's results.

    Args:
        results: result folder of the dataset; its name is the dataset's.
        episodes: all episodes of the dataset.
        left_out: episodes that were to be annotated but failed.
        kept: episodes that keep the rows of the source.
        notices: notices about the source dataset, one sentence each.

    Raises:
        CuesheetError: a file of an annotated episode is broken.
    """
    layout = Layout(results)
    selected = sorted(set(episodes) - set(left_out) - set(kept))
    annotated = [index for index in selected if layout.validation(index).is_file()]
    totals = _Totals()
    for index in tqdm(annotated, unit="episode", mininterval=2):
        totals.add_episode(layout, index)
    totals.add_vocabulary(layout)
    return {
        "format": 1,
        "dataset": results.name,
        "annotated_dataset": str(layout.annotated),
        "episodes": {
            "total": len(episodes),
            "annotated": len(annotated),
            "left_out": sorted(set(left_out)),
            "kept": sorted(kept),
            "not_selected": len(selected) - len(annotated),
        },
        "source_changes": read_changes(results),
        **totals.evidence.as_json(layout),
        "people": {**totals.verdicts, "corrected": totals.corrected},
        "inspection": {**totals.inspected, "left_out": totals.without_rows},
        "wording": totals.wording.as_json(),
        "vocabulary": totals.vocabulary.as_json(layout),
        "rows": _in_order(totals.rows),
        "calls": {k: totals.calls[k] for k in ("total", "cache_hits", "retried", "invalid")},
        "invalid_replies_in": sorted(totals.invalid),
        "not_cached": totals.not_cached,
        "tokens": {
            name: totals.tokens[name]
            for name in ("prompt", "completion", "prompt_from_cache", "completion_from_cache")
        },
        "models": [{"name": m, "served_by": s} for m, s in sorted(totals.models.items())],
        "notices": list(notices),
        "warnings": totals.warnings_summary(),
    }


def _in_order(rows: Mapping[str, int]) -> dict[str, int]:
    known = [style_name(style) for style in STYLES]
    return {
        name: rows[name] for name in [*known, *sorted(set(rows) - set(known))] if rows.get(name)
    }


def as_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as text."""
    episodes, calls, tokens = summary["episodes"], summary["calls"], summary["tokens"]
    rows = ", ".join(f"{name} {count}" for name, count in summary["rows"].items()) or "none"
    done = f"{episodes['annotated']} of {episodes['total']} annotated"
    if episodes["kept"]:
        done += f", {len(episodes['kept'])} kept as the source has them"
    if episodes["not_selected"]:
        done += f", {episodes['not_selected']} not selected"
    if episodes["left_out"]:
        done += f", left out after errors: {', '.join(map(str, episodes['left_out']))}"
    people, changes = summary["people"], summary["source_changes"]
    said = [
        f"{key} {len(people[key])}" + (f" ({as_ranges(people[key])})" if key == "bad" else "")
        for key in ("corrected", "good", "bad")
        if people[key]
    ]
    cached = tokens["prompt_from_cache"] + tokens["completion_from_cache"]
    entries = [
        ("Annotated dataset", summary["annotated_dataset"]),
        ("Episodes", done),
        (
            "Source changed",
            f"{describe(changes[-1])}, found {changes[-1]['at']}" if changes else "",
        ),
        ("Checked by people", ", ".join(said)),
        *evidence_entries(summary),
        ("Inspection", _inspection_text(summary["inspection"])),
        *vocabulary_entries(summary["vocabulary"]),
        ("Rows", rows),
        ("Wording", wording_text(summary["wording"])),
        (
            "Calls",
            f"{calls['total']:,} ({calls['cache_hits']:,} from the cache, "
            f"{calls['retried']:,} retried, {calls['invalid']:,} invalid)",
        ),
        (
            "Tokens",
            f"{tokens['prompt']:,} in, {tokens['completion']:,} out"
            + (f"; {cached:,} more came from the cache" if cached else ""),
        ),
        ("Model", "; ".join(map(_model_text, summary["models"])) or "none was asked"),
        *_attention(summary),
        *(("Notice", notice) for notice in summary["notices"]),
        ("Warnings", _warnings_text(summary["warnings"])),
    ]
    lines = [summary["dataset"]]
    lines += [f"  {name + ':':<18} {text}" for name, text in entries if text]
    for warning in summary["warnings"]["first"]:
        lines.append(
            f"    episode {warning['episode_index']}, {warning['where']}: {warning['message']}"
        )
    more = summary["warnings"]["total"] - len(summary["warnings"]["first"])
    if more:
        lines.append(f"    and {more} more in validation/*.txt")
    return "\n".join(lines) + "\n"


def _numbered(episodes: Collection[int]) -> str:
    """Return episodes by number, such as `episode 3` or `episodes 0-2`."""
    return f"{'episode' if len(episodes) == 1 else 'episodes'} {as_ranges(episodes)}"


def _attention(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the entries about replies that are invalid or missing, and responses not cached."""
    entries, what = [], []
    if episodes := summary["invalid_replies_in"]:
        what.append(f"invalid replies in {_numbered(episodes)}")
    if left_out := summary["episodes"]["left_out"]:
        what.append(f"failed stages in {_numbered(left_out)}")
    if what:
        command = f"cuesheet retry {summary['dataset']}"
        entries.append(
            ("To request again", f"{' and '.join(what)}: run `{command}`, then the workflow")
        )
    if count := summary["not_cached"]:
        text = f"{counted(count, 'response')}, which a later run has to request again; check the "
        entries.append(("Not cached", f"{text}disk and the permissions of vlm.cache_dir"))
    return entries


def _inspection_text(inspection: Mapping[str, Any]) -> str:
    if not any(inspection.values()):
        return ""
    parts = [f"{len(inspection['ok'])} ok"]
    for verdict in ("doubtful", "failed"):
        if inspection[verdict]:
            parts.append(f"{len(inspection[verdict])} {verdict} ({as_ranges(inspection[verdict])})")
    if inspection["left_out"]:
        parts.append(f"without rows because of it: {as_ranges(inspection['left_out'])}")
    return ", ".join(parts)


def _model_text(model: Mapping[str, str]) -> str:
    return f"{model['name']} ({DEMO_MODEL_NOTE})" if is_demo_model(model) else model["name"]


def is_demo_model(model: Mapping[str, str]) -> bool:
    """Tell whether a model of the summary is the demo model."""
    return model["served_by"] == "demo" or model["name"].startswith("cuesheet-demo")


def _warnings_text(warnings: Mapping[str, Any]) -> str:
    if not warnings["total"]:
        return "none"
    codes = ", ".join(f"{code} {count}" for code, count in warnings["by_code"].items())
    return f"{warnings['total']} ({codes})"
