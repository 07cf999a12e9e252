"""What the robot has seen of each thing and of the place, kept so that it can be drawn again elsewhere.

The memory is a set of surface samples (colour, normal, spacing), not an average: the newest view replaces
what it sees again, and what it no longer sees (the back of a thing, the table behind it) is kept from earlier
views. So drawing stays as crisp as the newest image, and one wall never becomes several shells of noise.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree

from wm_core.camera import Camera
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.scene_graph import SceneGraph, Shape

Float32 = NDArray[np.float32]


# See ``SurfacePoints.bias``.
OLD_VIEW_BIAS_M = 0.008
GUESS_BIAS_M = 0.012


class AppearanceError(ValueError):
    """A frame that cannot be taken in; the message names the field, what was found and what was expected."""


@dataclass(frozen=True)
class SurfacePoints:
    """P surface samples in one frame.

    Attributes:
        points: (P, 3) float32 [m].
        colors: (P, 3) uint8 red, green, blue.
        normals: (P, 3) float32, unit, outward; zero where unknown.
        spacing: (P,) float32 [m], distance to the neighbouring samples: how large each must be drawn.
        bias: (P,) float32 [m], how much farther a sample counts than it is when surfaces are told apart by depth, so
            that within the noise an older view yields to the newest, and a guess to both.
    """

    points: Float32
    colors: NDArray[np.uint8]
    normals: Float32
    spacing: Float32
    bias: Float32

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> SurfacePoints:
        return SurfacePoints(
            self.points[rows], self.colors[rows], self.normals[rows], self.spacing[rows], self.bias[rows]
        )

    @classmethod
    def empty(cls) -> SurfacePoints:
        """No samples."""
        vectors = np.zeros((0, 3), np.float32)
        scalars = np.zeros(0, np.float32)
        return cls(vectors, np.zeros((0, 3), np.uint8), vectors, scalars, scalars)

    @classmethod
    def concatenate(cls, parts: list[SurfacePoints]) -> SurfacePoints:
        """All samples of several sets (in the same frame), in order."""
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([p.points for p in parts]),
            np.concatenate([p.colors for p in parts]),
            np.concatenate([p.normals for p in parts]),
            np.concatenate([p.spacing for p in parts]),
            np.concatenate([p.bias for p in parts]),
        )

    def with_bias(self, bias_m: float) -> SurfacePoints:
        """The same samples with this bias [m]."""
        return replace(self, bias=np.full(len(self), bias_m, np.float32))


@dataclass(frozen=True)
class ObservedFrame:
    """The latest image, kept whole: the base layer of imagined images from its own viewpoint.

    Attributes:
        stamp_ns: of the image [ns].
        color: (H, W, 3) uint8 red, green, blue.
        depth_m: (H, W) float32 [m], 0 where there is none.
        camera, world_T_camera: intrinsics and pose of the optical frame.
        instance_ids: (H, W) uint16, 0 for everything that does not move (supports included).
        owner_ids: (H, W) uint16, the same with the pixels around that may hold the thing's colour (``grow_masks``).
        poses: object id -> (4, 4) ``world_T_object`` at this stamp.
        frame_id: of the scene graph, in which all poses are.
    """

    stamp_ns: int
    color: NDArray[np.uint8]
    depth_m: Float32
    camera: Camera
    world_T_camera: NDArray[np.float64]
    instance_ids: NDArray[np.uint16]
    owner_ids: NDArray[np.uint16]
    poses: dict[int, NDArray[np.float64]]
    frame_id: str = ""


@dataclass(frozen=True)
class ObjectAppearance:
    """One object's looks, in its own frame, and the primitive that stands for its unseen side.

    Attributes:
        seen: samples that were observed.
        unseen: samples of the fitted primitive that no view has contradicted, without colour of their own.
        shape, extents: of the primitive; extents (3,) [m].
    """

    seen: SurfacePoints
    unseen: SurfacePoints
    shape: int
    extents: NDArray[np.float64]


def sample_primitive(
    shape: int, extents: NDArray[np.float64], hull: NDArray[np.float64] | None = None, count: int = 3000
) -> SurfacePoints:
    """About ``count`` evenly spread samples of a primitive's surface, in its own frame (colours zero).

    Boxes and hulls by area-weighted triangles with a low-discrepancy sequence; round shapes by the
    golden-angle spiral (Vogel 1979), which has no seam.
    """
    half = np.asarray(extents, np.float64) / 2.0
    index = np.arange(count) + 0.5
    golden = np.pi * (1.0 + 5.0**0.5) * index
    if shape == Shape.SPHERE:
        z = 1.0 - 2.0 * index / count
        ring = np.sqrt(1.0 - z**2)
        normals = np.stack([ring * np.cos(golden), ring * np.sin(golden), z], axis=1)
        points, area = normals * half, 4.0 * np.pi * half[0] ** 2
    elif shape == Shape.CAPSULE:
        radius = float(min(half[0], half[2]))
        straight = float(half[2] - radius)
        # Archimedes: equal steps of height cover equal areas of a sphere as of its cylinder.
        s = (1.0 - 2.0 * index / count) * (straight + radius)
        z = np.clip(np.abs(s) - straight, 0.0, radius) * np.sign(s) / radius
        ring = np.sqrt(np.maximum(1.0 - z**2, 0.0))
        normals = np.stack([ring * np.cos(golden), ring * np.sin(golden), z], axis=1)
        points = normals * radius + np.stack(
            [np.zeros(count), np.zeros(count), np.clip(s, -straight, straight)], axis=1
        )
        area = 4.0 * np.pi * radius * half[2]
    elif shape == Shape.CYLINDER:
        rx, ry, h = half
        side, cap = 4.0 * np.pi * rx * h, np.pi * rx * ry
        area = side + 2.0 * cap
        n_cap = int(count * cap / area)
        n_side = count - 2 * n_cap
        k = np.arange(n_side) + 0.5
        angle = np.pi * (1.0 + 5.0**0.5) * k
        ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(n_side)], axis=1)
        parts = [ring * (rx, ry, 0.0) + np.stack([0 * k, 0 * k, (1.0 - 2.0 * k / max(n_side, 1)) * h], axis=1)]
        parts_normals = [ring]
        k = np.arange(n_cap) + 0.5
        angle, radius_fraction = np.pi * (1.0 + 5.0**0.5) * k, np.sqrt(k / max(n_cap, 1))
        for sign in (-1.0, 1.0):
            disc = np.stack([np.cos(angle) * radius_fraction, np.sin(angle) * radius_fraction, 0 * k], axis=1)
            parts.append(disc * (rx, ry, 0.0) + (0.0, 0.0, sign * h))
            parts_normals.append(np.tile([0.0, 0.0, sign], (n_cap, 1)))
        points, normals = np.concatenate(parts), np.concatenate(parts_normals)
    else:
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
        if shape == Shape.CONVEX and hull is not None and len(hull) >= 4:
            corners = np.asarray(hull, np.float64)
        try:
            convex = ConvexHull(corners)
        except QhullError:  # flat or degenerate hull points: fall back on the bounds
            corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
            convex = ConvexHull(corners)
        triangles = corners[convex.simplices]
        edge_a, edge_b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
        areas = 0.5 * np.linalg.norm(np.cross(edge_a, edge_b), axis=1)
        area = float(areas.sum())
        which = np.minimum(np.searchsorted(np.cumsum(areas) / area, index / count), len(areas) - 1)
        # R2 sequence (Roberts 2018), folded into the triangle.
        u, v = (0.7548776662466927 * index) % 1.0, (0.5698402909980532 * index) % 1.0
        fold = u + v > 1.0
        u, v = np.where(fold, 1.0 - u, u), np.where(fold, 1.0 - v, v)
        points = triangles[which, 0] + u[:, None] * edge_a[which] + v[:, None] * edge_b[which]
        normals = convex.equations[which, :3]
    return SurfacePoints(
        points.astype(np.float32),
        np.zeros((len(points), 3), np.uint8),
        normals.astype(np.float32),
        np.full(len(points), np.sqrt(max(area, 1e-12) / count), np.float32),
        np.full(len(points), GUESS_BIAS_M, np.float32),
    )


def complete(appearance: ObjectAppearance, fallback_color: NDArray[np.float64]) -> SurfacePoints:
    """The object with the side that nobody saw: observed samples, then primitive samples elsewhere.

    An unseen sample takes the colour of the nearest seen one, looked up also under the mirror images of the
    object about its own axes: most made things look from behind as they do from the front.

    Args:
        fallback_color: (3,) 0..1, used when nothing of the object was seen at all.
    """
    seen, unseen = appearance.seen, appearance.unseen
    if not len(seen):
        colors = np.tile((np.clip(fallback_color, 0.0, 1.0) * 255.0).astype(np.uint8), (len(unseen), 1))
        return replace(unseen, colors=colors)
    if not len(unseen):
        return seen
    tree = cKDTree(seen.points)
    distance, nearest = tree.query(unseen.points, workers=1)
    # Where a seen surface lies over or under a sample of the primitive, the seen one is the truth; beside the
    # seen part the primitive goes on without a gap.
    offset = unseen.points - seen.points[nearest]
    along = np.einsum("ij,ij->i", offset, seen.normals[nearest])
    beside = np.linalg.norm(offset - along[:, None] * seen.normals[nearest], axis=1)
    agree = np.einsum("ij,ij->i", unseen.normals, seen.normals[nearest]) > 0.3
    # Sparse samples of a surface seen edge-on leave room for more between them.
    spacing = np.clip(seen.spacing[nearest], unseen.spacing, 2.0 * unseen.spacing)
    duplicate = (distance < spacing) | (agree & (beside < 1.2 * spacing) & (np.abs(along) < 0.02))
    keep = ~duplicate
    unseen, distance, nearest = unseen[keep], distance[keep], nearest[keep]
    for mirror in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1)):
        other_distance, other = tree.query(unseen.points * np.array(mirror, np.float32), workers=1)
        closer = other_distance < 0.7 * distance
        distance, nearest = np.where(closer, other_distance, distance), np.where(closer, other, nearest)
    return SurfacePoints.concatenate([seen, replace(unseen, colors=seen.colors[nearest])])


@dataclass(frozen=True)
class Appearance:
    """An unchanging view of the memory, safe to draw from while the memory goes on learning.

    Attributes:
        frame: the latest image, or None when nothing was seen yet.
        hidden: background samples in the world frame that it does not show (covered, or out of view).
        objects: object id -> what is known of its looks.
    """

    frame: ObservedFrame | None
    hidden: SurfacePoints
    objects: dict[int, ObjectAppearance]
    _surface: _VisibleSurface | None = field(default=None, repr=False)
    _completed: dict[int, SurfacePoints] = field(default_factory=dict, repr=False)

    @property
    def visible(self) -> SurfacePoints:
        """Background samples in the world frame that the latest image shows."""
        return self._surface.in_world() if self._surface is not None else SurfacePoints.empty()

    def completed(self, object_id: int, fallback_color: NDArray[np.float64]) -> SurfacePoints | None:
        """``complete`` of one object, computed once; None when the object was never seen."""
        if object_id not in self.objects:
            return None
        if object_id not in self._completed:
            self._completed[object_id] = complete(self.objects[object_id], fallback_color)
        return self._completed[object_id]


@dataclass(frozen=True)
class AppearanceConfig:
    """Bounds and tolerances of the memory.

    Attributes:
        voxel_m: finest spacing of what is kept from earlier views [m].
        max_background_points: bound on background samples kept from earlier views; the oldest go first.
        max_object_points: bound on samples per object.
        max_objects: bound on remembered objects; those longest unseen go first.
        forget_after_s: an object that is absent from the scene graph for so long is forgotten [s].
        max_depth_m: farther measurements are not kept [m].
        uncertain_position_m, fast_m_s, fast_rad_s: an object whose position is less certain or that moves
            faster is
            drawn from its newest view alone; nothing of that view is banked, for it would smear.
        completion_points: samples of the unseen side per object.
    """

    voxel_m: float = 0.003
    max_background_points: int = 300_000
    max_object_points: int = 12_000
    max_objects: int = 256
    forget_after_s: float = 10.0
    max_depth_m: float = 8.0
    uncertain_position_m: float = 0.03
    fast_m_s: float = 1.0
    fast_rad_s: float = 6.0
    completion_points: int = 3000


def depth_tolerance(depth_m: Float32) -> Float32:
    """Difference [m] within which two depths count as the same surface.

    1 cm plus about three standard deviations of a structured-light camera's axial noise, which grows with the
    square of the distance (Nguyen, Izadi, Lovell 2012).
    """
    return (0.01 + 0.005 * np.square(depth_m)).astype(np.float32)


def support_top(scene: SceneGraph, row: int) -> float:
    """Height [m] of a support's surface in its own frame: that of its seen corners, else of its extents."""
    hull = scene.hulls[row]
    return float(np.max(hull[:, 2])) if len(hull) >= 3 else float(scene.extents[row, 2]) / 2.0


