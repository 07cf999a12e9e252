"""The scene graph drawn over the camera image. Needs no ROS."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import SceneGraph

_OPACITY = 0.45
_SUPPORT_OPACITY = 0.15


def object_color(object_id: int) -> tuple[float, float, float]:
    """Red, green, blue 0..1 of an id; neighbouring ids differ much, and an id keeps its colour."""
    return colorsys.hsv_to_rgb((0.61803398875 * object_id) % 1.0, 0.65, 0.95)


def draw_overlay(rgb: NDArray[np.uint8], instance_ids: NDArray[np.integer], scene: SceneGraph) -> NDArray[np.uint8]:
    """Colour image (H, W, 3) uint8 with every object's pixels tinted in its colour, outlined and labelled.

    Args:
        rgb: (H, W, 3) uint8.
        instance_ids: (H, W) object id of every pixel, 0 = none.
        scene: names the objects.

    Raises:
        ValueError: the two images differ in size.
    """
    import cv2

    if rgb.shape[:2] != instance_ids.shape:
        raise ValueError(f"instance image of shape {instance_ids.shape}, expected {rgb.shape[:2]} (that of the image)")
    found, inverse = np.unique(instance_ids, return_inverse=True)
    inverse = inverse.reshape(instance_ids.shape)
    names = dict(zip(scene.ids.tolist(), scene.class_names, strict=True))
    tints = np.array([object_color(int(i)) for i in found]) * 255.0
    opacity = np.array(
        [0.0 if i == 0 else _SUPPORT_OPACITY if names.get(int(i)) == "support" else _OPACITY for i in found]
    )
    weight = opacity[inverse][:, :, None].astype(np.float32)
    drawn = (rgb * (1.0 - weight) + tints.astype(np.float32)[inverse] * weight).astype(np.uint8)
    edges = np.zeros(instance_ids.shape, dtype=bool)
    edges[:, 1:] |= inverse[:, 1:] != inverse[:, :-1]
    edges[1:, :] |= inverse[1:, :] != inverse[:-1, :]
    drawn[edges] = 255
    scale = max(0.35, rgb.shape[0] / 1100.0)
    for index, object_id in enumerate(found.tolist()):
        if object_id == 0:
            continue
        rows, columns = np.nonzero(inverse == index)
        text = f"{object_id} {names.get(object_id, '')}".strip()
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        x = int(np.clip(np.median(columns) - width / 2, 0, max(rgb.shape[1] - width, 0)))
        y = int(np.clip(np.median(rows) + height / 2, height, rgb.shape[0] - 2))
        for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(drawn, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
    return drawn
