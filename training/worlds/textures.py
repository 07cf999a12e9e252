"""Procedural textures, for training and kept out of it: (size, size, 3) uint8 images that repeat at their edges."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from training.worlds.household.surfaces import surface_picture
from training.worlds.splits import Split

_TEXTURE_PIXELS = 64
"""Side of an object's texture [pixels]; that of a surface is 4 times as long. Larger has finer detail."""

Image = NDArray[np.uint8]
Color = NDArray[np.float64]


def random_color(rng: np.random.Generator) -> Color:
    """(3,) RGB 0..1: as often grayish, white or dark as saturated."""
    hue = rng.uniform()
    saturation = rng.choice([rng.uniform(0.0, 0.15), rng.uniform(0.15, 0.6), rng.uniform(0.5, 0.95)])
    value = rng.choice([rng.uniform(0.08, 0.35), rng.uniform(0.35, 0.95)], p=[0.25, 0.75])
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float64]:
    """(size, size) in about -1..1."""
    coarse = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
    tiled = np.tile(coarse, (3, 3))
    large = cv2.resize(tiled, (3 * size, 3 * size), interpolation=cv2.INTER_CUBIC)
    return large[size : 2 * size, size : 2 * size].astype(np.float64)


def _shade(color: Color, value: NDArray[np.float64]) -> Image:
    return np.clip(color * value[..., None] * 255.0, 0, 255).astype(np.uint8)


def _mix(first: Color, second: Color, weight: NDArray[np.float64]) -> Image:
    w = np.clip(weight, 0.0, 1.0)[..., None]
    return np.clip((first * (1.0 - w) + second * w) * 255.0, 0, 255).astype(np.uint8)


def plain(rng: np.random.Generator, size: int) -> Image:
    """One color with a little grain."""
    return _shade(random_color(rng), 1.0 + 0.02 * rng.normal(size=(size, size)))


def speckle(rng: np.random.Generator, size: int) -> Image:
    """Grain of two scales."""
    noise = rng.uniform(0.05, 0.3) * _smooth_noise(rng, size, int(rng.integers(4, 20))) + 0.05 * rng.normal(
        size=(size, size)
    )
    return _shade(random_color(rng), 1.0 + noise)


def stripes(rng: np.random.Generator, size: int) -> Image:
    """Stripes of two colors along one axis."""
    at = np.arange(size) / size * int(rng.integers(2, 8))
    wave = (np.mod(at, 1.0) < rng.uniform(0.2, 0.8)).astype(float)
    grid = np.broadcast_to(wave[:, None] if rng.uniform() < 0.5 else wave[None, :], (size, size))
    return _mix(random_color(rng), random_color(rng), grid)


def blotches(rng: np.random.Generator, size: int) -> Image:
    """Smooth patches of two colors."""
    return _mix(random_color(rng), random_color(rng), 2.5 * _smooth_noise(rng, size, int(rng.integers(2, 7))) + 0.5)


def gradient(rng: np.random.Generator, size: int) -> Image:
    """From one color to another and back."""
    ramp = np.abs(np.linspace(-1.0, 1.0, size))
    return _mix(random_color(rng), random_color(rng), np.broadcast_to(ramp[:, None], (size, size)))


def label(rng: np.random.Generator, size: int) -> Image:
    """A printed label: a band with blocks on a plain ground."""
    ground, band, ink = random_color(rng), random_color(rng), random_color(rng)
    image = np.ones((size, size, 3)) * ground
    low, high = sorted(rng.integers(size // 8, size - size // 8, 2))
    image[low : high + 4] = band
    for _ in range(int(rng.integers(2, 9))):
        y, x = rng.integers(0, size, 2)
        h, w = rng.integers(2, max(size // 5, 3), 2)
        image[y : y + h, x : x + w] = ink
    return np.clip(image * 255.0, 0, 255).astype(np.uint8)


def wood(rng: np.random.Generator, size: int) -> Image:
    """Grain along one axis."""
    tone = np.array([0.60, 0.44, 0.29]) * rng.uniform(0.4, 1.3) * (1.0 + 0.1 * rng.normal(size=3))
    grain = 0.05 * rng.normal(size=(size, 1)) + 0.08 * _smooth_noise(rng, size, 8)
    return _shade(tone, 1.0 + grain)


def tiles(rng: np.random.Generator, size: int) -> Image:
    """Tiles with joints."""
    count = int(rng.integers(2, 6))
    at = np.mod(np.arange(size) * count / size, 1.0)
    joint = (at < 0.06)[:, None] | (at < 0.06)[None, :]
    value = 1.0 + 0.06 * _smooth_noise(rng, size, 8)
    return _shade(random_color(rng), np.where(joint, rng.uniform(0.5, 0.9), value))


# -- textures that training never sees


def checker(rng: np.random.Generator, size: int) -> Image:
    """A chequered pattern."""
    at = (np.arange(size) * int(rng.integers(3, 9)) * 2 // size) % 2
    return _mix(random_color(rng), random_color(rng), (at[:, None] ^ at[None, :]).astype(float))


def rings(rng: np.random.Generator, size: int) -> Image:
    """Concentric rings."""
    at = np.linspace(-1.0, 1.0, size)
    radius = np.hypot(at[:, None], at[None, :]) * int(rng.integers(3, 9))
    return _mix(random_color(rng), random_color(rng), (np.mod(radius, 1.0) < 0.5).astype(float))


def cells(rng: np.random.Generator, size: int) -> Image:
    """Irregular cells of many colors (nearest of random points)."""
    count = int(rng.integers(8, 30))
    seeds = rng.uniform(0, size, (count, 2))
    colors = np.stack([random_color(rng) for _ in range(count)])
    at = np.arange(size)
    squared = (at[:, None, None] - seeds[:, 0]) ** 2 + (at[None, :, None] - seeds[:, 1]) ** 2
    return (colors[squared.argmin(axis=2)] * 255.0).astype(np.uint8)


Texture = Callable[[np.random.Generator, int], Image]
TRAINING: dict[str, Texture] = {
    "plain": plain,
    "speckle": speckle,
    "stripes": stripes,
    "blotches": blotches,
    "gradient": gradient,
    "label": label,
}
SURFACES: dict[str, Texture] = {
    "wood": wood,
    "speckle": speckle,
    "plain": plain,
    "tiles": tiles,
    "blotches": blotches,
    "stripes": stripes,
}
HELD_OUT: dict[str, Texture] = {"checker": checker, "rings": rings, "cells": cells}


def random_texture(split: Split, rng: np.random.Generator, surface: bool) -> NDArray[np.uint8]:
    """(P, P, 3) colors of an object, or (4 P, 4 P, 3) of a table, floor or wall, from the textures of a split.

    Half of the surfaces of ``household`` are pictures of real materials.
    """
    if surface and split == "household" and rng.uniform() < 0.5:
        return surface_picture(rng, _TEXTURE_PIXELS * 4)
    if surface:
        pool = SURFACES
    else:
        pool = HELD_OUT if split == "families" else TRAINING
    names = list(pool)
    # 4 of 10 objects are of one color, as in a home.
    plain = "plain" in pool and not surface and rng.uniform() < 0.4
    name = "plain" if plain else names[int(rng.integers(len(names)))]
    return pool[name](rng, _TEXTURE_PIXELS * (4 if surface else 1))
