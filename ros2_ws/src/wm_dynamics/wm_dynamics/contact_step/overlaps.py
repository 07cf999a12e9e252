"""Overlaps that the network's sweeps leave: what closes in on another further than is allowed is stopped, and what is
in another is moved out.

Eight Jacobi sweeps do not converge where many bodies press on one another, where a light one lies beneath heavy ones,
or where a blow hits the end of a long one. So in futures in which a contact would be deeper than ``DEEP_M`` after the
step, two solutions follow contact by contact (projected Gauss-Seidel). The first is of velocities: contacts that close
in are stopped, without bounce, which can only take energy away. The second is of poses alone (split impulse: Guendelman
and others 2003, Nonconvex rigid bodies with stacking; Catto 2014, Box2D): bodies are moved apart to ``LEFT_M`` without
getting a velocity by it.

Gaps after the step are those before it and the motion of the contact's points along the normal; distances are not
searched again. The functions are plain Python over arrays: ``overlaps_kernel`` compiles them, the futures of ONNX
Runtime call them as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.compilable import compilable

DEEP_M = 0.002
"""Depth [m], beyond what may stay, that a contact may have after a step before its future is solved again. Larger lets
more stay in one another; smaller solves futures in which the network's own softness of contacts is at work, and costs
time."""
LEFT_M = 0.001
"""Depth [m] to which bodies are moved apart; above the tenths of a millimeter at which the network lets things rest, so
that what stands is not lifted off."""
MOST_M = 0.01
"""Farthest that a contact moves two bodies apart in one step [m]. Larger throws what was put deep into another out of
it at once, and may throw it into a third; smaller takes more steps."""
NEAR_M = 0.005
"""Gap [m] up to which contacts are looked at. Larger costs time; smaller, and a fast body is found a step later, when
it is in another."""
STOP_SWEEPS, APART_SWEEPS = 12, 16
"""Sweeps of the two solutions. More hold longer rows of bodies, and cost time in futures with deep contacts alone."""


class Touching(NamedTuple):
    """C contacts of one future.

    Attributes:
        a, b: (C,) bodies, from a to b; a is -1 where it is the surface beneath b.
        normal: (C, 3) from a to b. arm_a, arm_b: (C, 3) from the centers of mass [m].
        gap: (C,) before the step, with what may stay [m]. push: (C,) scratch.
    """

    a: Any
    b: Any
    normal: Any
    arm_a: Any
    arm_b: Any
    gap: Any
    push: Any


@compilable
def closing(c: Any, touching: Any, motion: Any) -> Any:
    """Along the normal of contact c, the motion of b's point of contact relative to a's; ``motion``: (B, 6) twists."""
    normal, arm, b, a = touching.normal, touching.arm_b, touching.b[c], touching.a[c]
    x, y, z = normal[c, 0], normal[c, 1], normal[c, 2]
    found = (
        x * (motion[b, 0] + motion[b, 4] * arm[c, 2] - motion[b, 5] * arm[c, 1])
        + y * (motion[b, 1] + motion[b, 5] * arm[c, 0] - motion[b, 3] * arm[c, 2])
        + z * (motion[b, 2] + motion[b, 3] * arm[c, 1] - motion[b, 4] * arm[c, 0])
    )
    if a >= 0:
        arm = touching.arm_a
        found -= (
            x * (motion[a, 0] + motion[a, 4] * arm[c, 2] - motion[a, 5] * arm[c, 1])
            + y * (motion[a, 1] + motion[a, 5] * arm[c, 0] - motion[a, 3] * arm[c, 2])
            + z * (motion[a, 2] + motion[a, 3] * arm[c, 1] - motion[a, 4] * arm[c, 0])
        )
    return found


@compilable
def resistance(normal: Any, arm: Any, c: Any, n: Any, inverse_mass: Any, inverse: Any) -> Any:
    """Inverse mass [1/kg] of body n at contact c along its normal; ``inverse``: (B, 9) inertia, world axes."""
    x, y, z = normal[c, 0], normal[c, 1], normal[c, 2]
    p = arm[c, 1] * z - arm[c, 2] * y
    q = arm[c, 2] * x - arm[c, 0] * z
    r = arm[c, 0] * y - arm[c, 1] * x
    return (
        inverse_mass[n]
        + p * (inverse[n, 0] * p + inverse[n, 1] * q + inverse[n, 2] * r)
        + q * (inverse[n, 3] * p + inverse[n, 4] * q + inverse[n, 5] * r)
        + r * (inverse[n, 6] * p + inverse[n, 7] * q + inverse[n, 8] * r)
    )


@compilable
def pushed(normal: Any, arm: Any, c: Any, n: Any, push: Any, inverse_mass: Any, inverse: Any, motion: Any) -> None:
    """Add to the motion of body n what a push along the normal of contact c gives."""
    x, y, z = push * normal[c, 0], push * normal[c, 1], push * normal[c, 2]
    p = arm[c, 1] * z - arm[c, 2] * y
    q = arm[c, 2] * x - arm[c, 0] * z
    r = arm[c, 0] * y - arm[c, 1] * x
    mass = inverse_mass[n]
    motion[n, 0] += mass * x
    motion[n, 1] += mass * y
    motion[n, 2] += mass * z
    motion[n, 3] += inverse[n, 0] * p + inverse[n, 1] * q + inverse[n, 2] * r
    motion[n, 4] += inverse[n, 3] * p + inverse[n, 4] * q + inverse[n, 5] * r
    motion[n, 5] += inverse[n, 6] * p + inverse[n, 7] * q + inverse[n, 8] * r


@compilable
def separate(count: Any, touching: Any, inverse_mass: Any, inverse: Any, twist: Any, shift: Any) -> None:
    """Stop what closes in too far, and move out what is deep.

    Args:
        count: of contacts, the first of ``touching``.
        inverse_mass: (B,) [1/kg], 0 for what is held; inverse: (B, 9) inverse inertia, world axes, row-major.
        twist: (B, 6) linear and angular velocities after the step; changed.
        shift: (B, 6) displacement [m] and turn [rad] on top of what the velocities give; filled.
    """
    a, b, normal, arm_a, arm_b = touching.a, touching.b, touching.normal, touching.arm_a, touching.arm_b
    gap, push = touching.gap, touching.push
    for n in range(shift.shape[0]):
        for i in range(6):
            shift[n, i] = 0.0
    for sweep in range(STOP_SWEEPS):
        for k in range(count):
            c = k if sweep % 2 == 0 else count - 1 - k
            lack = -max(gap[c], 0.0) / STEP_S - closing(c, touching, twist)
            if lack <= 0.0:
                continue
            whole = resistance(normal, arm_b, c, b[c], inverse_mass, inverse)
            if a[c] >= 0:
                whole += resistance(normal, arm_a, c, a[c], inverse_mass, inverse)
            if whole <= 0.0:
                continue
            pushed(normal, arm_b, c, b[c], lack / whole, inverse_mass, inverse, twist)
            if a[c] >= 0:
                pushed(normal, arm_a, c, a[c], -lack / whole, inverse_mass, inverse, twist)
    for c in range(count):
        push[c] = 0.0
    for sweep in range(APART_SWEEPS):
        for k in range(count):
            c = k if sweep % 2 == 0 else count - 1 - k
            after = gap[c] + STEP_S * closing(c, touching, twist)
            lack = min(-after - LEFT_M, MOST_M) - closing(c, touching, shift)
            if lack <= 0.0 and push[c] <= 0.0:
                continue
            whole = resistance(normal, arm_b, c, b[c], inverse_mass, inverse)
            if a[c] >= 0:
                whole += resistance(normal, arm_a, c, a[c], inverse_mass, inverse)
            if whole <= 0.0:
                continue
            before = push[c]
            push[c] = max(before + lack / whole, 0.0)
            pushed(normal, arm_b, c, b[c], push[c] - before, inverse_mass, inverse, shift)
            if a[c] >= 0:
                pushed(normal, arm_a, c, a[c], before - push[c], inverse_mass, inverse, shift)
