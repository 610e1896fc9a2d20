"""Counts the tokens of a request: of text by the model's tokenizer, of images by a family's rule.

Sources: the image processors of the open models (`preprocessor_config.json`) and the price pages
of OpenAI, Google and Anthropic. A model folder on this machine, or in the Hugging Face cache, gives
its own patch size, pixel limits and tokenizer; for other models the family's defaults apply.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuesheet.files import read_json
from cuesheet.vlm.coordinates import PixelLimits, family_of, qwen25_size

# Characters per token of English text, in tokenizers of 100,000 to 250,000 entries.
CHARACTERS_PER_TOKEN = 4.4
# What a chat template adds to a message, to a request (the turn of the assistant) and to an image.
_PER_MESSAGE = 5
_PER_REQUEST = 3
_PER_IMAGE = 2

ImageRule = Callable[[int, int], int]


@dataclass(frozen=True)
class Patches:
    """Models that resize an image to multiples of `edge` px and use one token per square of it."""

    edge: int
    limits: PixelLimits

    def __call__(self, width: int, height: int) -> int:
        new_width, new_height = qwen25_size(width, height, self.limits, self.edge)
        return round(new_width * new_height / self.edge**2)


def _gpt(width: int, height: int) -> int:
    """GPT-4o and later: within 2048 px, the short side 768 px, then 170 tokens per 512 px tile."""
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    return 85 + 170 * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def _gemini(width: int, height: int) -> int:
    """Return 258 tokens for a small image, and for each tile of a larger one (up to 768 px)."""
    if max(width, height) <= 384:
        return 258
    edge = min(768, max(256, math.floor(min(width, height) / 1.5)))
    return 258 * math.ceil(width / edge) * math.ceil(height / edge)


def _claude(width: int, height: int) -> int:
    """Return one token per 750 px of an image within 1568 px and about 1,600 tokens."""
    scale = min(1.0, 1568 / max(width, height))
    return min(1600, math.ceil(width * scale * height * scale / 750))


def _internvl(width: int, height: int) -> int:
    """Return 256 tokens per tile of 448 px: at most 12 in the nearest aspect ratio, plus one."""
    grids = [(columns, rows) for columns in range(1, 13) for rows in range(1, 12 // columns + 1)]
    aspect = width / height
    nearest = min(abs(aspect - columns / rows) for columns, rows in grids)
    fitting = [g for g in grids if math.isclose(abs(aspect - g[0] / g[1]), nearest)]
    large = [g for g in fitting if width * height > 0.5 * 448 * 448 * g[0] * g[1]]
    columns, rows = max(large or [min(fitting, key=math.prod)], key=math.prod)
    tiles = columns * rows
    return 256 * (tiles + (tiles > 1))


_QWEN2 = Patches(28, PixelLimits())
_QWEN3 = Patches(32, PixelLimits(256 * 256, 4096 * 4096))
# By family name in lower case, letters and digits only; the first match wins.
_RULES: tuple[tuple[str, ImageRule], ...] = (
    ("qwen3vl", _QWEN3),
    ("qwen35", _QWEN3),
    ("cosmosreason2", _QWEN3),
    ("qwen", _QWEN2),
    ("mimovl", _QWEN2),
    ("cosmosreason1", _QWEN2),
    ("cuesheetdemo", _QWEN2),
    ("internvl", _internvl),
    ("gemma", lambda width, height: 256),
    ("gemini", _gemini),
    ("claude", _claude),
    ("gpt", _gpt),
)


@dataclass(frozen=True)
class TokenCounter:
    """Counts the prompt tokens of requests to one model.

    `notices` name what could only be assumed of the model.
    """

    image_rule: ImageRule
    text_rule: Callable[[str], int]
    notices: tuple[str, ...] = ()

    def text(self, *messages: str) -> int:
        """Return the tokens of a chat: its messages and what the chat template adds."""
        words = sum(self.text_rule(message) for message in messages)
        return words + _PER_MESSAGE * len(messages) + _PER_REQUEST

    def images(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Return the tokens of images of `(width, height)` px."""
        return sum(self.image_rule(*size) + _PER_IMAGE for size in sizes)


def token_counter(model: str, processor: Mapping[str, Any] | None = None) -> TokenCounter:
    """Return the counter of a model, given its name or folder.

    `processor` is `vlm.sampling.mm_processor_kwargs`, whose pixel limits apply.
    """
    notices = []
    rule = family_of(model, _RULES)
    if rule is None:
        rule = _QWEN2
        notices.append(f"image tokens of {model} are unknown; one per 28 x 28 px is assumed")
    if isinstance(rule, Patches):
        rule = _with_limits(rule, _image_settings(model))
        rule = _with_limits(rule, processor or {})
    tokenizer = _tokenizer(model)
    if tokenizer is None:
        notices.append(
            f"no tokenizer of {model} on this machine; {CHARACTERS_PER_TOKEN} characters per "
            "token are assumed"
        )
    return TokenCounter(rule, tokenizer or _by_length, tuple(notices))


def _by_length(text: str) -> int:
    ascii_only = sum(map(str.isascii, text))
    return math.ceil(ascii_only / CHARACTERS_PER_TOKEN) + (len(text) - ascii_only)


def _with_limits(rule: Patches, settings: Mapping[str, Any]) -> Patches:
    """Return a rule with the patch size and pixel limits of a processor's settings."""
    patch, merge = settings.get("patch_size"), settings.get("merge_size")
    edge = patch * merge if isinstance(patch, int) and isinstance(merge, int) else rule.edge
    return Patches(edge, rule.limits.updated(settings))


def _model_path(model: str, name: str) -> Path | None:
    """Return a file of a model's folder, or of its snapshot in the Hugging Face cache."""
    path = Path(model) / name
    if path.is_file():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, name)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _image_settings(model: str) -> dict[str, Any]:
    path = _model_path(model, "preprocessor_config.json")
    return read_json(path) if path else {}


def _tokenizer(model: str) -> Callable[[str], int] | None:
    path = _model_path(model, "tokenizer.json")
    if path is None:
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # tokenizers raises plain Exception for a file that it cannot read
        return None
    # Prompts repeat from episode to episode.
    return functools.lru_cache(4096)(
        lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    )
