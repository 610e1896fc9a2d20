"""How good are the answers of a finished run, against ground truth and against plain guesses?

    python benchmarks/offline_vlm.py --results results/dev_v3 --ground-truth dev_v3.json [--json -]

Reads `plan/*.json` and `vqa/*.json` of the results folder and the ground truth file (its format
stands in the README beside it). Needs nothing but the standard library.

Subtask boundaries. Predicted: the starts of all subtasks but the first. True: the starts of all
phases but the first. For each episode the mean distance (s) from each predicted boundary to the
nearest true one, and the other way round; the guess is a uniform split of the episode into the
same number of subtasks. Episodes with one subtask have no boundary and are left out, and counted.

Boxes. An answered box is compared to the exact box of every role that is visible in that frame and
camera (`boxes.<camera>.<role>.box`: object, goal, gripper, handle, ...); its score is the best IoU,
for the question asks for one thing and the words do not always tell which role that is. Two guesses
are scored in the same way, for the same frames: a box in the middle of the picture with the mean
size of the true boxes of that camera, and one in the middle with the answered box's own size.

Points. The distance (px) from an answered point to the nearest center of a true box, and to the
nearest true box (0 inside); the guess is the middle of the picture. Once for all visible roles but
the gripper (frames in which nothing else is visible are left out, and counted), and once for all
visible roles.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean

Box = list[float]


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes [x0, y0, x1, y1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def to_box(point: list[float], box: Box) -> float:
    """Distance (px) from a point to a box, 0 inside."""
    dx = max(box[0] - point[0], 0.0, point[0] - box[2])
    dy = max(box[1] - point[1], 0.0, point[1] - box[3])
    return math.hypot(dx, dy)


def to_center(point: list[float], box: Box) -> float:
    """Distance (px) from a point to the middle of a box."""
    return math.hypot(point[0] - (box[0] + box[2]) / 2, point[1] - (box[1] + box[3]) / 2)


def nearest(points: list[float], marks: list[float]) -> float:
    """Mean distance from each point to the nearest mark."""
    return fmean(min(abs(point - mark) for mark in marks) for point in points)


def boundaries(plans: dict[int, dict], episodes: dict[int, dict]) -> dict:
    """The comparison of subtask boundaries, per episode and as means."""
    rows = []
    for index, plan in sorted(plans.items()):
        truth = [
            phase["start_s"] for part in episodes[index]["segments"] for phase in part["phases"]
        ][1:]
        subtasks = plan["subtasks"]
        starts = [subtask["start_s"] for subtask in subtasks[1:]]
        if not starts or not truth:
            continue
        begin, end = subtasks[0]["start_s"], subtasks[-1]["end_s"]
        count = len(subtasks)
        uniform = [begin + (end - begin) * k / count for k in range(1, count)]
        rows.append(
            {
                "episode_index": index,
                "subtasks": count,
                "predicted_to_true_s": nearest(starts, truth),
                "uniform_to_true_s": nearest(uniform, truth),
                "true_to_predicted_s": nearest(truth, starts),
                "true_to_uniform_s": nearest(truth, uniform),
            }
        )
    return {
        "episodes": rows,
        "without_boundary": len(plans) - len(rows),
        "mean": means(rows, ("episode_index",)),
        "better_than_uniform": sum(r["predicted_to_true_s"] < r["uniform_to_true_s"] for r in rows),
        "gain_s": paired([r["uniform_to_true_s"] - r["predicted_to_true_s"] for r in rows]),
    }


def pairs(vqa: dict[int, dict], kind: str) -> Iterable[tuple[int, dict]]:
    """(episode index, pair) of one question type."""
    for index, stage in sorted(vqa.items()):
        for pair in stage["pairs"]:
            if pair["type"] == kind:
                yield index, pair


def visible(episode: dict, camera: str, frame: int) -> dict[str, Box]:
    """True boxes in a frame by role, those that are visible."""
    roles = episode["boxes"].get(camera, {})
    return {role: part["box"][frame] for role, part in roles.items() if part["box"][frame]}


def mean_sizes(episodes: dict[int, dict]) -> dict[str, tuple[float, float]]:
    """Mean width and height of all true boxes, by camera."""
    sizes: dict[str, list[tuple[float, float]]] = {}
    for episode in episodes.values():
        for camera, roles in episode["boxes"].items():
            for part in roles.values():
                boxes = [box for box in part["box"] if box]
                sizes.setdefault(camera, []).extend((b[2] - b[0], b[3] - b[1]) for b in boxes)
    return {
        camera: (fmean(w for w, _ in found), fmean(h for _, h in found))
        for camera, found in sizes.items()
    }


def centered(camera: dict, width: float, height: float) -> Box:
    """A box in the middle of a camera's picture."""
    x, y = camera["width"] / 2, camera["height"] / 2
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def boxes(vqa: dict[int, dict], episodes: dict[int, dict], cameras: dict) -> dict:
    """The comparison of boxes: one row a detection."""
    sizes = mean_sizes(episodes)
    rows = []
    for index, pair in pairs(vqa, "bbox"):
        camera = pair["camera"]
        roles = visible(episodes[index], camera, pair["frame_index"])
        if not roles:
            continue
        for detection in pair["answer"]["detections"]:
            box = detection["bbox"]
            own = centered(cameras[camera], box[2] - box[0], box[3] - box[1])
            typical = centered(cameras[camera], *sizes[camera])
            role = max(roles, key=lambda name: iou(box, roles[name]))
            rows.append(
                {
                    "camera": camera,
                    "role": role,
                    "iou": iou(box, roles[role]),
                    "iou_centered_mean_size": max(iou(typical, true) for true in roles.values()),
                    "iou_centered_own_size": max(iou(own, true) for true in roles.values()),
                }
            )
    gain = [r["iou"] - max(r["iou_centered_mean_size"], r["iou_centered_own_size"]) for r in rows]
    return {**by_camera(rows, ("camera", "role")), "gain_iou": paired(gain)}


