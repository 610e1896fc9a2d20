"""Scores as a table for a person, and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.evaluation.segments import BOUNDARY_TOLERANCES_S, IOU_THRESHOLDS, LABELS_AT_IOU
from cuesheet.files import atomic_path

Row = tuple[str, list[float | int | None], str]  # title, one value a system, format


def table_rows(report: Mapping[str, Any]) -> list[Row]:
    """Rows of the table of segments: one value a system."""
    systems = report["systems"]

    def row(title: str, *keys: str, form: str = ".3f", needs_label: bool = False) -> Row:
        values: list[float | int | None] = []
        for system in systems:
            value: Any = system
            for key in keys:
                value = value[key]
            values.append(None if needs_label and not system["labeled"] else value)
        return title, values, form

    rows = [
        row("segments", "segments", "predicted", form="d"),
        row("episodes without a prediction", "episodes_without_prediction", form="d"),
    ]
    rows += [row(f"segment F1 at IoU {t:g}", "segment", f"{t:g}", "f1") for t in IOU_THRESHOLDS]
    for tolerance in BOUNDARY_TOLERANCES_S:
        for part in ("precision", "recall", "f1"):
            name = "F1" if part == "f1" else part
            rows.append(
                row(f"boundary {name} within {tolerance:.1f} s", "boundary", f"{tolerance:g}", part)
            )
    rows += [
        row("boundary error, predicted to reference (s)", "boundary_error_s",
            "predicted_to_reference", form=".2f"),
        row("boundary error, reference to predicted (s)", "boundary_error_s",
            "reference_to_predicted", form=".2f"),
        row("over-segmentation", "over_segmentation"),
        row("under-segmentation", "under_segmentation"),
        row("frame accuracy (without labels)", "frame_accuracy"),
        row("edit score", "edit", needs_label=True),
        row(f"label exact (pairs at IoU {LABELS_AT_IOU:g})", "labels", "exact", needs_label=True),
        row("label token F1", "labels", "token_f1", needs_label=True),
        row("label means the same", "labels", "same", needs_label=True),
        row("frame accuracy with labels", "labels", "frame_accuracy", needs_label=True),
    ]  # fmt: skip
    return rows + [
        row(f"end-to-end F1 at IoU {t:g}", "end_to_end", f"{t:g}", "f1", needs_label=True)
        for t in IOU_THRESHOLDS
    ]


def as_text(report: Mapping[str, Any]) -> str:
    """The scores as a table of plain text."""
    systems = report["systems"]
    first = systems[0]
    lines = [
        f"{len(report['episodes'])} episodes, {first['segments']['reference']} reference segments"
    ]
    if report["without_reference"]:
        lines.append(f"{len(report['without_reference'])} annotated episodes have no reference")
    names = [system["name"] for system in systems]
    rows = [
        (title, ["–" if value is None else format(value, form) for value in values])
        for title, values, form in table_rows(report)
    ]
    lines += ["", *_table(["", *names], [[title, *cells] for title, cells in rows])]
    for part in report.get("grounding", ()):
        lines += ["", *_grounding(part)]
    return "\n".join(lines) + "\n"


def _grounding(part: Mapping[str, Any]) -> list[str]:
    columns = {
        "boxes": ("iou", "iou_centered_mean_size", "iou_centered_own_size"),
        "points": ("to_center_px", "middle_to_center_px", "to_box_px", "middle_to_box_px"),
    }
    titles = {
        "boxes": ["boxes: IoU", "count", "answered", "centered, mean size", "centered, own size"],
        "points": ["points: px", "count", "to center", "(middle)", "to box", "(middle)"],
    }
    lines = [f"{part['name']}: answers against the nearest reference box"]
    for kind, keys in columns.items():
        form = ".3f" if kind == "boxes" else ".1f"
        rows = [
            [camera, str(scores["count"]), *(format(scores[key], form) for key in keys)]
            for camera, scores in part[kind]["by_camera"].items()
        ]
        if rows:
            lines += _table(titles[kind], rows)
        if part[kind]["left_out"]:
            lines.append(f"{part[kind]['left_out']} {kind} left out: nothing visible there")
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cells[i]) for cells in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *padded]).rstrip()

    return [line(head), *map(line, rows)]


def write_plot(report: Mapping[str, Any], path: Path) -> None:
    """Segment, boundary and end-to-end F1 of every system as SVG (or as the suffix says)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(4, 2, 4))
    panels = (
        ("segment", IOU_THRESHOLDS, "Segments", "IoU at least"),
        ("boundary", BOUNDARY_TOLERANCES_S, "Boundaries", "within (s)"),
        ("end_to_end", IOU_THRESHOLDS, "Segments with the right label", "IoU at least"),
    )
    for panel, (key, steps, title, unit) in zip(axes, panels, strict=True):
        systems = [s for s in report["systems"] if key != "end_to_end" or s["labeled"]]
        width = 0.8 / len(report["systems"])
        for number, system in enumerate(systems):
            heights = [system[key][f"{step:g}"]["f1"] or 0.0 for step in steps]
            places = [i + (number - (len(systems) - 1) / 2) * width for i in range(len(steps))]
            panel.bar(places, heights, width * 0.92, color=f"C{number}", label=system["name"])
        panel.set(title=title, xlabel=unit, ylim=(0, 1))
        panel.set_xticks(range(len(steps)), [f"{step:g}" for step in steps])
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    axes[0].set_ylabel("F1")
    axes[0].legend(frameon=False, fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else None)
