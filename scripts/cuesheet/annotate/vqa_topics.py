"""Draws what the visual questions of one camera are about.

The draw depends on the seed, the episode, the camera and the names of objects alone, so requests
can be sent in any order and at the same time.
"""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cuesheet.artifacts.episode import Keyframe

PLACE_TYPES = ("bbox", "keypoint")
GRIPPER = "robot gripper"
# Maximum number of names that a request lists as already asked about.
_MAX_NAMES = 20


@dataclass(frozen=True)
class Topic:
    """What one question is about.

    `target` is the object to ask about, "" if the model chooses; `names` are the objects that
    earlier questions of the type are about.
    """

    question_type: str
    target: str = ""
    names: tuple[str, ...] = ()


def group_frames(frames: Sequence[Keyframe], per_call: int) -> list[list[Keyframe]]:
    """Return the frames of each request: at most `per_call` consecutive ones, in order."""
    groups: list[list[Keyframe]] = []
    for frame in frames:
        last = groups[-1] if groups else []
        follows = last and last[-1].frame_index + 1 == frame.frame_index
        if follows and len(last) < per_call:
            last.append(frame)
        else:
            groups.append([frame])
    return groups


def draw_topics(
    groups: Sequence[Sequence[Keyframe]],
    types: Sequence[str],
    *,
    objects: Sequence[str],
    seed: int,
    episode_index: int,
) -> list[list[Topic]]:
    """Return as many topics of different types for each group as it has frames, of one camera.

    Every type is drawn equally often, give or take one. Within a type no target is drawn twice;
    when all objects are used up, the model chooses. Questions about places come first in a group,
    because the first frame is the one that the model sees.
    """
    camera = groups[0][0].camera if groups else ""
    key = f"vqa {seed} {episode_index} {camera}"
    counts = Counter(dict.fromkeys(types, 0))
    generator = random.Random(key)
    targets = {
        question_type: _targets(question_type, objects, f"{key} {question_type}")
        for question_type in types
    }
    used: dict[str, list[str]] = {question_type: [] for question_type in types}
    drawn = []
    for frames in groups:
        shuffled = generator.sample(list(counts), len(counts))
        chosen = sorted(shuffled, key=counts.__getitem__)[: len(frames)]
        topics = []
        for one in sorted(chosen, key=lambda question_type: question_type not in PLACE_TYPES):
            counts[one] += 1
            target = targets[one].pop() if targets[one] else ""
            topics.append(Topic(one, target, tuple(used[one][-_MAX_NAMES:])))
            used[one] += [target] if target else []
        drawn.append(topics)
    return drawn


def _targets(question_type: str, objects: Sequence[str], key: str) -> list[str]:
    """Return the targets of a type in random order; for spatial questions, pairs of objects."""
    names = list(dict.fromkeys(objects))
    if names and question_type != "count":
        names.append(GRIPPER)
    if question_type == "spatial":
        names = [f"{one} and {other}" for one, other in itertools.combinations(names, 2)]
    return random.Random(key).sample(names, len(names))
