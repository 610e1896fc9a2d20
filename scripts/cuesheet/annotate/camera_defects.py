"""Defects of a recording that its pixels show: cameras that are black or frozen."""

import itertools
from collections.abc import Mapping, Sequence

from PIL import Image, ImageChops, ImageStat

from cuesheet.artifacts.episode import Keyframe
from cuesheet.artifacts.inspection import CameraDefect

_SIZE = (64, 48)
_BLACK = 12  # brightest pixel of a black frame, of 255, after the frame is made small
_STILL = 3  # largest change of a pixel between two frames that show the same
_MIN_SHARE = 0.9  # of the frames, for a defect that other cameras do not confirm
_MIN_FROZEN_S = 3.0


def find_defects(frames: Mapping[str, Sequence[Keyframe]]) -> list[CameraDefect]:
    """Return the defects of every camera, from frames that are spread over the episode.

    A camera is black if nearly all frames are. It is frozen if nearly no frame differs from the one
    before, or if none does for 3 s while another camera sees motion.
    """
    small = {camera: [_small(frame) for frame in shown] for camera, shown in frames.items()}
    moves = {camera: _moves(images) for camera, images in small.items()}
    defects = []
    for camera, images in small.items():
        black = sum(ImageStat.Stat(image).extrema[0][1] <= _BLACK for image in images) / len(images)
        frozen = _frozen_share(camera, frames[camera], moves)
        if black >= _MIN_SHARE:
            defects.append(CameraDefect(camera=camera, defect="black", share=round(black, 3)))
        elif frozen:
            defects.append(CameraDefect(camera=camera, defect="frozen", share=round(frozen, 3)))
    return defects


def _small(frame: Keyframe) -> Image.Image:
    with Image.open(frame.path) as image:
        return image.convert("L").resize(_SIZE, Image.Resampling.BOX)


def _moves(images: Sequence[Image.Image]) -> list[bool]:
    """Return for each frame but the first whether it differs from the one before."""
    changes = map(ImageChops.difference, images[:-1], images[1:])
    return [ImageStat.Stat(change).extrema[0][1] > _STILL for change in changes]


def _frozen_share(
    camera: str, frames: Sequence[Keyframe], moves: Mapping[str, Sequence[bool]]
) -> float:
    """Return the share of still frames if the camera is frozen, else 0."""
    still = [not moved for moved in moves[camera]]
    if not still or frames[-1].timestamp_s - frames[0].timestamp_s < _MIN_FROZEN_S:
        return 0.0
    share = sum(still) / len(still)
    others = [moved for other, moved in moves.items() if other != camera]
    if share >= _MIN_SHARE and (not others or any(map(any, others))):
        return share
    end = 0
    for is_still, run in itertools.groupby(still):
        start, end = end, end + len(list(run))
        length_s = frames[end].timestamp_s - frames[start].timestamp_s
        seen = [moved[start:end] for moved in others if len(moved) == len(still)]
        is_long = is_still and length_s >= _MIN_FROZEN_S
        if is_long and any(sum(one) > len(one) / 2 for one in seen):
            return share
    return 0.0
