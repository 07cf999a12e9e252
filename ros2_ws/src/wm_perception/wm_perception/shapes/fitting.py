"""Fits of solids to the points of an object that a camera sees from one side."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.transform import Rotation

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.completion import completed_hull
from wm_perception.shapes.free_space import ALLOWED_M, FreeSpace
from wm_perception.shapes.revolution import profile_of
from wm_perception.shapes.solids import (
    Ball,
    LyingCapsule,
    LyingCylinder,
    Solid,
    UprightBox,
    UprightCylinder,
    yaw_matrix,
)
from wm_perception.shapes.surfaces import (
    FIT_POINTS,
    MIN_SIZE_M,
    Array,
    ShapeFit,
    hull_planes,
    signed_distance,
    surface_distance,
)

_SOFT_M = 0.004
"""Distance [m] at which the soft-L1 cost turns from square to linear: the depth noise at 1.6 m. Larger gives points of
a handle more influence."""
_SHRINK = 0.0015
"""Weight of a solid's sizes in the cost of a point: a size of 1 m costs as much as a distance of 1.5 mm. Larger makes
unseen sides nearer."""
_MAX_PARAMETERS_STEP_M = 0.05
"""Change of a parameter [m, rad] in one iteration at most. Larger diverges more often."""
_RING_SIDES = 16
"""Sides of the rings of a solid of revolution's hull. Larger is rounder and slower."""
_PART_BEYOND_M = 0.008
"""Distance [m] beyond the wall from which points are of a handle. Larger misses thin handles."""
_UNLIKELY_M = 0.0012
"""Residual [m] added to solids of the kind that the object's class makes unlikely. Larger trusts the class more."""
_GOOD_BOX_M = 0.0008
"""Residual [m] of the best solid up to which a box has no second start. Larger keeps wrong yaws, smaller takes time."""
_BEYOND_POINTS_M = 0.003
"""Distance [m] that a box's sides may lie beyond its points: that of two pixels at 1 m."""
_NO_FAMILY_M = 0.0018
"""Residual [m] of the best solid from which the completed hull is tried. Larger is faster."""
_HULL_FACTOR, _HULL_HANDICAP_M = 1.2, 0.0006
"""Factor of the completed hull's residual, and what is added to it [m]. Larger keeps boxes for wedges and pyramids."""
_INTRUSION = 1.0
"""Residual [m] for each meter of mean depth to which rays go through a solid. Larger trusts masks more."""
_AGAIN = 5
"""Steps of that fit, which starts from the solid that fits the points. More follow long unseen sides farther."""
_YAWS, _EDGE_M = 30, 0.002
"""Turns of a rectangle that are tried within 90 degrees, and the distance [m] below which all points of an edge count
the same: depth noise. Larger blurs the edge."""


def _solve(
    model: Solid, points: Array, start: Array, free: FreeSpace | None = None, iterations: int = 12
) -> tuple[Array, Array]:
    """Levenberg-Marquardt on soft-L1 distances; returns the parameters and the distances (P,).

    Where the solid reaches into free space, the deepest points of the rays in it are to come near its surface.
    """
    x = np.array(start, dtype=np.float64)
    sizes = list(model.sizes)
    x[sizes] = np.maximum(x[sizes], MIN_SIZE_M)
    damping = 1e-3
    shrink = _SHRINK**2 * len(points)

    def distances(values: Array) -> tuple[Array, Array, Array, Array, float]:
        position, rotation, extents = model.build(values)
        relative = points - position
        if free is not None:
            relative = np.concatenate([relative, free.intruders(model.shape, extents, position, rotation) - position])
        distance, local = signed_distance(model.shape, extents, relative @ rotation)
        distance[len(points) :] += ALLOWED_M
        cost = float(2.0 * _SOFT_M**2 * (np.sqrt(1.0 + np.square(distance / _SOFT_M)) - 1.0).sum())
        cost += shrink * float(values[sizes] @ values[sizes])
        return distance, relative, local @ rotation.T, local, cost

    count = len(points)
    distance, relative, world, local, cost = distances(x)
    for _ in range(iterations):
        jacobian = model.jacobian(x, relative, world, local)
        weights = 1.0 / np.sqrt(1.0 + np.square(distance / _SOFT_M))
        weighted = jacobian * weights[:, None]
        normal = weighted.T @ jacobian
        gradient = weighted.T @ distance
        normal[sizes, sizes] += shrink
        gradient[sizes] += shrink * x[sizes]
        diagonal = normal.reshape(-1)[:: len(x) + 1]
        diagonal *= 1.0 + damping
        diagonal += 1e-6
        step = -np.linalg.solve(normal, gradient)
        np.minimum(np.maximum(step, -_MAX_PARAMETERS_STEP_M, out=step), _MAX_PARAMETERS_STEP_M, out=step)
        tried = x + step
        tried[sizes] = np.maximum(tried[sizes], MIN_SIZE_M)
        result = distances(tried)
        if result[-1] < cost:
            gain, x = cost - result[-1], tried
            distance, relative, world, local, cost = result
            damping = max(damping * 0.2, 1e-6)
            if gain < 1e-4 * cost or np.abs(step).max() < 5e-5:
                break
        else:
            damping *= 10.0
            if damping > 1e3:
                break
    return x, distance[:count]


