"""Contacts of pairs of convex objects: where they are nearest, or how deep they overlap.

The gap along a unit vector n from a to b is what is left between the two supporting planes: -(h_a(n) + h_b(-n)) for
support functions h about a common origin. Its maximum over n is the distance of two convex sets that are apart, and
minus the least depth of two that overlap (along the nearest way out; van den Bergen 2001, Proximity queries and
penetration depth computation on 3D game objects). It is found by evaluating a few directions at once and moving to the
best, a fixed number of times: of four leans about the best so far, the normal of the face of the difference set that
their supporting points span, and the direction to its supporting point (a step of Gilbert's algorithm, Gilbert 1966).
Once the leans are on the face that is nearest, its normal is exact: face on corner, edge across edge, face on face.

Directions (E) are along the axis of the contacts: (3, E, P).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wm_dynamics.contact_step.formulas.mechanics import one_of_three
from wm_dynamics.contact_step.numbers import (
    Mask,
    Matrix,
    Number,
    Vector,
    at_least,
    at_most,
    cross,
    dot,
    farthest,
    greatest,
    join,
    parts,
    sign,
    sqrt,
    stack,
    turn,
    turn_back,
    unit,
    where,
    without_gradient,
)

LEANS = (0.5, 0.2, 0.08)
"""Tangents of the angles by which directions are tilted, from the first round to the last. Larger or fewer ones miss
the best direction; more cost time in every step."""
FAR_M = 0.03
"""Pairs whose gap along the best of the first directions is greater are far apart, and the search ends."""
CONTACT_LEAN = 0.15
"""Tilt of the directions whose supporting points are the contacts: faces within some 8 degrees of parallel touch at
all four."""
SHARP = 1e3
"""Along directions within 1 / SHARP of a face's edge, a box's supporting point moves from one corner to the next."""
TINY = 1e-3
"""The same for the rim of a cylinder, seen along its axis."""
FLAT_M4 = 1e-14
"""Squared area below which supporting points span no face."""
TOUCHING_M2 = 1e-8
"""Squared distance below which supporting points give no direction."""
HULL_TOLERANCE_M = 1e-6
"""Points of a hull that are this close to the farthest support with it."""


class Side(Protocol):
    """One side of pairs, about its center of mass."""

    @property
    def center(self) -> Vector:
        """(3, 1) of the core [m]."""
        ...

    def support(self, directions: Vector) -> Vector:
        """The points (3, E) farthest along directions (3, E), body axes."""
        ...


@dataclass
class Core:
    """A box, or a cylinder about z; with half extents of 0 a segment or a point.

    Attributes:
        center, half: (3, 1) [m]. cylinder: (1,) 0 or 1.
    """

    center: Vector
    half: Vector
    cylinder: Number

    def support(self, directions: Vector) -> Vector:
        """The points farthest along directions."""
        half = self.half
        box = half * at_most(at_least(directions * SHARP, -1.0), 1.0)
        x, y = directions[0], directions[1]
        across = sqrt(x * x + y * y + TINY * TINY)
        rim = stack(half[0] * x / across, half[0] * y / across, box[2])
        return self.center + box + self.cylinder * (rim - box)


@dataclass
class Hull:
    """Points, where there is a hull, else the core.

    Attributes:
        core: what counts where there is none. points: (3, N) [m]. is_hull: (1,).
    """

    core: Core
    points: Vector
    is_hull: Mask

    @property
    def center(self) -> Vector:
        """(3, 1) of the core [m]."""
        return self.core.center

    def support(self, directions: Vector) -> Vector:
        """The points farthest along directions."""
        on_hull = farthest(self.points, directions, HULL_TOLERANCE_M)
        return where(self.is_hull, on_hull, self.core.support(directions))


@dataclass
class Apart:
    """Two convex sides, b's placed in a's axes about a's center of mass.

    Attributes:
        a, b: the sides, each in the axes of its own body.
        turned: (3, 3, 1) from b's axes to a's. offset: (3, 1) b's center of mass [m].
    """

    a: Side
    b: Side
    turned: Matrix
    offset: Vector

    def ends(self, directions: Vector) -> tuple[Vector, Vector]:
        """Supporting points of a along directions and of b against them."""
        on_b = self.b.support(-turn_back(self.turned, directions))
        return self.a.support(directions), turn(self.turned, on_b) + self.offset

    def span(self, directions: Vector) -> Vector:
        """The differences of the supporting points."""
        on_a, on_b = self.ends(directions)
        return on_b - on_a


def tangents(normal: Vector) -> tuple[Vector, Vector]:
    """Two unit vectors across a unit vector, the first as far as can be along an axis."""
    size = abs(normal)
    axis = one_of_three((size[0] <= size[1]) & (size[0] <= size[2]), size[1] <= size[2], size[0])
    one = unit(axis - normal * dot(axis, normal), 1e-9)
    return one, cross(normal, one)


def _first_directions(apart: Apart, between: Vector) -> Vector:
    """Ten directions: to the other's center, the faces of boxes (the axes of both), and the sides of cylinders and
    capsules (across the z axes of both or of either).
    """
    zero = between[0] * 0.0
    axes = [stack(*(zero + float(i == k) for i in range(3))) for k in range(3)]
    columns = parts(apart.turned, 1)
    one, two = axes[2], columns[2]
    sides = join(
        between - one * dot(one, between), between - two * dot(two, between), cross(one, two), axis=1
    )  # fmt: skip
    sides = where(dot(sides, sides) > TOUCHING_M2, unit(sides, 1e-9), one)
    candidates = join(unit(between, 1e-6), *axes, *columns, sides, axis=1)
    return candidates * sign(dot(candidates, between))


def nearest_direction(apart: Apart, rounding: Number) -> Vector:
    """The unit vector (3, 1) from a to b, in a's axes, along which the gap is greatest; ``rounding`` of both [m]."""
    between = apart.offset + turn(apart.turned, apart.b.center) - apart.a.center
    candidates = _first_directions(apart, between)
    spans = apart.span(candidates)
    first, span = greatest(dot(candidates, spans), candidates, spans)
    far = dot(first, span) > FAR_M + rounding
    normal = first
    for lean in LEANS:
        one, two = tangents(normal)
        more, less = 0.7 * (one + two), 0.7 * (one - two)
        sides = join(one, -one, two, -two, more, -more, less, -less, axis=1)
        candidates = unit(normal + lean * sides, 1e-9)
        spans = apart.span(candidates)
        face = cross(spans[:, 0:1] - spans[:, 1:2], spans[:, 2:3] - spans[:, 3:4])
        face = face * sign(dot(face, normal))
        face = where(dot(face, face) > FLAT_M4, unit(face, 1e-12), normal)
        nearest = _nearest_to_origin(span, spans)
        toward = where(dot(nearest, nearest) > TOUCHING_M2, unit(nearest, 1e-9), normal)
        two_more = join(face, toward, axis=1)
        candidates = join(normal, candidates, two_more, axis=1)
        spans = join(span, spans, apart.span(two_more), axis=1)
        normal, span = greatest(dot(candidates, spans), candidates, spans)
    return where(far, first, normal)


