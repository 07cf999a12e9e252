"""Pictures of real materials for the tables, floors and walls of household scenes, from the packages of the objects."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.worlds.household.catalogue import MissingObjectsError, assets_folder, missing


def surface_pictures() -> list[Path]:
    """All of them, by name; none where the packages are not installed."""
    folder = assets_folder()
    return sorted((folder / "textures").glob("*.png")) if folder is not None else []


def surface_picture(rng: np.random.Generator, pixels: int) -> NDArray[np.uint8]:
    """(pixels, pixels, 3) rgb of one at random.

    Raises:
        MissingObjectsError: the packages are not installed.
    """
    found = surface_pictures()
    if not found:
        raise MissingObjectsError(missing())
    return _read(found[int(rng.integers(len(found)))], pixels)


@lru_cache(maxsize=64)
def _read(path: Path, pixels: int) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: not an image")
    small = cv2.resize(image, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1]).astype(np.uint8)
