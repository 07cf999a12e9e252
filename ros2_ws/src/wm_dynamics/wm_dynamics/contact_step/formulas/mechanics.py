"""Formulas that bodies and pairs share: rotations, effective masses, impulses, loads.

Numbers without a name in the formulas of this package are part of the network's definition, as its weights are: the
weights were trained with them, and changing one needs another training.
"""

from __future__ import annotations

from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.numbers import (
    Fields,
    Mask,
    Matrix,
    Number,
    Vector,
    at_least,
    at_most,
    cross,
    dot,
    exp,
    flag,
    join,
    log,
    parts,
    relu,
    sigmoid,
    sqrt,
    stack,
    tanh,
    total,
    turn,
    where,
)

NEAR_M = 5e-4
"""A contact counts by a sigmoid of its gap after the step; here it falls from 1/2 to 1/4 within 0.5 mm."""
BORNE = 4.0
"""How many times its own weight an object bears with its own mass; under more it gets a raised effective mass, because
eight Jacobi sweeps do not converge otherwise.
"""


def rotation_of(quaternion: Vector) -> Matrix:
    """Rotation matrices (3, 3, ...) of unit quaternions (4, ...) xyzw."""
    x, y, z, w = parts(quaternion)
    rows = (
        stack(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)),
        stack(2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)),
        stack(2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)),
    )
    return stack(*rows)


def one_of_three(first: Mask, second: Mask, like: Number) -> Vector:
    """A unit vector along x where ``first``, else along y where ``second``, else along z."""
    x = flag(first, like)
    y = (1.0 - x) * flag(second, like)
    return stack(x, y, 1.0 - x - y)


def longest_axis(size: Vector) -> Vector:
    """1 for the axis along which something is longest, 0 for the two others."""
    return one_of_three((size[0] >= size[1]) & (size[0] >= size[2]), size[1] >= size[2], size[0])


def centroid(part: Number, values: Vector) -> Vector:
    """Mean of the contacts' vectors, weighted by their shares."""
    return total(part * values, axis=1)


def inverse_mass_along(inverse_mass: Number, inverse: Matrix, arm: Vector, normal: Vector) -> Number:
    """Effective inverse mass [1/kg] of a body for an impulse at an arm along a unit vector."""
    turned = cross(arm, normal)
    return inverse_mass + dot(turned, turn(inverse, turned))


def inverse_mass_across(inverse_mass: Number, inverse: Matrix, arm: Vector, slip: Vector) -> Number:
    """Effective inverse mass [1/kg] along the slip; where nothing slips, that of a mean direction."""
    turned = cross(arm, slip)
    square = dot(slip, slip)
    along = dot(turned, turn(inverse, turned)) / (square + 1e-8)
    mean = dot(arm, arm) * (inverse[0, 0] + inverse[1, 1] + inverse[2, 2]) * 0.25
    return inverse_mass + mean + square / (square + 1e-6) * (along - mean)


def spin_speed(world_inertia: Matrix, inverse_mass: Number, angular: Vector) -> Number:
    """Speed [m/s] at which the body's mass would have the energy of its turning."""
    return sqrt(relu(dot(angular, turn(world_inertia, angular))) * inverse_mass + 1e-18)


def twist_change(inverse_mass: Number, inverse: Matrix, arm: Vector, impulse: Vector) -> Vector:
    """Change (6, 1) of a body's twist by impulses [N s] at the arms of its contacts."""
    torque = total(cross(arm, impulse), axis=1)
    return join(inverse_mass * total(impulse, axis=1), turn(inverse, torque))


def nearness(gap: Number, approach: Number) -> Number:
    """How much a contact counts, from 0 to 1: by the gap that is left after the step [m]."""
    return sigmoid((gap + STEP_S * approach) * (-1.0 / NEAR_M))


def friction_cone(rubbing: Vector, limit: Number) -> Vector:
    """Friction impulses, no greater than a limit [N s]."""
    return rubbing * at_most(limit / sqrt(dot(rubbing, rubbing) + 1e-16), 1.0)


