"""Imagined RGB-D images by re-projection of what was seen.

A ``Renderer`` is made once per viewpoint, with the ``Background`` of everything that does not move. ``render`` lays the
movable objects over it at their imagined poses: observed pixels where an object has not moved, else its samples as
depth-tested splats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.geometry import invert_transform
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.model import Appearance
from wm_imagination.appearance.points import SurfacePoints, move_points, turn_vectors
from wm_imagination.rendering.background import Background
from wm_imagination.rendering.primitives import (
    Body,
    cast_body,
    corners,
    ray_directions,
    recolor,
    shade,
    window_of,
)
from wm_imagination.rendering.splatting import (
    NEAR_PLANE_M,
    NO_DEPTH,
    SAME_LAYER_PIXELS,
    Float32,
    close_pinholes,
    outline,
    splat,
)

IN_PLACE_PIXELS = 0.75
"""Movement of an object's corners [pixels] below which the observed pixels themselves are drawn: less than a pixel is
not visible. Larger, and slow objects jump; smaller, and the noise of poses redraws objects at rest."""


@dataclass(frozen=True)
class RenderedFrame:
    """An imagined image.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        depth_m: (H, W) float32 [m], 0: unknown.
        instance_ids: (H, W) int32 object ids, 0: background.
    """

    color: NDArray[np.uint8]
    depth_m: Float32
    instance_ids: NDArray[np.int32]


@dataclass(frozen=True)
class _Layer:
    """One object drawn in a window of the image.

    Attributes:
        x, y: upper left pixel of the window.
        color: (h, w, 3) uint8 RGB; depth: (h, w) [m]; mask: (h, w), pixels that the object covers.
    """

    x: int
    y: int
    color: NDArray[np.uint8]
    depth: Float32
    mask: NDArray[np.bool_]

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])


class Renderer:
    """Draws imagined states from one viewpoint. Not thread-safe; making one costs 0.05 to 0.3 s at 640x480.

    Args:
        appearance: what was seen (``AppearanceMemory.snapshot()``), with a frame.
        scene: the graph whose static objects are known support surfaces.
        camera, world_T_camera: the viewpoint; None: that of the latest image.

    Attributes:
        camera, world_T_camera: the viewpoint.

    Raises:
        ValueError: nothing was seen yet.
    """

    def __init__(
        self,
        appearance: Appearance,
        scene: SceneGraph,
        camera: Camera | None = None,
        world_T_camera: NDArray[np.float64] | None = None,
    ) -> None:
        self._appearance = appearance
        self._background = Background(appearance, scene, camera, world_T_camera)
        self._observed = self._background.observed
        self.camera, self.world_T_camera = self._background.camera, self._background.world_T_camera
        self._camera_T_world = invert_transform(self.world_T_camera)
        owner = np.zeros(0) if self._observed is None else self._observed.owner
        self._owners = set(np.unique(owner).tolist()) - {0}
        self._levels: dict[int, SurfacePoints] = {}
        self._layers: dict[int, tuple[Body, _Layer | None]] = {}

    def render(self, bodies: Sequence[Body]) -> RenderedFrame:
        """Draw the background and these movable objects; a movable object that is not given is not there."""
        color = self._background.color.copy()
        depth = self._background.depth.copy()
        ids = np.zeros(depth.shape, np.int32)
        nearest = np.where(depth > 0.0, depth, NO_DEPTH)
        in_place = [body for body in bodies if self._in_place(body)]
        for body in in_place:
            self._draw_observed(body, color, depth, ids, nearest)
        # Where something stood before an object in the observed image and now does not, its samples must show.
        uncovered = self._uncovered({body.object_id for body in in_place})
        still = {body.object_id for body in in_place}
        layers: list[tuple[float, Body, _Layer]] = []
        for body in bodies:
            if body.object_id in still and (uncovered is None or not self._partly_covered(body)):
                continue
            layer = self._layer(body)
            if layer is None:
                continue
            if body.object_id in still and uncovered is not None:
                layer = replace(layer, mask=layer.mask & uncovered[layer.window])
            layers.append((-float((self._camera_T_world @ body.world_T_object)[2, 3]), body, layer))
        for _, body, layer in sorted(layers, key=lambda entry: entry[0]):
            self._draw_layer(body, layer, color, depth, ids, nearest)
        return RenderedFrame(color, depth, ids)

    def _uncovered(self, still: set[int]) -> NDArray[np.bool_] | None:
        """Pixels (H, W) of the observed image that belong to objects that are no longer there; None: no such."""
        if self._observed is None:
            return None
        gone = self._owners - still
        return np.isin(self._observed.owner, list(gone)) if gone else None

    def _in_place(self, body: Body) -> bool:
        """Whether the observed pixels show this object as it is to be drawn (but for its color)."""
        frame = self._appearance.frame
        if self._observed is None or frame is None or body.object_id not in frame.poses:
            return False
        if (body.scale != 1.0).any():
            return False
        # An object of which the image shows nothing is in place too: it must stay as hidden as it was.
        return self._movement(body, frame.poses[body.object_id]) < IN_PLACE_PIXELS

    def _movement(self, body: Body, world_T_before: NDArray[np.float64]) -> float:
        """Largest movement [pixels] of a corner of the object since a pose."""
        box = corners(body.extents * body.scale)
        now = self._camera_T_world @ body.world_T_object
        before = self._camera_T_world @ world_T_before
        pixels_now, z_now = self.camera.project(box @ now[:3, :3].T + now[:3, 3])
        pixels_before, z_before = self.camera.project(box @ before[:3, :3].T + before[:3, 3])
        shift = np.abs(pixels_now - pixels_before)
        if not np.isfinite(shift).all():
            return np.inf
        # A change of depth changes the size in the image: relative change, for an object a quarter of the image wide.
        toward = np.abs(z_now - z_before) / np.maximum(np.minimum(z_now, z_before), 1e-3) * self.camera.width
        return float(max(shift.max(), 0.25 * toward.max()))

    def _partly_covered(self, body: Body) -> bool:
        """Whether another movable object stands before this one in the observed image."""
        assert self._observed is not None
        camera_T_object = self._camera_T_world @ body.world_T_object
        pixels, z = self.camera.project(corners(body.extents) @ camera_T_object[:3, :3].T + camera_T_object[:3, 3])
        window = window_of(pixels, self.camera, 0) if (z > NEAR_PLANE_M).all() else None
        if window is None:
            return False
        around = self._observed.owner[window[1] : window[1] + window[3], window[0] : window[0] + window[2]]
        return bool(((around > 0) & (around != body.object_id)).any())

    def _draw_observed(
        self,
        body: Body,
        color: NDArray[np.uint8],
        depth: Float32,
        ids: NDArray[np.int32],
        nearest: Float32,
    ) -> None:
        observed = self._observed
        assert observed is not None
        rows = np.flatnonzero(observed.owner.ravel() == body.object_id)
        own_color = observed.color.reshape(-1, 3)[rows]
        own_depth = observed.depth.ravel()[rows]
        # The fringe is half background: its color goes with the object, but it is not the object.
        inner = observed.ids.ravel()[rows] == body.object_id
        if body.restyle is not None:
            own_color[inner] = recolor(own_color[inner], body.restyle)
        color.reshape(-1, 3)[rows] = own_color
        depth.ravel()[rows] = own_depth
        measured = own_depth[own_depth > 0.0]
        stand_in = np.float32(np.median(measured)) if len(measured) else NO_DEPTH
        nearest.ravel()[rows] = np.where(own_depth > 0.0, own_depth, stand_in)
        ids.ravel()[rows[inner]] = body.object_id

    @staticmethod
    def _draw_layer(
        body: Body,
        layer: _Layer,
        color: NDArray[np.uint8],
        depth: Float32,
        ids: NDArray[np.int32],
        nearest: Float32,
    ) -> None:
        window = layer.window
        limit = nearest[window]
        # The noise of the background's depth (4 mm, and 3 mm at 1 m, with its square) hides no object that lies on it.
        slack = np.where(ids[window] == 0, 0.004 + 0.003 * np.square(layer.depth), np.float32(0.0))
        shown = layer.mask & (layer.depth < limit + slack)
        np.copyto(color[window], layer.color, where=shown[..., None])
        np.copyto(depth[window], layer.depth, where=shown)
        np.copyto(nearest[window], layer.depth, where=shown)
        ids[window][shown] = body.object_id

    def _layer(self, body: Body) -> _Layer | None:
        known = self._layers.get(body.object_id)
        if known is not None:
            before, layer = known
            same_appearance = (before.scale == body.scale).all() and np.array_equal(
                np.zeros(0) if before.restyle is None else before.restyle,
                np.zeros(0) if body.restyle is None else body.restyle,
            )
            if same_appearance and self._movement(body, before.world_T_object) < SAME_LAYER_PIXELS:
                return layer
        layer = self._draw_body(body)
        self._layers[body.object_id] = (body, layer)
        return layer

    def _draw_body(self, body: Body) -> _Layer | None:
        camera_T_object = self._camera_T_world @ body.world_T_object
        cloud = self._level_of_detail(body, float(camera_T_object[2, 3]))
        if cloud is None or not len(cloud):
            return self._draw_primitive(body, camera_T_object)
        scale = body.scale.astype(np.float32)
        points = move_points(camera_T_object, cloud.points * scale)
        # Samples that face away are hidden by the front; they are left out, so that none shows through gaps between
        # splats. The limit above 0 keeps those at the silhouette; larger keeps more of the back.
        away = np.einsum("ij,ij->i", turn_vectors(camera_T_object, cloud.normals / scale), points)
        rows = np.flatnonzero((away < 0.3 * np.abs(points[:, 2])) & (points[:, 2] > NEAR_PLANE_M))
        if not len(rows):
            return None
        points, spacing, bias = points[rows], cloud.spacing[rows] * scale.max(), cloud.bias[rows]
        z = points[:, 2]
        pixels = np.stack(
            [
                points[:, 0] * self.camera.fx / z + self.camera.cx,
                points[:, 1] * self.camera.fy / z + self.camera.cy,
            ],
            axis=1,
        )
        # Pixels by which splats reach beyond the outermost samples, at most 6.
        margin = int(min(6, 2 + np.ceil(float(spacing.max()) * self.camera.fx / max(float(z.min()), 0.05) / 2)))
        window = window_of(pixels, self.camera, margin)
        if window is None:
            return None
        index = splat(points, spacing, self.camera, window, bias)
        mask = index >= 0
        if not mask.any():
            return None
        colors = cloud.colors[rows]
        if body.restyle is not None:
            colors = recolor(colors, body.restyle)
        color = np.where(mask[..., None], colors[index], np.uint8(0))
        depth = np.where(mask, z[index], np.float32(0.0))
        mask = close_pinholes(color, depth, mask, 5, 2)
        mask &= outline(pixels, spacing * np.float32(self.camera.fx) / z, window)
        return _Layer(window[0], window[1], color, depth, mask)

    def _level_of_detail(self, body: Body, distance_m: float) -> SurfacePoints | None:
        """The object's samples, thinned to about one per pixel at this distance."""
        full = self._appearance.completed(body.object_id, body.color)
        if full is None:
            return None
        # Two levels for each doubling of the distance, from samples 0.5 mm apart.
        pitch = max(distance_m, 0.1) / self.camera.fx / max(float(body.scale.max()), 1e-3)
        level = int(np.clip(np.floor(2.0 * np.log2(pitch / 0.0005)), 0, 15))
        key = body.object_id * 16 + level
        if key not in self._levels:
            voxel = 0.0005 * 2.0 ** (0.5 * level)
            cell = np.floor(full.points / voxel).astype(np.int64) & 0x1FFFFF
            _, first = np.unique((cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2], return_index=True)
            thin = full[first]
            self._levels[key] = replace(thin, spacing=np.maximum(thin.spacing, np.float32(voxel)))
        return self._levels[key]

    def _draw_primitive(self, body: Body, camera_T_object: NDArray[np.float64]) -> _Layer | None:
        box = corners(body.extents * body.scale)
        pixels, z = self.camera.project(box @ camera_T_object[:3, :3].T + camera_T_object[:3, 3])
        if (z < NEAR_PLANE_M).all():
            return None
        if (z < NEAR_PLANE_M).any():
            window: tuple[int, int, int, int] | None = (0, 0, self.camera.width, self.camera.height)
        else:
            window = window_of(pixels, self.camera, 1)
        if window is None:
            return None
        rays = ray_directions(self.camera, window)
        depth, normals = cast_body(body, camera_T_object, rays)
        mask = depth < NO_DEPTH
        if not mask.any():
            return None
        world_normals = normals @ body.world_T_object[:3, :3].T.astype(np.float32)
        color = shade(body.color if body.restyle is None else body.restyle, world_normals)
        return _Layer(window[0], window[1], color, np.where(mask, depth, np.float32(0.0)), mask)


def render(
    appearance: Appearance,
    scene: SceneGraph,
    bodies: Sequence[Body],
    camera: Camera | None = None,
    world_T_camera: NDArray[np.float64] | None = None,
) -> RenderedFrame:
    """One imagined RGB-D image (see ``Renderer``, which is for several from the same viewpoint)."""
    return Renderer(appearance, scene, camera, world_T_camera).render(bodies)
