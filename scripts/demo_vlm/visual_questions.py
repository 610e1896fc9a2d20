"""Questions about one picture, with answers that are true of its pixels."""

import re

import numpy as np

from demo_vlm import colors
from demo_vlm.question import Question
from demo_vlm.regions import Region, find
from demo_vlm.scene import place

# Regions of less than this share of the strongest one's saliency are not spoken of.
SPOKEN_SHARE = 0.35


class Picture:
    """A picture, its regions, and the coordinates that the caller wants to read."""

    def __init__(self, question: Question, pixels: np.ndarray) -> None:
        self.height, self.width = pixels.shape[:2]
        right, bottom = question.coordinates or (self.width, self.height)
        self._scale = right / self.width, bottom / self.height
        self._limit = right, bottom
        self.pixels = pixels
        self.all = find(pixels)
        self.regions = _by_task(self.all, question.task)

    def box(self, box: tuple[float, float, float, float]) -> list[float]:
        """A box in the caller's coordinates."""
        x0, y0, x1, y1 = box
        return [*self.point((x0, y0)), *self.point((x1, y1))]

    def point(self, point: tuple[float, float]) -> list[float]:
        """A point in the caller's coordinates."""
        return [
            round(min(value * scale, limit), 1)
            for value, scale, limit in zip(point, self._scale, self._limit, strict=True)
        ]

    def where(self, region: Region) -> str:
        """Where a region lies, by thirds of the picture."""
        return place(*region.point, self.width, self.height)

    def name(self, region: Region) -> str:
        """Color and outline, and the place as well where another region has the same."""
        others = [other for other in self.all if other is not region]
        if all(other.name != region.name for other in others):
            return region.name
        return f"{region.name} at the {self.where(region)}"


def answer(kind: str, question: Question, pixels: np.ndarray) -> dict:
    """Question and answer of the given kind (bbox, keypoint, count, attribute, spatial)."""
    picture = Picture(question, pixels)
    return {
        "bbox": _bbox,
        "keypoint": _keypoint,
        "count": _count,
        "attribute": _attribute,
        "spatial": _spatial,
    }[kind](picture)


def _by_task(regions: list[Region], task: str) -> list[Region]:
    """The regions, those first whose color the task names."""
    words = set(re.findall(r"[a-z]+", task.lower().replace("grey", "gray")))
    named = words.intersection(colors.NAMES)
    return sorted(regions, key=lambda region: region.color not in named) if named else regions


def _bbox(picture: Picture) -> dict:
    if not picture.regions:
        whole = (0.0, 0.0, float(picture.width), float(picture.height))
        detection = {
            "label": "the whole picture",
            "bbox_format": "xyxy",
            "bbox": picture.box(whole),
        }
        return {
            "question": "Which part of the picture is of one kind, with nothing standing out?",
            "answer": {"detections": [detection]},
        }
    region = picture.regions[0]
    name = picture.name(region)
    return {
        "question": f"Where is the {name}?",
        "answer": {
            "detections": [{"label": name, "bbox_format": "xyxy", "bbox": picture.box(region.box)}]
        },
    }


def _keypoint(picture: Picture) -> dict:
    if not picture.regions:
        middle = (picture.width / 2, picture.height / 2)
        return {
            "question": "Where is the middle of the picture?",
            "answer": {
                "label": "middle of the picture",
                "point_format": "xy",
                "point": picture.point(middle),
            },
        }
    region = picture.regions[0]
    name = picture.name(region)
    return {
        "question": f"Point at the {name}.",
        "answer": {"label": name, "point_format": "xy", "point": picture.point(region.point)},
    }


def _count(picture: Picture) -> dict:
    if not picture.regions:
        return {
            "question": "How many things stand out from the background by their color?",
            "answer": {"label": "things that stand out by color", "count": 0},
        }
    first = picture.regions[0]
    same = [
        region
        for region in picture.all
        if region.color == first.color and region.saliency >= SPOKEN_SHARE * first.saliency
    ]
    thing = f"{first.color} regions that stand out"
    return {
        "question": f"How many separate {thing} are in the picture?",
        "answer": {
            "label": thing,
            "count": len(same),
            "note": "at the " + ", ".join(picture.where(region) for region in same[:6]),
        },
    }


def _attribute(picture: Picture) -> dict:
    if not picture.regions:
        color = colors.name_of(np.median(picture.pixels.reshape(-1, 3), axis=0))
        return {
            "question": "What color is most of the picture?",
            "answer": {"label": "most of the picture", "attribute": "color", "value": color},
        }
    region = picture.regions[0]
    thing = f"the {region.shape} that stands out at the {picture.where(region)}"
    return {
        "question": f"What color is {thing} of the picture?",
        "answer": {
            "label": f"{region.shape} at the {picture.where(region)}",
            "attribute": "color",
            "value": region.color,
        },
    }


def _spatial(picture: Picture) -> dict:
    pair = _pair(picture)
    if pair is None:
        return {
            "question": "How does the upper half of the picture lie to its lower half?",
            "answer": {
                "subject": "upper half of the picture",
                "relation": "above",
                "object": "lower half of the picture",
            },
        }
    subject, relation, other = pair
    first, second = picture.name(subject), picture.name(other)
    return {
        "question": f"Where is the {first} in the picture, seen from the {second}?",
        "answer": {"subject": first, "relation": relation, "object": second},
    }


def _pair(picture: Picture) -> tuple[Region, str, Region] | None:
    """Two regions that can be told apart by name, and how the first lies to the second."""
    regions = picture.regions
    if not regions:
        return None
    names = {id(region): picture.name(region) for region in regions}
    subject = regions[0]
    for other in regions[1:]:
        relation = relation_of(subject.box, other.box)
        if names[id(other)] != names[id(subject)] and relation is not None:
            return subject, relation, other
    return None


def relation_of(
    first: tuple[float, float, float, float], second: tuple[float, float, float, float]
) -> str | None:
    """How box `first` lies to box `second` in the picture, or None where it is not clear.

    A side is named where there is free space between the boxes on that axis; of two axes the one
    with more of it. Boxes that touch or overlap are only `near`, and neither within the other:
    whether one thing is in or on another, a picture's plane does not tell.
    """
    gaps = {
        "left_of": second[0] - first[2],
        "right_of": first[0] - second[2],
        "above": second[1] - first[3],
        "below": first[1] - second[3],
    }
    relation = max(gaps, key=lambda name: gaps[name])
    if gaps[relation] >= 0:
        return relation
    return None if _within(first, second) or _within(second, first) else "near"


def _within(
    inner: tuple[float, float, float, float], outer: tuple[float, float, float, float]
) -> bool:
    return (
        inner[0] >= outer[0]
        and inner[1] >= outer[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )
