"""The appearance of the background: surface samples of everything that does not move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_core.geometry import invert_transform
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.model import AppearanceConfig, ObservedFrame
from wm_imagination.appearance.points import (
    OLD_VIEW_BIAS_M,
    Float32,
    SurfacePoints,
    brighter,
    move_points,
    newest_per_voxel,
)
from wm_imagination.appearance.views import View, VisibleSurface, depth_tolerance, support_top


class BackgroundMemory:
    """Background samples of the latest view, and of earlier views where the latest shows something else.

    Attributes:
        visible: samples of the latest frame; None before the first.
        hidden: samples of earlier views in the world frame that the latest does not show, the newest first.
    """

    def __init__(self, config: AppearanceConfig) -> None:
        self._config = config
        self.visible: VisibleSurface | None = None
        self.hidden = SurfacePoints.empty()
        self._added = 0  # samples since they were last thinned
        self._compared: dict[int, NDArray[np.float64]] = {}  # poses, see ``_outside_objects``

    def forget(self, object_id: int) -> None:
        """An object is gone: if it comes again, samples inside it are taken out again."""
        self._compared.pop(object_id, None)

    def integrate(
        self,
        frame: ObservedFrame,
        view: View,
        scene: SceneGraph,
        points: Float32,
        normals: Float32,
        spacing: Float32,
        solid: NDArray[np.bool_],
    ) -> None:
        """Replace what the frame shows again, and keep of earlier views what it does not.

        Args:
            points, normals, spacing, solid: of the frame, as ``surface_geometry`` gives them.
        """
        camera_T_world = invert_transform(frame.world_T_camera)
        kept = []  # newest first
        if self.visible is not None:
            before = self.visible
            camera_T_before = camera_T_world @ before.world_T_camera
            hidden_now = self._not_seen_again(before.points, view, camera_T_before)
            gain = self._exposure_gain(before, ~hidden_now, view, camera_T_before, frame.color)
            if np.abs(gain - 1.0).max() > 0.004:
                self.hidden = replace(self.hidden, colors=brighter(self.hidden.colors, gain))
            added = before.in_world(hidden_now).with_bias(OLD_VIEW_BIAS_M)
            added = replace(added, colors=brighter(added.colors, gain))
            kept.append(added[self._outside_objects(added.points, frame, scene, only_new=False)])
            self._added += len(kept[0])
        if len(self.hidden):
            old = self.hidden[self._not_seen_again(self.hidden.points, view, camera_T_world)]
            kept.append(old[self._outside_objects(old.points, frame, scene, only_new=True)])
        hidden = SurfacePoints.concatenate(kept)
        if self._added > max(2000, 0.2 * len(hidden)):
            hidden = newest_per_voxel(hidden, self._config.voxel_m, self._config.max_background_points)
            self._added = 0
        self.hidden = hidden[: self._config.max_background_points]
        rows = np.flatnonzero((solid & ~view.near_object).ravel())
        flat = points.reshape(-1, 3)
        self.visible = VisibleSurface(
            rows,
            flat[rows],
            frame.color.reshape(-1, 3),
            normals.reshape(-1, 3),
            spacing.ravel(),
            frame.world_T_camera,
        )

    def _outside_objects(
        self, points: Float32, frame: ObservedFrame, scene: SceneGraph, *, only_new: bool
    ) -> NDArray[np.bool_]:
        """Which world points (P, 3) are not part of a movable object: one that was still taken for background.

        An object gets its id only after some frames; what was seen of it before lies within its extents. The support
        that it stands on does so too, nearly, and stays.

        Args:
            only_new: compare with objects that have come or moved since they were last compared.
        """
        keep = np.ones(len(points), bool)
        inside_any: list[NDArray[np.int64]] = []
        inside_new: list[NDArray[np.int64]] = []
        for row, object_id in enumerate(scene.ids.tolist()):
            if scene.is_static[row]:
                continue
            pose = frame.poses[object_id]
            before = self._compared.get(object_id)
            if only_new:
                if before is not None and np.abs(before - pose).max() < 0.01:
                    continue
                self._compared[object_id] = pose
            reach = 0.5 * float(np.linalg.norm(scene.extents[row])) + 0.03
            near = np.flatnonzero(np.abs(points - scene.positions[row].astype(np.float32)).max(axis=1) < reach)
            local = move_points(invert_transform(pose), points[near])
            inside = np.zeros(len(near), bool)
            for center, half in _bounds(scene, row):
                inside |= (np.abs(local - center) <= 1.1 * half + np.float32(0.012)).all(axis=1)
            found = near[inside]
            # The support beneath an object that has stood there since the first frame cannot have been seen.
            (inside_new if before is None else inside_any).append(found)
        if inside_any:
            rows = np.unique(np.concatenate(inside_any))
            on_support = np.zeros(len(rows), bool)
            for i in np.flatnonzero(scene.is_static):
                local = move_points(invert_transform(frame.poses[int(scene.ids[i])]), points[rows])
                on_support |= np.abs(local[:, 2] - support_top(scene, int(i))) < 0.01
            keep[rows[~on_support]] = False
        for rows in inside_new:
            keep[rows] = False
        return keep

    @staticmethod
    def _exposure_gain(
        before: VisibleSurface,
        again: NDArray[np.bool_],
        view: View,
        camera_T_before: NDArray[np.float64],
        color: NDArray[np.uint8],
    ) -> NDArray[np.float64]:
        """(3,) factors from the previous frame's colors to this one's, of what both show: cameras adapt exposure."""
        chosen = np.flatnonzero(again)[:: max(1, int(again.sum()) // 4000)]
        inside, pixel, _ = view.look_up(move_points(camera_T_before, before.points[chosen]))
        old = before.colors[before.rows[chosen[inside]]].astype(np.float64)
        new = color.reshape(-1, 3)[pixel[inside]].astype(np.float64)
        usable = ((old > 20) & (old < 235) & (new > 20) & (new < 235)).all(axis=1)
        if usable.sum() < 200:
            return np.ones(3)
        return np.clip(np.median(new[usable] / old[usable], axis=0), 0.8, 1.25)

    @staticmethod
    def _not_seen_again(points: Float32, view: View, camera_T_frame: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which background points (P, 3) the view neither shows again nor looks through."""
        inside, pixel, z = view.look_up(move_points(camera_T_frame, points))
        measured = view.depth.ravel()[pixel]
        tolerance = depth_tolerance(z)
        behind_static = z > measured + tolerance
        # Beside an object the mask says what covers the sample, though both may be nearer than the tolerance.
        behind_object = view.near_object.ravel()[pixel] & (z > measured - tolerance)
        return ~inside | (measured <= 0.0) | behind_static | behind_object


def _bounds(scene: SceneGraph, row: int) -> list[tuple[Float32, Float32]]:
    """Center and half sizes (3,) each [m] of the bounds of an object, in its frame; of each of its parts."""
    if not scene.parts[row]:
        return [(np.zeros(3, np.float32), 0.5 * scene.extents[row].astype(np.float32))]
    clouds = [p.points().astype(np.float32) for p in scene.parts[row]]
    ends = [(c.min(axis=0), c.max(axis=0)) for c in clouds]
    return [(np.float32(0.5) * (low + high), np.float32(0.5) * (high - low)) for low, high in ends]