def _score(distance: Array) -> float:
    """Mean misfit [m] of a solid at signed distances (P,) [m] of its points.

    The mean responds to what the median ignores: a cylinder that fits a box except at its corners. Points inside the
    solid (a bottle's neck, the bottom of a bowl) count less than points outside (a handle).
    """
    inside, outside = np.maximum(-distance, 0.0), np.maximum(distance, 0.0)
    middling = float(np.median(inside + outside))
    return 0.6 * middling + 0.4 * float(np.minimum(inside, 0.008).mean() + np.minimum(outside, 0.03).mean())


def fit_revolution(points: Array, base: float, top: float, center: Array) -> tuple[ShapeFit, Array] | None:
    """The upright solid of revolution that best explains the points: bottles, bowls, mugs with their handles.

    Args:
        points: (P, 3) world [m]. base, top: heights that it stands between [m].
        center: (2,) where the axis is guessed to be.

    Returns:
        The solid (``Shape.CONVEX``) and the points' distances (P,) to its surface; None where the points do not
        determine one.
    """
    found = profile_of(points, base, top, center)
    if found is None:
        return None
    height = top - base
    ring, wall, profile = found.ring, found.wall, found.profile
    profile = np.maximum(profile, [0.5 * MIN_SIZE_M, -np.inf])
    # Only the outline of the profile matters for a hull; at most a few rings of it.
    mirrored = np.concatenate([profile, profile * [-1.0, 1.0]])
    kept = np.unique(ConvexHull(mirrored).vertices % len(profile))
    profile = profile[kept]
    turn = 2.0 * np.pi * np.arange(_RING_SIDES) / _RING_SIDES
    # The sides of the polygon are outside at its corners and inside between them.
    rings = profile[:, None, 0] / np.sqrt(np.cos(np.pi / _RING_SIDES))
    levels = np.broadcast_to(profile[:, None, 1], (len(profile), _RING_SIDES))
    hull = np.stack([rings * np.cos(turn), rings * np.sin(turn), levels], axis=-1).reshape(-1, 3)
    order = np.argsort(profile[:, 1])
    surface = np.interp(points[:, 2], profile[order, 1], profile[order, 0])
    distance = ring - surface
    under_top = np.abs(points[:, 2] - top)
    distance = np.where(under_top < 0.006, np.minimum(distance, under_top), distance)
    rotation = np.eye(3)
    beyond = (ring - wall > _PART_BEYOND_M) & (ring - wall < 0.08)
    if beyond.sum() >= max(5, 0.02 * len(points)):
        part = points[beyond, :2] - found.center
        direction = part.mean(axis=0)
        concentration = np.linalg.norm((part / np.linalg.norm(part, axis=1)[:, None]).mean(axis=0))
        # A handle sticks out to one side, over a fair part of the height, and is joined to the wall.
        if concentration > 0.95 and np.ptp(points[beyond, 2]) > 0.25 * height:
            # A handle: the object's x axis points to it, and the hull takes it in.
            rotation = yaw_matrix(float(np.arctan2(direction[1], direction[0])))
            extra = np.column_stack([part, points[beyond, 2]])
            hull = np.concatenate([hull, extra])
            distance = np.where(beyond, 0.0, distance)
    local = hull @ rotation
    low, high = local.min(axis=0), local.max(axis=0)
    middle = 0.5 * (low + high)
    position = rotation @ middle + np.array([*found.center, 0.0])
    try:
        vertices = local[ConvexHull(local).vertices] - middle
    except QhullError:
        return None
    fit = ShapeFit(
        Shape.CONVEX,
        position,
        Rotation.from_matrix(rotation).as_quat(),
        np.maximum(high - low, MIN_SIZE_M),
        0.0,
        hull=vertices,
    )
    # Points inside are no misfit: bowls and mugs are open at the top.
    return fit, np.where(distance < -0.006, 0.5 * np.minimum(-distance, 0.006), distance)