def balanced(near: Number, arm: Vector) -> Number:
    """Shares of a load that the contacts bear, so that the body does not tip, as far as they can.

    Args:
        arm: (2, 4) horizontal, from the vertical in which the load acts [m].
    """
    x, y = arm[0], arm[1]
    nx, ny = near * x, near * y
    sx, sy = total(nx), total(ny)
    sxx, syy, sxy = total(nx * x) + 1e-7, total(ny * y) + 1e-7, total(nx * y)
    determinant = at_least(sxx * syy - sxy * sxy, 1e-12)
    a = (sy * sxy - sx * syy) / determinant
    b = (sx * sxy - sy * sxx) / determinant
    share = near * at_most(at_least(1.0 + a * x + b * y, 0.0), 10.0)
    return share / (total(share) + 1e-3)


# -- the law of a contact


def law_features(
    gap: Number,
    approach: Number,
    slip: Vector,
    friction: Number,
    restitution: Number,
    count: Number,
    other: Number,
    leverage: Number,
    pair: bool,
) -> Vector:
    """Inputs (FEATURES, 4) of the network that gives the law of a contact: bounded, without units."""
    speed = sqrt(dot(slip, slip) + 1e-10)
    return stack(
        tanh(gap * (1.0 / 0.002)),
        tanh((gap * (1.0 / STEP_S) + approach) * (1.0 / 0.3)),
        tanh(approach * (1.0 / 0.2)),
        tanh(approach * (1.0 / 1.5)),
        tanh(speed * (1.0 / 0.2)),
        tanh(speed * (1.0 / 1.5)),
        friction,
        restitution,
        log(count + other) * 0.5,
        log(at_most(at_least(leverage, 0.1), 100.0)) * 0.3 + (1.0 if pair else -1.0),
    )


def contact_law(
    law: Vector, gap: Number, approach: Number, restitution: Number, friction: Number
) -> tuple[Number, Number, Number, Number]:
    """The coefficients of contacts from the network's numbers (LAW, 4).

    Returns:
        Least separation speed [m/s], shares of the violation and of the slip that a sweep removes, friction.
    """
    bounce = restitution * (0.7 + 0.5 * sigmoid(law[0] + 0.4))
    reaches = flag(gap + STEP_S * approach < 0.0, gap)
    back = relu(-approach - (0.08 + 0.16 * sigmoid(law[1]))) * bounce * reaches
    out = relu(-gap - 2e-4) * (0.4 / STEP_S) * sigmoid(law[2])
    base = where(gap >= 0.0, gap * (-1.0 / STEP_S), at_most(out, 1.0))
    target_velocity = where(back > 0.0, at_least(base, back), base)
    return target_velocity, 2.0 * sigmoid(law[3]), 2.0 * sigmoid(law[4]), friction * exp(0.5 * tanh(law[5]))


def swept_push(t: Fields, lack: Number, weight: tuple[Number, ...]) -> tuple[Number, Number]:
    """Impulses [N s] after a sweep: the mean violation of a body's (a pair's) contacts is answered as one contact at
    their centroid, exactly, and what is left of each by itself. Contact by contact alone, a plate that lands flat would
    need many sweeps to stop. Second, what is added.
    """
    before = t.push
    mean = total(t.part * lack)
    pushed = relu(before + weight[0] * t.share * (lack - mean) + weight[2] * t.whole * mean)
    return pushed, pushed - before


def swept_friction(t: Fields, slip: Vector, pushed: Number, weight: tuple[Number, ...]) -> tuple[Vector, Vector]:
    """Friction impulses [N s] after a sweep, and what is added."""
    before, mean = t.rubbing, centroid(t.part, slip)
    rubbed = before - weight[1] * t.friction_gain * (slip - mean) - weight[3] * t.slide * mean
    rubbed = friction_cone(rubbed, t.mu * pushed)
    return rubbed, rubbed - before
