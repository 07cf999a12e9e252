"""Hollow bodies found in points: mugs, bowls, pans, baskets, trays, open boxes, seen from the side or from above.

What is seen of a body that is open at the top: the outside of its near wall, its rim all around, and through the
opening the inside of its far wall and the floor. A ray that goes through the opening and ends deeper than the rim has
seen the inside; one that ends at the rim's height has seen a lid. So the geometry decides wherever the camera looks
into the opening, and the class only where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_perception.shapes.footprint import body_mask, rasterize
from wm_perception.shapes.handles import Handle, find_handle
from wm_perception.shapes.revolution import circle_through, profile_of
from wm_perception.shapes.rim import Rim
from wm_perception.shapes.surfaces import Array

HOLLOW_CLASSES = frozenset(
    ("mug", "cup", "bowl", "basket", "pan", "pot", "tray", "bin", "bucket", "glass", "vase", "container", "open box")
)
"""Classes whose bodies are taken to be open at the top where the camera does not look in."""
_CLASS_SURE = 0.6
"""Probability of these classes together from which that is so. Larger: fewer hollow bodies, and fewer false ones."""
_LEVEL = 0.12
"""Tangent of the camera's elevation over the rim below which it does not look in: 7 degrees."""
_LEAST_HEIGHT_M, _LEAST_RADIUS_M = 0.012, 0.02
"""Least height, and half the least width of the opening [m]. Smaller bodies are solid in every respect that matters."""
_LEAST_SIGMAS = 7.0
"""Least height in standard deviations of a point: a plate far away is flat or hollow by chance."""
_DROP_M, _SHALLOW = 0.006, 0.3
"""Depth of an inside [m], and as a part of the height, if that is more; a ray must end at half of it, or at half of
what its slope allows, to have seen the inside. Larger misses flat plates, smaller takes noise on a lid for an opening.
"""
_OPEN_SHARE = 0.6
"""Part of the rays through the opening that must end inside. Larger loses bodies with something in them."""
_LEAST_INSIDE = 12
"""Points inside that are enough."""
_RIM_SECTORS, _RIM_SEEN = 12, 0.7
"""Sectors around the rim, and the part of them in which it must be seen. Larger loses rims that something hides,
smaller takes the two ends of a dumbbell for a rim."""
_WALL_PART, _WALL_M = 0.06, (0.004, 0.006)
"""Thickness of the wall as a part of the opening's half width, and its limits [m]: ceramic and plastic things have 3 to
6 mm. Larger leaves less room inside; walls under 4 mm let fast objects pass through in a physics step."""
_FLOOR_PART, _FLOOR_M = 0.06, (0.004, 0.01)
"""Thickness of a floor that is not seen, as a part of the height, and its limits [m]."""
_FOOT = 0.6
"""Radius of a foot that is not seen over that of the rim, where the wall is not seen to go straight down: of bowls."""
_MISFIT_M, _MISFIT_PART = 0.003, 0.12
"""Mean distance [m] of points to the outside up to which a body is one, beside noise and 0.03 of its half width; of
flat bodies this part of the height and 1 mm, where that is less."""
_ON_WALL_M, _ON_WALL = 0.004, 0.8
"""Part of the points that must lie this near [m] to the outside of a body that is hollow by its class."""
LEVELS = 7
"""Heights at which the outer profile is measured. Larger follows curved walls more closely."""


class Verdict(Enum):
    """What the points say: hollow, solid (a lid or a top face closes it), or not seen."""

    HOLLOW = "hollow"
    SOLID = "solid"
    UNSEEN = "unseen"


@dataclass(frozen=True)
class Hollow:
    """A body that is open at the top, in a frame with z up.

    Attributes:
        rim: its outer edge at the height ``top`` [m]; base: height of its lowest point [m].
        outer: (K, 2) factor of the rim and height [m] of the outer surface from base to top, heights ascending.
        floor: height of the inner floor [m]; floor_factor: factor of the rim at the floor's edge.
        wall: thickness of the wall at the rim [m].
        handle: what sticks out, None: nothing.
        seen: 0..1, part of the rim's sectors behind which the inside was seen; 0: hollow by its class alone.
        residual_m: mean distance of the body's points to the surfaces [m].
    """

    rim: Rim
    base: float
    top: float
    outer: Array
    floor: float
    floor_factor: float
    wall: float
    handle: Handle | None
    seen: float
    residual_m: float = 0.0


