"""What moves and what changes between the frames of a request."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from cuesheet.offline_vlm import colors
from cuesheet.offline_vlm.moments import Moments

# Lightness counts less than hue: shadows of the arm pass over everything.
_WEIGHTS = np.array([0.6, 1.0, 1.0], np.float32)
# Distance (weighted Lab) from which a pixel counts as another one, and within which as the same.
CHANGED, SAME = 14.0, 8.5
# Share of the moving pixels whose colors are taken for the arm's.
ARM_MASS = 0.5
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
    the step that agrees with most frames: those before look like the first ones, those after like
    the last ones; frames in which the arm hides the pixel agree with neither and do not matter.
    """
    count = len(frames)
    lab = np.stack([colors.to_lab(frame) for frame in frames]) * _WEIGHTS
    ends = 2 if count > 6 else 1
    first = np.median(lab[:ends], axis=0)
    last = np.median(lab[-ends:], axis=0)
    changed = np.linalg.norm(first - last, axis=-1) > CHANGED
    arm = _arm(lab)
    hidden = arm[:ends].any(axis=0) | arm[-ends:].any(axis=0)
    changed &= ~hidden
    # Crumbs along edges come from shading and compression; things are blobs.
    changed = cv2.morphologyEx(
        changed.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)
    ).astype(bool)
    votes = np.zeros(count - 1)
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
    # A pixel that was hidden for long cannot tell when it changed: its vote is thin.
    weight = np.clip((best / count - 0.6) / 0.4, 0, 1) / likely.sum(axis=0) ** 1.5
    return (likely * weight).sum(axis=1), changed


def _arm(lab: np.ndarray) -> np.ndarray:
    """N x H x W: pixels with the colors that most of the moving pixels have, in most frames.

    What moves in every frame is the robot; what is moved by it is smaller and moves for a while.
    """
    away = np.linalg.norm(lab - np.median(lab, axis=0), axis=-1) > CHANGED
    bins = np.floor(lab / np.array([7.0, 10.0, 10.0], np.float32)).astype(np.int32) + 20
    keys = (bins[..., 0] * 64 + bins[..., 1]) * 64 + bins[..., 2]
    names, index = np.unique(keys, return_inverse=True)
    index = index.reshape(keys.shape)
    moving = np.bincount(index[away], minlength=len(names)).astype(np.float64)
    total = np.bincount(index.ravel(), minlength=len(names))
    present = np.zeros(len(names))
    for frame, mask in zip(index, away, strict=True):
        present[np.unique(frame[mask])] += 1
    weight = moving * present * (moving > 0.15 * total)
    if not weight.any():
        return np.zeros(keys.shape, bool)
    order = np.argsort(-weight, kind="stable")
    covered = np.cumsum(weight[order]) / weight.sum()
    chosen = np.zeros(len(names), bool)
    chosen[order[: int(np.searchsorted(covered, ARM_MASS)) + 1]] = True
    return chosen[index]
