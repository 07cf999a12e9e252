"""The scene graph drawn into the camera image: outlines, solids in 3D, labels and velocities."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.colors import object_color
from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.types import Array, Frame, PerceptionResult

_ARROW_S = 0.5
"""An arrow ends where the object will be after this time [s]."""
_SLOW_M_S = 0.03
"""Speed [m/s] below which no arrow is drawn."""
_NEAR_PLANE_M = 0.05
"""Depth [m] nearer than which nothing is drawn."""
_LEGIBLE_PARTS = 4
"""Parts up to which an object's are drawn: a hammer, a T. The wires of a mug's twelve would hide it; of more parts the
outline is drawn. Chosen by hand, by looking."""
_TURN = np.linspace(0.0, 2.0 * np.pi, 33)


def draw_overlay(frame: Frame, result: PerceptionResult) -> NDArray[np.uint8]:
    """The frame's color image (H, W, 3) uint8 RGB with the scene graph drawn into it.

    Every object has its own color: the outline of its pixels (thick), its solid as a wire frame (thin; dashed where it
    is only remembered), its id, class and, when it moves, speed [m/s] with an arrow to where it will be in
    half a second. Supports are outlined in white.
    """
    image = np.ascontiguousarray(frame.color).copy()
    scene = result.scene
    camera_T_world = np.linalg.inv(frame.world_T_camera)

    def line(points: Array, color: tuple[int, int, int], width: int) -> None:
        optical = points @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]
        if (optical[:, 2] < _NEAR_PLANE_M).any():
            return
        pixels, _ = frame.camera.project(optical)
        if np.abs(pixels).max() < 20_000:
            cv2.polylines(image, [np.round(pixels * 8.0).astype(np.int32)], False, color, width, cv2.LINE_AA, 3)

    for i in np.flatnonzero(scene.is_static):
        if len(scene.hulls[i]) >= 3:
            outline = _to_world(scene, int(i), np.concatenate([scene.hulls[i], scene.hulls[i][:1]]))
            for a, b in pairwise(outline):
                line(np.linspace(a, b, 8), (255, 255, 255), 1)
    labels: list[tuple[str, Array, tuple[int, int, int]]] = []
    for i in np.flatnonzero(~scene.is_static):
        object_id = int(scene.ids[i])
        color = object_color(object_id)
        mask = (result.instance_ids == object_id).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, color, 2, cv2.LINE_AA)
        remembered = scene.visibilities[i] < 0.05
        for wire in _object_wires(scene, int(i)):
            world = _to_world(scene, int(i), wire)
            if remembered:
                for a, b in zip(world[:-1:2], world[1::2], strict=False):
                    line(np.stack([a, b]), color, 1)
            else:
                line(world, color, 1)
        speed = float(np.linalg.norm(scene.linear_velocities[i]))
        text = f"{object_id} {scene.class_names[i]}" + (" (hidden)" if remembered else "")
        if speed > _SLOW_M_S:
            text += f" {speed:.2f} m/s"
            ends = np.stack([scene.positions[i], scene.positions[i] + _ARROW_S * scene.linear_velocities[i]])
            optical = ends @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]
            if (optical[:, 2] > _NEAR_PLANE_M).all():
                tail, tip = (tuple(int(v) for v in p) for p in np.round(frame.camera.project(optical)[0]))
                cv2.arrowedLine(image, tail, tip, (255, 255, 255), 4, cv2.LINE_AA, tipLength=0.2)
                cv2.arrowedLine(image, tail, tip, color, 2, cv2.LINE_AA, tipLength=0.2)
        top = scene.positions[i] + [0.0, 0.0, 0.5 * float(scene.extents[i].max())]
        labels.append((text, top, color))
    for text, place, color in labels:
        optical = (place @ camera_T_world[:3, :3].T + camera_T_world[:3, 3])[None]
        pixel = frame.camera.project(optical)[0][0]
        if optical[0, 2] > _NEAR_PLANE_M and np.isfinite(pixel).all():
            _label(image, text, pixel, color)
    return image


def _to_world(scene: SceneGraph, index: int, points: Array) -> Array:
    return points @ Rotation.from_quat(scene.quaternions[index]).as_matrix().T + scene.positions[index]


def _object_wires(scene: SceneGraph, index: int) -> list[Array]:
    """Polylines (P, 3) in the object frame [m] that show an object, or each of its parts where they are few."""
    parts = scene.parts[index]
    if not 0 < len(parts) <= _LEGIBLE_PARTS:
        return _wires(int(scene.shapes[index]), scene.extents[index], scene.hulls[index])
    return [
        wire @ Rotation.from_quat(part.quaternion).as_matrix().T + part.position
        for part in parts
        for wire in _wires(int(part.shape), part.extents, part.hull)
    ]


def _wires(shape: int, extents: Array, hull: Array) -> list[Array]:
    """Polylines (P, 3) in the object frame [m] that show a solid."""
    half = 0.5 * extents
    if shape == Shape.CONVEX and len(hull) >= 4:
        # Outlines of the slices that the hull's points make: rings of a bottle, levels of anything else.
        levels = np.unique(np.round(hull[:, 2], 3))
        levels = levels[np.linspace(0, len(levels) - 1, min(len(levels), 6)).astype(int)]
        rings = []
        for level in levels:
            slice_points = hull[np.abs(hull[:, 2] - level) < 0.003]
            if len(slice_points) >= 3:
                ring = cv2.convexHull(slice_points[:, :2].astype(np.float32)).reshape(-1, 2)
                ring = np.concatenate([ring, ring[:1]])
                rings.append(np.column_stack([ring, np.full(len(ring), level)]))
        if rings:
            return rings
    if shape == Shape.SPHERE:
        circle = np.stack([np.cos(_TURN), np.sin(_TURN), np.zeros(len(_TURN))], axis=1) * half[0]
        return [circle, circle[:, [0, 2, 1]], circle[:, [2, 0, 1]]]
    if shape in (Shape.CYLINDER, Shape.CAPSULE):
        end = half[2] - (half[0] if shape == Shape.CAPSULE else 0.0)
        ring = np.stack([half[0] * np.cos(_TURN), half[1] * np.sin(_TURN), np.full(len(_TURN), end)], axis=1)
        sides = [np.stack([ring[k], ring[k] * [1.0, 1.0, -1.0]]) for k in (0, 8, 16, 24)]
        wires = [ring, ring * [1.0, 1.0, -1.0], *sides]
        if shape == Shape.CAPSULE:
            bow = np.stack([np.cos(_TURN[:17]), np.zeros(17), np.sin(_TURN[:17])], axis=1) * half[0] + [0.0, 0.0, end]
            wires += [bow, bow[:, [1, 0, 2]], bow * [1.0, 1.0, -1.0], bow[:, [1, 0, 2]] * [1.0, 1.0, -1.0]]
        return wires
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * half[:2]
    floor, top = (np.column_stack([corners, np.full(5, z)]) for z in (-half[2], half[2]))
    return [floor, top, *(np.stack([floor[k], top[k]]) for k in range(4))]


def _label(image: NDArray[np.uint8], text: str, pixel: Array, color: tuple[int, int, int]) -> None:
    scale = max(0.4, image.shape[0] / 1100.0)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = int(np.clip(pixel[0] - 0.5 * width, 2, max(image.shape[1] - width - 2, 2)))
    y = int(np.clip(pixel[1] - 6, height + 4, image.shape[0] - base - 2))
    area = image[y - height - 3 : y + base + 1, x - 2 : x + width + 2]
    area[:] = (0.3 * area).astype(np.uint8)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