def fit_shape(
    points: Array,
    bottom: float | None,
    *,
    seed: int = 0,
    likely: str = "",
    eye: Array | None = None,
    free: FreeSpace | None = None,
) -> ShapeFit:
    """The solid that best explains the visible points of one object.

    Box, sphere, upright and lying cylinder, lying capsule and upright solid of revolution are fitted to the
    signed distances of the points (soft L1, 4 mm), with a small cost of size for what is not visible; the smallest
    residual wins, the simpler solid where residuals are equal to 0.3 mm, and a convex hull where none fits. Objects are
    assumed to stand upright or lie flat; the tracker aligns those that are tilted.

    Args:
        points: (P, 3) world coordinates, z up [m]; at least 8.
        bottom: height of what it stands on [m]; None: unknown, then the lowest points.
        likely: "round" or "box" by its class (plates, bottles; boxes), which decides between solids that explain the
            points almost equally well; "": not known.
        eye: (3,) camera position [m], by which the hidden side of solids of no family is completed; None: it is not.
        free: what is seen past the object, where the solid must not be; None: not known.
        seed: of the choice of points where there are more than ``FIT_POINTS``.

    Raises:
        ValueError: fewer than 8 points.
    """
    if len(points) < 8:
        raise ValueError(f"shape fit: got {len(points)} points, expected at least 8")
    every = _without_stragglers(np.asarray(points, dtype=np.float64), seed)
    p = every
    if len(p) > FIT_POINTS:
        p = p[np.random.default_rng(seed).choice(len(p), FIT_POINTS, replace=False)]
    low, high = np.percentile(every[:, 2], [1.0, 98.0])
    base = float(low) if bottom is None else float(min(bottom, high - MIN_SIZE_M))
    height = max(float(high - base), MIN_SIZE_M)
    (cx, cy), (lx, ly), angle = cv2.minAreaRect(np.ascontiguousarray(p[:, :2], dtype=np.float32))
    yaw = float(np.radians(angle))
    width, narrow = max(lx, ly, MIN_SIZE_M), max(min(lx, ly), MIN_SIZE_M)
    scale = max(width, height)
    along = yaw if lx >= ly else yaw + 0.5 * np.pi
    candidates: list[tuple[float, ShapeFit]] = []

    tried: list[tuple[float, float, Solid, Array, Array]] = []

    def attempt(model: Solid, start: list[float], handicap: float) -> None:
        x, distance = _solve(model, p, np.array(start))
        handicap += _UNLIKELY_M if likely == "box" and model.shape != Shape.BOX else 0.0
        tried.append((_score(distance) + handicap, handicap, model, x, distance))

    def consider() -> None:
        """The attempts, best first, while they fit better than what is found: free space only adds to a misfit."""
        for bound, handicap, model, x, distance in sorted(tried, key=lambda a: a[0]):
            if bound < min((c[0] for c in candidates), default=np.inf):
                refine(model, x, distance, handicap)
        tried.clear()

    def refine(model: Solid, x: Array, distance: Array, handicap: float) -> None:
        position, rotation, extents = model.build(x)
        intrudes = free is not None and len(free.intruders(model.shape, extents, position, rotation)) > 0
        if intrudes:
            x, distance = _solve(model, p, x, free, _AGAIN)
            position, rotation, extents = model.build(x)
        if model.shape == Shape.BOX:
            position, extents, distance = _within(p, every, position, rotation, extents, distance)
        tall = float(np.abs(rotation[2]) @ extents) if model.shape != Shape.SPHERE else float(extents[2])
        # The points show the height, and bound the width: a solid must not extend far beyond them.
        if not np.isfinite(x).all() or abs(tall - height) > 0.2 * height + 0.008:
            return
        if extents.max() > (2.0 if likely == "round" else 1.6) * scale:
            return
        score = _score(distance)
        handicap += _intrusion(free, model.shape, extents, position, rotation) if intrudes else 0.0
        quaternion = Rotation.from_matrix(rotation).as_quat()
        candidates.append((score + handicap, ShapeFit(model.shape, position, quaternion, extents, score)))

    # A ball has one size, a box three: where both explain the points equally well, the simpler one is chosen.
    boxy = 0.0003 + (_UNLIKELY_M if likely == "round" else 0.0)
    attempt(UprightBox(base), [cx, cy, along, width, narrow, height], boxy)
    if narrow > 0.3 * width:
        attempt(UprightCylinder(base), [cx, cy, width, height], 0.0003)
    if width > 1.15 * height and height < 2.0 * narrow:
        attempt(LyingCylinder(base), [cx, cy, along, height, width], 0.0003)
        attempt(LyingCapsule(base), [cx, cy, along, height, width], 0.0006)
    if 0.5 < height / width < 1.8:
        attempt(Ball(base), [cx, cy, base + 0.5 * height, height], 0.0)
    consider()
    if not candidates or min(c[1].residual_m for c in candidates) > _GOOD_BOX_M:
        # A few points beside the object turn the smallest rectangle, and the fit ends in a corner.
        attempt(UprightBox(base), [*_edges_start(p[:, :2]), height], boxy)
        consider()
    simple = min(candidates, key=lambda c: c[0]) if candidates else None
    if simple is None or simple[1].residual_m > 0.0006:
        turned = fit_revolution(every, base, float(high), np.array([cx, cy]))
        if turned is not None:
            score = _score(turned[1])
            # It has the most parameters: it must fit better than the others by a tenth.
            unlikely = _UNLIKELY_M if likely == "box" else 0.0
            unlikely += _intrusion_of(free, turned[0])
            candidates.append((1.1 * score + 0.0003 + unlikely, replace(turned[0], residual_m=score)))
    if not candidates or min(c[1].residual_m for c in candidates) > _NO_FAMILY_M:
        completed = completed_hull(every, base, eye)
        if completed.shape == Shape.CONVEX:
            distance = surface_distance(
                Shape.CONVEX,
                completed.extents,
                (p - completed.position) @ rotations.matrix(completed.quaternion),
                hull_planes(completed.hull),
            )
            completed = replace(completed, residual_m=_score(distance))
            unlikely = (_UNLIKELY_M if likely else 0.0) + _intrusion_of(free, completed)
            candidates.append((_HULL_FACTOR * completed.residual_m + _HULL_HANDICAP_M + unlikely, completed))
    if not candidates:
        return completed_hull(every, base, eye)
    best = min(candidates, key=lambda c: c[0])[1]
    if best.residual_m <= max(0.007, 0.06 * scale):
        return _canonical(best)
    return replace(completed_hull(every, base, eye), residual_m=best.residual_m)


