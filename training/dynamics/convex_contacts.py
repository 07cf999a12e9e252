"""Contacts of pairs of convex things: where they are nearest, or how deep they overlap.

The gap along a unit vector n from a to b is what is left between the two supporting planes: -(h_a(n) + h_b(-n)) for
support functions h about a common origin. Its maximum over n is the distance of two convex sets that are apart, and
minus the least depth of two that overlap (along the nearest way out; van den Bergen 2001, Proximity queries and
penetration depth computation on 3D game objects). It is found by looking at a few directions at once and moving to the
best, a fixed number of times: of four leans about the best so far, the normal of the face of the difference set that
their supporting points span, and the direction to its supporting point (a step of Gilbert's algorithm, Gilbert 1966).
Once the leans are on the face that is nearest, its normal is exact: face on corner, edge across edge, face on face.

Layout as in ``training.dynamics.model``: components first, pairs (P) last, directions (E) between.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEANS = (0.5, 0.2, 0.08)
"""Tangents of the angles by which directions are leant, from the first look to the last."""
FAR_M = 0.03
"""Whose gap along the best of the first directions is greater is far apart, and looked at no further."""
CONTACT_LEAN = 0.15
"""Of the directions whose supporting points are the contacts: what is within some 8 degrees of flat rests on all."""
_SHARP = 1e3
_TINY = 1e-3
FLAT_M4 = 1e-14
"""Squared area below which supporting points span no face."""
TOUCHING_M2 = 1e-8
"""Squared distance below which supporting points give no direction."""


@dataclass
class Convex:
    """One side of P pairs, about its center of mass.

    Attributes:
        center: (3, P) of the core; half: (3, P); rounding: (P,) [m]; cylinder: (P,) 0 or 1, as in ``PARAMETERS``.
        hull: (3, HULL_POINTS, P) [m]; is_hull: (P,) bool: the points count, not the core.
    """

    center: Tensor
    half: Tensor
    rounding: Tensor
    cylinder: Tensor
    hull: Tensor
    is_hull: Tensor

    def support(self, direction: Tensor) -> Tensor:
        """The points (3, E, P) farthest along directions (3, E, P), the mean of them where there are several."""
        half = self.half.unsqueeze(1)
        box = half * torch.clamp(direction * _SHARP, -1.0, 1.0)
        x, y = direction[0], direction[1]
        across = torch.sqrt(x * x + y * y + _TINY * _TINY)
        rim = torch.stack([half[0] * x / across, half[0] * y / across, box[2]])
        core = self.center.unsqueeze(1) + box + self.cylinder * (rim - box)
        reach = (direction.unsqueeze(2) * self.hull.unsqueeze(1)).sum(0)  # (E, HULL_POINTS, P)
        best = (reach >= reach.amax(1, keepdim=True) - 1e-6).to(direction.dtype)
        best = best / best.sum(1, keepdim=True)
        points = (best.unsqueeze(0) * self.hull.unsqueeze(1)).sum(2)
        return torch.where(self.is_hull, points, core)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(0)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[[1, 2, 0]] * b[[2, 0, 1]] - a[[2, 0, 1]] * b[[1, 2, 0]]


def _unit(vector: Tensor, floor: float = 1e-9) -> Tensor:
    return vector / torch.sqrt((vector * vector).sum(0) + floor * floor)


def tangents(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors (3, P) across unit vectors (3, P), as far as can be along the axes."""
    size = normal.abs()
    first = ((size[0] <= size[1]) & (size[0] <= size[2])).to(normal.dtype)
    second = (1 - first) * (size[1] <= size[2]).to(normal.dtype)
    axis = torch.stack([first, second, 1 - first - second])
    one = _unit(axis - normal * _dot(axis, normal))
    return one, _cross(normal, one)