def grow_masks(color: NDArray[np.uint8], instance_ids: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Instance ids (H, W) with the pixels around each mask that may hold the thing's colour.

    A narrow fringe always (blur and demosaicing mix colours there), and beyond it, up to about three times as far, the
    pixels that look more like the thing's rim than like what lies around it: masks come from depth, whose edges are
    ragged and never perfectly aligned with the colours.
    """
    width = instance_ids.shape[1]
    narrow, wide = max(1, round(width / 210)), max(2, round(width / 75))
    mask = (instance_ids > 0).astype(np.uint8)
    if not mask.any():
        return instance_ids.copy()

    def grown(by: int) -> NDArray[np.uint16]:
        return cv2.dilate(instance_ids, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1)))

    fringe, around = grown(narrow), grown(wide)
    pixels = color.astype(np.float32)

    def mean_of(weight: Float32, by: int) -> tuple[Float32, Float32]:
        size = (2 * by + 1, 2 * by + 1)
        total = cv2.blur(weight, size)
        return cv2.blur(pixels * weight[..., None], size) / np.maximum(total, 1e-6)[..., None], total

    inner, has_inner = mean_of(mask.astype(np.float32), wide)
    outer, has_outer = mean_of((around == 0).astype(np.float32), 2 * wide)
    rows = np.flatnonzero((around > 0) & (fringe == 0) & (has_inner > 1e-4) & (has_outer > 1e-4))
    own, inside, beyond = (a.reshape(-1, 3)[rows] for a in (pixels, inner, outer))
    contrast = np.linalg.norm(inside - beyond, axis=1)
    like_thing = np.linalg.norm(own - inside, axis=1) < 0.8 * np.linalg.norm(own - beyond, axis=1)
    joined = (fringe > 0).astype(np.uint8)
    joined.ravel()[rows[like_thing & (contrast > 25.0)]] = 1
    # What is not joined to the mask is something else of that colour.
    count, labels = cv2.connectedComponents(joined, connectivity=4)
    touching = np.zeros(count, bool)
    touching[np.unique(labels[mask > 0])] = True
    owner = np.where((joined > 0) & touching[labels], around, 0)
    return np.where(fringe > 0, fringe, owner).astype(np.uint16) * (mask == 0) + instance_ids


def _brighter(colors: NDArray[np.uint8], gain: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(colors * gain.astype(np.float32) + np.float32(0.5), 0.0, 255.0).astype(np.uint8)


def _voxel_keys(points: Float32, spacing: Float32, voxel_m: float) -> NDArray[np.int64]:
    """One integer per point: its voxel, of edge ``voxel_m`` times the power of two nearest to its spacing."""
    level = np.clip(np.round(np.log2(np.maximum(spacing, 1e-6) / voxel_m)), 0, 6).astype(np.int64)
    cell = np.floor(points / (voxel_m * 2.0**level)[:, None]).astype(np.int64)
    return ((cell[:, 0] & 0x7FFFF) << 41) | ((cell[:, 1] & 0x7FFFF) << 22) | ((cell[:, 2] & 0x7FFFF) << 3) | (level & 7)


def _newest_per_voxel(cloud: SurfacePoints, voxel_m: float, limit: int) -> SurfacePoints:
    """The first sample of each voxel; the order (newest first) stays, the tail beyond ``limit`` goes."""
    if not len(cloud):
        return cloud
    _, first = np.unique(_voxel_keys(cloud.points, cloud.spacing, voxel_m), return_index=True)
    return cloud[np.sort(first)[:limit]]


@dataclass
class _View:
    """One frame, prepared for comparing samples with it (pixel arrays (H, W))."""

    camera: Camera
    world_T_camera: NDArray[np.float64]
    depth: Float32
    ids: NDArray[np.uint16]
    near_object: NDArray[np.bool_]
    grown_ids: NDArray[np.uint16]

    def look_up(self, camera_points: Float32) -> tuple[NDArray[np.bool_], NDArray[np.int64], Float32]:
        """Inside the image (P,), flat pixel index (P,) (0 outside), depth of the points (P,) [m]."""
        z = camera_points[:, 2]
        safe = np.where(z > 0.05, z, np.float32(1.0))
        # float to int truncates: adding a half rounds, and what is negative is masked below.
        u = np.floor(camera_points[:, 0] * (np.float32(self.camera.fx) / safe) + np.float32(self.camera.cx + 0.5))
        v = np.floor(camera_points[:, 1] * (np.float32(self.camera.fy) / safe) + np.float32(self.camera.cy + 0.5))
        inside = (z > 0.05) & (u >= 0) & (u < self.camera.width) & (v >= 0) & (v < self.camera.height)
        pixel = np.where(inside, v * self.camera.width + u, 0).astype(np.int64)
        return inside, pixel, z


def move_points(a_T_b: NDArray[np.float64], points: Float32) -> Float32:
    """Points (P, 3) float32 in frame b, in frame a (OpenCV is several times faster here than a product)."""
    if not len(points):
        return np.zeros((0, 3), np.float32)
    return cv2.transform(np.ascontiguousarray(points, np.float32)[:, None], a_T_b[:3].astype(np.float32))[:, 0]


def turn_vectors(a_T_b: NDArray[np.float64], vectors: Float32) -> Float32:
    """Directions (P, 3) float32 in frame b, in frame a."""
    if not len(vectors):
        return np.zeros((0, 3), np.float32)
    return cv2.transform(np.ascontiguousarray(vectors, np.float32)[:, None], a_T_b[:3, :3].astype(np.float32))[:, 0]


@dataclass(frozen=True)
class _VisibleSurface:
    """Background pixels of one frame, taken to the world frame only when asked for.

    Attributes:
        rows: (P,) flat pixels; points, normals: (P, 3), (H*W, 3), optical frame; colors: (H*W, 3); spacing: (H*W,).
    """

    rows: NDArray[np.int64]
    points: Float32
    colors: NDArray[np.uint8]
    normals: Float32
    spacing: Float32
    world_T_camera: NDArray[np.float64]

    def in_world(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> SurfacePoints:
        """The chosen ones of the P samples."""
        rows = self.rows[chosen]
        return SurfacePoints(
            move_points(self.world_T_camera, self.points[chosen]),
            self.colors[rows],
            turn_vectors(self.world_T_camera, self.normals[rows]),
            self.spacing[rows],
            np.zeros(len(rows), np.float32),
        )


def surface_geometry(depth_m: Float32, camera: Camera) -> tuple[Float32, Float32, Float32, NDArray[np.bool_]]:
    """Organised points (H, W, 3) [m, optical frame], normals (H, W, 3) toward the camera, spacing (H, W) [m].

    And where a measurement stands on one surface (H, W), not between two (flying pixels) nor beside a hole.
    """
    depth = np.where(depth_m > 0.0, depth_m, np.float32(0.0))
    valid = depth > 0.0
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)
    solid = valid & (spread < 0.01 + 0.04 * depth)
    ray_x = ((np.arange(camera.width, dtype=np.float32) - camera.cx) / camera.fx).astype(np.float32)
    ray_y = ((np.arange(camera.height, dtype=np.float32) - camera.cy) / camera.fy).astype(np.float32)
    points = np.empty((*depth.shape, 3), np.float32)
    np.multiply(depth, ray_x[None, :], out=points[..., 0])
    np.multiply(depth, ray_y[:, None], out=points[..., 1])
    points[..., 2] = depth
    smooth = cv2.blur(depth, (5, 5))
    gx = np.zeros_like(depth)
    gy = np.zeros_like(depth)
    gx[:, 1:-1] = 0.5 * (smooth[:, 2:] - smooth[:, :-2])
    gy[1:-1] = 0.5 * (smooth[2:] - smooth[:-2])
    # n ~ (fx dz/du, fy dz/dv, -(z + (u-cx) dz/du + (v-cy) dz/dv)): the cross product of the image-plane
    # tangents of the perspective surface.
    nx, ny = camera.fx * gx, camera.fy * gy
    nz = -(depth + ray_x[None, :] * nx + ray_y[:, None] * ny)
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9)
    normals = np.stack([nx / length, ny / length, nz / length], axis=-1)
    pitch = depth / np.float32(camera.fx)
    spacing = np.minimum(np.sqrt(pitch * pitch + gx * gx + gy * gy), 4.0 * pitch)
    return points, normals.astype(np.float32, copy=False), spacing, solid


class AppearanceMemory:
    """Learns looks from posed RGB-D frames with instance ids. Safe to use from several threads."""

    def __init__(self, config: AppearanceConfig | None = None) -> None:
        self.config = config or AppearanceConfig()
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._frame: ObservedFrame | None = None
        self._visible: _VisibleSurface | None = None  # background of the latest frame
        self._hidden = SurfacePoints.empty()
        self._fresh: dict[int, SurfacePoints] = {}  # per object: of the latest view
        self._banked: dict[int, SurfacePoints] = {}  # per object: of earlier views, not seen in the latest
        self._bankable: dict[int, bool] = {}
        self._unseen: dict[int, SurfacePoints] = {}
        self._primitive: dict[int, tuple[int, NDArray[np.float64]]] = {}
        self._known_ns: dict[int, int] = {}
        self._added = 0  # background samples since they were last thinned
        self._compared: dict[int, NDArray[np.float64]] = {}  # poses, see ``_outside_objects``
        self._snapshot: Appearance | None = None

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._clear()

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the latest integrated frame [ns]; None when there is none."""
        frame = self._frame
        return None if frame is None else frame.stamp_ns

    def snapshot(self) -> Appearance:
        """The memory as it is now; later frames do not change it."""
        with self._lock:
            if self._snapshot is None:
                objects = {}
                for object_id, unseen in self._unseen.items():
                    shape, extents = self._primitive[object_id]
                    seen = [c[object_id] for c in (self._fresh, self._banked) if object_id in c and len(c[object_id])]
                    objects[object_id] = ObjectAppearance(
                        SurfacePoints.concatenate(seen), unseen, shape, extents.copy()
                    )
                self._snapshot = Appearance(self._frame, self._hidden, objects, self._visible)
            return self._snapshot

    def integrate(
        self,
        stamp_ns: int,
        color: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        camera: Camera,
        world_T_camera: NDArray[np.float64],
        instance_ids: NDArray[np.uint16],
        scene: SceneGraph,
    ) -> None:
        """Take in one frame. Time going backwards (a bag that starts over) clears the memory first.

        Args:
            stamp_ns: of the image [ns].
            color: (H, W, 3) uint8 red, green, blue.
            depth_m: (H, W) [m]; 0, NaN or infinite where there is none.
            camera: intrinsics of both images, which are aligned.
            world_T_camera: (4, 4) pose of the optical frame in ``scene.frame_id``.
            instance_ids: (H, W) uint16; ids of ``scene``, 0 for the background.
            scene: the graph of the same stamp.

        Raises:
            AppearanceError: a size, type or pose is wrong; the memory is left as it was.
        """
        self._check(color, depth_m, camera, world_T_camera, instance_ids)
        depth = np.nan_to_num(np.asarray(depth_m, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        depth = np.where((depth > 0.0) & (depth <= self.config.max_depth_m), depth, np.float32(0.0))
        movable = [int(i) for i, static in zip(scene.ids, scene.is_static, strict=True) if not static and i < 65536]
        lookup = np.zeros(65536, np.uint16)
        lookup[movable] = movable
        ids = lookup[instance_ids]
        frame = ObservedFrame(
            int(stamp_ns),
            np.array(color, np.uint8),
            depth,
            camera,
            np.array(world_T_camera, np.float64),
            ids,
            grow_masks(color, ids),
            {int(i): pose_matrix(p, q) for i, p, q in zip(scene.ids, scene.positions, scene.quaternions, strict=True)},
            scene.frame_id,
        )
        with self._lock:
            if self._frame is not None and frame.stamp_ns < self._frame.stamp_ns:
                self._clear()
            self._integrate(frame, scene)
            self._snapshot = None

    @staticmethod
    def _check(
        color: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        camera: Camera,
        world_T_camera: NDArray[np.float64],
        instance_ids: NDArray[np.uint16],
    ) -> None:
        size = (camera.height, camera.width)
        if color.shape != (*size, 3) or color.dtype != np.uint8:
            raise AppearanceError(f"color: got {color.dtype} {color.shape}, expected uint8 {(*size, 3)} (camera size)")
        if np.shape(depth_m) != size:
            raise AppearanceError(f"depth: got shape {np.shape(depth_m)}, expected {size} (camera size)")
        if np.shape(instance_ids) != size or not np.issubdtype(instance_ids.dtype, np.unsignedinteger):
            raise AppearanceError(
                f"instance_ids: got {instance_ids.dtype} {np.shape(instance_ids)}, expected uint16 {size}"
            )
        pose = np.asarray(world_T_camera, np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise AppearanceError("world_T_camera: expected a finite 4x4 matrix")
        if abs(float(np.linalg.det(pose[:3, :3])) - 1.0) > 1e-2:
            raise AppearanceError("world_T_camera: expected a rotation in its upper left 3x3")

    def _integrate(self, frame: ObservedFrame, scene: SceneGraph) -> None:
        points, normals, spacing, solid = surface_geometry(frame.depth_m, frame.camera)
        grown = frame.owner_ids
        near_object = cv2.dilate(grown, np.ones((3, 3), np.uint8)) > 0
        view = _View(frame.camera, frame.world_T_camera, frame.depth_m, frame.instance_ids, near_object, grown)
        self._integrate_background(frame, view, scene, points, normals, spacing, solid)
        self._integrate_objects(frame, view, scene, points, normals, spacing)
        self._frame = frame

    def _integrate_background(
        self,
        frame: ObservedFrame,
        view: _View,
        scene: SceneGraph,
        points: Float32,
        normals: Float32,
        spacing: Float32,
        solid: NDArray[np.bool_],
    ) -> None:
        camera_T_world = invert_transform(frame.world_T_camera)
        kept = []  # newest first
        if self._visible is not None:
            before = self._visible
            camera_T_before = camera_T_world @ before.world_T_camera
            hidden_now = self._not_seen_again(before.points, view, camera_T_before)
            gain = self._exposure_gain(before, ~hidden_now, view, camera_T_before, frame.color)
            if np.abs(gain - 1.0).max() > 0.004:
                self._hidden = replace(self._hidden, colors=_brighter(self._hidden.colors, gain))
            added = before.in_world(hidden_now).with_bias(OLD_VIEW_BIAS_M)
            added = replace(added, colors=_brighter(added.colors, gain))
            kept.append(added[self._outside_objects(added.points, frame, scene, only_new=False)])
            self._added += len(kept[0])
        if len(self._hidden):
            old = self._hidden[self._not_seen_again(self._hidden.points, view, camera_T_world)]
            kept.append(old[self._outside_objects(old.points, frame, scene, only_new=True)])
        hidden = SurfacePoints.concatenate(kept)
        if self._added > max(2000, 0.2 * len(hidden)):
            hidden = _newest_per_voxel(hidden, self.config.voxel_m, self.config.max_background_points)
            self._added = 0
        self._hidden = hidden[: self.config.max_background_points]
        rows = np.flatnonzero((solid & ~view.near_object).ravel())
        flat = points.reshape(-1, 3)
        self._visible = _VisibleSurface(
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

        A thing gets its id only after some frames; what was seen of it before lies within its extents. The support
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
            half = 0.5 * scene.extents[row].astype(np.float32)
            found = near[(np.abs(local) <= 1.1 * half + np.float32(0.012)).all(axis=1)]
            # Where a thing has stood from the first, its support cannot have been seen.
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
        before: _VisibleSurface,
        again: NDArray[np.bool_],
        view: _View,
        camera_T_before: NDArray[np.float64],
        color: NDArray[np.uint8],
    ) -> NDArray[np.float64]:
        """(3,) factors from the previous frame's colours to this one's, by what both show: cameras adapt exposure."""
        chosen = np.flatnonzero(again)[:: max(1, int(again.sum()) // 4000)]
        inside, pixel, _ = view.look_up(move_points(camera_T_before, before.points[chosen]))
        old = before.colors[before.rows[chosen[inside]]].astype(np.float64)
        new = color.reshape(-1, 3)[pixel[inside]].astype(np.float64)
        usable = ((old > 20) & (old < 235) & (new > 20) & (new < 235)).all(axis=1)
        if usable.sum() < 200:
            return np.ones(3)
        return np.clip(np.median(new[usable] / old[usable], axis=0), 0.8, 1.25)

    @staticmethod
    def _not_seen_again(points: Float32, view: _View, camera_T_frame: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which background points (P, 3) the view neither shows again nor looks through."""
        inside, pixel, z = view.look_up(move_points(camera_T_frame, points))
        measured = view.depth.ravel()[pixel]
        tolerance = depth_tolerance(z)
        behind_static = z > measured + tolerance
        # Beside an object the mask says what covers the sample, though both may be nearer than the tolerance.
        behind_object = view.near_object.ravel()[pixel] & (z > measured - tolerance)
        return ~inside | (measured <= 0.0) | behind_static | behind_object

    def _integrate_objects(
        self,
        frame: ObservedFrame,
        view: _View,
        scene: SceneGraph,
        points: Float32,
        normals: Float32,
        spacing: Float32,
    ) -> None:
        flat_ids = frame.instance_ids.ravel()
        labelled = np.flatnonzero(flat_ids)
        eroded = cv2.erode(frame.instance_ids, np.ones((3, 3), np.uint8)).ravel()
        grown = cv2.dilate(frame.instance_ids, np.ones((3, 3), np.uint8)).ravel()
        flat_depth = frame.depth_m.ravel()
        interior = (eroded == flat_ids) & (grown == flat_ids) & (flat_depth > 0.0)
        camera_T_world = invert_transform(frame.world_T_camera)
        for row, object_id in enumerate(scene.ids.tolist()):
            if scene.is_static[row]:
                continue
            self._known_ns[object_id] = frame.stamp_ns
            world_T_object = frame.poses[object_id]
            camera_T_object = camera_T_world @ world_T_object
            self._update_primitive(object_id, scene, row)
            pixels = labelled[flat_ids[labelled] == object_id]
            core = pixels[interior[pixels]]
            # A thin thing is all edge: then its edge is all there is.
            if len(core) < 0.3 * len(pixels):
                core = pixels[flat_depth[pixels] > 0.0]
            fresh = self._object_samples(core, frame, camera_T_object, scene.extents[row], points, normals, spacing)
            banked = [self._banked.get(object_id, SurfacePoints.empty())]
            if len(fresh):
                if self._bankable.get(object_id, False):
                    banked.insert(0, self._fresh[object_id].with_bias(OLD_VIEW_BIAS_M))
                self._fresh[object_id] = fresh
                self._bankable[object_id] = self._pose_is_good(scene, row)
            elif object_id in self._fresh:  # hidden now: its last view stays the best there is
                last = self._fresh[object_id]
                self._fresh[object_id] = last[self._object_kept(last, view, camera_T_object, object_id, 1.0)]
            earlier = SurfacePoints.concatenate(banked)
            earlier = earlier[self._object_kept(earlier, view, camera_T_object, object_id, 1.0)]
            self._banked[object_id] = _newest_per_voxel(earlier, self.config.voxel_m, self.config.max_object_points)
            unseen = self._unseen[object_id]
            self._unseen[object_id] = unseen[self._not_contradicted(unseen, view, camera_T_object, object_id)]
        self._forget(frame.stamp_ns)

    def _pose_is_good(self, scene: SceneGraph, row: int) -> bool:
        """Whether samples of this view may be laid beside those of another."""
        position_std = float(np.sqrt(max(np.trace(scene.pose_covariances[row, :3, :3]), 0.0)))
        return (
            position_std <= self.config.uncertain_position_m
            and float(np.linalg.norm(scene.linear_velocities[row])) <= self.config.fast_m_s
            and float(np.linalg.norm(scene.angular_velocities[row])) <= self.config.fast_rad_s
        )

    def _object_samples(
        self,
        pixels: NDArray[np.int64],
        frame: ObservedFrame,
        camera_T_object: NDArray[np.float64],
        extents: NDArray[np.float64],
        points: Float32,
        normals: Float32,
        spacing: Float32,
    ) -> SurfacePoints:
        object_T_camera = invert_transform(camera_T_object)
        local = move_points(object_T_camera, points.reshape(-1, 3)[pixels])
        # Flying pixels lie far outside the fitted extents.
        inside = (np.abs(local) <= 0.65 * extents.astype(np.float32) + np.float32(0.015)).all(axis=1)
        pixels, local = pixels[inside], local[inside]
        cloud = SurfacePoints(
            local,
            frame.color.reshape(-1, 3)[pixels],
            turn_vectors(object_T_camera, normals.reshape(-1, 3)[pixels]),
            # Surfaces seen edge-on stay sparse: the completion lies between.
            np.minimum(spacing.ravel()[pixels], 2.0 * points.reshape(-1, 3)[pixels, 2] / np.float32(frame.camera.fx)),
            np.zeros(len(pixels), np.float32),
        )
        if len(cloud) > self.config.max_object_points:
            step = int(np.ceil(len(cloud) / self.config.max_object_points))
            cloud = cloud[::step]
            cloud = replace(cloud, spacing=(cloud.spacing * np.sqrt(step)).astype(np.float32))
        return cloud

    @staticmethod
    def _object_kept(
        cloud: SurfacePoints,
        view: _View,
        camera_T_object: NDArray[np.float64],
        object_id: int,
        tolerance_scale: float,
    ) -> NDArray[np.bool_]:
        """Which samples of an object the view neither shows again nor contradicts."""
        in_camera = move_points(camera_T_object, cloud.points)
        inside, pixel, z = view.look_up(in_camera)
        measured = view.depth.ravel()[pixel]
        own = view.ids.ravel()[pixel] == object_id
        tolerance = tolerance_scale * depth_tolerance(z)
        # A sample whose surface turns away from the camera is the back of a thin thing, not the front seen
        # again.
        turned = turn_vectors(camera_T_object, cloud.normals)
        away = np.einsum("ij,ij->i", turned, in_camera) > 0.0
        hidden_by_itself = own & ((z > measured + tolerance) | (away & (z > measured - tolerance)))
        hidden_by_other = ~own & (z > measured + depth_tolerance(z))
        return ~inside | (measured <= 0.0) | hidden_by_itself | hidden_by_other

    @staticmethod
    def _not_contradicted(
        cloud: SurfacePoints, view: _View, camera_T_object: NDArray[np.float64], object_id: int
    ) -> NDArray[np.bool_]:
        """Which samples of the primitive the view does not look through.

        The fit is rough, so a sample just outside the silhouette or a little before the seen surface stays.
        """
        inside, pixel, z = view.look_up(move_points(camera_T_object, cloud.points))
        measured = view.depth.ravel()[pixel]
        own = view.grown_ids.ravel()[pixel] == object_id
        tolerance = depth_tolerance(z)
        return ~inside | (measured <= 0.0) | own | (z > measured - 0.5 * tolerance)

    def _update_primitive(self, object_id: int, scene: SceneGraph, row: int) -> None:
        shape, extents = int(scene.shapes[row]), scene.extents[row]
        known = self._primitive.get(object_id)
        if known is not None and known[0] == shape and (np.abs(known[1] / extents - 1.0) < 0.15).all():
            return
        self._primitive[object_id] = (shape, extents.copy())
        self._unseen[object_id] = sample_primitive(shape, extents, scene.hulls[row], self.config.completion_points)

    def _forget(self, stamp_ns: int) -> None:
        limit = stamp_ns - int(self.config.forget_after_s * 1e9)
        by_age = sorted(self._known_ns, key=lambda i: -self._known_ns[i])
        for rank, object_id in enumerate(by_age):
            if rank >= self.config.max_objects or self._known_ns[object_id] < limit:
                for table in (
                    self._compared,
                    self._known_ns,
                    self._fresh,
                    self._banked,
                    self._bankable,
                    self._unseen,
                    self._primitive,
                ):
                    table.pop(object_id, None)
