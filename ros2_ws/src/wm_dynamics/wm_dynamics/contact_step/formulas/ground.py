"""Contacts of bodies with the surface beneath them: from poses to impulses.

Each function reads fields of ``records.BODY`` and writes others, in the order in which they stand here; what bodies and
pairs exchange in between is carried by ``kernel`` and ``array_step``.
"""

from __future__ import annotations

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.formulas.mechanics import (
    BORNE,
    balanced,
    centroid,
    contact_law,
    inverse_mass_across,
    law_features,
    longest_axis,
    nearness,
    rotation_of,
    spin_speed,
    swept_friction,
    swept_push,
    twist_change,
)
from wm_dynamics.contact_step.numbers import (
    Fields,
    Mask,
    Number,
    Vector,
    at_least,
    at_most,
    blend,
    cross,
    dot,
    farthest,
    flag,
    in_world,
    join,
    least,
    most,
    parts,
    relu,
    sign,
    sqrt,
    stack,
    tanh,
    total,
    turn,
    where,
)

UPRIGHT = 30.0
"""Round objects that lean by less than some 10 degrees (tangent squared 1 / 30) stand upright."""
HULL_TIP = 0.15
"""Tangent of the angle by which a hull tips to four sides for its four lowest points."""
HULL_RAISED_M = 0.002
"""How far a hull's corners may be above its lowest point [m] where it stands flat on them."""
SQRT_HALF = 0.7071068
"""Sine and cosine of 45 degrees."""
_THIRD_TURN_SINE = 0.8660254
"""Sine of 120 degrees."""


def face_points(direction: Vector, half: Vector, cylinder: Number, rims: Vector) -> tuple[Vector, Vector]:
    """Four points of a core that lie farthest along a direction, and the middle of the face that they are on.

    Of a box the corners of the face that points most nearly that way; of a cylinder the foremost point of each rim, and
    of the rim that is ahead two more, a third of a turn to either side; of one that stands upright four points of that
    rim.

    Args:
        direction: (3, 1) in the body's axes. half: (3, 1) [m]. cylinder: (1,) 0 or 1.
        rims: (4, 1) of round objects radius and height of the lower rim, radius and height of the upper one [m].

    Returns:
        (3, 4) and (3, 1) [m], about the geometric center, body axes.
    """
    size = abs(direction)
    axis = longest_axis(size)
    middle = axis * sign(direction) * half
    one, two = axis[[2, 0, 1]] * half, axis[[1, 2, 0]] * half
    more, less = middle + one, middle - one
    box = join(more + two, more - two, less + two, less - two, axis=1)

    upper = direction[2] >= 0.0
    low_radius, low_height, high_radius, high_height = parts(rims)
    near_radius, near_height = where(upper, high_radius, low_radius), where(upper, high_height, low_height)
    far_radius, far_height = where(upper, low_radius, high_radius), where(upper, low_height, high_height)
    dx, dy = direction[0] + 1e-6, direction[1]
    norm = sqrt(dx * dx + dy * dy + 1e-14)
    dx, dy = dx / norm, dy / norm
    nx, ny = near_radius * dx, near_radius * dy
    level, steep = direction[0] * direction[0] + direction[1] * direction[1], size[2] * size[2]
    upright = flag(steep > UPRIGHT * level, level)
    c, s = 0.5 * upright - 0.5, _THIRD_TURN_SINE + upright * (1.0 - _THIRD_TURN_SINE)
    far_x, far_y = far_radius * dx, far_radius * dy
    far_x, far_y = far_x + upright * (-nx - far_x), far_y + upright * (-ny - far_y)
    rim = stack(
        join(nx, far_x, c * nx - s * ny, c * nx + s * ny),
        join(ny, far_y, s * nx + c * ny, c * ny - s * nx),
        join(near_height, far_height + upright * (near_height - far_height), near_height, near_height),
    )
    stands = flag(steep > level, level)
    lies = 0.5 * (1.0 - stands)
    both = lies * (near_radius + far_radius)
    rim_middle = stack(both * dx, both * dy, stands * near_height + lies * (near_height + far_height))
    return blend(box, rim, cylinder), blend(middle, rim_middle, cylinder)


