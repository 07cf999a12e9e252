"""Imagined RGB-D images by re-projection of what was seen.

A ``Renderer`` is made once per viewpoint: it draws everything that does not move, with what the movable
things hide filled in from other views, then from the support planes, then by inpainting. ``render`` then lays
the movable things
over it at their imagined poses: observed pixels where a thing has not moved, else its samples as depth-tested
    splats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.appearance import (
    Appearance,
    SurfacePoints,
    move_points,
    support_top,
    turn_vectors,
)

Float32 = NDArray[np.float32]

# A pose change that moves every corner by less than this is drawn with the observed pixels themselves.
IN_PLACE_PIXELS = 0.75
# A layer of the previous frame is used again below this movement.
SAME_LAYER_PIXELS = 0.15
NEAR_PLANE_M = 0.05
NO_DEPTH = np.float32(1e9)
# Few sizes of splats, for each is a pass over the samples.
_SPLAT_SIZES = np.array([1, 2, 3, 4, 6, 9, 12], np.int32)


@dataclass(frozen=True)
class Body:
    """One movable thing to draw.

    Attributes:
        object_id: >= 1; its remembered looks are used, or a shaded primitive where there are none.
        world_T_object: (4, 4) pose of its centre.
        shape, extents: primitive, extents (3,) [m], before ``scale``.
        color: (3,) 0..1 of the primitive.
        scale: (3,) factors along its own axes.
        restyle: (3,) 0..1, the colour that replaces its own (shading and texture contrast stay); None: its
            own.
        hull: (P, 3) [m] for ``Shape.CONVEX``.
    """

    object_id: int
    world_T_object: NDArray[np.float64]
    shape: int
    extents: NDArray[np.float64]
    color: NDArray[np.float64] = field(default_factory=lambda: np.full(3, 0.5))
    scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(3))
    restyle: NDArray[np.float64] | None = None
    hull: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class RenderedFrame:
    """color (H, W, 3) uint8 RGB; depth_m (H, W) float32, 0: unknown; instance_ids (H, W) int32, 0: background."""

    color: NDArray[np.uint8]
    depth_m: Float32
    instance_ids: NDArray[np.int32]


@dataclass(frozen=True)
class _Layer:
    """One thing drawn in a window of the image whose upper left pixel is (x, y)."""

    x: int
    y: int
    color: NDArray[np.uint8]  # (h, w, 3)
    depth: Float32  # (h, w)
    mask: NDArray[np.bool_]  # (h, w)

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])


def scene_bodies(scene: SceneGraph) -> list[Body]:
    """The movable objects of a scene graph, where they are now."""
    poses = pose_matrix(scene.positions, scene.quaternions)
    return [
        Body(
            int(scene.ids[i]),
            poses[i],
            int(scene.shapes[i]),
            scene.extents[i],
            scene.colors[i],
            hull=scene.hulls[i] if len(scene.hulls[i]) else None,
        )
        for i in range(len(scene))
        if not scene.is_static[i]
    ]


def splat(
    camera_points: Float32,
    spacing: Float32,
    camera: Camera,
    window: tuple[int, int, int, int],
    bias: Float32 | None = None,
) -> NDArray[np.int32]:
    """Depth-tested square splats: which sample (row) each pixel shows, -1 for none, (h, w).

    A sample covers as many pixels as its spacing spans, so that a surface has no pinholes; away from its own
    centre it counts as farther by its spacing, so that the sample centred on a pixel wins against its
    neighbours' margins.

    Args:
        camera_points: (P, 3) [m, optical frame].
        spacing: (P,) [m].
        window: x, y, width, height of the part of the image to draw.
        bias: (P,) [m], see ``SurfacePoints.bias``; None: zero.
    """
    x0, y0, width, height = window
    z = camera_points[:, 2]
    order = z if bias is None else z + bias
    rows = np.flatnonzero(z > NEAR_PLANE_M)
    rows = rows[np.argsort(-order[rows], kind="stable")]
    z, order = z[rows], order[rows]
    scale = np.float32(camera.fx) / z
    u = camera_points[rows, 0] * scale + np.float32(camera.cx - x0)
    v = camera_points[rows, 1] * np.float32(camera.fy) / z + np.float32(camera.cy - y0)
    size = _SPLAT_SIZES[np.searchsorted(_SPLAT_SIZES, np.minimum(1.15 * spacing[rows] * scale, _SPLAT_SIZES[-1]))]
    index = np.full(height * width, -1, np.int32)
    nearest = np.full(height * width, NO_DEPTH, np.float32)
    for k in np.unique(size):
        group = np.flatnonzero(size == k)
        shift = np.float32(0.5 - 0.5 * (k - 1))
        left = np.floor(u[group] + shift).astype(np.int32)
        top = np.floor(v[group] + shift).astype(np.int32)
        inside = (left > -k) & (left < width) & (top > -k) & (top < height)
        group, left, top = group[inside], left[inside], top[inside]
        depth, step = order[group], spacing[rows[group]]
        whole = (left >= 0) & (left + k <= width) & (top >= 0) & (top + k <= height)
        clipped = not whole.all()
        for dy in range(k):
            for dx in range(k):
                ring = max(abs(dx - 0.5 * (k - 1)), abs(dy - 0.5 * (k - 1))) / max(0.5 * k, 1.0)
                pixel = (top + dy) * width + (left + dx)
                key = depth + np.float32(ring) * step
                if clipped:
                    ok = (left + dx >= 0) & (left + dx < width) & (top + dy >= 0) & (top + dy < height)
                    pixel = np.where(ok, pixel, 0)
                    wins = np.flatnonzero(ok & (key < nearest[pixel]))
                else:
                    wins = np.flatnonzero(key < nearest[pixel])
                # Sorted far to near: of several samples on one pixel the last, the nearest, stays.
                pixel = pixel[wins]
                nearest[pixel] = key[wins]
                index[pixel] = rows[group[wins]]
    return index.reshape(height, width)


def _close_pinholes(
    color: NDArray[np.uint8], depth: Float32, mask: NDArray[np.bool_], neighbours: int, rounds: int
) -> NDArray[np.bool_]:
    """Fill, in place, pixels beside at least ``neighbours`` drawn ones by their mean; returns the new mask."""
    for _ in range(rounds):
        weight = mask.astype(np.float32)
        count = cv2.boxFilter(weight, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        holes = ~mask & (count >= neighbours)
        if not holes.any():
            break
        sums = cv2.boxFilter(color * weight[..., None], -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        depth_sum = cv2.boxFilter(depth * weight, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        color[holes] = (sums[holes] / count[holes][:, None]).astype(np.uint8)
        depth[holes] = depth_sum[holes] / count[holes]
        mask = mask | holes
    return mask


def _outline(pixels: Float32, sizes: Float32, window: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Where a surface of samples at pixels (P, 2), of so many pixels each (P,), is: their morphological closing.

    Splats reach half their size beyond the last sample, which would make small things visibly larger.
    """
    x0, y0, width, height = window
    u = np.clip(np.round(pixels[:, 0]).astype(np.int32) - x0, 0, width - 1)
    v = np.clip(np.round(pixels[:, 1]).astype(np.int32) - y0, 0, height - 1)
    centres = np.zeros((height, width), np.uint8)
    centres[v, u] = 1
    reach = int(np.clip(np.ceil(np.percentile(sizes, 98)), 1, 8))
    pad = reach + 1
    padded = cv2.copyMakeBorder(centres, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return closed[pad:-pad, pad:-pad] > 0


def push_pull(values: Float32, known: NDArray[np.bool_]) -> Float32:
    """Smooth fill of the unknown pixels of an image (H, W) or (H, W, C) from the known ones, coarse to fine.

    The pyramid scheme of Gortler et al. 1996, "The Lumigraph", section 3.4.
    """
    squeeze = values.ndim == 2
    image = np.ascontiguousarray(values[..., None] if squeeze else values, dtype=np.float32)
    levels = [(image * known[..., None], known.astype(np.float32))]
    while min(levels[-1][1].shape) > 2:
        height, width = levels[-1][1].shape
        size = ((width + 1) // 2, (height + 1) // 2)
        color = cv2.resize(levels[-1][0], size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
        weight = cv2.resize(levels[-1][1], size, interpolation=cv2.INTER_AREA)
        levels.append((color, weight))
    filled = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)[..., None]
    for color, weight in reversed(levels[:-1]):
        height, width = weight.shape
        coarse = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)
        own = np.minimum(weight, 1.0)[..., None]
        filled = color + (1.0 - own) * coarse
        partly = (weight > 0.0) & (weight < 1.0)
        if partly.any():
            filled[partly] = color[partly] + (1.0 - weight[partly])[:, None] * coarse[partly]
    return filled[..., 0] if squeeze else filled


def _inpaint(color: NDArray[np.uint8], hole: NDArray[np.bool_], forbidden: NDArray[np.bool_]) -> None:
    """Fill ``hole`` in place from everything but ``forbidden`` pixels.

    By Telea's method (2004) near the rim; deeper in, where that draws rays, ever more by a smooth membrane.
    """
    if not hole.any():
        return
    ys, xs = np.nonzero(hole)
    pad = 24
    y0, y1 = max(ys.min() - pad, 0), min(ys.max() + pad + 1, hole.shape[0])
    x0, x1 = max(xs.min() - pad, 0), min(xs.max() + pad + 1, hole.shape[1])
    window = (slice(y0, y1), slice(x0, x1))
    unknown = (hole | forbidden)[window]
    patch = np.ascontiguousarray(color[window])
    if unknown.all():
        smooth = push_pull(color.astype(np.float32), ~(hole | forbidden))[window]
    else:
        smooth = push_pull(patch.astype(np.float32), ~unknown)
    if unknown.mean() > 0.85:  # nothing to march from: a smooth fill is all that can be said
        filled = smooth
    else:
        marched = cv2.inpaint(patch, unknown.astype(np.uint8), 4, cv2.INPAINT_TELEA).astype(np.float32)
        depth_in_hole = cv2.distanceTransform(unknown.astype(np.uint8), cv2.DIST_L2, 3)
        share = np.clip(depth_in_hole / (0.02 * hole.shape[1]), 0.0, 1.0)[..., None]
        filled = (1.0 - share) * marched + share * smooth
    filled = np.clip(filled, 0, 255).astype(np.uint8)
    target = hole[window]
    color[window][target] = filled[target]


def ray_directions(camera: Camera, window: tuple[int, int, int, int]) -> Float32:
    """Directions (h, w, 3) with z = 1 of the pixels of a window (x, y, width, height), optical frame."""
    x, y, width, height = window
    u = (np.arange(x, x + width, dtype=np.float32) - np.float32(camera.cx)) / np.float32(camera.fx)
    v = (np.arange(y, y + height, dtype=np.float32) - np.float32(camera.cy)) / np.float32(camera.fy)
    rays = np.empty((height, width, 3), np.float32)
    rays[..., 0], rays[..., 1], rays[..., 2] = u[None, :], v[:, None], 1.0
    return rays


def _window_of(pixels: NDArray[np.float64], camera: Camera, margin: int) -> tuple[int, int, int, int] | None:
    low = np.floor(np.nanmin(pixels, axis=0)).astype(int) - margin
    high = np.ceil(np.nanmax(pixels, axis=0)).astype(int) + margin + 1
    x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
    x1, y1 = min(int(high[0]), camera.width), min(int(high[1]), camera.height)
    return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross products (...,) of plane vectors (..., 2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _corners(extents: NDArray[np.float64]) -> NDArray[np.float64]:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    return signs * np.asarray(extents, np.float64) / 2.0


def _half_spaces(shape: int, extents: NDArray[np.float64], hull: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Planes (F, 4) with n.x + d <= 0 inside, of a box or a convex hull."""
    if shape == Shape.CONVEX and hull is not None and len(hull) >= 4:
        try:
            return np.unique(np.round(ConvexHull(hull).equations, 9), axis=0)
        except QhullError:
            pass
    half = np.asarray(extents, np.float64) / 2.0
    return np.concatenate([np.column_stack([np.eye(3), -half]), np.column_stack([-np.eye(3), -half])])


def cast_primitive(
    shape: int,
    extents: NDArray[np.float64],
    hull: NDArray[np.float64] | None,
    camera_T_object: NDArray[np.float64],
    rays: Float32,
) -> tuple[Float32, Float32]:
    """Depth (h, w) [m], ``NO_DEPTH`` where missed, and normals (h, w, 3) in the object frame, of a primitive.

    Args:
        extents: (3,) full sizes [m]; a sphere or cylinder with unequal ones is an ellipsoid or elliptic
            cylinder.
        rays: (h, w, 3) optical-frame directions with z = 1.
    """
    object_T_camera = invert_transform(camera_T_object)
    direction = (rays.reshape(-1, 3) @ object_T_camera[:3, :3].T.astype(np.float32)).astype(np.float64)
    origin = object_T_camera[:3, 3]
    half = np.asarray(extents, np.float64) / 2.0
    hit = np.full(len(direction), np.inf)
    normals = np.zeros((len(direction), 3))

    def take(t: NDArray[np.float64], ok: NDArray[np.bool_], normal: NDArray[np.float64]) -> None:
        better = ok & (t > NEAR_PLANE_M) & (t < hit)
        hit[better] = t[better]
        normals[better] = normal[better]

    def roots(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64] | float) -> tuple:
        discriminant = b * b - a * c
        ok = discriminant >= 0.0
        return (-b - np.sqrt(np.where(ok, discriminant, 0.0))) / np.where(np.abs(a) < 1e-12, 1e-12, a), ok

    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == Shape.SPHERE:
            o, d = origin / half, direction / half
            t, ok = roots(np.sum(d * d, axis=1), d @ o, o @ o - 1.0)
            take(t, ok, (origin + t[:, None] * direction) / half**2)
        elif shape in (Shape.CYLINDER, Shape.CAPSULE):
            straight = half[2] - (min(half[0], half[2]) if shape == Shape.CAPSULE else 0.0)
            o, d = origin[:2] / half[:2], direction[:, :2] / half[:2]
            t, ok = roots(np.sum(d * d, axis=1), d @ o, o @ o - 1.0)
            point = origin + t[:, None] * direction
            side = point / np.array([half[0] ** 2, half[1] ** 2, 1.0]) * np.array([1.0, 1.0, 0.0])
            take(t, ok & (np.abs(point[:, 2]) <= straight), side)
            for sign in (-1.0, 1.0):
                if shape == Shape.CYLINDER:
                    t = (sign * half[2] - origin[2]) / direction[:, 2]
                    point = origin + t[:, None] * direction
                    disc = (point[:, 0] / half[0]) ** 2 + (point[:, 1] / half[1]) ** 2 <= 1.0
                    take(t, disc & np.isfinite(t), np.tile([0.0, 0.0, sign], (len(direction), 1)))
                else:
                    center = np.array([0.0, 0.0, sign * straight])
                    o = origin - center
                    t, ok = roots(np.sum(direction**2, axis=1), direction @ o, o @ o - half[0] ** 2)
                    take(t, ok, origin + t[:, None] * direction - center)
        else:
            enter = np.full(len(direction), -np.inf)
            leave = np.full(len(direction), np.inf)
            enter_normal = np.zeros((len(direction), 3))
            for plane in _half_spaces(shape, extents, hull):
                speed, gap = direction @ plane[:3], float(origin @ plane[:3] + plane[3])
                t = -gap / speed
                entering = speed < 0.0
                later = entering & (t > enter)
                enter[later] = t[later]
                enter_normal[later] = plane[:3]
                leave = np.where(speed > 0.0, np.minimum(leave, t), leave)
                leave = np.where((speed == 0.0) & (gap > 0.0), -np.inf, leave)
            take(enter, enter < leave, enter_normal)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.where(length > 0.0, length, 1.0)
    depth = np.where(np.isfinite(hit), hit, NO_DEPTH).astype(np.float32)
    return depth.reshape(rays.shape[:2]), normals.astype(np.float32).reshape(rays.shape)


# Light of drawn primitives, in the world frame: from above and a little aside, with a sky term (Lambert's
# law).
_LIGHT = np.array([0.30, 0.25, 0.92]) / np.linalg.norm([0.30, 0.25, 0.92])


def shade(color: NDArray[np.float64], world_normals: Float32) -> NDArray[np.uint8]:
    """Colours (..., 3) uint8 of a matt surface of one colour (3,) 0..1 under light from above."""
    brightness = 0.5 + 0.5 * np.clip(world_normals @ _LIGHT.astype(np.float32), 0.0, 1.0)
    return np.clip(255.0 * brightness[..., None] * np.asarray(color, np.float32), 0.0, 255.0).astype(np.uint8)


def recolor(colors: NDArray[np.uint8], target: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours (..., 3) with another hue: each keeps its brightness relative to the mean (Rec. 709 luma)."""
    if not colors.size:
        return colors
    luma = colors.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    relative = np.clip(luma / max(float(luma.mean()), 1.0), 0.4, 1.6)
    return np.clip(255.0 * relative[..., None] * np.asarray(target, np.float32), 0.0, 255.0).astype(np.uint8)


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
                _corners(body.extents) @ (self._camera_T_world @ pose)[:3, :3].T + (self._camera_T_world @ pose)[:3, 3]
            )
            if (z < NEAR_PLANE_M).any():
                continue
            silhouette = np.zeros(depth.shape, np.uint8)
            cv2.fillConvexPoly(silhouette, cv2.convexHull(np.round(outline).astype(np.int32)), 1)
            owner[(silhouette > 0) & (depth <= 0.0) & (owner == 0)] = body.object_id
        return owner

    def _fill_covered(self, covered: NDArray[np.bool_], observed: Float32, ids: NDArray[np.uint16]) -> None:
        """Colour and depth behind the movable things of the latest view."""
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
            # What lies in front of the thing itself cannot be what the thing hides, nor what lies under the support.
            front = np.where(ids[area] > 0, observed[area], 0.0)
            ok = mask & todo[area] & ((front <= 0.0) | (depth > front - 0.01))
            ok &= (plane[area] <= 0.0) | (depth < plane[area] + noise[area])
            # Where the other views' knowledge ends they, too, saw the thing's edge: blurred and mixed in colour.
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
        # 3. Else the surroundings go on. Colours of both by inpainting.
        if todo.any():
            rest = todo & (other <= 0.0)
            if rest.any():
                known = (other > 0.0) & ~rest
                if known.any():
                    inverse = np.where(known, 1.0 / np.maximum(other, 1e-3), 0.0)
                    filled = 1.0 / np.maximum(push_pull(inverse.astype(np.float32), known), 1e-3)
                    other[rest] = np.maximum(filled, observed)[rest]
            _inpaint(self._background_color, todo, np.zeros_like(todo))

    def _blend_seam(self, filled: NDArray[np.bool_], observed: NDArray[np.bool_], area: tuple[slice, slice]) -> None:
        """Shift the filled colours so that they meet the observed ones where they border on the same surface.

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
            outline = hull[:, :2] if len(hull) >= 3 else _corners(self._scene.extents[row])[:, :2]
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
                _cross(spans[:, None], 1000.0 * where[candidates][None] - contour[:, None])
                / np.maximum(np.linalg.norm(spans, axis=1), 1e-9)[:, None]
            )
            orientation = np.sign(np.sum(_cross(contour, np.roll(contour, -1, axis=0)))) or 1.0
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
        mask = _close_pinholes(color, depth, mask, 4, 3)
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
        _inpaint(self._background_color, narrow, np.zeros_like(narrow))
        if narrow.any():
            gaps = narrow & (self._background_depth <= 0.0)
            has_depth = self._background_depth > 0.0
            inverse = np.where(has_depth, 1.0 / np.maximum(self._background_depth, 1e-3), 0.0).astype(np.float32)
            filled = 1.0 / np.maximum(push_pull(inverse, has_depth), 1e-3)
            self._background_depth[gaps] = filled[gaps]

    # Movable things.

    def render(self, bodies: Sequence[Body]) -> RenderedFrame:
        """Draw the background and these movable things; a movable thing that is not given is not there."""
        color = self._background_color.copy()
        depth = self._background_depth.copy()
        ids = np.zeros(depth.shape, np.int32)
        nearest = np.where(depth > 0.0, depth, NO_DEPTH)
        in_place = [body for body in bodies if self._in_place(body)]
        for body in in_place:
            self._draw_observed(body, color, depth, ids, nearest)
        # Where something stood before a thing in the observed image and now does not, its samples must show.
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
        """Pixels (H, W) of the observed image that belong to things that are no longer there; None: no such."""
        if self._owner is None:
            return None
        gone = self._owners - still
        return np.isin(self._owner, list(gone)) if gone else None

    def _in_place(self, body: Body) -> bool:
        """Whether the observed pixels show this thing as it is to be drawn (but for its colour)."""
        frame = self._appearance.frame
        if self._owner is None or frame is None or body.object_id not in frame.poses:
            return False
        if (body.scale != 1.0).any():
            return False
        # A thing of which the image shows nothing is in place too: it must stay as hidden as it was.
        return self._movement(body, frame.poses[body.object_id]) < IN_PLACE_PIXELS

    def _movement(self, body: Body, world_T_before: NDArray[np.float64]) -> float:
        """Largest movement [pixels] of a corner of the thing since a pose."""
        corners = _corners(body.extents * body.scale)
        now = self._camera_T_world @ body.world_T_object
        before = self._camera_T_world @ world_T_before
        pixels_now, z_now = self.camera.project(corners @ now[:3, :3].T + now[:3, 3])
        pixels_before, z_before = self.camera.project(corners @ before[:3, :3].T + before[:3, 3])
        shift = np.abs(pixels_now - pixels_before)
        if not np.isfinite(shift).all():
            return np.inf
        toward = np.abs(z_now - z_before) / np.maximum(np.minimum(z_now, z_before), 1e-3) * self.camera.width
        return float(max(shift.max(), 0.25 * toward.max()))

    def _partly_covered(self, body: Body) -> bool:
        """Whether another movable thing stands before this one in the observed image."""
        assert self._owner is not None
        camera_T_object = self._camera_T_world @ body.world_T_object
        pixels, z = self.camera.project(_corners(body.extents) @ camera_T_object[:3, :3].T + camera_T_object[:3, 3])
        window = _window_of(pixels, self.camera, 0) if (z > NEAR_PLANE_M).all() else None
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
        # The fringe is half background: its colour goes with the thing, but it is not the thing.
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
        # A thing that rests on a surface is not eaten by the surface's noise.
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
        window = _window_of(pixels, self.camera, margin)
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
        mask = _close_pinholes(color, depth, mask, 5, 2)
        mask &= _outline(pixels, spacing * np.float32(self.camera.fx) / z, window)
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
        corners = _corners(body.extents * body.scale)
        pixels, z = self.camera.project(corners @ camera_T_object[:3, :3].T + camera_T_object[:3, 3])
        if (z < NEAR_PLANE_M).all():
            return None
        if (z < NEAR_PLANE_M).any():
            window: tuple[int, int, int, int] | None = (0, 0, self.camera.width, self.camera.height)
        else:
            window = _window_of(pixels, self.camera, 1)
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
