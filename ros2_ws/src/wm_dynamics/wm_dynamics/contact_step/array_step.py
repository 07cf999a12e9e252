"""The whole step over arrays: the formulas in turn, and what bodies and pairs exchange in between.

``kernel`` does the same over tiles. Layout: components first, bodies (B) or pairs (P) last; SI units; world axes, z up;
a body's frame has its origin at the center of mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wm_dynamics.contact_step.body_tables import PARAMETERS, ROWS
from wm_dynamics.contact_step.formulas import ground, motion, pairs
from wm_dynamics.contact_step.formulas.nearest import Hull
from wm_dynamics.contact_step.formulas.network import network
from wm_dynamics.contact_step.manifold import merge
from wm_dynamics.contact_step.numbers import (
    Fields,
    Vector,
    at_least,
    flag,
    gather,
    join,
    parts,
    product,
    scatter_add,
    where,
)
from wm_dynamics.contact_step.records import BODY, FEATURES, LAW, POINTS, SIDE

Array = Any
"""Of NumPy or of torch, in float32 or float64."""


@dataclass
class Stepped:
    """The result of one step of B bodies and P pairs.

    Attributes:
        position: (3, B) [m].
        quaternion: (4, B) xyzw.
        linear, angular: (3, B) velocities [m/s, rad/s].
        plane_impulse: (B,) with the surface beneath [N s]; pair_impulse: (P,) [N s].
        deviation: (2, B) standard deviations of the velocities that the step leaves open [m/s, rad/s].
        plane_gap, pair_gap: (B,) and (P,) smallest gaps before the step, slack not counted [m].
    """

    position: Array
    quaternion: Array
    linear: Array
    angular: Array
    plane_impulse: Array
    pair_impulse: Array
    deviation: Array
    plane_gap: Array
    pair_gap: Array


@dataclass
class StepWeights:
    """The learned parameters.

    Attributes:
        network: has the matrices and biases of ``formulas.network``.
        sweeps: (SWEEPS, 4) positive, see ``mechanics.swept_push`` and ``swept_friction``.
        floor: (2,) positive, deviations that every step leaves open [m/s, rad/s].
        scatter: factor of all deviations.
    """

    network: Fields
    sweeps: Array
    floor: Array
    scatter: float = 1.0


@dataclass
class Hulls:
    """The hulls of bodies.

    Attributes:
        rows: (H,) integers, bodies.
        number: (B,) integers, 1 + which hull a body is, 0 none.
        points: (3, HULL_POINTS, H or more), body frame [m]; behind those of bodies the hulls of parts.
    """

    rows: Array
    number: Array
    points: Array


@dataclass
class Parts:
    """The convex parts that collide in pairs, instead of whole bodies.

    Attributes:
        number_a, number_b: (P,) integers, 1 + which part of a and of b it is, 0 the whole body.
        frame: (3, 3, K) axes of the parts in columns, body axes. center, half: (3, K) in the parts' axes [m].
        rounding, cylinder: (K,), as in ``PARAMETERS``.
        hull_number: (K,) integers, 1 + which hull a part is, 0 none; points of these hulls are in the parts' axes.
    """

    number_a: Array
    number_b: Array
    frame: Array
    center: Array
    half: Array
    rounding: Array
    cylinder: Array
    hull_number: Array


class _Arrays:
    """Fields of bodies or pairs by name."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def geometry(
    state: Sequence[Array],
    parameters: Array,
    plane: Array,
    pair_a: Array,
    pair_b: Array,
    hulls: Hulls,
    collide: Parts | None = None,
) -> tuple[Fields, Fields]:
    """Poses, contacts and gaps of bodies and of pairs, as ``formulas`` name them, before any force; see ``step``."""
    names = ("position", "quaternion", "linear", "angular")
    body: Fields = _Arrays(
        **{name: value[:, None] for name, value in zip(names, state, strict=True)}, plane=plane[:, None]
    )
    for name in PARAMETERS:
        shape: Any = BODY.shapes[name]
        setattr(body, name, parameters[ROWS[name]].reshape(*shape, -1))
    _place_hulls(body, hulls)
    ground.ground_geometry(body)
    pair: Fields = _Arrays(a=_side(body, pair_a), b=_side(body, pair_b))
    points = _with_none(hulls.points, state[0])
    of_a, of_b = gather(hulls.number, pair_a), gather(hulls.number, pair_b)
    if collide is not None:
        of_a = _put_parts(pair.a, collide, collide.number_a, of_a)
        of_b = _put_parts(pair.b, collide, collide.number_b, of_b)
    pairs.pair_geometry(pair, _hull(pair.a, of_a, points), _hull(pair.b, of_b, points))
    return body, pair


