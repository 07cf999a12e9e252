"""Printed and plain skins of household things: (h, w, 3) uint8 images, drawn by rule.

Fonts: Hershey's, which OpenCV draws (public domain), and DejaVu, which matplotlib ships (Bitstream Vera's license).
Brands are syllables at random.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from training.worlds.textures import random_color

Image = NDArray[np.uint8]
Color = NDArray[np.float64]

_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif.ttf",
)
_HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfklmnprstvwz" for vowel in "aeio")
PLAIN_PIXELS = 24
"""Side of images without print [pixels]."""


def saturated(rng: np.random.Generator) -> Color:
    """(3,) RGB 0..1 of a strong color, as brands and plastics have."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.55, 1.0), rng.uniform(0.45, 1.0)
    pixel = np.array([[[hue * 179.0, saturation * 255.0, value * 255.0]]]).astype(np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] / 255.0, dtype=np.float64)


def plain(color: Color, rng: np.random.Generator, grain: float = 0.02) -> Image:
    """One color with a little grain."""
    noise = 1.0 + grain * rng.normal(size=(PLAIN_PIXELS, PLAIN_PIXELS, 1))
    return np.clip(np.asarray(color) * noise * 255.0, 0, 255).astype(np.uint8)


def ceramic(rng: np.random.Generator) -> Color:
    """White, cream, and glazes."""
    if rng.uniform() < 0.5:
        return np.array([0.93, 0.92, 0.88]) * rng.uniform(0.8, 1.05)
    return random_color(rng)


def steel(rng: np.random.Generator) -> Image:
    """Brushed metal: gray with fine lines; some brass and copper."""
    tone = np.array([0.72, 0.73, 0.75]) * rng.uniform(0.6, 1.2)
    if rng.uniform() < 0.15:
        tone = np.array([0.75, 0.55, 0.35]) * rng.uniform(0.7, 1.1)
    line = 1.0 + rng.uniform(0.02, 0.12) * rng.normal(size=(64, 1, 1)) + 0.01 * rng.normal(size=(64, 16, 1))
    return np.clip(tone * line * 255.0, 0, 255).astype(np.uint8)


def timber(rng: np.random.Generator) -> Image:
    """Wood with its grain along the rows."""
    tone = np.array([0.68, 0.48, 0.30]) * rng.uniform(0.45, 1.3)
    grain = cv2.resize(rng.normal(size=(32, 3)).astype(np.float32), (48, 64), interpolation=cv2.INTER_CUBIC)
    return np.clip(tone * (1.0 + 0.09 * grain[..., None]) * 255.0, 0, 255).astype(np.uint8)


def woven(rng: np.random.Generator) -> Image:
    """Wicker or cloth: a weave of two tones."""
    count = int(rng.integers(6, 16))
    at = np.arange(96) * count // 96
    over = (at[:, None] + at[None, :]) % 2
    inside = np.abs(np.modf(np.arange(96) * count / 96)[0] - 0.5)
    shade = 1.0 - 0.5 * np.where(over == 1, inside[:, None], inside[None, :])
    color = np.array([0.75, 0.58, 0.38]) * rng.uniform(0.6, 1.2) if rng.uniform() < 0.6 else random_color(rng)
    return np.clip(color * shade[..., None] * 255.0, 0, 255).astype(np.uint8)


