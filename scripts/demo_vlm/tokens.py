"""Counts of tokens, by a rule of ours: this server has no tokenizer.

A token of text is a word (letters, digits and underscores in a row) or one other sign that is no
space. A image counts one token for each patch of 28 x 28 px it covers, begun ones included; a
clip counts that for every second of its frames, as models that merge two frames do.
"""

import math
import re
from collections.abc import Iterable

from demo_vlm.media import Media

PATCH = 28
_TOKEN = re.compile(r"\w+|[^\w\s]")


def count_text(text: str) -> int:
    """Tokens of `text`."""
    return sum(1 for _ in _TOKEN.finditer(text))


def count_prompt(texts: Iterable[str], media: Media) -> int:
    """Tokens of a request: its texts, images and clips."""
    total = sum(count_text(text) for text in texts)
    for image in media.images:
        total += _patches(*image.shape[:2])
    for clip in media.clips:
        if clip.frames:
            total += _patches(*clip.frames[0].shape[:2]) * math.ceil(clip.frame_count / 2)
    return total


def _patches(height: int, width: int) -> int:
    return math.ceil(height / PATCH) * math.ceil(width / PATCH)


def cut(text: str, max_tokens: int | None) -> tuple[str, int, str]:
    """Return the text cut to `max_tokens`, its tokens, and the finish reason, stop or length."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    if max_tokens is None or len(ends) <= max_tokens:
        return text, len(ends), "stop"
    return text[: ends[max_tokens - 1]], max_tokens, "length"
