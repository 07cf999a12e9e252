"""The background of imagined images: everything that does not move, drawn once for each viewpoint.

What the movable objects of the latest image hide is filled in from other views, then from the support planes, then by
inpainting. From another viewpoint all background samples are drawn as splats, and gaps are filled in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph
from wm_imagination.appearance.model import Appearance, ObservedFrame
from wm_imagination.appearance.points import SurfacePoints, move_points
from wm_imagination.appearance.views import support_top
from wm_imagination.rendering.filling import inpaint, push_pull
from wm_imagination.rendering.primitives import corners, cross, scene_bodies
from wm_imagination.rendering.splatting import NEAR_PLANE_M, Float32, close_pinholes, splat


@dataclass(frozen=True)
class ObservedPixels:
    """The latest image at the resolution of its drawing.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 [m], 0: unknown.
        ids: (H, W) uint16 id of the object that a pixel shows, 0: background.
        owner: (H, W) int32, the same with the pixels around an object that hold its color, and those inside its
            silhouette that have no depth.
    """

    color: NDArray[np.uint8]
    depth: Float32
    ids: NDArray[np.uint16]
    owner: NDArray[np.int32]


class Background:
    """What an image without movable objects shows.

    Args:
        appearance: what was seen, with a frame.
        scene: the graph whose static objects are known support surfaces.
        camera, world_T_camera: the viewpoint; None: that of the latest image.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 [m], 0: unknown.
        camera, world_T_camera: the viewpoint.
        observed: the latest image; None where it was seen from another viewpoint.

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
        frame = appearance.frame
        if frame is None:
            raise ValueError("appearance: no image was seen yet, expected at least one integrated frame")
        self._appearance, self._scene = appearance, scene
        self.camera = camera or frame.camera
        self.world_T_camera = np.array(frame.world_T_camera if world_T_camera is None else world_T_camera, np.float64)
        self._camera_T_world = invert_transform(self.world_T_camera)
        self.color: NDArray[np.uint8] = np.zeros((self.camera.height, self.camera.width, 3), np.uint8)
        self.depth: Float32 = np.zeros((self.camera.height, self.camera.width), np.float32)
        self.observed: ObservedPixels | None = None
        if self._is_view_of(frame):
            self._fill_same_view(frame)
        else:
            self._fill_new_view(frame)

    def _is_view_of(self, frame: ObservedFrame) -> bool:
        """Whether this is an image's viewpoint (at any resolution of the same field of view)."""
        # Half a millimeter, half a milliradian and a quarter of a pixel: below what an image shows.
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

    def _fill_same_view(self, frame: ObservedFrame) -> None:
        """The latest image, with what its movable objects hide filled in."""
        size = (self.camera.width, self.camera.height)
        color, depth, ids, owner = frame.color, frame.depth_m, frame.instance_ids, frame.owner_ids
        if size != (frame.camera.width, frame.camera.height):
            shrinking = size[0] < frame.camera.width
            color = cv2.resize(color, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
            depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
            ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
            owner = cv2.dilate(cv2.resize(owner, size, interpolation=cv2.INTER_NEAREST), np.ones((3, 3), np.uint8))
            owner = np.where(ids > 0, ids, owner)
        self.observed = ObservedPixels(color.copy(), depth, ids, self._with_missing_depth(owner, ids, depth))
        covered = self.observed.owner > 0
        self.color, self.depth = color.copy(), depth.copy()
        self.depth[covered] = 0.0
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
            camera_T_object = self._camera_T_world @ pose
            silhouette = np.zeros(depth.shape, np.uint8)
            for points in [p.points() for p in body.parts] or [corners(body.extents)]:
                outline, z = self.camera.project(points @ camera_T_object[:3, :3].T + camera_T_object[:3, 3])
                if (z >= NEAR_PLANE_M).all():
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
        # Distance [m] within which depth agrees with the plane: a centimeter, and a percent of the depth.
        noise = 0.01 + 0.01 * plane
        # 1. Other views saw it.
        layer = self._splat_world([self._appearance.hidden], window)
        if layer is not None:
            color, depth, mask = layer
            # What lies in front of the object itself cannot be what the object hides, nor what lies under the support.
            front = np.where(ids[area] > 0, observed[area], 0.0)
            ok = mask & todo[area] & ((front <= 0.0) | (depth > front - 0.01))
            ok &= (plane[area] <= 0.0) | (depth < plane[area] + noise[area])
            # At the border of what the other views saw, they saw the object's edge too, with mixed colors: a border of
            # 3 pixels at a width of 640 is left out.
            margin = 2 * max(1, round(self.camera.width / 210)) + 1
            whole = ok | ~covered[area]
            ok &= cv2.erode(whole.astype(np.uint8), np.ones((margin, margin), np.uint8), borderValue=1) > 0
            self.color[area][ok] = color[ok]
            self.depth[area][ok] = depth[ok]
            todo[area] &= ~ok
            filled = np.zeros_like(todo)
            filled[area] = ok
            self._blend_seam(filled, ~covered, area)
        # 2. A known surface lies there: exact depth, also for what other views saw of that surface.
        other = self.depth
        on_plane = (plane > 0.0) & (todo | (np.abs(other - plane) < noise))
        other[covered & on_plane] = plane[covered & on_plane]
        # 3. Elsewhere depth continues from the surroundings. Colors of 2 and 3 by inpainting.
        if todo.any():
            rest = todo & (other <= 0.0)
            if rest.any():
                known = (other > 0.0) & ~rest
                if known.any():
                    inverse = np.where(known, 1.0 / np.maximum(other, 1e-3), 0.0)
                    filled = 1.0 / np.maximum(push_pull(inverse.astype(np.float32), known), 1e-3)
                    other[rest] = np.maximum(filled, observed)[rest]
            inpaint(self.color, todo, np.zeros_like(todo))

    def _blend_seam(self, filled: NDArray[np.bool_], observed: NDArray[np.bool_], area: tuple[slice, slice]) -> None:
        """Shift the filled colors so that they meet the observed ones where they border on the same surface.

        Shading and exposure differ between views; adding the smoothly filled differences at the seam removes the step
        and keeps the texture (after Perez, Gangnet, Blake 2003, "Poisson image editing").
        """
        # Pixels around the area, and side of the mean over a seam [pixels]. Larger blends over a wider seam.
        pad = 12
        window = tuple(slice(max(a.start - pad, 0), a.stop + pad) for a in area)
        inside, outside = filled[window], observed[window]
        color = self.color[window].astype(np.float32)
        depth = self.depth[window]
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
        # Both sides cover 8 % of the mean's window at least, and their depths agree: the same surface.
        seam = (count_in > 0.08) & (count_out > 0.08) & (np.abs(depth_in - depth_out) < 0.02 + 0.02 * depth_in)
        difference = np.clip(color_out - color_in, -60.0, 60.0)
        if not seam.any():
            return
        shift = push_pull(difference, seam)
        self.color[window][inside] = np.clip(color + shift, 0.0, 255.0).astype(np.uint8)[inside]

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
        # Seven pixels around the wanted ones, where measured depth is compared with the plane.
        ring = (cv2.dilate(wanted.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0) & ~wanted
        ring &= self.depth > 0.0
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
            # Up to 20 mm beyond the outline count: seen edges lie a little inside of the true ones.
            inside[candidates] = (orientation * signed).min(axis=0) > -20.0
            if len(ring_x):
                measured = self.depth[ring_y, ring_x]
                expected, _ = hit(ring_rays)
                ratio = measured / expected
                # Points within 4 % of the plane are of it; 20 of them give a steady median.
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

    def _fill_new_view(self, frame: ObservedFrame) -> None:
        """All background samples as splats, with the gaps between them filled in."""
        missing = np.ones(self.depth.shape, bool)
        layer = self._splat_world(
            [self._appearance.visible, self._appearance.hidden], (0, 0, self.camera.width, self.camera.height)
        )
        if layer is not None:
            self.color, self.depth, mask = layer
            missing = ~mask
        self.color = np.ascontiguousarray(self.color)
        if not missing.any():
            return
        plane = self._support_depth(missing, np.zeros(missing.shape, np.float32))
        self.depth[plane > 0.0] = plane[plane > 0.0]
        known = ~missing
        if not known.any():
            self.color[:] = frame.color.reshape(-1, 3).mean(axis=0).astype(np.uint8)
            return
        # Gaps of up to 13 pixels by inpainting, wider ones (never seen) by a smooth fill.
        wide = cv2.erode(missing.astype(np.uint8), np.ones((13, 13), np.uint8), borderValue=1) > 0
        wide = (cv2.dilate(wide.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0) & missing
        smooth = push_pull(self.color.astype(np.float32), known)
        self.color[wide] = np.clip(smooth[wide], 0, 255).astype(np.uint8)
        narrow = missing & ~wide
        inpaint(self.color, narrow, np.zeros_like(narrow))
        if narrow.any():
            gaps = narrow & (self.depth <= 0.0)
            has_depth = self.depth > 0.0
            inverse = np.where(has_depth, 1.0 / np.maximum(self.depth, 1e-3), 0.0).astype(np.float32)
            filled = 1.0 / np.maximum(push_pull(inverse, has_depth), 1e-3)
            self.depth[gaps] = filled[gaps]
