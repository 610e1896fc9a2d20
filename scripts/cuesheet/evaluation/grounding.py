"""Scores of VQA boxes and points against reference boxes. Definitions: docs/evaluation.md."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from cuesheet.artifacts.stage_files import VqaPair
from cuesheet.evaluation.metrics import intervals, resample_counts
from cuesheet.evaluation.references import Box

FrameBoxes = Mapping[tuple[str, int], Mapping[str, Box]]
Sizes = Mapping[str, tuple[int, int]]  # width and height of each camera's frames (px)


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes [x0, y0, x1, y1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def to_box(point: Sequence[float], box: Sequence[float]) -> float:
    """Return the distance (px) from a point to a box, 0 inside it."""
    dx = max(box[0] - point[0], 0.0, point[0] - box[2])
    dy = max(box[1] - point[1], 0.0, point[1] - box[3])
    return math.hypot(dx, dy)


def to_center(point: Sequence[float], box: Sequence[float]) -> float:
    """Return the distance (px) from a point to the center of a box."""
    return math.hypot(point[0] - (box[0] + box[2]) / 2, point[1] - (box[1] + box[3]) / 2)


def score_grounding(
    pairs: Mapping[int, Sequence[VqaPair]],
    boxes: Mapping[int, FrameBoxes],
    sizes: Sizes,
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """Return the scores of boxes and points by camera, next to baselines at the image center.

    Args:
        pairs: questions and answers by episode.
        boxes: reference boxes by episode.
        sizes: frame sizes of the cameras.
        ignored: names of reference boxes that do not count.
    """
    counted = {
        episode: {
            place: {name: box for name, box in found.items() if name not in ignored}
            for place, found in frames.items()
        }
        for episode, frames in boxes.items()
    }
    typical = _mean_sizes(counted)
    rows: dict[str, list[dict[str, Any]]] = {"bbox": [], "keypoint": []}
    left_out = {"bbox": 0, "keypoint": 0}
    for episode, pair in _grounded(pairs, counted):
        visible = counted[episode].get((pair.camera, pair.frame_index))
        if not visible or pair.camera not in sizes:
            left_out[pair.type] += 1
            continue
        size = sizes[pair.camera]
        score = _box_rows if pair.type == "bbox" else _point_rows
        for row in score(pair, list(visible.values()), size, typical.get(pair.camera)):
            rows[pair.type].append({"episode": episode, "camera": pair.camera, **row})
    return {
        "boxes": {"by_camera": _by_camera(rows["bbox"]), "left_out": left_out["bbox"]},
        "points": {"by_camera": _by_camera(rows["keypoint"]), "left_out": left_out["keypoint"]},
    }


def _grounded(
    pairs: Mapping[int, Sequence[VqaPair]], boxes: Mapping[int, FrameBoxes]
) -> Iterator[tuple[int, VqaPair]]:
    for episode in sorted(pairs.keys() & boxes.keys()):
        for pair in pairs[episode]:
            if pair.type in ("bbox", "keypoint"):
                yield episode, pair


def _box_rows(
    pair: VqaPair, visible: list[Box], size: tuple[int, int], typical: tuple[float, float] | None
) -> list[dict[str, Any]]:
    rows = []
    for detection in pair.answer["detections"]:
        box = detection["bbox"]
        own = _centered(size, box[2] - box[0], box[3] - box[1])
        usual = _centered(size, *typical) if typical else own
        rows.append(
            {
                "iou": max(iou(box, true) for true in visible),
                "iou_centered_mean_size": max(iou(usual, true) for true in visible),
                "iou_centered_own_size": max(iou(own, true) for true in visible),
            }
        )
    return rows


def _point_rows(
    pair: VqaPair, visible: list[Box], size: tuple[int, int], typical: tuple[float, float] | None
) -> list[dict[str, Any]]:
    point, middle = pair.answer["point"], (size[0] / 2, size[1] / 2)
    return [
        {
            "to_box_px": min(to_box(point, box) for box in visible),
            "middle_to_box_px": min(to_box(middle, box) for box in visible),
            "to_center_px": min(to_center(point, box) for box in visible),
            "middle_to_center_px": min(to_center(middle, box) for box in visible),
        }
    ]


def _mean_sizes(boxes: Mapping[int, FrameBoxes]) -> dict[str, tuple[float, float]]:
    sizes: dict[str, list[tuple[float, float]]] = {}
    for frames in boxes.values():
        for (camera, _), found in frames.items():
            sizes.setdefault(camera, []).extend((b[2] - b[0], b[3] - b[1]) for b in found.values())
    return {
        camera: (fmean(w for w, _ in found), fmean(h for _, h in found))
        for camera, found in sizes.items()
        if found
    }


def _centered(size: tuple[int, int], width: float, height: float) -> Box:
    x, y = size[0] / 2, size[1] / 2
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _by_camera(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return count, mean scores and intervals over all cameras and per camera."""
    if not rows:
        return {}
    table = pd.DataFrame(rows)
    groups = {"all": table, **dict(list(table.groupby("camera", sort=False)))}
    return {str(name): _means(group.drop(columns="camera")) for name, group in groups.items()}


def _means(table: pd.DataFrame) -> dict[str, Any]:
    values = table.drop(columns="episode")
    sums = values.groupby(table["episode"]).sum()
    counts = table.groupby("episode").size()
    weights = resample_counts(len(sums))
    drawn = pd.DataFrame(weights @ sums.to_numpy(float), columns=sums.columns)
    draws = drawn.div(np.maximum(weights @ counts.to_numpy(float), 1), axis=0)
    return {
        "count": len(table),
        **{str(key): float(value) for key, value in values.mean().items()},
        "intervals": intervals(draws, len(sums)),
    }