def hollow_probability(vocabulary: tuple[str, ...], probabilities: Array) -> float:
    """Probability 0..1 of the classes whose bodies are open; 0 where classes are not estimated."""
    if len(probabilities) != len(vocabulary):
        return 0.0
    return float(sum(p for name, p in zip(vocabulary, probabilities, strict=True) if name in HOLLOW_CLASSES))


def find_hollow(
    points: Array, eye: Array, base: float, likely: float, noise_m: float = 0.002
) -> tuple[Verdict, Hollow | None]:
    """The hollow body that points are of, if they are of one.

    Args:
        points: (P, 3) of one object in a frame with z along the axis of the opening [m].
        eye: (3,) camera position in that frame [m].
        base: height of what it stands on [m].
        likely: probability that its class is one of bodies that are open, see ``hollow_probability``.
        noise_m: standard deviation of a point along its ray [m].

    Returns:
        What was seen, and the body. Where the inside was not seen the body is by class, and None if that is not sure.
    """
    if len(points) < 30:
        return Verdict.UNSEEN, None
    body, center, inscribed = body_mask(rasterize(points[:, :2]), points[:, :2])
    top = float(np.percentile(points[body, 2], 98.5)) if body.any() else base
    verdict, hollow = _opening(points, body, center, inscribed, eye, base, top, noise_m)
    if hollow is None and not body.all():
        # Of a deep body the floor is not seen, and from above the far wall is apart from the near one.
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        wide = 0.5 * float((high - low).min())
        every = np.ones(len(points), bool)
        again, whole = _opening(points, every, 0.5 * (low + high), wide, eye, base, top, noise_m)
        verdict, hollow = (again, whole) if whole is not None else (verdict, None)
    if verdict is not Verdict.UNSEEN:
        return (Verdict.UNSEEN if verdict is Verdict.HOLLOW and hollow is None else verdict), hollow
    hollow = _by_class(points, base) if likely >= _CLASS_SURE else None
    return Verdict.UNSEEN, hollow if _fits(hollow, noise_m) else None


def _opening(
    points: Array,
    body: NDArray[np.bool_],
    center: Array,
    inscribed: float,
    eye: Array,
    base: float,
    top: float,
    noise_m: float,
) -> tuple[Verdict, Hollow | None]:
    """What is seen of an opening at the height ``top`` [m] of the points (P, 3) that are of the body, (P,) bool.

    Args:
        center, inscribed: of the largest circle within their outline from above, (2,) and radius [m].

    Returns:
        What was seen, and the body; None where none is seen that explains the points.
    """
    p = points[body]
    height = top - base
    if len(p) < 30 or height < max(_LEAST_HEIGHT_M, _LEAST_SIGMAS * noise_m):
        return Verdict.UNSEEN, None
    if eye[2] - top < _LEVEL * float(np.linalg.norm(eye[:2] - center)):
        return Verdict.UNSEEN, None
    rim = _rim_of(p, eye, top, height, noise_m, center, inscribed)
    # Where the camera looks down on it, only a dark inside, without depth, leaves it to the class; and a rim of which
    # something in the opening, or before it, hides a part.
    seen = _looked_into(p, eye, rim, top, height, noise_m) if rim is not None else Verdict.UNSEEN
    if rim is None or seen is not Verdict.HOLLOW:
        return seen, None
    hollow = _from_above(p, points, body, eye, rim, base, top, noise_m)
    return Verdict.HOLLOW, hollow if _fits(hollow, noise_m) else None


def _fits(hollow: Hollow | None, noise_m: float) -> bool:
    """Whether a body's outside explains its points."""
    if hollow is None:
        return False
    wide, tall = 0.03 * float(hollow.rim.half.min()), _MISFIT_PART * (hollow.top - hollow.base)
    return hollow.residual_m < min(_MISFIT_M + noise_m + wide, 0.001 + tall)