def lowest_of_hull(down: Vector, hull: Vector) -> tuple[Vector, Vector]:
    """The points (3, 4) of a hull that it stands on, and their mean (3, 1); ``down`` in body axes.

    A hull that stands flat does so on the four of its points that are lowest as it tips by ``HULL_TIP`` to four sides
    diagonal to its axes: about its corners, which hold a turn as they should. Tipped along its axes, as all others are,
    what is like a box stands on the middles of its edges.
    """
    axis = longest_axis(abs(down))
    one, two = HULL_TIP * axis[[2, 0, 1]], HULL_TIP * axis[[1, 2, 0]]
    lowest = farthest(hull, join(down + one, down - one, down + two, down - two, axis=1), 1e-7)
    tips = SQRT_HALF * join(one + two, -one - two, one - two, two - one, axis=1)
    corners = farthest(hull, down + tips, 1e-7)
    flat = most(dot(down, lowest)) - least(dot(down, corners)) < HULL_RAISED_M
    lowest = where(flat, corners, lowest)
    return lowest, total(lowest, axis=1) * 0.25


def _drawn_to_the_edge(arm: Vector, toward: Vector, position: Vector, plane: Vector) -> tuple[Vector, Mask]:
    """Points of a face beyond the surface's edge, drawn along the face to the edge; whether they are over it at all."""
    _, center_x, center_y, c, s, half_x, half_y = parts(plane)
    x, y = position[0] + arm[0] - center_x, position[1] + arm[1] - center_y
    along = toward - arm
    lx, ly = c * x + s * y, c * y - s * x
    dx, dy = c * along[0] + s * along[1], c * along[1] - s * along[0]
    beyond_x, beyond_y = relu(abs(lx) - half_x), relu(abs(ly) - half_y)
    inward_x, inward_y = where(lx > 0.0, -dx, dx), where(ly > 0.0, -dy, dy)
    share = at_least(beyond_x / at_least(inward_x, 1e-6), beyond_y / at_least(inward_y, 1e-6))
    return arm + at_most(share, 2.0) * along, share <= 2.0


def ground_geometry(t: Fields) -> None:
    """Poses, and contacts with the surface beneath: arms (3, 4) from the center of mass and gaps (4,)."""
    rotation = rotation_of(t.quaternion)
    inverse, world_inertia = in_world(rotation, t.inverse_inertia), in_world(rotation, t.inertia)
    t.rotation, t.inverse, t.world_inertia = rotation, inverse, world_inertia
    half, rounding, falls, center, position = t.half, t.rounding, t.falls, t.center, t.position
    points, middle = face_points(-rotation[2], half, t.cylinder, t.rims)
    is_hull = t.is_hull > 0.5
    points = where(is_hull, t.hull_points, points + center)
    middle = where(is_hull, t.hull_middle, middle + center)
    plane = t.plane
    arm, valid = _drawn_to_the_edge(turn(rotation, points), turn(rotation, middle), position, plane)
    foot = arm[2] - rounding
    gap = where(valid, position[2] + foot - plane[0], 1.0) + (1.0 - falls)
    t.gap, t.least_gap = gap, least(gap)
    t.arm = stack(arm[0], arm[1], foot)
    # The speed with which a body strikes others: turning counts by its energy, or, of what has no mass, by its size.
    linear, angular, inverse_mass = t.linear, t.angular, t.inverse_mass
    held = flag(inverse_mass <= 0.0, inverse_mass)
    spin = sqrt(dot(angular, angular) + 1e-12) * (sqrt(dot(half, half)) + rounding) * held
    spin = spin + spin_speed(world_inertia, inverse_mass, angular)
    sinking = linear[2] - falls * (GRAVITY_M_S2 * STEP_S)
    t.start_square = linear[0] * linear[0] + linear[1] * linear[1] + sinking * sinking + spin * spin


def ground_before(t: Fields) -> None:
    """Velocities of the contacts before the surface acts, their effective inverse masses, and which of them count."""
    falls, arm, inverse_mass, inverse = t.falls, t.arm, t.inverse_mass, t.inverse
    before = t.linear + cross(t.angular, arm)
    approach = before[2]
    gap = t.gap + t.slack
    # Along the vertical: arm x up = (y, -x, 0).
    turn_x, turn_y = arm[1], -arm[0]
    t.effective_inverse_mass = inverse_mass + (
        turn_x * (inverse[0, 0] * turn_x + inverse[0, 1] * turn_y)
        + turn_y * (inverse[1, 0] * turn_x + inverse[1, 1] * turn_y)
    )
    slip = stack(before[0], before[1], approach * 0.0)
    t.effective_inverse_mass_slip = inverse_mass_across(inverse_mass, inverse, arm, slip)
    near = nearness(gap, approach + falls * (-GRAVITY_M_S2 * STEP_S))
    t.gap, t.approach, t.slip, t.near = gap, approach, slip[:2], near
    near_sum, on_ground = total(near), most(near)
    t.near_sum, t.count, t.on_ground, t.held_by = near_sum, at_least(near_sum, 1.0), on_ground, on_ground
    zero = near_sum * 0.0
    t.crowd, t.pairs, t.square, t.struck, t.limit = zero, zero, zero, zero, zero
    # Weight, and weight times its place: what is handed down keeps the vertical that it acts in.
    position = t.position
    weight = falls * (GRAVITY_M_S2 * STEP_S) / at_least(inverse_mass, 1e-6)
    own = stack(weight, weight * position[0], weight * position[1])
    t.weight, t.load = own, own