def _intrusion(
    free: FreeSpace | None, shape: int, extents: Array, position: Array, rotation: Array, planes: Array | None = None
) -> float:
    """What is added to the residual [m] of a solid that reaches into free space."""
    if free is None:
        return 0.0
    return _INTRUSION * free.intrusion_m(shape, extents, position, rotation, planes)


def _intrusion_of(free: FreeSpace | None, fit: ShapeFit) -> float:
    """The same of a hull."""
    planes = hull_planes(fit.hull) if fit.shape == Shape.CONVEX else None
    return _intrusion(free, fit.shape, fit.extents, fit.position, rotations.matrix(fit.quaternion), planes)


def _within(
    points: Array, every: Array, position: Array, rotation: Array, extents: Array, distance: Array
) -> tuple[Array, Array, Array]:
    """Position, extents and distances (P,) of a box without what lies sideways beyond ``every`` one of its points.

    Points of the top are well inside a box that is too deep, and nothing pulls its far side toward them.
    """
    half = 0.5 * extents
    low, high = np.percentile((every - position) @ rotation, [0.3, 99.7], axis=0)
    low, high = np.maximum(low - _BEYOND_POINTS_M, -half), np.minimum(high + _BEYOND_POINTS_M, half)
    low[2], high[2] = -half[2], half[2]
    if (high - low < MIN_SIZE_M).any() or (low + half + half - high).max() < 1e-6:
        return position, extents, distance
    middle = 0.5 * (low + high)
    sizes = high - low
    position = position + rotation @ middle
    return position, sizes, surface_distance(Shape.BOX, sizes, (points - position) @ rotation)


