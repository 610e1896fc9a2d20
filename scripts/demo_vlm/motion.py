"""What moves and what changes between the frames of a request."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from demo_vlm import colors
from demo_vlm.moments import Moments

# Lightness counts less than hue: shadows of the arm pass over everything.
_WEIGHTS = np.array([0.6, 1.0, 1.0], np.float32)
# Distance (weighted Lab) from which a pixel counts as another one, and within which as the same.
CHANGED, SAME = 14.0, 8.5
# A color is the arm's if it moves in this share of the frames in which anything moves, and in this
# share of the places where it is seen at all.
ARM_PRESENCE, ARM_RATIO = 0.6, 0.15
# A changed region of which more than this share has the arm's colors is the arm in another pose.
ARM_SHARE = 0.4
# Share of the picture that changes from frame to frame where the camera itself moves.
CAMERA_MOVES = 0.4
# Mean absolute change (0 to 255, per second) below which nothing moves in the picture.
STILL = 0.6


@dataclass(frozen=True)
class Motion:
    """What happens in each of the N - 1 intervals between N frames.

    `speed`: mean absolute change of the pixels per second (0 to 255). `changes`: how many pixels
    of the scene, the arm left out, change for good there. `changed`: H x W bool, those pixels.
    """

    times_s: np.ndarray
    speed: np.ndarray
    changes: np.ndarray
    changed: np.ndarray

    @property
    def moves(self) -> bool:
        """Whether anything moves at all."""
        return bool(len(self.speed)) and float(self.speed.max()) > STILL


def measure(seen: Moments) -> Motion:
    """Measure motion and lasting changes. With fewer than two frames everything is empty."""
    height, width = seen.frames.shape[1:3]
    if len(seen) < 2:
        nothing = np.zeros(0)
        return Motion(seen.times_s, nothing, nothing, np.zeros((height, width), bool))
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.9) for frame in seen.frames])
    return Motion(seen.times_s, _speed(smooth, seen.times_s), *_lasting(smooth))


def _speed(frames: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    # A last frame right after the one before would make noise look like speed.
    spans = np.clip(np.diff(times_s), 0.2, None)
    moved = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(frames)]
    return np.array(moved) / spans


def _lasting(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels change for good in each interval, and which pixels these are.

    A pixel has changed for good where it ends with another color than it began with. The moment is
    the step that agrees with most frames: those before look like the first one, those after like
    the last one; frames in which the arm hides the pixel agree with neither and do not matter.
    """
    count = len(frames)
    lab = np.stack([colors.to_lab(frame) for frame in frames]) * _WEIGHTS
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=-1)
    changed = np.zeros(lab.shape[1:3], bool)
    votes = np.zeros(count - 1)
    fastest = np.sort((steps > SAME).mean(axis=(1, 2)))[-max(1, len(steps) // 4) :]
    if fastest.mean() > CAMERA_MOVES:
        return votes, changed
    first, last = lab[0], lab[-1]
    arm = _arm(lab, steps > CHANGED)
    hidden = arm[0] | arm[-1]
    changed = _things(np.linalg.norm(first - last, axis=-1) > CHANGED, hidden)
    if not changed.any():
        return votes, changed
    pixels = lab[:, changed]
    like_first = np.linalg.norm(pixels - first[changed], axis=-1) < SAME
    like_last = np.linalg.norm(pixels - last[changed], axis=-1) < SAME
    before = np.cumsum(like_first, axis=0)[:-1]
    after = np.cumsum(like_last[::-1], axis=0)[::-1][1:]
    agreement = before + after
    best = agreement.max(axis=0)
    likely = agreement == best
    # A pixel that was hidden for long cannot tell when it changed: its vote hardly counts.
    weight = np.clip((best / count - 0.6) / 0.4, 0, 1) / likely.sum(axis=0).astype(float) ** 3
    return (likely * weight).sum(axis=1), changed


def _things(changed: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The regions of `changed` that are things, without those that are the arm in another pose."""
    # Crumbs along edges come from shading and compression; things are blobs.
    blobs = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, parts = cv2.connectedComponents(cv2.dilate(blobs, np.ones((3, 3), np.uint8)))
    blobs = blobs.astype(bool)
    area = np.bincount(parts[blobs], minlength=count)
    arms = np.bincount(parts[blobs & hidden], minlength=count)
    keep = arms <= ARM_SHARE * area
    keep[0] = False
    return blobs & keep[parts] & ~hidden


def _arm(lab: np.ndarray, stepped: np.ndarray) -> np.ndarray:
    """N x H x W: pixels with the colors that move in most of the frames.

    What moves in every frame is the robot; what it moves, moves for a while. `stepped` says which
    pixels change in each interval: those that change before and after a frame are moving in it.
    """
    moving = np.zeros(lab.shape[:3], bool)
    moving[1:-1] = stepped[:-1] & stepped[1:]
    bins = np.floor(lab / np.array([7.0, 10.0, 10.0], np.float32)).astype(np.int32) + 20
    names, index = np.unique(
        (bins[..., 0] * 64 + bins[..., 1]) * 64 + bins[..., 2], return_inverse=True
    )
    index = index.reshape(moving.shape)
    moved = np.bincount(index[moving], minlength=len(names))
    total = np.bincount(index[1:-1].ravel(), minlength=len(names))
    busy = stepped.mean(axis=(1, 2)) > 0.002
    active = 1 + np.flatnonzero(busy[:-1] & busy[1:])
    present = np.zeros(len(names))
    for frame in active:
        present[np.unique(index[frame][moving[frame]])] += 1
    if not len(active):
        return np.zeros(moving.shape, bool)
    chosen = (present >= ARM_PRESENCE * len(active)) & (moved > ARM_RATIO * total)
    return chosen[index]
