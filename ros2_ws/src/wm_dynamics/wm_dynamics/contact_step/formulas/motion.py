"""The state after the step, from impulses."""

from __future__ import annotations

from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.formulas.mechanics import rotation_of, spin_speed
from wm_dynamics.contact_step.numbers import (
    Fields,
    Number,
    Vector,
    at_most,
    blend,
    dot,
    exp,
    flag,
    in_world,
    parts,
    relu,
    sine_cosine,
    sqrt,
    stack,
    total,
    turn,
)

FASTEST_M_S, FASTEST_RAD_S = 50.0, 200.0
"""Largest speeds after a step: a turn of more than half a circle a step cannot be told from one the other way."""
FASTER_M_S = 0.1
"""Speed that a step may add to the largest that a collision can give: larger, and wedged objects are accelerated."""


def _no_faster(velocity: Vector, limit: Number | float) -> Vector:
    return velocity * at_most(limit / sqrt(dot(velocity, velocity) + 1e-12), 1.0)


def _turned(quaternion: Vector, angular: Vector) -> Vector:
    """Quaternions (4, 1) turned by angular velocities over one step (exponential map)."""
    speed = sqrt(dot(angular, angular) + 1e-12)
    sine, dw = sine_cosine(0.5 * STEP_S * speed)
    dx, dy, dz = parts(angular * (sine / speed))
    x, y, z, w = parts(quaternion)
    turned = stack(
        dw * x + dx * w + dy * z - dz * y,
        dw * y - dx * z + dy * w + dz * x,
        dw * z + dx * y - dy * x + dz * w,
        dw * w - dx * x - dy * y - dz * z,
    )
    return turned / sqrt(dot(turned, turned) + 1e-12)


def _resisted(turning: Vector, t: Fields, push: Number) -> Vector:
    """Angular velocity after rolling and torsional resistance to a push [N s] from beneath."""
    inverse = t.inverse
    stiffness = (inverse[0, 0] + inverse[1, 1]) * 0.5 + 1e-9
    roll = sqrt(turning[0] * turning[0] + turning[1] * turning[1] + 1e-12)
    # A rolling object is slowed as a whole: what resists rotation also resists, through the ground, translation.
    keep = relu(1.0 - t.rolling * push * stiffness / roll)
    keep_spin = relu(1.0 - t.torsion * push * inverse[2, 2] / (abs(turning[2]) + 1e-9))
    return stack(turning[0] * keep, turning[1] * keep, turning[2] * keep_spin)


def finish(t: Fields, floor: tuple[Number, Number], scatter: Number | float) -> None:
    """State after the step, impulses, deviations.

    Args:
        floor: deviations [m/s, m/s] that every step leaves open. scatter: factor of all deviations, from calibration.
    """
    inverse_mass, falls, world_inertia, moving, push = t.inverse_mass, t.falls, t.world_inertia, t.moving, t.push
    plane_impulse = total(push)
    linear_after, angular_after = moving[:3], _resisted(moving[3:], t, plane_impulse)
    # The speed is limited to what a collision can give: overlapping or wedged objects give the sweeps a problem without
    # a solution, and must not be thrown away by the result.
    free_body = flag(inverse_mass > 0.0, inverse_mass)
    limit = sqrt(t.start_square + t.limit + 1e-12) + FASTER_M_S
    linear_after = _no_faster(linear_after, limit)
    spin = spin_speed(world_inertia, inverse_mass, angular_after)
    angular_after = angular_after * at_most(limit / (spin + 1e-9), 1.0)
    # The surface scatters by rotation as much as by translation.
    half = t.half
    scattered = push * exp(t.law[6] - 4.0)
    impulse = sqrt(total(scattered * scattered) + t.square + 1e-18)
    size = sqrt(dot(half, half)) + t.rounding + 0.01
    deviation = (at_most(impulse * inverse_mass, limit) + floor[0]) * free_body * scatter
    t.deviation, t.impulse = stack(deviation, deviation / size), plane_impulse
    # A step's displacement is by its mean velocity (trapezoidal rule) where nothing collides: exact in flight, and
    # second order for what friction slows down. A body that collides moves with its velocity after the collision, so
    # that it does not sink in.
    alone = flag(t.struck <= 0.0, falls) * falls
    flies = alone * flag(plane_impulse <= 0.0, falls)
    mean = 0.5 * stack(alone, alone, flies)
    t.position_next = t.position + STEP_S * (linear_after + mean * (t.linear - linear_after))
    turned = _turned(t.quaternion, angular_after + 0.5 * alone * (t.angular - angular_after))
    t.quaternion_next = turned
    # Angular momentum, not angular velocity, stays as the body turns. Of fast slender objects the step is too long for
    # that: they keep their energy.
    momentum = turn(world_inertia, angular_after)
    carried = turn(in_world(rotation_of(turned), t.inverse_inertia), momentum)
    spin_before = spin_speed(world_inertia, inverse_mass, angular_after)
    spin = sqrt(relu(dot(momentum, carried)) * inverse_mass + 1e-18)
    carried = carried * at_most((spin_before + 1e-9) / (spin + 1e-9), 1.0)
    t.linear_next = _no_faster(linear_after, FASTEST_M_S)
    t.angular_next = _no_faster(blend(angular_after, carried, free_body), FASTEST_RAD_S)