def step(
    state: Sequence[Array],
    parameters: Array,
    plane: Array,
    pair_a: Array,
    pair_b: Array,
    hulls: Hulls,
    slack: tuple[Array, Array],
    weights: StepWeights,
    collide: Parts | None = None,
) -> Stepped:
    """One step of ``STEP_S``.

    Args:
        state: position (3, B), quaternion (4, B) xyzw, linear and angular velocity (3, B).
        parameters: (PARAMETER_ROWS, B), rows as in ``PARAMETERS``. plane: (PLANE_ROWS, B).
        pair_a, pair_b: (P,) integers, bodies of near pairs, the smaller one first.
        hulls: a hull that is a cylinder, too, stands on its rims, others on their lowest points.
        slack: (B,) and (P,) depths [m] to which surfaces and pairs may overlap, as they did when first seen: the shapes
            of objects that were seen overlapping are not exact.
        collide: the parts of bodies that are not convex; pairs of parts of the same two bodies are pairs of their own.
    """
    body, pair = geometry(state, parameters, plane, pair_a, pair_b, hulls, collide)
    plane_gap, pair_gap = body.least_gap[0], pair.least_gap[0]
    body.slack, pair.slack = slack[0][None], slack[1][None]

    ground.ground_before(body)
    if collide is not None:
        merge(pair, pair_a, pair_b)
    pairs.pair_before(pair)
    body.crowd = scatter_add(scatter_add(body.crowd, pair_a, pair.near_sum), pair_b, pair.near_sum)
    body.pairs = scatter_add(scatter_add(body.pairs, pair_a, pair.beside), pair_b, pair.beside)
    body.held_by = scatter_add(scatter_add(body.held_by, pair_b, pair.above_b), pair_a, pair.above_a)
    ground.ground_features(body)
    body.law = _law(body.features, weights)
    _hand_down(body, pair, pair_a, pair_b)
    ground.ground_begin(body)
    for name in ("mass_scale", "crowd", "pairs", "at"):
        setattr(pair, f"{name}_a", gather(getattr(body, name), pair_a))
        setattr(pair, f"{name}_b", gather(getattr(body, name), pair_b))
    pairs.pair_features(pair)
    pair.law = _law(pair.features, weights)
    pairs.pair_begin(pair)

    _respond(body, pair, pair_a, pair_b)
    for of_sweep in parts(weights.sweeps):
        weight = parts(of_sweep)
        pair.moving_a, pair.moving_b = gather(body.moving, pair_a), gather(body.moving, pair_b)
        pairs.pair_sweep(pair, weight)
        _respond(body, pair, pair_a, pair_b)
        ground.ground_sweep(body, weight)

    pairs.pair_after(pair)
    body.struck = scatter_add(scatter_add(body.struck, pair_a, pair.impulse), pair_b, pair.impulse)
    body.square = scatter_add(scatter_add(body.square, pair_a, pair.square), pair_b, pair.square)
    to_a = pair.given_a * gather(body.start_square, pair_b)
    to_b = pair.given_b * gather(body.start_square, pair_a)
    body.limit = scatter_add(scatter_add(body.limit, pair_a, to_a), pair_b, to_b)
    motion.finish(body, (weights.floor[0], weights.floor[1]), weights.scatter)
    return Stepped(
        body.position_next[:, 0], body.quaternion_next[:, 0], body.linear_next[:, 0], body.angular_next[:, 0],
        body.impulse[0], pair.impulse[0], body.deviation[:, 0], plane_gap, pair_gap,
    )  # fmt: skip


