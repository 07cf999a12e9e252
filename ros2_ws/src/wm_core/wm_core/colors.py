"""One color per object id, the same in every image and marker."""

from __future__ import annotations

import colorsys

_GOLDEN_RATIO = 0.61803398875
"""Step of the hue from id to id: its multiples are the most even on a circle, however many there are."""


def object_color(object_id: int) -> tuple[int, int, int]:
    """Red, green, blue 0..255 of an id: neighboring ids differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((_GOLDEN_RATIO * object_id) % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
