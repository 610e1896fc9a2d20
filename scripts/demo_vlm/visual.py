"""Visual questions: an answer about a region of one image, and the question that it answers."""

from typing import Any

from demo_vlm import vision
from demo_vlm.question import Topic


class VisualQuestion:
    """One question about an image, for the object and within the limits that the topic names."""

    def __init__(self, facts: Any, topic: Topic) -> None:
        self.facts = facts
        words = topic.target.lower().split()
        named = [region for region in facts.regions if region.color in words]
        self.first: vision.Region = (named or facts.regions)[0]
        self.name = topic.target if named and " and " not in topic.target else self.first.label
        # A question that fits this image only cannot repeat another one.
        is_first = not (topic.names or topic.already_asked or (topic.target and not named))
        self.when = "" if is_first else f" at {facts.asked.image_times_s.get(1, 0.0):.2f} s"

    def answer(self, keys: set[str]) -> dict[str, Any]:
        """Return the values of a reply whose answer has these keys."""
        answer, question = self._answer(keys)
        return {"locations": self._locations(), "answer": answer, "question": question}

    def _answer(self, keys: set[str]) -> tuple[dict[str, Any], str]:
        first, facts, when = self.first, self.facts, self.when
        place = facts.place(first)
        if "detections" in keys:
            box = facts.scaled(*first.box)
            detection = {"label": self.name, "bbox_format": "xyxy", "bbox": box}
            return {"detections": [detection]}, f"Where is the {self.name}{when}?"
        if "point" in keys:
            point = facts.scaled(*first.point)
            answer = {"label": self.name, "point_format": "xy", "point": point}
            return answer, f"Which point is on the {self.name}{when}?"
        if "count" in keys:
            same = [region.color == first.color and region.salience > 0 for region in facts.regions]
            answer = {"label": f"{first.color} region", "count": sum(same)}
            return answer, f"How many {first.color} regions are in view{when}?"
        if "relation" in keys:
            return self._relation()
        answer = {"label": f"object {place}", "attribute": "color", "value": first.color}
        return answer, f"What color is the object {place}{when}?"

    def _relation(self) -> tuple[dict[str, Any], str]:
        first, facts = self.first, self.facts
        height, width = facts.image.shape[:2]
        others = [region for region in facts.regions if region.color != first.color]
        other, center = "center of the image", (width / 2, height / 2)
        if others:
            other, center = others[0].label, others[0].center
        across = first.center[0] - center[0]
        # Heights cannot be seen in one image, so no region is above another one.
        relation = "near"
        if abs(across) >= width / 50:
            relation = "left_of" if across < 0 else "right_of"
        answer = {"subject": self.name, "object": other, "relation": relation}
        return answer, f"Where is the {self.name} compared with the {other}{self.when}?"

    def _locations(self) -> str:
        """Describe the places of the regions with the color of the first one."""
        same = [region for region in self.facts.regions if region.color == self.first.color]
        return ", ".join(self.facts.place(region) for region in same)