def differences(a: Convex, b: Convex, turn: Tensor, offset: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Supporting points (3, E, P) of a along directions, and of b against them, in a's axes about a's center of mass.

    Args:
        turn: (3, 3, P) from b's axes to a's; offset: (3, P) of b's center of mass [m]. direction: (3, E, P).
    """
    t = turn.unsqueeze(2)
    own = -(t * direction.unsqueeze(1)).sum(0)
    of_b = (t * b.support(own).unsqueeze(0)).sum(1) + offset.unsqueeze(1)
    return a.support(direction), of_b


def _leans(normal: Tensor, lean: float, diagonal: bool) -> Tensor:
    """Directions (3, 4 or 8, P) leant to four sides, and to the corners between them."""
    one, two = tangents(normal)
    sides = [one, -one, two, -two]
    if diagonal:
        more, less = 0.7 * (one + two), 0.7 * (one - two)
        sides += [more, -more, less, -less]
    return torch.stack([normal + lean * side for side in sides], dim=1)


def nearest_direction(a: Convex, b: Convex, turn: Tensor, offset: Tensor) -> Tensor:
    """Unit vectors (3, P) from a to b, in a's axes, along which the gap is greatest; arguments: see ``differences``."""
    between = offset + (turn * b.center.unsqueeze(0)).sum(1) - a.center
    axes = torch.eye(3, dtype=offset.dtype).unsqueeze(2) + 0.0 * offset.unsqueeze(1)
    # Faces of boxes look along the axes; the sides of cylinders and capsules across the z axes of both or of either.
    one, two = axes[:, 2], turn[:, 2]
    sides = torch.stack([between - one * _dot(one, between), between - two * _dot(two, between), _cross(one, two)], 1)
    flat = (sides * sides).sum(0) > TOUCHING_M2
    sides = torch.where(flat, _unit(sides), one.unsqueeze(1))
    looks = torch.cat([_unit(between, 1e-6).unsqueeze(1), axes, turn, sides], dim=1)
    looks = torch.where((looks * between.unsqueeze(1)).sum(0) < 0, -looks, looks)
    on_a, on_b = differences(a, b, turn, offset, looks)
    first, gap, span = _best(looks, on_b - on_a)
    normal = first
    for lean in LEANS:
        looks = _unit(_leans(normal, lean, True))
        on_a, on_b = differences(a, b, turn, offset, looks)
        spans = on_b - on_a
        face = _cross(spans[:, 0] - spans[:, 1], spans[:, 2] - spans[:, 3])
        face = face * torch.where(_dot(face, normal) < 0, -1.0, 1.0)
        flat = _dot(face, face) > FLAT_M4
        face = torch.where(flat, _unit(face, 1e-12), normal)
        nearest = _nearest(span, spans)
        toward = torch.where(_dot(nearest, nearest) > TOUCHING_M2, _unit(nearest), normal)
        more = torch.stack([face, toward], dim=1)
        on_a, on_b = differences(a, b, turn, offset, more)
        looks = torch.cat([normal.unsqueeze(1), looks, more], dim=1)
        spans = torch.cat([span.unsqueeze(1), spans, on_b - on_a], dim=1)
        normal, _, span = _best(looks, spans)
    return torch.where(gap > FAR_M + a.rounding + b.rounding, first, normal)


def _nearest(span: Tensor, spans: Tensor) -> Tensor:
    """Of the segments from differences (3, P) to differences (3, E, P) the points (3, P) nearest to none."""
    step = spans - span.unsqueeze(1)
    share = -(span.unsqueeze(1) * step).sum(0) / torch.clamp((step * step).sum(0), min=1e-12)
    points = span.unsqueeze(1) + torch.clamp(share, 0.0, 1.0) * step
    which = (points * points).sum(0).argmin(0)
    return points.gather(1, which.view(1, 1, -1).expand(3, 1, -1))[:, 0]


def _best(looks: Tensor, spans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of directions (3, E, P) with their supporting points' differences the one with the greatest gap."""
    gap = (looks * spans).sum(0)
    best, which = gap.max(0)
    index = which.view(1, 1, -1).expand(3, 1, -1)
    return looks.gather(1, index)[:, 0], best, spans.gather(1, index)[:, 0]


def convex_contacts(a: Convex, b: Convex, turn: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Four contacts of each pair, in a's axes.

    Returns:
        Gaps (4, P) [m], normals (3, P) from a to b, and the contacts (3, 4, P) about a's center of mass [m].
    """
    with torch.no_grad():
        normal = nearest_direction(a, b, turn, offset)
    one, two = tangents(normal)
    on_a, on_b = differences(a, b, turn, offset, _leans(normal, CONTACT_LEAN, False))
    # Where the two faces that look at one another lie over one another: their extents along two tangents, the lesser
    # of either; the heights of both there, in between those of their ends.
    at_a = torch.stack([_along(axis, on_a) for axis in (one, two, normal)])  # (3, 4, P)
    # Directions against those that lean to one side lean to the other.
    on_b = on_b[:, [1, 0, 3, 2]]
    at_b = torch.stack([_along(axis, on_b) for axis in (one, two, normal)])
    low, high = [], []
    for k in range(2):
        ends_a, ends_b = at_a[k, 2 * k : 2 * k + 2], at_b[k, 2 * k : 2 * k + 2]
        top, bottom = torch.minimum(ends_a[0], ends_b[0]), torch.maximum(ends_a[1], ends_b[1])
        middle = 0.5 * (top + bottom)
        low.append(torch.minimum(bottom, middle))
        high.append(torch.maximum(top, middle))
    gaps, contacts = [], []
    for k, end in ((0, 0), (0, 1), (1, 0), (1, 1)):
        place = high[k] if end == 0 else low[k]
        row, other = 2 * k + end, 1 - k
        nearer = at_a[k, row] <= at_b[k, row] if end == 0 else at_a[k, row] >= at_b[k, row]
        beside = torch.where(nearer, at_a[other, row], at_b[other, row])
        beside = torch.minimum(torch.maximum(beside, low[other]), high[other])
        height_a, height_b = _height(at_a, k, place), _height(at_b, k, place)
        gap = height_b - height_a - a.rounding - b.rounding
        height = height_a + a.rounding + 0.5 * gap
        first, second = (place, beside) if k == 0 else (beside, place)
        gaps.append(gap)
        contacts.append(one * first + two * second + normal * height)
    return torch.stack(gaps), normal, torch.stack(contacts, dim=1)


def _along(axis: Tensor, points: Tensor) -> Tensor:
    return (axis.unsqueeze(1) * points).sum(0)


def _height(at: Tensor, k: int, place: Tensor) -> Tensor:
    """Height of a face at a place along tangent k, between those of its two ends there."""
    far, near = at[:, 2 * k], at[:, 2 * k + 1]
    length = far[k] - near[k]
    share = torch.clamp((place - near[k]) / torch.clamp(length, min=1e-5), 0.0, 1.0)
    share = torch.where(length > 1e-5, share, torch.full_like(share, 0.5))
    return near[2] + share * (far[2] - near[2])
