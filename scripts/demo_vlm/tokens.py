"""Counts tokens by a rule, because this server has no tokenizer.

A token of text is a word (letters, digits and underscores in a row) or one other sign. An image has
one token per patch of 28 x 28 px; a clip has that for every two frames.
"""

import math
import re
from collections.abc import Iterable

import numpy as np

from demo_vlm.media import Media

PATCH = 28
_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_prompt(texts: Iterable[str], media: Media) -> int:
    """Return the tokens of a request: its texts, images and clips."""
    words = sum(len(_TOKEN.findall(text)) for text in texts)
    images = sum(_patches(image) for image in media.images)
    clips = sum(_patches(one.frames[0]) * math.ceil(one.frame_count / 2) for one in media.clips)
    return words + images + clips


def _patches(image: np.ndarray) -> int:
    height, width = image.shape[:2]
    return math.ceil(height / PATCH) * math.ceil(width / PATCH)


def cut(text: str, max_tokens: int | None) -> tuple[str, int, str]:
    """Return the text cut to `max_tokens`, its tokens, and the finish reason, stop or length."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    if max_tokens is None or len(ends) <= max_tokens:
        return text, len(ends), "stop"
    return text[: ends[max_tokens - 1]], max_tokens, "length"