def _rim_of(
    p: Array, eye: Array, top: float, height: float, noise_m: float, center: Array, inscribed: float
) -> Rim | None:
    """The rim of a body's points: circle, ellipse or rectangle, whichever the points near the top fit best."""
    band = p[p[:, 2] > top - max(0.006, 0.1 * height, 2.0 * noise_m)][:, :2]
    if len(band) < 15:
        return None
    wall = float(np.clip(_WALL_PART * inscribed, *_WALL_M))
    middle, radius = circle_through(band, center)
    # The far wall is seen from its inside: its outside is a wall's thickness farther.
    outward = band - middle
    ring = np.maximum(np.linalg.norm(outward, axis=1), 1e-6)
    far = (np.einsum("pi,pi->p", outward, band - eye[:2]) > 0.0) & (np.abs(ring - radius) < 0.5 * radius)
    pushed = band + np.where(far, wall / ring, 0.0)[:, None] * outward
    middle, radius = circle_through(pushed, middle)
    (cx, cy), _, angle = cv2.minAreaRect(np.ascontiguousarray(band, dtype=np.float32))
    yaw = float(np.radians(angle))
    upright = Rim(np.array([cx, cy]), np.ones(2), yaw, False)
    low, high = np.percentile(upright.local(band), [1.0, 99.0], axis=0)
    around = upright.world(0.5 * (low + high)[None])[0]
    half = np.maximum(0.5 * (high - low), 1e-3)
    candidates = [
        (0.75, Rim(middle, np.full(2, radius), 0.0, True), pushed),
        (1.0, Rim(around, half, yaw, False), band),
        (1.0, Rim(around, half, yaw, True), band),
    ]
    best: tuple[float, Rim] | None = None
    for handicap, rim, near_rim in candidates:
        if rim.half.min() < _LEAST_RADIUS_M or rim.half.max() > 3.0 * inscribed + 0.02:
            continue
        near = np.abs(rim.gauge(near_rim) - 1.0) * float(rim.half.min())
        local = rim.local(near_rim)[near < 0.012] / rim.half
        sectors = np.mod(np.arctan2(local[:, 1], local[:, 0]) / (2.0 * np.pi) * _RIM_SECTORS, _RIM_SECTORS)
        if len(np.unique(sectors.astype(np.int64))) < _RIM_SEEN * _RIM_SECTORS:
            continue
        misfit = handicap * float(np.minimum(near, 0.012).mean())
        if best is None or misfit < best[0]:
            best = misfit, rim
    return best[1] if best is not None and best[0] < 0.006 + noise_m else None


def _crossings(p: Array, eye: Array, top: float) -> Array:
    """(P, 2) where the rays to points (P, 3) go through the plane of the rim; of points over it themselves."""
    along = (eye[2] - top) / np.maximum(eye[2] - np.minimum(p[:, 2], top), 1e-6)
    return np.asarray(eye[:2] + (p[:, :2] - eye[:2]) * along[:, None])


def _looked_into(p: Array, eye: Array, rim: Rim, top: float, height: float, noise_m: float) -> Verdict:
    """Whether rays through the opening end inside the body, or on a lid.

    A ray that enters at a distance d from the far wall ends d times its slope under the rim, or on the floor.
    """
    crossing = _crossings(p, eye, top)
    level = crossing - eye[:2]
    run = np.linalg.norm(level, axis=1)
    slope = (eye[2] - top) / np.maximum(run, 1e-6)
    room = rim.exit(crossing, level / np.maximum(run, 1e-6)[:, None]) * slope
    expected = np.minimum(room, max(_SHALLOW * height, _DROP_M))
    # Where little depth is to be expected, noise decides.
    telling = (rim.gauge(crossing) < 0.9) & (expected >= min(_DROP_M, 0.4 * height))
    if telling.sum() < _LEAST_INSIDE:
        return Verdict.UNSEEN
    deep = float((top - p[telling, 2] > 0.5 * expected[telling]).mean())
    if deep >= _OPEN_SHARE:
        return Verdict.HOLLOW
    return Verdict.SOLID if deep < 1.0 - _OPEN_SHARE else Verdict.UNSEEN


