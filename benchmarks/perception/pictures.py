"""The worst frames as a picture, with the outlines of true and of found objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.perception.run import WorstPicture

_SCALE = 2
"""Factor by which images are enlarged, so that outlines are fine."""
_PALETTE = np.array(
    [[255, 80, 60], [70, 200, 255], [120, 255, 90], [255, 210, 40], [230, 110, 255], [60, 255, 210], [255, 150, 40]],
    np.uint8,
)


def outlined(rgb: NDArray[np.uint8], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The image (h, w, 3), twice as large, with every label's outline in a color of its own."""
    picture = cv2.resize(rgb, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_LINEAR)
    for number in np.unique(labels[labels > 0]):
        inside = (labels == number).astype(np.uint8)
        inside = cv2.resize(inside, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        color = tuple(int(v) for v in _PALETTE[int(number) % len(_PALETTE)])
        cv2.drawContours(picture, contours, -1, (0, 0, 0), 4)
        cv2.drawContours(picture, contours, -1, color, 2)
    return picture


def _titled(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    band = np.full((26, picture.shape[1], 3), 245, np.uint8)
    cv2.putText(band, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return np.vstack([band, picture])


def draw_worst_frames(path: Path, pictures: Sequence[WorstPicture]) -> None:
    """Write a contact sheet, two frames in a row, each with true objects at the left and found ones at the right."""
    tiles = []
    for p in pictures:
        left = _titled(outlined(p.rgb, p.ground_truth), f"{p.clip}, frame {p.frame}: true objects")
        right = _titled(outlined(p.rgb, p.found), f"found; mean IoU {p.quality:.2f}")
        tiles.append(np.hstack([left, right]))
    if len(tiles) % 2:
        tiles.append(np.full_like(tiles[0], 245))
    gap = np.full((tiles[0].shape[0], 16, 3), 245, np.uint8)
    rows = [np.hstack([a, gap, b]) for a, b in zip(tiles[::2], tiles[1::2], strict=True)]
    sheet = np.vstack(rows)
    sheet = cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), sheet[..., ::-1])