def _nearest_to_origin(span: Vector, spans: Vector) -> Vector:
    """Of the segments from (3, 1) to each of (3, E) the point (3, 1) that is nearest to the origin."""
    step = spans - span
    share = -dot(span, step) / at_least(dot(step, step), 1e-12)
    points = span + at_most(at_least(share, 0.0), 1.0) * step
    return greatest(-dot(points, points), points)[0]


def _height(at: Vector, k: int, place: Number) -> Number:
    """Height of a face at a place along tangent k, between those of its two ends there."""
    far, near = at[:, 2 * k : 2 * k + 1], at[:, 2 * k + 1 : 2 * k + 2]
    length = far[k] - near[k]
    share = at_most(at_least((place - near[k]) / at_least(length, 1e-5), 0.0), 1.0)
    return near[2] + where(length > 1e-5, share, 0.5) * (far[2] - near[2])


def contacts_of(apart: Apart, radius_a: Number, radius_b: Number) -> tuple[Number, Vector, Vector]:
    """Four contacts of each pair, in a's axes.

    Returns:
        Gaps (4,) [m], normals (3, 1) from a to b, and the contacts (3, 4) about a's center of mass [m].
    """
    with without_gradient(apart.offset):
        normal = nearest_direction(apart, radius_a + radius_b)
    one, two = tangents(normal)
    sides = join(one, -one, two, -two, axis=1)
    on_a, on_b = apart.ends(normal + CONTACT_LEAN * sides)
    # Directions against those that lean to one side lean to the other.
    on_b = on_b[:, [1, 0, 3, 2]]
    # Where the two opposite faces overlap: their extents along two tangents, the lesser of either; the heights of both
    # there, interpolated between those of their ends.
    at_a, at_b = (stack(dot(one, on), dot(two, on), dot(normal, on)) for on in (on_a, on_b))
    low, high = [], []
    for k in range(2):
        top = at_most(at_a[k, 2 * k : 2 * k + 1], at_b[k, 2 * k : 2 * k + 1])
        bottom = at_least(at_a[k, 2 * k + 1 : 2 * k + 2], at_b[k, 2 * k + 1 : 2 * k + 2])
        middle = 0.5 * (top + bottom)
        low.append(at_most(bottom, middle))
        high.append(at_least(top, middle))
    gaps, contacts = [], []
    for k, row in ((0, 0), (0, 1), (1, 2), (1, 3)):
        upper, other = row % 2 == 0, 1 - k
        place = high[k] if upper else low[k]
        own_a, own_b = at_a[:, row : row + 1], at_b[:, row : row + 1]
        nearer = own_a[k] <= own_b[k] if upper else own_a[k] >= own_b[k]
        beside = at_most(at_least(where(nearer, own_a[other], own_b[other]), low[other]), high[other])
        height_a, height_b = _height(at_a, k, place), _height(at_b, k, place)
        gap = height_b - height_a - radius_a - radius_b
        height = height_a + radius_a + 0.5 * gap
        x, y = (place, beside) if k == 0 else (beside, place)
        gaps.append(gap)
        contacts.append(one * x + two * y + normal * height)
    return join(*gaps), normal, join(*contacts, axis=1)