def blobs(rng: np.random.Generator, height: int, width: int) -> Image:
    """Smooth patches of several colors, as a photograph seen from afar."""
    cells = rng.uniform(0.0, 1.0, (int(rng.integers(3, 7)), int(rng.integers(3, 7)), 3))
    cells = 0.45 * cells + 0.55 * random_color(rng)
    large = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.normal(size=(12, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip((large + 0.06 * fine[..., None]) * 255.0, 0, 255).astype(np.uint8)


def word(rng: np.random.Generator, most: int = 4) -> str:
    """A brand that does not exist."""
    made = "".join(rng.choice(_SYLLABLES) for _ in range(int(rng.integers(2, most + 1))))
    return made.upper() if rng.uniform() < 0.5 else made.capitalize()


@functools.lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def write(image: Image, rng: np.random.Generator, place: tuple[int, int, int, int], text: str, color: Color) -> None:
    """Writes a line into a place (x, y, w, h) of an image, as large as it fits."""
    x, y, w, h = (int(v) for v in place)
    ink = tuple(int(v) for v in np.clip(np.asarray(color) * 255.0, 0, 255))
    if w < 8 or h < 5:
        return
    if rng.uniform() < 0.3:
        font = int(rng.choice(_HERSHEY))
        thick = max(1, h // 14)
        (tw, th), _ = cv2.getTextSize(text, font, 1.0, thick)
        scale = min(w / max(tw, 1), 0.8 * h / max(th, 1))
        cv2.putText(image, text, (x, y + int(0.8 * h)), font, scale, ink, thick, cv2.LINE_AA)
        return
    name = _FONTS[int(rng.integers(len(_FONTS)))]
    size = int(max(6, min(h, w / (0.66 * max(len(text), 1)))))
    picture = Picture.fromarray(image)
    ImageDraw.Draw(picture).text((x, y), text, fill=ink, font=_font(name, size))
    image[:] = np.asarray(picture)


def logo(image: Image, rng: np.random.Generator, center: tuple[float, float], radius: float, color: Color) -> None:
    """A filled circle, ellipse, polygon or star."""
    ink = tuple(int(255 * v) for v in np.clip(color, 0, 1))
    kind = rng.integers(4)
    middle = (int(center[0]), int(center[1]))
    if kind == 0:
        cv2.circle(image, middle, max(int(radius), 1), ink, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.ellipse(image, middle, (max(int(radius), 1), max(int(0.6 * radius), 1)), 0, 0, 360, ink, -1, cv2.LINE_AA)
    else:
        corners = int(rng.integers(3, 9))
        angle = np.linspace(0.0, 2.0 * np.pi, 2 * corners, endpoint=False) + rng.uniform(0.0, 6.0)
        reach = np.where(np.arange(2 * corners) % 2 == 0, radius, radius * (0.5 if kind == 2 else 0.95))
        points = np.column_stack([center[0] + reach * np.cos(angle), center[1] + reach * np.sin(angle)])
        cv2.fillPoly(image, [np.rint(points).astype(np.int32)], ink, cv2.LINE_AA)


def barcode(image: Image, rng: np.random.Generator, place: tuple[int, int, int, int]) -> None:
    """A bar code on white in a place (x, y, w, h)."""
    x, y, w, h = (int(v) for v in place)
    if w < 10 or h < 6:
        return
    image[y : y + h, x : x + w] = 250
    bars = np.repeat(rng.uniform(size=w) < 0.5, rng.integers(1, 4, w))[: w - 4]
    image[y + 2 : y + h - 2, x + 2 : x + w - 2][:, bars] = 15


def table(image: Image, rng: np.random.Generator, place: tuple[int, int, int, int]) -> None:
    """A table of small print, as of ingredients: lines of strokes on white."""
    x, y, w, h = (int(v) for v in place)
    if w < 12 or h < 12:
        return
    image[y : y + h, x : x + w] = 245
    cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), (30, 30, 30), 1)
    for row in range(y + 4, y + h - 3, 5):
        end = x + 3 + int((w - 6) * rng.uniform(0.3, 1.0))
        cut = rng.uniform(size=max(end - x - 3, 1)) < 0.75
        image[row : row + 2, x + 3 : end][:, cut] = 60


def ground(rng: np.random.Generator, height: int, width: int, first: Color, second: Color) -> Image:
    """What a label is printed on: plain, a gradient, two fields, stripes, or a picture."""
    kind = rng.uniform()
    weight = np.zeros((height, width))
    if kind < 0.3:
        pass
    elif kind < 0.5:
        weight = np.broadcast_to(np.linspace(0.0, 1.0, height)[:, None], (height, width))
    elif kind < 0.75:
        edge = rng.uniform(0.2, 0.8) * height + rng.uniform(-0.4, 0.4) * (np.arange(width) - 0.5 * width)
        edge = edge + rng.choice([0.0, 0.05]) * height * np.sin(np.arange(width) / width * 6.283 * rng.integers(1, 4))
        weight = (np.arange(height)[:, None] > edge[None, :]).astype(float)
    elif kind < 0.88:
        count = int(rng.integers(2, 9))
        along = np.arange(width) / width if rng.uniform() < 0.5 else np.arange(height)[:, None] / height
        weight = np.broadcast_to(np.modf(along * count)[0] < rng.uniform(0.2, 0.6), (height, width)).astype(float)
    else:
        return blobs(rng, height, width)
    mixed = first * (1.0 - weight[..., None]) + second * weight[..., None]
    return np.ascontiguousarray(np.clip(mixed * 255.0, 0, 255).astype(np.uint8))


def contrasting(color: Color, rng: np.random.Generator) -> Color:
    """An ink that can be read on a color."""
    dark = float(np.asarray(color) @ [0.3, 0.59, 0.11]) < 0.5
    if rng.uniform() < 0.3:
        strong = saturated(rng)
        return 0.4 + 0.6 * strong if dark else 0.5 * strong
    return np.full(3, 0.95 if dark else 0.08)


def front(rng: np.random.Generator, height: int, width: int, palette: tuple[Color, Color], brand: str) -> Image:
    """The face of a package: brand, logo, picture, some lines."""
    image = ground(rng, height, width, *palette)
    ink = contrasting(image.reshape(-1, 3).mean(axis=0) / 255.0, rng)
    if rng.uniform() < 0.55:
        # The picture of what is inside, in an oval or all across.
        ph, pw = int(height * rng.uniform(0.25, 0.5)), int(width * rng.uniform(0.5, 0.95))
        y, x = int(rng.uniform(0.35, 1.0) * (height - ph)), (width - pw) // 2
        picture = blobs(rng, ph, pw)
        mask = np.zeros((ph, pw), np.uint8)
        if rng.uniform() < 0.6:
            cv2.ellipse(mask, (pw // 2, ph // 2), (pw // 2, ph // 2), 0, 0, 360, 255, -1)
        else:
            mask[:] = 255
        image[y : y + ph, x : x + pw][mask > 0] = picture[mask > 0]
    if rng.uniform() < 0.6:
        reach = rng.uniform(0.08, 0.2) * min(height, width)
        logo(image, rng, (width * rng.uniform(0.2, 0.8), height * rng.uniform(0.1, 0.9)), reach, saturated(rng))
    band = int(rng.uniform(0.14, 0.3) * height)
    top = int(rng.uniform(0.04, 0.4) * height)
    if rng.uniform() < 0.4:
        color = saturated(rng)
        image[top : top + int(1.1 * band)] = (color * 255.0).astype(np.uint8)
        ink = contrasting(color, rng)
    write(image, rng, (int(0.08 * width), top, int(0.84 * width), band), brand, ink)
    line = max(int(0.06 * height), 6)
    for k in range(int(rng.integers(0, 4))):
        y = top + band + int(0.02 * height) + k * (line + 2)
        if y + line < height:
            write(image, rng, (int(0.1 * width), y, int(0.7 * width), line), word(rng, 6), ink)
    return image


def back(rng: np.random.Generator, height: int, width: int, palette: tuple[Color, Color]) -> Image:
    """The back or the side of a package: small print and a bar code."""
    image = np.ascontiguousarray(
        np.broadcast_to(np.clip(palette[0] * 255.0, 0, 255), (height, width, 3)).astype(np.uint8)
    )
    table(image, rng, (int(0.1 * width), int(0.15 * height), int(0.5 * width), int(rng.uniform(0.2, 0.5) * height)))
    if rng.uniform() < 0.7:
        w, h = int(0.45 * width), int(0.16 * height)
        barcode(image, rng, (width - w - 4, height - h - 5, w, h))
    ink = contrasting(palette[0], rng)
    for k in range(int(rng.integers(0, 4))):
        y = int((0.7 + 0.07 * k) * height)
        if y + 8 < height:
            write(image, rng, (int(0.06 * width), y, int(0.45 * width), 7), word(rng, 8), ink)
    return image


def colors(rng: np.random.Generator) -> tuple[Color, Color]:
    """Two colors of one brand."""
    first = saturated(rng) if rng.uniform() < 0.6 else random_color(rng)
    return first, random_color(rng) if rng.uniform() < 0.5 else np.clip(first * rng.uniform(0.5, 1.5), 0, 1)


def wrap(rng: np.random.Generator, height: int, width: int, palette: tuple[Color, Color], brand: str) -> Image:
    """A label around a round thing: the face twice, or once with small print behind."""
    half = width // 2
    face = front(rng, height, half, palette, brand)
    other = face if rng.uniform() < 0.4 else back(rng, height, width - half, palette)
    return np.ascontiguousarray(np.concatenate([face, other[:, : width - half]], axis=1))


def decor(rng: np.random.Generator, height: int, width: int, color: Color) -> Image:
    """The outside of tableware: plain, banded, with a motif, or with a word."""
    image = np.ascontiguousarray(np.broadcast_to(np.clip(color * 255.0, 0, 255), (height, width, 3)).astype(np.uint8))
    kind = rng.uniform()
    ink = saturated(rng) if rng.uniform() < 0.6 else random_color(rng)
    if kind < 0.4:
        return image
    if kind < 0.6:
        for _ in range(int(rng.integers(1, 5))):
            y = int(rng.uniform(0.0, 0.95) * height)
            image[y : y + max(int(rng.uniform(0.02, 0.3) * height), 1)] = (ink * 255).astype(np.uint8)
    elif kind < 0.8:
        reach = rng.uniform(0.04, 0.16) * height
        for _ in range(int(rng.integers(4, 26))):
            logo(image, rng, (rng.uniform(0, width), rng.uniform(0, height)), reach, ink)
    elif kind < 0.92:
        for k in (0.06, 0.56):
            write(image, rng, (int(k * width), int(0.3 * height), int(0.4 * width), int(0.3 * height)), word(rng), ink)
            logo(image, rng, ((k + 0.2) * width, 0.75 * height), 0.12 * height, ink)
    else:
        image = blobs(rng, height, width)
    return image
