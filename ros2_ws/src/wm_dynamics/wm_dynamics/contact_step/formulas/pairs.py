"""Contacts of near pairs, from a to b: from poses to impulses.

Each function reads fields of ``records.PAIR`` and writes others, in the order in which they stand here.
"""

from __future__ import annotations

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import STEP_S
from wm_dynamics.contact_step.formulas.mechanics import (
    balanced,
    centroid,
    contact_law,
    inverse_mass_across,
    inverse_mass_along,
    law_features,
    nearness,
    swept_friction,
    swept_push,
    twist_change,
)
from wm_dynamics.contact_step.formulas.nearest import Apart, Core, Side, contacts_of
from wm_dynamics.contact_step.numbers import (
    Fields,
    Number,
    Vector,
    at_least,
    at_most,
    blend,
    cross,
    dot,
    exp,
    flag,
    least,
    most,
    relu,
    tanh,
    total,
    transposed_product,
    turn,
    turn_back,
    unit,
)

ABOVE = 0.3
"""Vertical component of the normal from which on the upper object counts as borne by the lower one."""


def core_of(side: Fields) -> Core:
    """The core of one side."""
    return Core(side.center, side.half, side.cylinder)


def pair_geometry(t: Fields, side_a: Side | None = None, side_b: Side | None = None) -> None:
    """Gaps, normals from a to b, arms from either center of mass; the sides are cores where not given."""
    rotation_a = t.a.rotation
    between = t.b.position - t.a.position
    turned = transposed_product(rotation_a, t.b.rotation)
    apart = Apart(side_a or core_of(t.a), side_b or core_of(t.b), turned, turn_back(rotation_a, between))
    gap, normal, contacts = contacts_of(apart, t.a.rounding, t.b.rounding)
    arm = turn(rotation_a, contacts)
    t.gap, t.least_gap, t.normal = gap, least(gap), turn(rotation_a, normal)
    t.arm_a, t.arm_b = arm, arm - between


def _relative(twist_a: tuple[Vector, Vector], twist_b: tuple[Vector, Vector], arm_a: Vector, arm_b: Vector) -> Vector:
    """Velocity (3, 4) of b's points of contact relative to a's."""
    at_a = twist_a[0] + cross(twist_a[1], arm_a)
    return twist_b[0] + cross(twist_b[1], arm_b) - at_a


def pair_before(t: Fields) -> None:
    """Velocities of the contacts before they act, their effective inverse masses, and which of them count."""
    a, b, normal, arm_a, arm_b = t.a, t.b, t.normal, t.arm_a, t.arm_b
    before = _relative((a.linear, a.angular), (b.linear, b.angular), arm_a, arm_b)
    approach = dot(normal, before)
    slip = before - normal * approach
    gap = t.gap + t.slack
    falling = (b.falls - a.falls) * (-GRAVITY_M_S2 * STEP_S)
    near = nearness(gap, approach + normal[2] * falling)
    t.gap, t.approach, t.slip, t.near = gap, approach, slip, near
    t.effective_inverse_mass_a = inverse_mass_along(a.inverse_mass, a.inverse, arm_a, normal)
    t.effective_inverse_mass_b = inverse_mass_along(b.inverse_mass, b.inverse, arm_b, normal)
    t.effective_inverse_mass_slip_a = inverse_mass_across(a.inverse_mass, a.inverse, arm_a, slip)
    t.effective_inverse_mass_slip_b = inverse_mass_across(b.inverse_mass, b.inverse, arm_b, slip)
    beside, steep = most(near), normal[2]
    t.near_sum, t.beside, t.steep = total(near), beside, steep
    t.above_b = beside * relu(steep - ABOVE) * (1.0 / (1.0 - ABOVE))
    t.above_a = beside * relu(-steep - ABOVE) * (1.0 / (1.0 - ABOVE))


def _surfaces(t: Fields) -> tuple[Number, Number]:
    """Friction and restitution of the pair."""
    return at_least(t.b.friction, t.a.friction), at_most(t.b.restitution, t.a.restitution)


def pair_features(t: Fields) -> None:
    """What the law of each contact of pairs depends on."""
    friction, restitution = _surfaces(t)
    count_a, count_b = t.crowd_a, t.crowd_b
    shared = count_a * t.effective_inverse_mass_a + count_b * t.effective_inverse_mass_b
    leverage = shared / (t.a.inverse_mass + t.b.inverse_mass + 1e-9)
    t.features = law_features(
        t.gap, t.approach, t.slip, friction, restitution, count_a, count_b, leverage, True
    )  # fmt: skip