def _edges_start(xy: Array) -> list[float]:
    """x, y, yaw, length, width of the rectangle along whose edges most points (P, 2) lie.

    The walls that a camera sees are two edges of the footprint; points of the top count little. The yaw has the largest
    sum of 1 / (distance to the nearest edge), after Zhang, Xu, Dong, Dolan, Efficient L-Shape Fitting for Vehicle
    Detection Using Laser Scanners, IEEE Intelligent Vehicles Symposium 2017.
    """
    yaws = np.arange(_YAWS) * 0.5 * np.pi / _YAWS
    axes = np.stack([np.cos(yaws), np.sin(yaws), -np.sin(yaws), np.cos(yaws)], axis=1).reshape(-1, 2, 2)
    along = axes @ xy.T
    low, high = np.percentile(along, [2.0, 98.0], axis=2)
    nearest = np.minimum(np.abs(along - low[..., None]), np.abs(high[..., None] - along)).min(axis=1)
    best = int((1.0 / np.maximum(nearest, _EDGE_M)).sum(axis=1).argmax())
    middle, sizes = 0.5 * (low[best] + high[best]), high[best] - low[best]
    x, y = middle @ axes[best]
    return [float(x), float(y), float(yaws[best]), float(sizes[0]), float(sizes[1])]


_STRAGGLER_GAPS = 3.0
"""Gap to the fourth neighbor, in medians, from which a point is isolated, or a group of points is apart. Larger keeps
more of what is between two surfaces; smaller takes sparse surfaces apart."""
_LEAST_GROUP = 0.05
"""Part of the points from which a group that is apart is of the object, whose middle something hides. Larger drops ends
of objects; smaller keeps pieces of the background."""


def _without_stragglers(points: Array, seed: int) -> Array:
    """At most three times ``FIT_POINTS`` of points (P, 3), without isolated ones and small groups apart."""
    p = points
    if len(p) > 3 * FIT_POINTS:
        p = p[np.random.default_rng(seed).choice(len(p), 3 * FIT_POINTS, replace=False)]
    if len(p) < 40:
        return p
    gaps = cKDTree(p).query(p, k=5)[0][:, -1]
    near = _STRAGGLER_GAPS * float(np.median(gaps))
    kept = p[gaps < near]
    if len(kept) < 0.6 * len(p):
        return p
    # Neighboring pixels of the background, which a mask takes in beside an edge, are not isolated: they are few.
    pairs = cKDTree(kept).query_pairs(near, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(kept), len(kept)))
    _, group = connected_components(links, directed=False)
    return kept[np.bincount(group)[group] >= _LEAST_GROUP * len(kept)]


def _canonical(fit: ShapeFit) -> ShapeFit:
    """Boxes with yaw in -45..45 degrees, so that fits of one object can be compared."""
    if fit.shape != Shape.BOX:
        return fit
    yaw = 2.0 * np.arctan2(fit.quaternion[2], fit.quaternion[3])
    turns = int(np.round(yaw / (0.5 * np.pi)))
    rest = yaw - turns * 0.5 * np.pi
    extents = fit.extents[[1, 0, 2]] if turns % 2 else fit.extents
    quaternion = np.array([0.0, 0.0, np.sin(0.5 * rest), np.cos(0.5 * rest)])
    return replace(fit, quaternion=quaternion, extents=extents)
