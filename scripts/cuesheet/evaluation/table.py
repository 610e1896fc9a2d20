"""Scores as text tables and as a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cuesheet.evaluation.metrics import METRICS, Metric
from cuesheet.evaluation.segments import BOUNDARY_TOLERANCES_S, IOU_THRESHOLDS
from cuesheet.files import atomic_path
from cuesheet.text import counted

NOT_APPLICABLE = "–"


def score_frame(report: Mapping[str, Any]) -> pd.DataFrame:
    """Return the scores with their intervals as text, one column per system."""
    columns: dict[str, dict[str, str]] = {}
    for system in report["systems"]:
        cells = {
            "segments": str(system["segments"]["predicted"]),
            "episodes without a prediction": str(system["episodes_without_prediction"]),
        }
        for metric in _shown():
            value = metric.of(system)
            if value is None or (metric.needs_labels and not system["labeled"]):
                cells[str(metric.title)] = NOT_APPLICABLE
            else:
                interval = system["intervals"][metric.key]
                text = f"{value:.{metric.decimals}f}"
                cells[str(metric.title)] = text + _interval(interval, metric.decimals)
        columns[system["name"]] = cells
    return pd.DataFrame(columns)


def difference_frame(report: Mapping[str, Any]) -> pd.DataFrame:
    """Return the differences from the first system as text, one column per other system.

    Differences whose interval contains 0 are marked "within noise".
    """
    columns = {}
    for other in report["differences"]:
        cells = {}
        for metric in _shown():
            found = other["scores"].get(metric.key)
            if found is None:
                cells[str(metric.title)] = NOT_APPLICABLE
                continue
            text = f"{found['difference']:+.{metric.decimals}f}"
            text += _interval(found["interval"], metric.decimals, "+")
            cells[str(metric.title)] = text + (" within noise" if found["within_noise"] else "")
        columns[f"{other['name']} − {other['compared_with']}"] = cells
    return pd.DataFrame(columns)


def _shown() -> list[Metric]:
    return [metric for metric in METRICS if metric.title]


def _interval(interval: list[float] | None, decimals: int, sign: str = "") -> str:
    if interval is None:
        return ""
    low, high = (f"{bound:{sign}.{decimals}f}" for bound in interval)
    return f" [{low}, {high}]"


def interval_note(report: Mapping[str, Any]) -> str:
    """Return a sentence that explains the intervals."""
    count, bootstrap = len(report["episodes"]), report["bootstrap"]
    if count < 2:
        return "No confidence intervals: they need at least two episodes."
    return (
        f"[low, high]: {100 * bootstrap['confidence']:g} % confidence interval, paired bootstrap "
        f"over {count} episodes ({bootstrap['resamples']:,} resamples)."
    )


def as_text(report: Mapping[str, Any]) -> str:
    """Return the scores as plain text."""
    first = report["systems"][0]
    count, without = len(report["episodes"]), len(report["without_reference"])
    lines = [f"{counted(count, 'episode')}, {first['segments']['reference']} reference segments"]
    if without:
        lines.append(f"{counted(without, 'annotated episode')} without a reference")
    if report["fold"] or report["mapping"]:
        lines.append(_describe_granularity(report))
    lines += [interval_note(report), "", score_frame(report).add_prefix(" ").to_string()]
    if report["differences"]:
        lines += ["", "Differences", difference_frame(report).add_prefix(" ").to_string()]
    for part in report.get("grounding", ()):
        lines += ["", *_grounding(part)]
    return "\n".join(line.rstrip() for text in lines for line in text.split("\n")) + "\n"


def _describe_granularity(report: Mapping[str, Any]) -> str:
    parts = []
    if report["fold"]:
        names = (f"{label} into the {side} segment" for label, side in report["fold"].items())
        parts.append("folded: " + ", ".join(names))
    if report["mapping"]:
        names = (f"{label} to {name}" for label, name in report["mapping"].items())
        parts.append("renamed: " + ", ".join(names))
    return "reference labels " + "; ".join(parts)


_GROUNDING = {
    "boxes": {
        "count": "count",
        "iou": "IoU",
        "iou_centered_mean_size": "centered box, mean size",
        "iou_centered_own_size": "centered box, own size",
    },
    "points": {
        "count": "count",
        "to_center_px": "to center (px)",
        "middle_to_center_px": "image center to center (px)",
        "to_box_px": "to box (px)",
        "middle_to_box_px": "image center to box (px)",
    },
}


def _grounding(part: Mapping[str, Any]) -> list[str]:
    lines = [f"{part['name']}: answers compared with the nearest reference box"]
    for kind, titles in _GROUNDING.items():
        decimals = 3 if kind == "boxes" else 1
        rows = {}
        # "all" first, then the cameras in the same order for boxes and points.
        cameras = sorted(part[kind]["by_camera"].items(), key=lambda one: (one[0] != "all", one[0]))
        for camera, scores in cameras:
            cells = {titles["count"]: str(scores["count"])}
            for key in list(titles)[1:]:
                interval = _interval(scores["intervals"][key], decimals)
                cells[titles[key]] = f"{scores[key]:.{decimals}f}{interval}"
            rows[f"{kind}, {camera}"] = cells
        if rows:
            table = pd.DataFrame.from_dict(rows, orient="index").add_prefix(" ")
            lines.append(table.to_string())
        if part[kind]["left_out"]:
            lines.append(f"{part[kind]['left_out']} {kind} left out: no reference box is visible")
    return lines


def write_plot(report: Mapping[str, Any], path: Path) -> None:
    """Plot segment, boundary and end-to-end F1 of all systems; the suffix sets the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(4, 2, 4))
    panels = (
        ("segment", IOU_THRESHOLDS, "Segments", "minimum IoU"),
        ("boundary", BOUNDARY_TOLERANCES_S, "Boundaries", "tolerance (s)"),
        ("end_to_end", IOU_THRESHOLDS, "Segments with the right label", "minimum IoU"),
    )
    for panel, (key, steps, title, unit) in zip(axes, panels, strict=True):
        systems = [s for s in report["systems"] if key != "end_to_end" or s["labeled"]]
        width = 0.8 / len(report["systems"])
        for number, system in enumerate(systems):
            heights = [system[key][f"{step:g}"]["f1"] or 0.0 for step in steps]
            bounds = [system["intervals"][f"{key}.{step:g}.f1"] for step in steps]
            errors = [
                [max(0.0, height - (bound[0] if bound else height)) for height, bound in
                 zip(heights, bounds, strict=True)],
                [max(0.0, (bound[1] if bound else height) - height) for height, bound in
                 zip(heights, bounds, strict=True)],
            ]  # fmt: skip
            places = [i + (number - (len(systems) - 1) / 2) * width for i in range(len(steps))]
            panel.bar(
                *(places, heights, width * 0.92),
                yerr=errors,
                color=f"C{number}",
                label=system["name"],
                error_kw={"elinewidth": 0.8, "alpha": 0.6},
            )
        panel.set(title=title, xlabel=unit, ylim=(0, 1))
        panel.set_xticks(range(len(steps)), [f"{step:g}" for step in steps])
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    axes[0].set_ylabel("F1")
    axes[0].legend(frameon=False, fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else None)