def pair_begin(t: Fields) -> None:
    """What the sweeps need of the contacts of pairs, and the impulses with which they begin."""
    friction, restitution = _surfaces(t)
    scale_a, scale_b = t.mass_scale_a, t.mass_scale_b
    mass_a, mass_b = scale_a * t.a.inverse_mass, scale_b * t.b.inverse_mass
    inverse_a, inverse_b = scale_a * t.a.inverse, scale_b * t.b.inverse
    t.a.inverse_mass, t.b.inverse_mass, t.a.inverse, t.b.inverse = mass_a, mass_b, inverse_a, inverse_b
    count_a, count_b, pairs_a, pairs_b = t.crowd_a, t.crowd_b, t.pairs_a, t.pairs_b
    near, slip, normal, arm_a, arm_b = t.near, t.slip, t.normal, t.arm_a, t.arm_b
    part = near / (t.near_sum + 1e-3)
    middle_a, middle_b, middle_slip = centroid(part, arm_a), centroid(part, arm_b), centroid(part, slip)
    middle_normal = unit(centroid(part, normal), 1e-6)
    whole = pairs_a * inverse_mass_along(mass_a, inverse_a, middle_a, middle_normal)
    whole = whole + pairs_b * inverse_mass_along(mass_b, inverse_b, middle_b, middle_normal) + 1e-9
    slide = pairs_a * inverse_mass_across(mass_a, inverse_a, middle_a, middle_slip)
    slide = slide + pairs_b * inverse_mass_across(mass_b, inverse_b, middle_b, middle_slip) + 1e-9
    law = t.law
    target_velocity, normal_gain, friction_gain, mu = contact_law(law, t.gap, t.approach, restitution, friction)
    t.target_velocity, t.mu = target_velocity, mu
    t.share = normal_gain / (
        count_a * (scale_a * t.effective_inverse_mass_a - 0.7 * mass_a)
        + count_b * (scale_b * t.effective_inverse_mass_b - 0.7 * mass_b)
        + 1e-9
    )
    t.friction_gain = friction_gain / (
        count_a * scale_a * t.effective_inverse_mass_slip_a + count_b * scale_b * t.effective_inverse_mass_slip_b + 1e-9
    )
    t.part, t.whole, t.slide = part, part / whole, part / slide
    t.rubbing = slip * 0.0
    steep = t.steep
    upper = flag(steep > 0.0, steep)
    vertical = blend(arm_a[:2] - t.at_a, arm_b[:2] - t.at_b, upper)
    push = balanced(near, vertical) * t.through * (1.0 + 0.1 * tanh(law[7]))
    t.push = push
    _respond(t, normal * push)


def _respond(t: Fields, impulse: Vector) -> None:
    t.respond_a = -twist_change(t.a.inverse_mass, t.a.inverse, t.arm_a, impulse)
    t.respond_b = twist_change(t.b.inverse_mass, t.b.inverse, t.arm_b, impulse)


def pair_sweep(t: Fields, weight: tuple[Number, ...]) -> None:
    """One sweep over the contacts of pairs; ``weight``: four of the network's numbers."""
    moving_a, moving_b, normal = t.moving_a, t.moving_b, t.normal
    relative = _relative((moving_a[:3], moving_a[3:]), (moving_b[:3], moving_b[3:]), t.arm_a, t.arm_b)
    speed = dot(normal, relative)
    pushed, added = swept_push(t, t.target_velocity - speed, weight)
    rubbed, rubbed_more = swept_friction(t, relative - normal * speed, pushed, weight)
    t.push, t.rubbing = pushed, rubbed
    _respond(t, rubbed_more + normal * added)


def pair_after(t: Fields) -> None:
    """Impulses of pairs, their scatter, and the largest speed that they can have given to either body.

    A collision with j gives i at most (1 + e) m_j / (m_i + m_j) of the speed of j.
    """
    push, restitution = t.push, _surfaces(t)[1]
    impulse = total(push)
    scattered = push * exp(t.law[6] - 3.0)
    t.impulse, t.square = impulse, total(scattered * scattered)
    mass_a, mass_b = t.a.inverse_mass, t.b.inverse_mass
    given = (1.0 + restitution) / (mass_a + mass_b + 1e-9)
    given = given * given * flag(impulse > 0.0, impulse)
    t.given_a, t.given_b = given * mass_a * mass_a, given * mass_b * mass_b