def ground_features(t: Fields) -> None:
    """What the law of each contact with the surface depends on."""
    crowd, count, slip, approach = at_least(t.crowd, 1.0), t.count, t.slip, t.approach
    t.crowd, t.held_by, t.pairs = crowd, at_least(t.held_by, 1.0), at_least(t.pairs, 1.0)
    leverage = t.effective_inverse_mass * (count / (t.inverse_mass + 1e-9))
    t.features = law_features(
        t.gap, approach, slip, t.friction, t.restitution, count, crowd, leverage, False
    )  # fmt: skip


def ground_begin(t: Fields) -> None:
    """What the sweeps need of the contacts with the surface, and the impulses and velocities with which they begin.

    They begin with the weight of each object and of what stands on it: without it a heavy object would sink into a
    light one beneath it, which the sweeps alone move apart too slowly.
    """
    weight, load_on = t.weight[0], t.load[0]
    mass_scale = where(weight > 0.0, at_most(BORNE * weight / at_least(load_on, 1e-9), 1.0), 1.0)
    inverse_mass, inverse = mass_scale * t.inverse_mass, mass_scale * t.inverse
    t.mass_scale, t.inverse = mass_scale, inverse
    count, arm, near = t.count, t.arm, t.near
    part = near / (t.near_sum + 1e-3)
    slip = t.slip
    middle = centroid(part, arm)
    turn_x, turn_y = middle[1], -middle[0]
    whole = inverse_mass + (
        turn_x * (inverse[0, 0] * turn_x + inverse[0, 1] * turn_y)
        + turn_y * (inverse[1, 0] * turn_x + inverse[1, 1] * turn_y)
    )
    middle_slip = centroid(part, slip)
    middle_slip = stack(middle_slip[0], middle_slip[1], count * 0.0)
    slide = inverse_mass_across(inverse_mass, inverse, middle, middle_slip)
    law = t.law
    target_velocity, normal_gain, friction_gain, mu = contact_law(law, t.gap, t.approach, t.restitution, t.friction)
    t.target_velocity, t.mu = target_velocity, mu
    t.share = normal_gain / (count * (mass_scale * t.effective_inverse_mass - 0.7 * inverse_mass) + 1e-9)
    t.friction_gain = friction_gain / (count * mass_scale * t.effective_inverse_mass_slip + 1e-9)
    t.part, t.whole, t.slide = part, part / (whole + 1e-9), part / (slide + 1e-9)
    t.rubbing = slip * 0.0
    load = load_on * t.on_ground / t.held_by
    push = balanced(near, arm[:2] - t.at) * load * (1.0 + 0.1 * tanh(law[7]))
    t.push = push
    linear = t.linear
    falling = t.falls * (-GRAVITY_M_S2 * STEP_S)
    sinking = linear[2] + falling + inverse_mass * total(push)
    turning = t.angular + (inverse[:, 0] * total(arm[1] * push) - inverse[:, 1] * total(arm[0] * push))
    t.moving = join(stack(linear[0], linear[1], sinking), turning)


def ground_sweep(t: Fields, weight: tuple[Number, ...]) -> None:
    """One sweep over the contacts with the surface; ``weight``: four of the network's numbers."""
    arm, moving = t.arm, t.moving
    velocity = moving[:3] + cross(moving[3:], arm)
    pushed, added = swept_push(t, t.target_velocity - velocity[2], weight)
    rubbed, rubbed_more = swept_friction(t, velocity[:2], pushed, weight)
    t.push, t.rubbing = pushed, rubbed
    impulse = stack(rubbed_more[0], rubbed_more[1], added)
    t.moving = moving + twist_change(t.mass_scale * t.inverse_mass, t.inverse, arm, impulse)