def points(
    vqa: dict[int, dict], episodes: dict[int, dict], cameras: dict, *, with_gripper: bool = False
) -> dict:
    """The comparison of points: one row a point. `left_out` counts frames without a true box."""
    rows, skipped = [], 0
    for index, pair in pairs(vqa, "keypoint"):
        camera = pair["camera"]
        roles = visible(episodes[index], camera, pair["frame_index"])
        if not with_gripper:
            roles.pop("gripper", None)
        if not roles:
            skipped += 1
            continue
        middle = [cameras[camera]["width"] / 2, cameras[camera]["height"] / 2]
        point = pair["answer"]["point"]
        row: dict = {"camera": camera}
        measures: dict[str, Callable[[list[float], Box], float]] = {
            "to_center_px": to_center,
            "to_box_px": to_box,
        }
        for name, measure in measures.items():
            row[name] = min(measure(point, box) for box in roles.values())
            row[f"middle_{name}"] = min(measure(middle, box) for box in roles.values())
        rows.append(row)
    gain = [r["middle_to_center_px"] - r["to_center_px"] for r in rows]
    return {
        **by_camera(rows, ("camera",)),
        "gain_px": paired(gain),
        "left_out": skipped,
    }


def paired(gains: list[float]) -> dict | None:
    """Mean of paired gains and its 95 % interval by bootstrap (2000 draws, fixed seed)."""
    if not gains:
        return None
    draw = random.Random(0)
    samples = sorted(fmean(draw.choices(gains, k=len(gains))) for _ in range(2000))
    return {"mean": fmean(gains), "low": samples[49], "high": samples[1949], "count": len(gains)}


def means(rows: list[dict], leave_out: tuple[str, ...]) -> dict:
    """Mean of every number in `rows`."""
    if not rows:
        return {}
    return {key: fmean(row[key] for row in rows) for key in rows[0] if key not in leave_out}


def by_camera(rows: list[dict], leave_out: tuple[str, ...]) -> dict:
    """Means over all rows and by camera, with counts."""
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(row["camera"], []).append(row)
    return {
        "groups": {
            name: {"count": len(part), **means(part, leave_out)} for name, part in groups.items()
        }
    }


def load(folder: Path, stage: str) -> dict[int, dict]:
    """The JSON files of a stage by episode. Exits with a message where there is none."""
    files = sorted((folder / stage).glob("*.json"))
    if not files:
        sys.exit(f"{folder / stage}: found no *.json; expected the results of a finished run")
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return {document["episode_index"]: document for document in documents}


