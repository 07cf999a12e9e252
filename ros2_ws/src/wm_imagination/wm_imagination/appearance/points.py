"""Points on surfaces, with normals, colors and how far they may be off: seen, sampled on a primitive, or completed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree

from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import within_any
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape

Float32 = NDArray[np.float32]

OLD_VIEW_BIAS_M = 0.008
"""``SurfacePoints.bias`` of samples of earlier views: about the noise of a depth camera at a meter, and less than
objects are thick. Larger, and the background shows through thin objects; smaller, and old and new samples mix."""
GUESS_BIAS_M = 0.012
"""``SurfacePoints.bias`` of samples that nobody has seen (of the fitted primitive): more than that of earlier views."""


@dataclass(frozen=True)
class SurfacePoints:
    """P surface samples in one frame.

    Attributes:
        points: (P, 3) float32 [m].
        colors: (P, 3) uint8 red, green, blue.
        normals: (P, 3) float32, unit, outward; zero where unknown.
        spacing: (P,) float32 [m], distance to the neighboring samples: how large each must be drawn.
        bias: (P,) float32 [m], how much farther a sample counts than it is when surfaces are told apart by depth, so
            that within the noise an older view gives way to the newest, and a guess to both.
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


def sample_primitive(
    shape: int, extents: NDArray[np.float64], hull: NDArray[np.float64] | None = None, count: int = 3000
) -> SurfacePoints:
    """About ``count`` evenly spread samples of a primitive's surface, in its own frame (colors zero).

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


_PROUD_M = 3e-4
"""How far over its surface a sample of a part is looked for in the other parts [m]: more than the error of a hull."""


def sample_object(
    shape: int,
    extents: NDArray[np.float64],
    hull: NDArray[np.float64] | None = None,
    parts: Sequence[ConvexPart] = (),
    count: int = 3000,
) -> SurfacePoints:
    """``sample_primitive``; of an object of several parts as many samples of them, less those within another part."""
    if not parts:
        return sample_primitive(shape, extents, hull, count)
    clouds = [sample_primitive(p.shape, p.extents, p.hull, max(count // len(parts), 8)) for p in parts]
    areas = np.array([len(c) * float(c.spacing[0]) ** 2 for c in clouds])
    shares = np.maximum(count * areas / areas.sum(), 8).astype(int)
    kept = []
    for k, part in enumerate(parts):
        cloud = sample_primitive(part.shape, part.extents, part.hull, int(shares[k]))
        turn = quaternion_to_matrix(part.quaternion)
        points, normals = cloud.points @ turn.T + part.position, cloud.normals @ turn.T
        placed = replace(cloud, points=points.astype(np.float32), normals=normals.astype(np.float32))
        others = [*parts[:k], *parts[k + 1 :]]
        kept.append(placed[~within_any(others, points + _PROUD_M * normals)])
    return SurfacePoints.concatenate(kept)


def complete(seen: SurfacePoints, unseen: SurfacePoints, fallback_color: NDArray[np.float64]) -> SurfacePoints:
    """The object with its unseen side: observed samples, then primitive samples elsewhere.

    An unseen sample takes the color of the nearest seen one, looked up also under the mirror images of the
    object about its own axes: the back of most manufactured objects has the colors of their front.

    Args:
        seen: of the object, in its axes; unseen: samples of its primitive.
        fallback_color: (3,) 0..1, used when nothing of the object was seen at all.
    """
    if not len(seen):
        colors = np.tile((np.clip(fallback_color, 0.0, 1.0) * 255.0).astype(np.uint8), (len(unseen), 1))
        return replace(unseen, colors=colors)
    if not len(unseen):
        return seen
    tree = cKDTree(seen.points)
    distance, nearest = tree.query(unseen.points, workers=1)
    # Where a seen surface lies over or under a sample of the primitive, the seen one counts; beside the seen part the
    # primitive goes on without a gap.
    offset = unseen.points - seen.points[nearest]
    along = np.einsum("ij,ij->i", offset, seen.normals[nearest])
    beside = np.linalg.norm(offset - along[:, None] * seen.normals[nearest], axis=1)
    alike = np.einsum("ij,ij->i", unseen.normals, seen.normals[nearest])
    agree = alike > 0.3
    # The inner side of a wall that is thinner than samples lie apart was not seen with the outer one.
    other_side = alike < -0.5
    # Sparse samples of a surface seen edge-on leave room for more between them.
    spacing = np.clip(seen.spacing[nearest], unseen.spacing, 2.0 * unseen.spacing)
    # The farthest point between four samples is 0.71 of their spacing from each. Wider, and a seam stays open.
    near = 0.8 * spacing
    duplicate = ((distance < near) & ~other_side) | (agree & (beside < near) & (np.abs(along) < 0.02))
    keep = ~duplicate
    unseen, distance, nearest = unseen[keep], distance[keep], nearest[keep]
    for mirror in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1)):
        other_distance, other = tree.query(unseen.points * np.array(mirror, np.float32), workers=1)
        closer = other_distance < 0.7 * distance
        distance, nearest = np.where(closer, other_distance, distance), np.where(closer, other, nearest)
    return SurfacePoints.concatenate([seen, replace(unseen, colors=seen.colors[nearest])])


def brighter(colors: NDArray[np.uint8], gain: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colors times a gain, rounded, 0..255."""
    return np.clip(colors * gain.astype(np.float32) + np.float32(0.5), 0.0, 255.0).astype(np.uint8)


def _voxel_keys(points: Float32, spacing: Float32, voxel_m: float) -> NDArray[np.int64]:
    """One integer per point: its voxel, of edge ``voxel_m`` times the power of two nearest to its spacing."""
    level = np.clip(np.round(np.log2(np.maximum(spacing, 1e-6) / voxel_m)), 0, 6).astype(np.int64)
    cell = np.floor(points / (voxel_m * 2.0**level)[:, None]).astype(np.int64)
    return ((cell[:, 0] & 0x7FFFF) << 41) | ((cell[:, 1] & 0x7FFFF) << 22) | ((cell[:, 2] & 0x7FFFF) << 3) | (level & 7)


def newest_per_voxel(cloud: SurfacePoints, voxel_m: float, limit: int) -> SurfacePoints:
    """The first sample of each voxel; the order (newest first) stays, the tail beyond ``limit`` goes."""
    if not len(cloud):
        return cloud
    _, first = np.unique(_voxel_keys(cloud.points, cloud.spacing, voxel_m), return_index=True)
    return cloud[np.sort(first)[:limit]]


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
