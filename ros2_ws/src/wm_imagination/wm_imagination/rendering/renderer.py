"""Imagined RGB-D images by re-projection of what was seen.

A ``Renderer`` is made once per viewpoint: it draws everything that does not move, with what the movable
objects hide filled in from other views, then from the support planes, then by inpainting. ``render`` then lays
the movable objects
over it at their imagined poses: observed pixels where an object has not moved, else its samples as depth-tested
    splats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.model import Appearance
from wm_imagination.appearance.points import SurfacePoints, move_points, turn_vectors
from wm_imagination.appearance.views import support_top
from wm_imagination.rendering.filling import inpaint, push_pull
from wm_imagination.rendering.primitives import (
    Body,
    cast_primitive,
    corners,
    cross,
    ray_directions,
    recolor,
    scene_bodies,
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

# A pose change that moves every corner by less than this is drawn with the observed pixels themselves.
IN_PLACE_PIXELS = 0.75


@dataclass(frozen=True)
class RenderedFrame:
    """color (H, W, 3) uint8 RGB; depth_m (H, W) float32, 0: unknown; instance_ids (H, W) int32, 0: background."""

    color: NDArray[np.uint8]
    depth_m: Float32
    instance_ids: NDArray[np.int32]


@dataclass(frozen=True)
class _Layer:
    """One object drawn in a window of the image whose upper left pixel is (x, y)."""

    x: int
    y: int
    color: NDArray[np.uint8]  # (h, w, 3)
    depth: Float32  # (h, w)
    mask: NDArray[np.bool_]  # (h, w)

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])


class Renderer:
    """Draws imagined states from one viewpoint. Not thread-safe; making one costs 0.05 to 0.3 s at 640x480.

    Args:
        appearance: what was seen (``AppearanceMemory.snapshot()``), with a frame.
        scene: the graph whose static objects are known support surfaces.
        camera, world_T_camera: the viewpoint; None: that of the latest image.

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
        if appearance.frame is None:
            raise ValueError("appearance: no image was seen yet, expected at least one integrated frame")
        self._appearance = appearance
        self._scene = scene
        self.camera = camera or appearance.frame.camera
        self.world_T_camera = np.array(
            appearance.frame.world_T_camera if world_T_camera is None else world_T_camera, np.float64
        )
        self._camera_T_world = invert_transform(self.world_T_camera)
        self._levels: dict[int, SurfacePoints] = {}
        self._layers: dict[int, tuple[Body, _Layer | None]] = {}
        self._owner: NDArray[np.int32] | None = None
        self._owners: set[int] = set()
        if self._same_view():
            self._base_background()
        else:
            self._novel_background()

    # Background.

    def _same_view(self) -> bool:
        """Whether this is the latest image's viewpoint (at any resolution of the same field of view)."""
        frame = self._appearance.frame
        assert frame is not None
        there, here = frame.world_T_camera, self.world_T_camera
        if np.abs(there[:3, 3] - here[:3, 3]).max() > 5e-4 or np.abs(there[:3, :3] - here[:3, :3]).max() > 5e-4:
            return False
        scaled = frame.camera.scaled(self.camera.width / frame.camera.width)
        if (scaled.width, scaled.height) != (self.camera.width, self.camera.height):
            return False
        return bool(
            np.allclose(
                (scaled.fx, scaled.fy, scaled.cx, scaled.cy),
                (self.camera.fx, self.camera.fy, self.camera.cx, self.camera.cy),
                rtol=2e-3,
                atol=0.25,
            )
        )

    def _base_background(self) -> None:
        frame = self._appearance.frame
        assert frame is not None
        size = (self.camera.width, self.camera.height)
        color, depth, ids, owner = frame.color, frame.depth_m, frame.instance_ids, frame.owner_ids
        if size != (frame.camera.width, frame.camera.height):
            shrinking = size[0] < frame.camera.width
            color = cv2.resize(color, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
            depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
            ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
            owner = cv2.dilate(cv2.resize(owner, size, interpolation=cv2.INTER_NEAREST), np.ones((3, 3), np.uint8))
            owner = np.where(ids > 0, ids, owner)
        self._observed_color, self._observed_depth, self._observed_ids = color.copy(), depth, ids
        self._owner = self._with_missing_depth(owner, ids, depth)
        self._owners = set(np.unique(self._owner).tolist()) - {0}
        covered = self._owner > 0
        self._background_color, self._background_depth = color.copy(), depth.copy()
        self._background_depth[covered] = 0.0
        if covered.any():
            self._fill_covered(covered, depth, ids)

    def _with_missing_depth(
        self, owner_ids: NDArray[np.uint16], ids: NDArray[np.uint16], depth: Float32
    ) -> NDArray[np.int32]:
        """Which object each pixel (H, W) belongs to, with the pixels without depth inside an object's silhouette.

        Dark, shiny or transparent parts that the depth camera missed are in no mask.
        """
        owner = owner_ids.astype(np.int32)
        frame = self._appearance.frame
        assert frame is not None
        for body in scene_bodies(self._scene):
            pose = frame.poses.get(body.object_id)
            if pose is None or not (ids == body.object_id).any():
                continue
            outline, z = self.camera.project(
                corners(body.extents) @ (self._camera_T_world @ pose)[:3, :3].T + (self._camera_T_world @ pose)[:3, 3]
            )
            if (z < NEAR_PLANE_M).any():
                continue
            silhouette = np.zeros(depth.shape, np.uint8)
            cv2.fillConvexPoly(silhouette, cv2.convexHull(np.round(outline).astype(np.int32)), 1)
            owner[(silhouette > 0) & (depth <= 0.0) & (owner == 0)] = body.object_id
        return owner

    def _fill_covered(self, covered: NDArray[np.bool_], observed: Float32, ids: NDArray[np.uint16]) -> None:
        """Color and depth behind the movable objects of the latest view."""
        todo = covered.copy()
        ys, xs = np.nonzero(covered)
        window = (int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1)
        area = (slice(window[1], window[1] + window[3]), slice(window[0], window[0] + window[2]))
        plane = self._support_depth(covered, np.where(ids > 0, observed, 0.0))
        noise = 0.01 + 0.01 * plane
        # 1. Other views saw it.
        layer = self._splat_world([self._appearance.hidden], window)
        if layer is not None:
            color, depth, mask = layer
            # What lies in front of the object itself cannot be what the object hides, nor what lies under the support.
            front = np.where(ids[area] > 0, observed[area], 0.0)
            ok = mask & todo[area] & ((front <= 0.0) | (depth > front - 0.01))
            ok &= (plane[area] <= 0.0) | (depth < plane[area] + noise[area])
            # Where the other views' knowledge ends they, too, saw the object's edge: blurred and mixed in color.
            margin = 2 * max(1, round(self.camera.width / 210)) + 1
            whole = ok | ~covered[area]
            ok &= cv2.erode(whole.astype(np.uint8), np.ones((margin, margin), np.uint8), borderValue=1) > 0
            self._background_color[area][ok] = color[ok]
            self._background_depth[area][ok] = depth[ok]
            todo[area] &= ~ok
            filled = np.zeros_like(todo)
            filled[area] = ok
            self._blend_seam(filled, ~covered, area)
        # 2. A known surface lies there: exact depth, also for what other views saw of that surface.
        other = self._background_depth
        on_plane = (plane > 0.0) & (todo | (np.abs(other - plane) < noise))
        other[covered & on_plane] = plane[covered & on_plane]
        # 3. Else the surroundings go on. Colors of both by inpainting.
        if todo.any():
            rest = todo & (other <= 0.0)
            if rest.any():
                known = (other > 0.0) & ~rest
                if known.any():
                    inverse = np.where(known, 1.0 / np.maximum(other, 1e-3), 0.0)
                    filled = 1.0 / np.maximum(push_pull(inverse.astype(np.float32), known), 1e-3)
                    other[rest] = np.maximum(filled, observed)[rest]
            inpaint(self._background_color, todo, np.zeros_like(todo))

    def _blend_seam(self, filled: NDArray[np.bool_], observed: NDArray[np.bool_], area: tuple[slice, slice]) -> None:
        """Shift the filled colors so that they meet the observed ones where they border on the same surface.

        Shadings and exposures differ between views; a smooth membrane of the differences at the seam removes the step
        and leaves the texture (after Perez, Gangnet, Blake 2003, "Poisson image editing").
        """
        pad = 12
        window = tuple(slice(max(a.start - pad, 0), a.stop + pad) for a in area)
        inside, outside = filled[window], observed[window]
        color = self._background_color[window].astype(np.float32)
        depth = self._background_depth[window]
        size = (11, 11)

        def mean_of(values: Float32, weight: NDArray[np.bool_]) -> tuple[Float32, Float32]:
            w = weight.astype(np.float32)
            total = cv2.blur(w, size)
            weighted = values * (w[..., None] if values.ndim == 3 else w)
            return cv2.blur(weighted, size) / np.maximum(total[..., None] if values.ndim == 3 else total, 1e-6), total

        has_depth = depth > 0.0
        color_in, count_in = mean_of(color, inside)
        color_out, count_out = mean_of(color, outside & has_depth)
        depth_in, _ = mean_of(depth, inside)
        depth_out, _ = mean_of(depth, outside & has_depth)
        seam = (count_in > 0.08) & (count_out > 0.08) & (np.abs(depth_in - depth_out) < 0.02 + 0.02 * depth_in)
        difference = np.clip(color_out - color_in, -60.0, 60.0)
        if not seam.any():
            return
        shift = push_pull(difference, seam)
        self._background_color[window][inside] = np.clip(color + shift, 0.0, 255.0).astype(np.uint8)[inside]

    def _support_depth(self, wanted: NDArray[np.bool_], in_front: Float32) -> Float32:
        """Depth (H, W) of known support surfaces at the wanted pixels, 0 elsewhere.

        The fitted plane is shifted to agree with the measured depth around the hole, so that no step shows.
        """
        result = np.zeros(wanted.shape, np.float32)
        ys, xs = np.nonzero(wanted)
        rays = np.stack(
            [
                (xs - self.camera.cx) / self.camera.fx,
                (ys - self.camera.cy) / self.camera.fy,
                np.ones(len(xs)),
            ],
            axis=1,
        )
        best = np.full(len(xs), np.inf)
        ring = (cv2.dilate(wanted.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0) & ~wanted
        ring &= self._background_depth > 0.0
        ring_y, ring_x = np.nonzero(ring)
        ring_rays = np.stack(
            [
                (ring_x - self.camera.cx) / self.camera.fx,
                (ring_y - self.camera.cy) / self.camera.fy,
                np.ones(len(ring_x)),
            ],
            axis=1,
        )
        for row in np.flatnonzero(self._scene.is_static):
            pose = pose_matrix(self._scene.positions[row], self._scene.quaternions[row])
            object_T_camera = invert_transform(self._camera_T_world @ pose)
            top = support_top(self._scene, int(row))
            hull = self._scene.hulls[row]
            outline = hull[:, :2] if len(hull) >= 3 else corners(self._scene.extents[row])[:, :2]
            polygon = cv2.convexHull((1000.0 * outline).astype(np.float32))

            def hit(directions, transform=object_T_camera, height=top):  # type: ignore[no-untyped-def]
                slope = directions @ transform[2, :3]
                with np.errstate(divide="ignore", invalid="ignore"):
                    t = (height - transform[2, 3]) / slope
                t = np.where(np.isfinite(t) & (t > NEAR_PLANE_M), t, np.nan)
                return t, (directions * t[:, None]) @ transform[:2, :3].T + transform[:2, 3]

            t, where = hit(rays)
            inside = np.zeros(len(t), bool)
            candidates = np.flatnonzero(np.isfinite(t))
            if not len(candidates):
                continue
            contour = polygon.reshape(-1, 2)
            spans = np.concatenate([contour[1:], contour[:1]]) - contour
            signed = (
                cross(spans[:, None], 1000.0 * where[candidates][None] - contour[:, None])
                / np.maximum(np.linalg.norm(spans, axis=1), 1e-9)[:, None]
            )
            orientation = np.sign(np.sum(cross(contour, np.roll(contour, -1, axis=0)))) or 1.0
            inside[candidates] = (orientation * signed).min(axis=0) > -20.0  # seen edges lie a little inside
            if len(ring_x):
                measured = self._background_depth[ring_y, ring_x]
                expected, _ = hit(ring_rays)
                ratio = measured / expected
                near = np.abs(ratio - 1.0) < 0.04
                if near.sum() > 20:
                    t = t * float(np.median(ratio[near]))
            # The hidden surface is behind what hides it.
            ok = inside & (t > in_front[ys, xs] - 0.01) & (t < best)
            best[ok] = t[ok]
        found = np.isfinite(best)
        result[ys[found], xs[found]] = best[found]
        return result

    def _splat_world(
        self, clouds: list[SurfacePoints], window: tuple[int, int, int, int]
    ) -> tuple[NDArray[np.uint8], Float32, NDArray[np.bool_]] | None:
        cloud = SurfacePoints.concatenate(clouds)
        if not len(cloud):
            return None
        points = move_points(self._camera_T_world, cloud.points)
        index = splat(points, cloud.spacing, self.camera, window, cloud.bias)
        mask = index >= 0
        if not mask.any():
            return None
        color = np.where(mask[..., None], cloud.colors[index], np.uint8(0))
        depth = np.where(mask, points[index, 2], np.float32(0.0))
        mask = close_pinholes(color, depth, mask, 4, 3)
        return color, depth, mask

    def _novel_background(self) -> None:
        shape = (self.camera.height, self.camera.width)
        self._background_color = np.zeros((*shape, 3), np.uint8)
        self._background_depth = np.zeros(shape, np.float32)
        missing = np.ones(shape, bool)
        layer = self._splat_world(
            [self._appearance.visible, self._appearance.hidden], (0, 0, self.camera.width, self.camera.height)
        )
        if layer is not None:
            self._background_color, self._background_depth, mask = layer
            missing = ~mask
        self._background_color = np.ascontiguousarray(self._background_color)
        if not missing.any():
            return
        plane = self._support_depth(missing, np.zeros(shape, np.float32))
        self._background_depth[plane > 0.0] = plane[plane > 0.0]
        known = ~missing
        if not known.any():
            frame = self._appearance.frame
            assert frame is not None
            self._background_color[:] = frame.color.reshape(-1, 3).mean(axis=0).astype(np.uint8)
            return
        # Narrow gaps by marching inward, wide ones (never seen) by a smooth continuation.
        wide = cv2.erode(missing.astype(np.uint8), np.ones((13, 13), np.uint8), borderValue=1) > 0
        wide = (cv2.dilate(wide.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0) & missing
        smooth = push_pull(self._background_color.astype(np.float32), known)
        self._background_color[wide] = np.clip(smooth[wide], 0, 255).astype(np.uint8)
        narrow = missing & ~wide
        inpaint(self._background_color, narrow, np.zeros_like(narrow))
        if narrow.any():
            gaps = narrow & (self._background_depth <= 0.0)
            has_depth = self._background_depth > 0.0
            inverse = np.where(has_depth, 1.0 / np.maximum(self._background_depth, 1e-3), 0.0).astype(np.float32)
            filled = 1.0 / np.maximum(push_pull(inverse, has_depth), 1e-3)
            self._background_depth[gaps] = filled[gaps]

    # Movable objects.

    def render(self, bodies: Sequence[Body]) -> RenderedFrame:
        """Draw the background and these movable objects; a movable object that is not given is not there."""
        color = self._background_color.copy()
        depth = self._background_depth.copy()
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
        if self._owner is None:
            return None
        gone = self._owners - still
        return np.isin(self._owner, list(gone)) if gone else None

    def _in_place(self, body: Body) -> bool:
        """Whether the observed pixels show this object as it is to be drawn (but for its color)."""
        frame = self._appearance.frame
        if self._owner is None or frame is None or body.object_id not in frame.poses:
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
        toward = np.abs(z_now - z_before) / np.maximum(np.minimum(z_now, z_before), 1e-3) * self.camera.width
        return float(max(shift.max(), 0.25 * toward.max()))

    def _partly_covered(self, body: Body) -> bool:
        """Whether another movable object stands before this one in the observed image."""
        assert self._owner is not None
        camera_T_object = self._camera_T_world @ body.world_T_object
        pixels, z = self.camera.project(corners(body.extents) @ camera_T_object[:3, :3].T + camera_T_object[:3, 3])
        window = window_of(pixels, self.camera, 0) if (z > NEAR_PLANE_M).all() else None
        if window is None:
            return False
        around = self._owner[window[1] : window[1] + window[3], window[0] : window[0] + window[2]]
        return bool(((around > 0) & (around != body.object_id)).any())

    def _draw_observed(
        self,
        body: Body,
        color: NDArray[np.uint8],
        depth: Float32,
        ids: NDArray[np.int32],
        nearest: Float32,
    ) -> None:
        owner = self._owner
        assert owner is not None
        rows = np.flatnonzero(owner.ravel() == body.object_id)
        own_color = self._observed_color.reshape(-1, 3)[rows]
        own_depth = self._observed_depth.ravel()[rows]
        # The fringe is half background: its color goes with the object, but it is not the object.
        inner = self._observed_ids.ravel()[rows] == body.object_id
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
        # An object that rests on a surface is not eaten by the surface's noise.
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
            same_looks = (before.scale == body.scale).all() and np.array_equal(
                np.zeros(0) if before.restyle is None else before.restyle,
                np.zeros(0) if body.restyle is None else body.restyle,
            )
            if same_looks and self._movement(body, before.world_T_object) < SAME_LAYER_PIXELS:
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
        # The back is hidden by the front anyway; without it nothing of it shines through the gaps between splats.
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
        hull = None if body.hull is None else body.hull * body.scale
        depth, normals = cast_primitive(body.shape, body.extents * body.scale, hull, camera_T_object, rays)
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
