"""The size of chat requests: image tokens, text tokens and bytes of images.

Image tokens follow the rule of Qwen2.5-VL, one per 28 x 28 pixels; text tokens are a quarter of the
characters.
"""

import base64
import io
import json
from collections import Counter
from typing import Any

from PIL import Image

PATCH_PX = 28
CHARACTERS_PER_TOKEN = 4


def size_of(body: bytes) -> Counter[str]:
    """Return `images`, `image_bytes`, `image_tokens` and `text_tokens` of a request."""
    total: Counter[str] = Counter()
    for message in json.loads(body).get("messages", ()):
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            total.update(_size_of_part(part))
    return total


def _size_of_part(part: dict[str, Any]) -> dict[str, int]:
    if part["type"] == "text":
        return {"text_tokens": len(part["text"]) // CHARACTERS_PER_TOKEN}
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        tokens = max(1, round(image.width / PATCH_PX)) * max(1, round(image.height / PATCH_PX))
    return {"images": 1, "image_bytes": len(data), "image_tokens": tokens}