def _from_above(
    p: Array,
    every: Array,
    body: NDArray[np.bool_],
    eye: Array,
    rim: Rim,
    base: float,
    top: float,
    noise_m: float,
) -> Hollow | None:
    """The body whose inside is seen; ``p`` are its points, ``every`` those with the handle."""
    height, half = top - base, float(rim.half.min())
    crossing = rim.gauge(_crossings(p, eye, top))
    margin = (0.5 * _WALL_M[0] + noise_m) / half
    deep = p[:, 2] < top - max(0.5 * _DROP_M, min(0.1 * height, 3.0 * noise_m))
    inside = (crossing < 1.0 - margin) & deep
    outside = (crossing > 1.0 + margin) | ~deep
    wall = float(np.clip(_WALL_PART * half, *_WALL_M))
    inner = np.column_stack([np.minimum(rim.gauge(p[inside][:, :2]), 1.0), p[inside][:, 2]])
    if len(inner) < _LEAST_INSIDE:
        return None
    floor, factor = _inner_profile(inner, base, top, half, wall, noise_m)
    outer = _outer_profile(p[outside], eye, rim, base, top, inner, wall, (floor, factor))
    factor = min(factor, max(float(np.interp(floor, outer[:, 1], outer[:, 0])) - wall / half, 0.1))
    local = rim.local(p[inside][:, :2]) / rim.half
    sectors = np.mod(np.arctan2(local[:, 1], local[:, 0]) / (2.0 * np.pi) * _RIM_SECTORS, _RIM_SECTORS)
    handle = find_handle(every[~body], rim, outer, base, top)
    residual = _misfit(rim.gauge(p[outside][:, :2]), p[outside][:, 2], outer, top, half)
    seen = len(np.unique(sectors.astype(np.int64))) / _RIM_SECTORS
    return Hollow(rim, base, top, outer, floor, factor, wall, handle, seen, residual)


def _inner_profile(
    inner: Array, base: float, top: float, half: float, wall: float, noise_m: float
) -> tuple[float, float]:
    """Height [m] of the inner floor and the factor of the rim at its edge.

    From points inside (Q, 2) by the rim's factor and height.
    The wall's inside is taken to be straight from the rim to the floor's edge; the edge is where this fits best.
    """
    height = top - base
    prior = base + float(np.clip(_FLOOR_PART * height, *_FLOOR_M))
    lowest = float(np.percentile(inner[:, 1], 4.0))
    middle = inner[inner[:, 0] < 0.6]
    if len(middle) >= 8 and np.percentile(middle[:, 1], 20.0) < lowest + 0.25 * height:
        floor = float(np.percentile(middle[:, 1], 20.0))
    else:
        # Only walls are seen: the floor lies deeper than they are.
        floor = min(prior, lowest)
    floor = float(np.clip(floor, base + 0.003, top - 0.5 * _DROP_M))
    edge = 1.0 - wall / half
    # Distances [m] to the floor's segment and to the wall's, for every edge that is tried.
    factors = np.linspace(0.25, edge, 16)
    x, z = inner[:, :1] * half, inner[:, 1:]
    to_floor = np.hypot(np.maximum(x - factors * half, 0.0), z - floor)
    run, rise = (edge - factors) * half, top - floor
    along = np.clip(((x - factors * half) * run + (z - floor) * rise) / (run**2 + rise**2), 0.0, 1.0)
    to_wall = np.hypot(x - factors * half - along * run, z - floor - along * rise)
    cost = np.minimum(np.minimum(to_floor, to_wall), 0.01 + noise_m).mean(axis=0)
    # Where only the upper wall is seen many edges fit: the widest of them.
    return floor, float(factors[np.flatnonzero(cost < 1.05 * cost.min() + 0.0002)[-1]])