def show(report: dict) -> str:
    """The report as text."""
    part = report["boundaries"]
    lines = [f"Subtask boundaries, distance in s ({len(part['episodes'])} episodes with any)"]
    lines.append(
        "  episode  subtasks  predicted->true  uniform->true  true->predicted  true->uniform"
    )
    rows = [*part["episodes"]]
    for row in rows:
        lines.append(f"  {row['episode_index']:7d}" + _boundary_row(row))
    if part["mean"]:
        lines.append("     mean" + _boundary_row(part["mean"]))
        lines.append(
            f"  predicted nearer than uniform in {part['better_than_uniform']} of {len(rows)}; "
            f"{_gain('gain', part['gain_s'], 's')}; {part['without_boundary']} without a boundary"
        )
    lines += ["", "Boxes, IoU with the best matching visible role"]
    lines.append("  camera                          count  answered  centered, mean size  own size")
    for name, row in report["boxes"]["groups"].items():
        if row["count"]:
            lines.append(
                f"  {name:30s}  {row['count']:5d}  {row['iou']:8.3f}"
                f"  {row['iou_centered_mean_size']:19.3f}  {row['iou_centered_own_size']:8.3f}"
            )
    lines.append(f"  {_gain('gain over the better guess', report['boxes']['gain_iou'], 'IoU')}")
    lines += ["", *_points("gripper left out", report["points"])]
    lines += ["", *_points("gripper included", report["points_with_gripper"])]
    return "\n".join(lines)


def _points(which: str, part: dict) -> list[str]:
    lines = [f"Points, distance in px to the nearest visible thing ({which})"]
    lines.append("  camera                          count  to center  middle  to box  middle")
    for name, row in part["groups"].items():
        if row["count"]:
            lines.append(
                f"  {name:30s}  {row['count']:5d}  {row['to_center_px']:9.1f}"
                f"  {row['middle_to_center_px']:6.1f}"
                f"  {row['to_box_px']:6.1f}  {row['middle_to_box_px']:6.1f}"
            )
    lines.append(
        f"  {_gain('gain', part['gain_px'], 'px')}; "
        f"{part['left_out']} points left out (no such thing visible)"
    )
    return lines


def _boundary_row(row: dict) -> str:
    return (
        f"  {row['subtasks']:8.3g}  {row['predicted_to_true_s']:15.2f}"
        f"  {row['uniform_to_true_s']:13.2f}  {row['true_to_predicted_s']:15.2f}"
        f"  {row['true_to_uniform_s']:13.2f}"
    )


def _gain(name: str, gain: dict | None, unit: str) -> str:
    if gain is None:
        return f"{name}: nothing to compare"
    return f"{name} {gain['mean']:.3f} {unit} (95 %: {gain['low']:.3f} to {gain['high']:.3f})"


def compare(results: Path, ground_truth: Path) -> dict:
    """All comparisons of a results folder with a ground truth file."""
    truth = json.loads(ground_truth.read_text(encoding="utf-8"))
    episodes = {episode["episode_index"]: episode for episode in truth["episodes"]}
    plans, vqa = load(results, "plan"), load(results, "vqa")
    unknown = sorted((plans.keys() | vqa.keys()) - episodes.keys())
    if unknown:
        sys.exit(f"{ground_truth}: no ground truth for the episodes {unknown} of {results}")
    return {
        "results": str(results),
        "boundaries": boundaries(plans, episodes),
        "boxes": boxes(vqa, episodes, truth["cameras"]),
        "points": points(vqa, episodes, truth["cameras"]),
        "points_with_gripper": points(vqa, episodes, truth["cameras"], with_gripper=True),
    }


def main() -> None:
    """Read the command line, print the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="results/<dataset> of a run")
    parser.add_argument("--ground-truth", type=Path, required=True, help="ground truth JSON")
    parser.add_argument("--json", help="also write the numbers here as JSON; - prints only them")
    options = parser.parse_args()
    report = compare(options.results, options.ground_truth)
    text = json.dumps(report, indent=2)
    if options.json == "-":
        print(text)
        return
    print(show(report))
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