def _with_none(values: Array, like: Array) -> Array:
    """Values (3, N, H) of hulls, behind those of no hull: (3, N, 1 + H); ``like``: (3, B), B of 1 at least."""
    zero = flag(like[:, None, :1] < like[:, None, :1], like)  # also of what is not a number
    return join(join(*[zero] * int(values.shape[1]), axis=1), values, axis=-1)


def _place_hulls(body: Fields, hulls: Hulls) -> None:
    """On which of its points each hull stands."""
    x, y, z, w = parts(gather(body.quaternion, hulls.rows))
    down = join(-2.0 * (x * z - y * w), -2.0 * (y * z + x * w), -1.0 + 2.0 * (x * x + y * y))[:, None]
    lowest, middle = ground.lowest_of_hull(down, hulls.points[..., : hulls.rows.shape[0]])
    body.hull_points = gather(_with_none(lowest, body.position[:, 0]), hulls.number)
    body.hull_middle = gather(_with_none(middle, body.position[:, 0]), hulls.number)
    body.is_hull = flag(hulls.number[None] > 0, body.cylinder) * (1.0 - body.cylinder)


def _side(body: Fields, index: Array) -> _Arrays:
    return _Arrays(**{name: gather(getattr(body, name), index) for name in SIDE.shapes})


def _put_parts(side: Fields, of: Parts, number: Array, hull_number: Array) -> Array:
    """Make sides parts of their bodies, where they have a number (P,): in the parts' own axes; returns their hulls."""
    chosen = number > 0
    row = number - chosen  # the first part where there is none
    turned = product(side.rotation, gather(of.frame, row)[:, :, None])
    side.rotation = where(chosen, turned, side.rotation)
    side.center = where(chosen, gather(of.center, row)[:, None], side.center)
    side.half = where(chosen, gather(of.half, row)[:, None], side.half)
    side.rounding = where(chosen, gather(of.rounding, row)[None], side.rounding)
    side.cylinder = where(chosen, gather(of.cylinder, row)[None], side.cylinder)
    return where(chosen, gather(of.hull_number, row), hull_number)


def _hull(side: Fields, number: Array, points: Array) -> Hull:
    return Hull(pairs.core_of(side), gather(points, number), number[None] > 0)


def _law(features: Vector, weights: StepWeights) -> Vector:
    return network(features.reshape(FEATURES, -1), weights.network).reshape(LAW, POINTS, -1)


def _respond(body: Fields, pair: Fields, pair_a: Array, pair_b: Array) -> None:
    body.moving = scatter_add(scatter_add(body.moving, pair_a, pair.respond_a), pair_b, pair.respond_b)


def _hand_down(body: Fields, pair: Fields, pair_a: Array, pair_b: Array) -> None:
    """The weight of each body and of what stands on it, and with it the point that it acts at, through three layers."""
    own, held_by = body.load, body.held_by
    part_b, part_a = pair.above_b / gather(held_by, pair_b), pair.above_a / gather(held_by, pair_a)
    loads = own
    for _ in range(3):
        on_a, on_b = part_b * gather(loads, pair_b), part_a * gather(loads, pair_a)
        loads = scatter_add(scatter_add(own, pair_a, on_a), pair_b, on_b)
    load = loads[0]
    body.load = loads
    body.at = loads[1:] / at_least(load, 1e-9) - body.position[:2] * flag(load > 0.0, load)
    pair.through = part_b * gather(load, pair_b) + part_a * gather(load, pair_a)