def _outer_profile(
    outside: Array, eye: Array, rim: Rim, base: float, top: float, inner: Array, wall: float, floor: tuple[float, float]
) -> Array:
    """(K, 2) factor and height [m] of the outer surface; where it is not seen it hides behind the rim."""
    half = float(rim.half.min())
    levels = np.linspace(base, top, LEVELS)
    factors = np.full(LEVELS, np.nan)
    gauge = rim.gauge(outside[:, :2])
    # The wall that the camera faces: beside it, points of the rim and of the far side are few and vague.
    step = 0.5 * (levels[1] - levels[0])
    for k in range(LEVELS - 1):
        near = np.abs(outside[:, 2] - levels[k]) < step
        if near.sum() >= 6:
            factors[k] = np.quantile(gauge[near], 0.7)
    factors[-1] = 1.0
    # What is hidden is within the ray over the near rim, and outside the inner surface.
    slope = (eye[2] - top) / max(float(np.linalg.norm(eye[:2] - rim.center)) - half, 1e-3)
    bound = 1.0 - (top - levels) / (max(slope, 1e-3) * half)
    least = np.interp(levels, [floor[0], top], [floor[1], 1.0 - wall / half]) + wall / half
    # Beneath what was seen of the inside, what was seen of the outside says more of it.
    least[np.isfinite(factors) & (levels < inner[:, 1].min())] = 0.0
    known = np.flatnonzero(np.isfinite(factors))
    lowest = int(known[0])
    if lowest == 1:
        # Points on the support are not the object's.
        factors[0] = factors[1] + np.clip(factors[1] - factors[min(2, LEVELS - 1)], -0.15, 0.0)
    elif lowest > 1:
        down = factors[lowest] if factors[lowest] > 0.95 and slope < 1.0 else min(factors[lowest], _FOOT)
        hidden = np.interp(levels[:lowest], [base, levels[lowest]], [down, factors[lowest]])
        factors[:lowest] = np.minimum(hidden, np.maximum(bound[:lowest], 0.0))
    gaps = ~np.isfinite(factors)
    factors[gaps] = np.interp(levels[gaps], levels[~gaps], factors[~gaps])
    return np.column_stack([np.clip(np.maximum(factors, least), 0.1, 1.25), levels])


def _misfit(gauge: Array, z: Array, outer: Array, top: float, half: float) -> float:
    """Mean distance [m] of points outside to the outer surface, or to the rim's plane."""
    if not len(gauge):
        return 0.0
    aside = np.abs(gauge - np.interp(z, outer[:, 1], outer[:, 0])) * half
    return float(np.minimum(aside, np.abs(z - top) + 0.002).mean())


def _by_class(points: Array, base: float) -> Hollow | None:
    """An upright hollow body of revolution by its outside alone; None where the points fix no axis."""
    top = float(np.percentile(points[:, 2], 98.5))
    middle = 0.5 * (np.percentile(points[:, :2], 2.0, axis=0) + np.percentile(points[:, :2], 98.0, axis=0))
    found = profile_of(points, base, top, middle)
    if found is None:
        return None
    height = top - base
    known = found.profile
    radius = float(known[-1, 0])
    beyond = found.ring > found.wall + 0.006
    # A wall all around, not a lump that is round on the whole.
    on_wall = np.abs(found.ring - found.wall)[~beyond] < _ON_WALL_M
    if radius < _LEAST_RADIUS_M or on_wall.mean() < _ON_WALL:
        return None
    rim = Rim(found.center, np.full(2, radius), 0.0, True)
    levels = np.linspace(base, top, LEVELS)
    outer = np.column_stack([np.clip(np.interp(levels, known[:, 1], known[:, 0]) / radius, 0.1, 1.25), levels])
    wall = float(np.clip(_WALL_PART * radius, *_WALL_M))
    floor = base + float(np.clip(_FLOOR_PART * height, *_FLOOR_M))
    edge = max(float(np.interp(floor, outer[:, 1], outer[:, 0])) - wall / radius, 0.2)
    handle = find_handle(points[beyond], rim, outer, base, top)
    hollow = Hollow(rim, base, top, outer, floor, min(edge, 1.0 - wall / radius), wall, handle, 0.0)
    rest = points[~beyond]
    return replace(hollow, residual_m=_misfit(rim.gauge(rest[:, :2]), rest[:, 2], outer, top, radius))
