"""Names of colors, and images in CIE Lab."""

import cv2
import numpy as np

NAMES = (
    "black", "gray", "white", "red", "orange", "brown", "yellow", "green", "cyan", "blue",
    "purple", "pink",
)  # fmt: skip


def to_lab(image: np.ndarray) -> np.ndarray:
    """Convert H x W x 3 uint8 RGB to float32 CIE Lab (L 0 to 100, a and b about -100 to 100)."""
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def name_of(rgb: np.ndarray) -> str:
    """Return the plain name of one color (3 values, 0 to 255), one of NAMES.

    Grays are told by their chroma in Lab, brown is a dark or dull orange, the rest goes by the hue.
    """
    red, green, blue = (float(value) for value in rgb)
    lab = to_lab(np.array([[[red, green, blue]]], np.float32))[0, 0]
    lightness, distance = float(lab[0]), float(np.hypot(lab[1], lab[2]))
    if distance < 10 or (lightness < 18 and distance < 16):
        if lightness < 28:
            return "black"
        return "white" if lightness > 80 else "gray"
    high, low = max(red, green, blue), min(red, green, blue)
    span = high - low
    if high == red:
        hue = (60 * (green - blue) / span) % 360
    elif high == green:
        hue = 60 * (blue - red) / span + 120
    else:
        hue = 60 * (red - green) / span + 240
    saturation = span / high
    if hue < 14 or hue >= 340:
        if lightness > 65 and saturation < 0.55:
            return "pink"
        return "brown" if saturation < 0.5 and lightness < 60 else "red"
    if hue < 42:
        return "brown" if lightness < 62 or saturation < 0.45 else "orange"
    if hue < 68:
        return "brown" if lightness < 45 and saturation < 0.7 else "yellow"
    if hue < 165:
        return "green"
    if hue < 200:
        return "cyan"
    if hue < 262:
        return "blue"
    if hue < 300:
        return "purple"
    return "pink" if lightness > 45 else "purple"
