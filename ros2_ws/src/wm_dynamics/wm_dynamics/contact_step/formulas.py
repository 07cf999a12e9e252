"""The step of the dynamics network (``training.dynamics.model.DynamicsStep``) over tiles of sixteen bodies or pairs.

The same formulas in the same order, split where bodies and pairs have to hear of one another: what a formula leaves
for the next lies in rows of its tile (``BODY`` and ``PAIR`` say which). ``step_kernel`` calls them in turn and carries
numbers between bodies and pairs.
"""

from __future__ import annotations

from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import HULL_POINTS, PARAMETERS, PLANE_ROWS, ROWS, STEP_S
from wm_dynamics.contact_step.simd import (
    Lanes,
    Mask,
    Matrix,
    Numbers,
    Tile,
    Vector,
    at_least,
    at_most,
    cross,
    dot,
    emitted,
    exp,
    flag,
    highest,
    in_world,
    log,
    minus,
    plus,
    relu,
    sigmoid,
    sine_cosine,
    sqrt,
    tanh,
    times,
    total,
    turn,
    turn_back,
    unit,
    where,
)

H = STEP_S
POINTS = 4
SWEEPS = 8
FEATURES = 10
WIDTH = 16
LAW = 8
FASTEST_M_S, FASTEST_RAD_S = 50.0, 200.0
FASTER_M_S = 0.1
BORNE = 4.0
UPRIGHT = 30.0
LEANS = (0.5, 0.2, 0.08)
FAR_M = 0.03
CONTACT_LEAN = 0.15
SHARP = 1e3
TINY = 1e-3
FLAT_M4 = 1e-14
TOUCHING_M2 = 1e-8
"""As in ``training.dynamics.convex_contacts``."""


class _Rows:
    """Names of rows, one after the other."""

    def __init__(self, **sizes: int) -> None:
        self.rows_in_all = 0
        for name, size in sizes.items():
            setattr(self, name, self.rows_in_all)
            self.rows_in_all += size

    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)


# What pairs read of a body comes first, in one piece.
BODY = _Rows(
    position=3, rotation=9, center=3, half=3, rounding=1, cylinder=1, inverse_mass=1, inverse=9, friction=1,
    restitution=1, linear=3, angular=3, falls=1,
    quaternion=4, inertia=9, inverse_inertia=9, rims=4, rolling=1, torsion=1, plane=PLANE_ROWS, slack=1,
    is_hull=1, hull_points=12, hull_middle=3,
    world_inertia=9, start_square=1, arm=12, gap=4, least_gap=1, approach=4, slip=8,
    effective_inverse_mass=4, effective_inverse_mass_slip=4, near=4, count=1, near_sum=1, on_ground=1, crowd=1, pairs=1,
    held_by=1, weight=3, load=3, at=2, mass_scale=1, features=40, law=32,
    target_velocity=4, share=4, friction_gain=4, mu=4, part=4, whole=4, slide=4, push=4, rubbing=8, moving=6, square=1,
    struck=1, limit=1, position_next=3, quaternion_next=4, linear_next=3, angular_next=3, impulse=1, deviation=2,
)  # fmt: skip
TABLE = BODY.quaternion
"""Rows that pairs read of a body."""
PAIR = _Rows(
    a=TABLE, b=TABLE, slack=1, gap=4, least_gap=1, normal=12, arm_a=12, arm_b=12, approach=4, slip=12,
    effective_inverse_mass_a=4, effective_inverse_mass_b=4,
    effective_inverse_mass_slip_a=4, effective_inverse_mass_slip_b=4,
    near=4, near_sum=1, beside=1, steep=1, above_a=1, above_b=1, crowd_a=1, crowd_b=1, pairs_a=1, pairs_b=1, through=1,
    at_a=2, at_b=2, mass_scale_a=1, mass_scale_b=1, features=40, law=32,
    target_velocity=4, share=4, friction_gain=4, mu=4, part=4, whole=4, slide=4, push=4, rubbing=12,
    moving_a=6, moving_b=6, respond_a=6, respond_b=6, impulse=1, square=1, given_a=1, given_b=1,
)  # fmt: skip
PARAMETER_TO_ROW: tuple[int, ...] = tuple(
    getattr(BODY, name) + i for name, size in PARAMETERS.items() for i in range(size)
)
"""Row of the body's tile of each row of the parameter table."""
assert [ROWS[name].start for name in PARAMETERS] == sorted(ROWS[name].start for name in PARAMETERS)


class _Weights:
    """Places of the weights in one array of float32."""

    first = 0
    first_bias = first + WIDTH * FEATURES
    second = first_bias + WIDTH
    second_bias = second + WIDTH * WIDTH
    last = second_bias + WIDTH
    last_bias = last + LAW * WIDTH
    sweeps = last_bias + LAW
    floor = sweeps + 4 * SWEEPS
    scatter = floor + 2
    count = scatter + 1


WEIGHTS = _Weights


def _rotation(x: Lanes, y: Lanes, z: Lanes, w: Lanes) -> Matrix:
    return [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]


def _longest(size: Vector) -> Vector:
    """1 for the axis along which something is longest, 0 for the two others."""
    first = (size[0] >= size[1]) & (size[0] >= size[2])
    second = ~first & (size[1] >= size[2])
    return [flag(first), flag(second), flag(~first & ~second)]


def _blend(one: Vector, other: Vector, share: Lanes) -> Vector:
    return [a + share * (b - a) for a, b in zip(one, other, strict=True)]


def _face_points(direction: Vector, half: Vector, cylinder: Lanes, rims: list[Lanes]) -> tuple[list[Vector], Vector]:
    size = [abs(d) for d in direction]
    sign = [where(d < 0.0, -1.0, 1.0) for d in direction]
    axis = _longest(size)
    middle = [a * s * h for a, s, h in zip(axis, sign, half, strict=True)]
    one = [a * h for a, h in zip([axis[2], axis[0], axis[1]], half, strict=True)]
    two = [a * h for a, h in zip([axis[1], axis[2], axis[0]], half, strict=True)]
    more, less = plus(middle, one), minus(middle, one)
    box = [plus(more, two), minus(more, two), plus(less, two), minus(less, two)]
    upper = direction[2] >= 0.0
    near_radius, near_height = where(upper, rims[2], rims[0]), where(upper, rims[3], rims[1])
    far_radius, far_height = where(upper, rims[0], rims[2]), where(upper, rims[1], rims[3])
    dx, dy = direction[0] + 1e-6, direction[1]
    norm = sqrt(dx * dx + dy * dy + 1e-14)
    dx, dy = dx / norm, dy / norm
    nx, ny = near_radius * dx, near_radius * dy
    upright = flag(size[2] * size[2] > UPRIGHT * (direction[0] * direction[0] + direction[1] * direction[1]))
    c, s = 0.5 * upright - 0.5, 0.8660254 + upright * (1.0 - 0.8660254)
    far_x, far_y = far_radius * dx, far_radius * dy
    far_x, far_y = far_x + upright * (-nx - far_x), far_y + upright * (-ny - far_y)
    rim = [
        [nx, ny, near_height],
        [far_x, far_y, far_height + upright * (near_height - far_height)],
        [c * nx - s * ny, s * nx + c * ny, near_height],
        [c * nx + s * ny, c * ny - s * nx, near_height],
    ]
    stands = flag(size[2] * size[2] > direction[0] * direction[0] + direction[1] * direction[1])
    lies = 0.5 * (1.0 - stands)
    both = lies * (near_radius + far_radius)
    rim_middle = [both * dx, both * dy, stands * near_height + lies * (near_height + far_height)]
    points = [_blend(b, r, cylinder) for b, r in zip(box, rim, strict=True)]
    return points, _blend(middle, rim_middle, cylinder)


def _across(inverse_mass: Lanes, inverse: Matrix, arm: Vector, slip: Vector) -> Lanes:
    turned = cross(arm, slip)
    square = dot(slip, slip)
    effective_inverse_mass = dot(turned, turn(inverse, turned)) / (square + 1e-8)
    mean = dot(arm, arm) * (inverse[0][0] + inverse[1][1] + inverse[2][2]) * 0.25
    known = square / (square + 1e-6)
    return inverse_mass + mean + known * (effective_inverse_mass - mean)


def _effective_inverse_mass(inverse_mass: Lanes, inverse: Matrix, arm: Vector, normal: Vector) -> Lanes:
    turned = cross(arm, normal)
    return inverse_mass + dot(turned, turn(inverse, turned))


def _spin(world_inertia: Matrix, inverse_mass: Lanes, angular: Vector) -> Lanes:
    return sqrt(relu(dot(angular, turn(world_inertia, angular))) * inverse_mass + 1e-18)


def _sum(values: list[Lanes]) -> Lanes:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def _most(values: list[Lanes]) -> Lanes:
    result = values[0]
    for value in values[1:]:
        result = at_least(value, result)
    return result


def _least(values: list[Lanes]) -> Lanes:
    result = values[0]
    for value in values[1:]:
        result = at_most(value, result)
    return result


def _four(tile: Tile, row: int) -> list[Lanes]:
    return [tile[row + c] for c in range(POINTS)]


def _points(tile: Tile, row: int) -> list[Vector]:
    """Vectors of the four contacts, component after component."""
    return [tile.vector(row + c, POINTS) for c in range(POINTS)]


def _centroid(part: list[Lanes], values: list[Vector]) -> Vector:
    return [_sum([p * v[i] for p, v in zip(part, values, strict=True)]) for i in range(3)]


# -- contacts with the surface beneath


def _farthest(points: list[Vector], direction: Vector, tolerance: float) -> Vector:
    """The mean of the points, in the lanes of several vectors, that lie farthest along a direction; in all lanes."""
    reach = [dot(direction, p) for p in points]
    most = highest(reach) - tolerance
    best = [flag(r >= most) for r in reach]
    count = total(best)
    return [total([b * p[i] for b, p in zip(best, points, strict=True)]) / count for i in range(3)]


def _hull(hull: Numbers) -> list[Vector]:
    hulls = Tile(hull.builder, hull.pointer)
    blocks = HULL_POINTS // 16
    return [[hulls[i * blocks + k] for i in range(3)] for k in range(blocks)]


@emitted(Numbers, Numbers, Tile)
def hull_lowest(down: Numbers, hull: Numbers, out: Tile) -> None:
    """Lowest points of a hull as it tips to four sides: rows 0 to 11, and their mean: rows 12 to 14, in all lanes.

    ``down``: 3 numbers, body axes. ``hull``: 3 times HULL_POINTS numbers.
    """
    d = [down[i] for i in range(3)]
    axis = _longest([abs(x) for x in d])
    lean = 0.15
    one = times([axis[2], axis[0], axis[1]], lean)
    two = times([axis[1], axis[2], axis[0]], lean)
    points = _hull(hull)
    tips = (plus(d, one), minus(d, one), plus(d, two), minus(d, two))
    lowest = [_farthest(points, tip, 1e-7) for tip in tips]
    for c, point in enumerate(lowest):
        out.put(c, point, POINTS)
    out.put(12, [_sum([p[i] for p in lowest]) * 0.25 for i in range(3)])


@emitted(Numbers, Numbers, Tile)
def hull_farthest(direction: Numbers, hull: Numbers, out: Tile) -> None:
    """The point of a hull farthest along a direction (3 numbers, body axes): rows 0 to 2, in all lanes."""
    out.put(0, _farthest(_hull(hull), [direction[i] for i in range(3)], 1e-6))


@emitted(Tile)
def ground_geometry(t: Tile) -> None:
    """Poses, and contacts with the surface beneath: arms and gaps."""
    rotation = _rotation(*(t[BODY.quaternion + i] for i in range(4)))
    for i in range(3):
        t.put(BODY.rotation + 3 * i, rotation[i])
    inverse = in_world(rotation, t.matrix(BODY.inverse_inertia))
    inertia = in_world(rotation, t.matrix(BODY.inertia))
    for i in range(3):
        t.put(BODY.inverse + 3 * i, inverse[i])
        t.put(BODY.world_inertia + 3 * i, inertia[i])
    down = times(rotation[2], -1.0)
    half, cylinder, center = t.vector(BODY.half), t[BODY.cylinder], t.vector(BODY.center)
    points, middle = _face_points(down, half, cylinder, [t[BODY.rims + i] for i in range(4)])
    is_hull = t[BODY.is_hull] > 0.5
    hull_points = _points(t, BODY.hull_points)
    points = [[where(is_hull, h, p + m) for h, p, m in zip(a, b, center, strict=True)]
              for a, b in zip(hull_points, points, strict=True)]  # fmt: skip
    middle = [where(is_hull, h, p + m) for h, p, m in zip(t.vector(BODY.hull_middle), middle, center, strict=True)]
    toward = turn(rotation, middle)
    position, plane = t.vector(BODY.position), [t[BODY.plane + i] for i in range(PLANE_ROWS)]
    rounding, falls = t[BODY.rounding], t[BODY.falls]
    c, s = plane[3], plane[4]
    gaps = []
    for k, point in enumerate(points):
        arm = turn(rotation, point)
        # Beyond the surface's edge, a point is drawn along the face to the edge.
        x, y = position[0] + arm[0] - plane[1], position[1] + arm[1] - plane[2]
        along = minus(toward, arm)
        lx, ly = c * x + s * y, c * y - s * x
        dx, dy = c * along[0] + s * along[1], c * along[1] - s * along[0]
        beyond_x, beyond_y = relu(abs(lx) - plane[5]), relu(abs(ly) - plane[6])
        inward_x, inward_y = where(lx > 0.0, -dx, dx), where(ly > 0.0, -dy, dy)
        share = _most([beyond_x / at_least(inward_x, 1e-6), beyond_y / at_least(inward_y, 1e-6)])
        valid = share <= 2.0
        share = at_most(share, 2.0)
        arm = [a + share * b for a, b in zip(arm, along, strict=True)]
        gap = position[2] + arm[2] - rounding - plane[0]
        gap = where(valid, gap, 1.0) + (1.0 - falls)
        gaps.append(gap)
        t[BODY.gap + k] = gap
        t.put(BODY.arm + k, [arm[0], arm[1], arm[2] - rounding], POINTS)
    t[BODY.least_gap] = _least(gaps)
    linear, angular, inverse_mass = t.vector(BODY.linear), t.vector(BODY.angular), t[BODY.inverse_mass]
    held = flag(inverse_mass <= 0.0)
    size = sqrt(dot(half, half)) + rounding
    spin = sqrt(dot(angular, angular) + 1e-12) * size * held + _spin(inertia, inverse_mass, angular)
    sinking = linear[2] - t[BODY.falls] * (GRAVITY_M_S2 * H)
    t[BODY.start_square] = linear[0] * linear[0] + linear[1] * linear[1] + sinking * sinking + spin * spin


@emitted(Tile)
def ground_before(t: Tile) -> None:
    """Velocities of the contacts with the surface before it acts, the inverse mass they meet, and which hold."""
    linear, angular, falls = t.vector(BODY.linear), t.vector(BODY.angular), t[BODY.falls]
    inverse_mass, inverse, slack = t[BODY.inverse_mass], t.matrix(BODY.inverse), t[BODY.slack]
    falling = falls * (-GRAVITY_M_S2 * H)
    nears = []
    for c, arm in enumerate(_points(t, BODY.arm)):
        before = plus(linear, cross(angular, arm))
        approach = before[2]
        gap = t[BODY.gap + c] + slack
        # Of the vertical: arm x up = (y, -x, 0).
        up_turn = [arm[1], -arm[0]]
        effective_inverse_mass = inverse_mass + (
            up_turn[0] * (inverse[0][0] * up_turn[0] + inverse[0][1] * up_turn[1])
            + up_turn[1] * (inverse[1][0] * up_turn[0] + inverse[1][1] * up_turn[1])
        )
        slip = [before[0], before[1], before[0] * 0.0]
        near = sigmoid((gap + H * (approach + falling)) * -2000.0)
        nears.append(near)
        t[BODY.gap + c] = gap
        t[BODY.approach + c] = approach
        t.put(BODY.slip + c, slip[:2], POINTS)
        t[BODY.effective_inverse_mass + c] = effective_inverse_mass
        t[BODY.effective_inverse_mass_slip + c] = _across(inverse_mass, inverse, arm, slip)
        t[BODY.near + c] = near
    near_sum = _sum(nears)
    t[BODY.near_sum] = near_sum
    t[BODY.count] = at_least(near_sum, 1.0)
    most = _most(nears)
    t[BODY.on_ground] = most
    t[BODY.held_by] = most
    for row in (BODY.crowd, BODY.pairs, BODY.square, BODY.struck, BODY.limit):
        t[row] = near_sum * 0.0
    weight = falls * (GRAVITY_M_S2 * H) / at_least(inverse_mass, 1e-6)
    # Weight, and weight times its place: what is handed down keeps the vertical that it acts in.
    own = [weight, weight * t[BODY.position], weight * t[BODY.position + 1]]
    t.put(BODY.weight, own)
    t.put(BODY.load, own)


def _features(
    gap: Lanes,
    approach: Lanes,
    slip: Vector,
    friction: Lanes,
    restitution: Lanes,
    count: Lanes,
    other: Lanes,
    leverage: Lanes,
    pair: bool,
) -> list[Lanes]:
    speed = sqrt(dot(slip, slip) + 1e-10)
    return [
        tanh(gap * (1.0 / 0.002)),
        tanh((gap * (1.0 / H) + approach) * (1.0 / 0.3)),
        tanh(approach * (1.0 / 0.2)),
        tanh(approach * (1.0 / 1.5)),
        tanh(speed * (1.0 / 0.2)),
        tanh(speed * (1.0 / 1.5)),
        friction,
        restitution,
        log(count + other) * 0.5,
        log(at_most(at_least(leverage, 0.1), 100.0)) * 0.3 + (1.0 if pair else -1.0),
    ]


@emitted(Tile)
def ground_features(t: Tile) -> None:
    """What the law of each contact with the surface depends on."""
    crowd = at_least(t[BODY.crowd], 1.0)
    count, inverse_mass = t[BODY.count], t[BODY.inverse_mass]
    t[BODY.held_by] = at_least(t[BODY.held_by], 1.0)
    t[BODY.crowd] = crowd
    t[BODY.pairs] = at_least(t[BODY.pairs], 1.0)
    factor = count / (inverse_mass + 1e-9)
    friction, restitution = t[BODY.friction], t[BODY.restitution]
    for c in range(POINTS):
        slip = [t[BODY.slip + c], t[BODY.slip + POINTS + c], count * 0.0]
        features = _features(
            t[BODY.gap + c], t[BODY.approach + c], slip, friction, restitution, count, crowd,
            t[BODY.effective_inverse_mass + c] * factor, False
        )  # fmt: skip
        t.put(BODY.features + FEATURES * c, features)


@emitted(Tile, Tile, Numbers)
def contact_law(features: Tile, out: Tile, weights: Numbers) -> None:
    """The network: LAW numbers of FEATURES."""
    given = [features[i] for i in range(FEATURES)]
    hidden = []
    for i in range(WIDTH):
        value = weights[WEIGHTS.first_bias + i]
        for j in range(FEATURES):
            value = value + weights[WEIGHTS.first + i * FEATURES + j] * given[j]
        hidden.append(relu(value))
    deeper = []
    for i in range(WIDTH):
        value = weights[WEIGHTS.second_bias + i]
        for j in range(WIDTH):
            value = value + weights[WEIGHTS.second + i * WIDTH + j] * hidden[j]
        deeper.append(hidden[i] + relu(value))
    for i in range(LAW):
        value = weights[WEIGHTS.last_bias + i]
        for j in range(WIDTH):
            value = value + weights[WEIGHTS.last + i * WIDTH + j] * deeper[j]
        out[i] = value


def _contact_law(
    law: list[Lanes], gap: Lanes, approach: Lanes, restitution: Lanes, friction: Lanes
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    bounce = restitution * (0.7 + 0.5 * sigmoid(law[0] + 0.4))
    reaches = flag(gap + H * approach < 0.0)
    back = relu(-approach - (0.08 + 0.16 * sigmoid(law[1]))) * bounce * reaches
    out = relu(-gap - 2e-4) * (0.4 / H) * sigmoid(law[2])
    base = where(gap >= 0.0, gap * (-1.0 / H), at_most(out, 1.0))
    target_velocity = where(back > 0.0, at_least(base, back), base)
    return target_velocity, 2.0 * sigmoid(law[3]), 2.0 * sigmoid(law[4]), friction * exp(0.5 * tanh(law[5]))


def _balanced(near: list[Lanes], arm: list[Vector]) -> list[Lanes]:
    x, y = [a[0] for a in arm], [a[1] for a in arm]
    nx, ny = [n * v for n, v in zip(near, x, strict=True)], [n * v for n, v in zip(near, y, strict=True)]
    sx, sy = _sum(nx), _sum(ny)
    sxx = _sum([a * b for a, b in zip(nx, x, strict=True)]) + 1e-7
    syy = _sum([a * b for a, b in zip(ny, y, strict=True)]) + 1e-7
    sxy = _sum([a * b for a, b in zip(nx, y, strict=True)])
    determinant = at_least(sxx * syy - sxy * sxy, 1e-12)
    a = (sy * sxy - sx * syy) / determinant
    b = (sx * sxy - sy * sxx) / determinant
    share = [n * at_most(at_least(1.0 + a * p + b * q, 0.0), 10.0) for n, p, q in zip(near, x, y, strict=True)]
    whole = _sum(share) + 1e-3
    return [s / whole for s in share]


@emitted(Tile)
def ground_begin(t: Tile) -> None:
    """What the sweeps need of the contacts with the surface, and the impulses and velocities with which they begin."""
    mass_scale = at_most(BORNE * t[BODY.weight] / at_least(t[BODY.load], 1e-9), 1.0)
    mass_scale = where(t[BODY.weight] > 0.0, mass_scale, 1.0)
    t[BODY.mass_scale] = mass_scale
    inverse_mass, inverse = (
        mass_scale * t[BODY.inverse_mass],
        [times(row, mass_scale) for row in t.matrix(BODY.inverse)],
    )
    for i, row in enumerate(inverse):
        t.put(BODY.inverse + 3 * i, row)
    count = t[BODY.count]
    restitution, friction = t[BODY.restitution], t[BODY.friction]
    arm = _points(t, BODY.arm)
    near = _four(t, BODY.near)
    near_sum = t[BODY.near_sum] + 1e-3
    part = [n / near_sum for n in near]
    slip = [[t[BODY.slip + c], t[BODY.slip + POINTS + c], count * 0.0] for c in range(POINTS)]
    middle = _centroid(part, arm)
    up_turn = [middle[1], -middle[0], count * 0.0]
    whole = inverse_mass + dot(up_turn, turn(inverse, up_turn)) + 1e-9
    slide = _across(inverse_mass, inverse, middle, _centroid(part, slip)) + 1e-9
    load = t[BODY.load] * t[BODY.on_ground] / t[BODY.held_by]
    pushes = []
    at = [t[BODY.at], t[BODY.at + 1]]
    for c, share in enumerate(_balanced(near, [minus(a[:2], at) for a in arm])):
        law = [t[BODY.law + LAW * c + i] for i in range(LAW)]
        target_velocity, normal_gain, friction_gain, mu = _contact_law(
            law, t[BODY.gap + c], t[BODY.approach + c], restitution, friction
        )
        t[BODY.target_velocity + c] = target_velocity
        t[BODY.share + c] = normal_gain / (
            count * (mass_scale * t[BODY.effective_inverse_mass + c] - 0.7 * inverse_mass) + 1e-9
        )
        t[BODY.friction_gain + c] = friction_gain / (
            count * mass_scale * t[BODY.effective_inverse_mass_slip + c] + 1e-9
        )
        t[BODY.mu + c] = mu
        t[BODY.part + c] = part[c]
        t[BODY.whole + c] = part[c] / whole
        t[BODY.slide + c] = part[c] / slide
        push = share * load * (1.0 + 0.1 * tanh(law[7]))
        t[BODY.push + c] = push
        pushes.append(push)
        t.put(BODY.rubbing + c, [count * 0.0, count * 0.0], POINTS)
    turned = [_sum([a[1] * p for a, p in zip(arm, pushes, strict=True)]),
              -_sum([a[0] * p for a, p in zip(arm, pushes, strict=True)])]  # fmt: skip
    falling = t[BODY.falls] * (-GRAVITY_M_S2 * H)
    linear, angular = t.vector(BODY.linear), t.vector(BODY.angular)
    t.put(BODY.moving, [linear[0], linear[1], linear[2] + falling + inverse_mass * _sum(pushes)])
    t.put(
        BODY.moving + 3, [angular[i] + (inverse[i][0] * turned[0] + inverse[i][1] * turned[1]) for i in range(3)]
    )  # fmt: skip


@emitted(Tile, Numbers)
def ground_sweep(t: Tile, weight: Numbers) -> None:
    """One sweep over the contacts with the surface."""
    inverse_mass, inverse = t[BODY.mass_scale] * t[BODY.inverse_mass], t.matrix(BODY.inverse)
    arm = _points(t, BODY.arm)
    linear, angular = t.vector(BODY.moving), t.vector(BODY.moving + 3)
    part = _four(t, BODY.part)
    velocity = [plus(linear, cross(angular, a)) for a in arm]
    lack = [g - v[2] for g, v in zip(_four(t, BODY.target_velocity), velocity, strict=True)]
    mean = _sum([p * v for p, v in zip(part, lack, strict=True)])
    mean_slip = [_sum([p * v[i] for p, v in zip(part, velocity, strict=True)]) for i in range(2)]
    weights = [weight[i] for i in range(4)]
    impulses = []
    for c in range(POINTS):
        push = t[BODY.push + c]
        pushed = relu(
            push + weights[0] * t[BODY.share + c] * (lack[c] - mean) + weights[2] * t[BODY.whole + c] * mean
        )  # fmt: skip
        own, common = weights[1] * t[BODY.friction_gain + c], weights[3] * t[BODY.slide + c]
        before = [t[BODY.rubbing + POINTS * i + c] for i in range(2)]
        rubbed = [b - own * (velocity[c][i] - mean_slip[i]) - common * mean_slip[i] for i, b in enumerate(before)]
        limit = t[BODY.mu + c] * pushed
        keep = at_most(limit / sqrt(rubbed[0] * rubbed[0] + rubbed[1] * rubbed[1] + 1e-16), 1.0)
        rubbed = times(rubbed, keep)
        impulses.append([rubbed[0] - before[0], rubbed[1] - before[1], pushed - push])
        t[BODY.push + c] = pushed
        t.put(BODY.rubbing + c, rubbed, POINTS)
    response = _respond(inverse_mass, inverse, arm, impulses)
    for i, value in enumerate([*linear, *angular]):
        t[BODY.moving + i] = value + response[i]


def _respond(inverse_mass: Lanes, inverse: Matrix, arm: list[Vector], impulses: list[Vector]) -> list[Lanes]:
    torque = [cross(a, p) for a, p in zip(arm, impulses, strict=True)]
    turned = turn(inverse, [_sum([v[i] for v in torque]) for i in range(3)])
    return [*(inverse_mass * _sum([p[i] for p in impulses]) for i in range(3)), *turned]


# -- contacts of pairs


Side = tuple[Vector, Vector, Lanes]
"""Of a core: center about the center of mass, half extents, 1 where it is a cylinder."""


def _support(side: Side, direction: Vector) -> Vector:
    center, half, cylinder = side
    box = [h * at_most(at_least(d * SHARP, -1.0), 1.0) for h, d in zip(half, direction, strict=True)]
    x, y, _ = direction
    across = sqrt(x * x + y * y + TINY * TINY)
    rim = [half[0] * x / across, half[0] * y / across]
    return plus(center, [*_blend(box[:2], rim, cylinder), box[2]])


class _Apart:
    """Two convex cores, b's placed in a's axes about a's center of mass."""

    def __init__(self, a: Side, b: Side, turned: Matrix, offset: Vector) -> None:
        self.a, self.b, self.turned, self.offset = a, b, turned, offset

    def ends(self, direction: Vector) -> tuple[Vector, Vector]:
        """Supporting points of a along a direction and of b against it."""
        own = [-v for v in turn_back(self.turned, direction)]
        return _support(self.a, direction), plus(turn(self.turned, _support(self.b, own)), self.offset)

    def span(self, direction: Vector) -> Vector:
        """The difference of the supporting points."""
        on_a, on_b = self.ends(direction)
        return minus(on_b, on_a)


def _tangents(normal: Vector) -> tuple[Vector, Vector]:
    size = [abs(n) for n in normal]
    first = (size[0] <= size[1]) & (size[0] <= size[2])
    second = ~first & (size[1] <= size[2])
    axis = [flag(first), flag(second), flag(~first & ~second)]
    one = unit(minus(axis, times(normal, dot(axis, normal))), 1e-9)
    return one, cross(normal, one)


def _pick(mask: Mask, one: Vector, other: Vector) -> Vector:
    return [where(mask, a, b) for a, b in zip(one, other, strict=True)]


def _nearest_direction(apart: _Apart, rounding: Lanes) -> Vector:
    """The direction from a to b, in a's axes, along which the gap is greatest."""
    turned = apart.turned
    between = minus(plus(apart.offset, turn(turned, apart.b[0])), apart.a[0])
    zero = rounding * 0.0
    axes = [[zero + float(i == k) for i in range(3)] for k in range(3)]
    columns = [[turned[i][k] for i in range(3)] for k in range(3)]
    one, two = axes[2], columns[2]
    sides = [
        minus(between, times(one, dot(one, between))), minus(between, times(two, dot(two, between))), cross(one, two)
    ]  # fmt: skip
    sides = [_pick(dot(side, side) > TOUCHING_M2, unit(side, 1e-9), one) for side in sides]
    normal = span = gap = None
    for look in [unit(between, 1e-6), *axes, *columns, *sides]:
        sign = where(dot(look, between) < 0.0, -1.0, 1.0)
        look = times(look, sign)
        found = apart.span(look)
        reach = dot(look, found)
        if gap is None or normal is None or span is None:
            normal, span, gap = look, found, reach
            continue
        better = reach > gap
        normal, span, gap = _pick(better, look, normal), _pick(better, found, span), where(better, reach, gap)
    assert normal is not None and span is not None and gap is not None
    first, far = normal, gap > FAR_M + rounding
    for lean in LEANS:
        start, begun = normal, span
        one, two = _tangents(normal)
        more, less = times(plus(one, two), 0.7), times(minus(one, two), 0.7)
        spans = []
        for side in (one, two, more, less):
            for signed in (lean, -lean):
                look = unit(plus(start, times(side, signed)), 1e-9)
                found = apart.span(look)
                spans.append(found)
                reach = dot(look, found)
                better = reach > gap
                normal, span, gap = _pick(better, look, normal), _pick(better, found, span), where(better, reach, gap)
        face = cross(minus(spans[0], spans[1]), minus(spans[2], spans[3]))
        face = times(face, where(dot(face, start) < 0.0, -1.0, 1.0))
        face = _pick(dot(face, face) > FLAT_M4, unit(face, 1e-12), start)
        least = nearest = None
        for found in spans:
            way = minus(found, begun)
            share = at_most(at_least(-dot(begun, way) / at_least(dot(way, way), 1e-12), 0.0), 1.0)
            point = plus(begun, times(way, share))
            square = dot(point, point)
            if least is None or nearest is None:
                least, nearest = square, point
                continue
            closer = square < least
            least, nearest = where(closer, square, least), _pick(closer, point, nearest)
        assert least is not None and nearest is not None
        toward = _pick(least > TOUCHING_M2, unit(nearest, 1e-9), start)
        for look in (face, toward):
            found = apart.span(look)
            reach = dot(look, found)
            better = reach > gap
            normal, span, gap = _pick(better, look, normal), _pick(better, found, span), where(better, reach, gap)
    return _pick(far, first, normal)


def _height(far: Lanes, far_height: Lanes, near: Lanes, near_height: Lanes, place: Lanes) -> Lanes:
    length = far - near
    share = at_most(at_least((place - near) / at_least(length, 1e-5), 0.0), 1.0)
    return near_height + where(length > 1e-5, share, 0.5) * (far_height - near_height)


@emitted(Tile)
def pair_geometry(t: Tile) -> None:
    """Contacts of pairs of cores (of hulls: ``hull_kernel``): gaps, normals from a to b, arms from either center of
    mass.
    """

    def side(base: int) -> Side:
        return t.vector(base + BODY.center), t.vector(base + BODY.half), t[base + BODY.cylinder]

    rotation_a, rotation_b = t.matrix(PAIR.a + BODY.rotation), t.matrix(PAIR.b + BODY.rotation)
    between = minus(t.vector(PAIR.b + BODY.position), t.vector(PAIR.a + BODY.position))
    turned = [
        [_sum([rotation_a[k][i] * rotation_b[k][j] for k in range(3)]) for j in range(3)] for i in range(3)
    ]  # fmt: skip
    apart = _Apart(side(PAIR.a), side(PAIR.b), turned, turn_back(rotation_a, between))
    radius_a, radius_b = t[PAIR.a + BODY.rounding], t[PAIR.b + BODY.rounding]
    normal = _nearest_direction(apart, radius_a + radius_b)
    one, two = _tangents(normal)
    at_a: list[Vector] = []
    at_b: list[Vector] = []
    for axis in (one, two):
        pair = [apart.ends(plus(normal, times(axis, signed))) for signed in (CONTACT_LEAN, -CONTACT_LEAN)]
        # The direction against one that leans to one side leans to the other.
        for on_a, on_b in ((pair[0][0], pair[1][1]), (pair[1][0], pair[0][1])):
            at_a.append([dot(one, on_a), dot(two, on_a), dot(normal, on_a)])
            at_b.append([dot(one, on_b), dot(two, on_b), dot(normal, on_b)])
    low, high = [], []
    for k in range(2):
        top, bottom = at_most(at_a[2 * k][k], at_b[2 * k][k]), at_least(at_a[2 * k + 1][k], at_b[2 * k + 1][k])
        middle = 0.5 * (top + bottom)
        low.append(at_most(bottom, middle))
        high.append(at_least(top, middle))
    world = turn(rotation_a, normal)
    gaps = []
    for c in range(POINTS):
        k, other = c // 2, 1 - c // 2
        place = high[k] if c % 2 == 0 else low[k]
        nearer = at_a[c][k] <= at_b[c][k] if c % 2 == 0 else at_a[c][k] >= at_b[c][k]
        beside = where(nearer, at_a[c][other], at_b[c][other])
        beside = at_most(at_least(beside, low[other]), high[other])
        height_a, height_b = (
            _height(at[2 * k][k], at[2 * k][2], at[2 * k + 1][k], at[2 * k + 1][2], place) for at in (at_a, at_b)
        )  # fmt: skip
        gap = height_b - height_a - radius_a - radius_b
        first, second = (place, beside) if k == 0 else (beside, place)
        contact = plus(plus(times(one, first), times(two, second)), times(normal, height_a + radius_a + 0.5 * gap))
        arm = turn(rotation_a, contact)
        gaps.append(gap)
        t[PAIR.gap + c] = gap
        t.put(PAIR.normal + c, world, POINTS)
        t.put(PAIR.arm_a + c, arm, POINTS)
        t.put(PAIR.arm_b + c, minus(arm, between), POINTS)
    t[PAIR.least_gap] = _least(gaps)


def _relative(twist_a: tuple[Vector, Vector], twist_b: tuple[Vector, Vector], arm_a: Vector, arm_b: Vector) -> Vector:
    at_a = plus(twist_a[0], cross(twist_a[1], arm_a))
    return minus(plus(twist_b[0], cross(twist_b[1], arm_b)), at_a)


@emitted(Tile)
def pair_before(t: Tile) -> None:
    """Velocities of the contacts of pairs before they act, the inverse mass they meet, and which hold."""
    twist_a = t.vector(PAIR.a + BODY.linear), t.vector(PAIR.a + BODY.angular)
    twist_b = t.vector(PAIR.b + BODY.linear), t.vector(PAIR.b + BODY.angular)
    mass_a, mass_b = t[PAIR.a + BODY.inverse_mass], t[PAIR.b + BODY.inverse_mass]
    inverse_a, inverse_b = t.matrix(PAIR.a + BODY.inverse), t.matrix(PAIR.b + BODY.inverse)
    falling = (t[PAIR.b + BODY.falls] - t[PAIR.a + BODY.falls]) * (-GRAVITY_M_S2 * H)
    slack = t[PAIR.slack]
    normals, arms_a, arms_b = _points(t, PAIR.normal), _points(t, PAIR.arm_a), _points(t, PAIR.arm_b)
    nears = []
    for c, (normal, arm_a, arm_b) in enumerate(zip(normals, arms_a, arms_b, strict=True)):
        before = _relative(twist_a, twist_b, arm_a, arm_b)
        approach = dot(normal, before)
        slip = minus(before, times(normal, approach))
        gap = t[PAIR.gap + c] + slack
        near = sigmoid((gap + H * (approach + normal[2] * falling)) * -2000.0)
        nears.append(near)
        t[PAIR.gap + c] = gap
        t[PAIR.approach + c] = approach
        t.put(PAIR.slip + c, slip, POINTS)
        t[PAIR.effective_inverse_mass_a + c] = _effective_inverse_mass(mass_a, inverse_a, arm_a, normal)
        t[PAIR.effective_inverse_mass_b + c] = _effective_inverse_mass(mass_b, inverse_b, arm_b, normal)
        t[PAIR.effective_inverse_mass_slip_a + c] = _across(mass_a, inverse_a, arm_a, slip)
        t[PAIR.effective_inverse_mass_slip_b + c] = _across(mass_b, inverse_b, arm_b, slip)
        t[PAIR.near + c] = near
    beside = _most(nears)
    steep = _sum([n[2] for n in normals]) * 0.25
    t[PAIR.near_sum] = _sum(nears)
    t[PAIR.beside] = beside
    t[PAIR.steep] = steep
    t[PAIR.above_b] = beside * relu(steep - 0.3) * (1.0 / 0.7)
    t[PAIR.above_a] = beside * relu(-steep - 0.3) * (1.0 / 0.7)


@emitted(Tile)
def pair_features(t: Tile) -> None:
    """What the law of each contact of pairs depends on."""
    count_a, count_b = t[PAIR.crowd_a], t[PAIR.crowd_b]
    masses = t[PAIR.a + BODY.inverse_mass] + t[PAIR.b + BODY.inverse_mass] + 1e-9
    friction = _most([t[PAIR.a + BODY.friction], t[PAIR.b + BODY.friction]])
    restitution = _least([t[PAIR.a + BODY.restitution], t[PAIR.b + BODY.restitution]])
    for c in range(POINTS):
        shared = count_a * t[PAIR.effective_inverse_mass_a + c] + count_b * t[PAIR.effective_inverse_mass_b + c]
        features = _features(
            t[PAIR.gap + c], t[PAIR.approach + c], t.vector(PAIR.slip + c, POINTS), friction, restitution,
            count_a, count_b, shared / masses, True
        )  # fmt: skip
        t.put(PAIR.features + FEATURES * c, features)


@emitted(Tile)
def pair_begin(t: Tile) -> None:
    """What the sweeps need of the contacts of pairs, and the impulses with which they begin."""
    mass_scale_a, mass_scale_b = t[PAIR.mass_scale_a], t[PAIR.mass_scale_b]
    mass_a, mass_b = mass_scale_a * t[PAIR.a + BODY.inverse_mass], mass_scale_b * t[PAIR.b + BODY.inverse_mass]
    inverse_a = [times(row, mass_scale_a) for row in t.matrix(PAIR.a + BODY.inverse)]
    inverse_b = [times(row, mass_scale_b) for row in t.matrix(PAIR.b + BODY.inverse)]
    t[PAIR.a + BODY.inverse_mass], t[PAIR.b + BODY.inverse_mass] = mass_a, mass_b
    for i in range(3):
        t.put(PAIR.a + BODY.inverse + 3 * i, inverse_a[i])
        t.put(PAIR.b + BODY.inverse + 3 * i, inverse_b[i])
    count_a, count_b, pairs_a, pairs_b = t[PAIR.crowd_a], t[PAIR.crowd_b], t[PAIR.pairs_a], t[PAIR.pairs_b]
    friction = _most([t[PAIR.a + BODY.friction], t[PAIR.b + BODY.friction]])
    restitution = _least([t[PAIR.a + BODY.restitution], t[PAIR.b + BODY.restitution]])
    near, slip = _four(t, PAIR.near), _points(t, PAIR.slip)
    normal, arm_a, arm_b = _points(t, PAIR.normal), _points(t, PAIR.arm_a), _points(t, PAIR.arm_b)
    near_sum = t[PAIR.near_sum] + 1e-3
    part = [n / near_sum for n in near]
    middle_a, middle_b, middle_slip = _centroid(part, arm_a), _centroid(part, arm_b), _centroid(part, slip)
    middle_normal = unit(_centroid(part, normal), 1e-6)
    whole = pairs_a * _effective_inverse_mass(mass_a, inverse_a, middle_a, middle_normal)
    whole = whole + pairs_b * _effective_inverse_mass(mass_b, inverse_b, middle_b, middle_normal) + 1e-9
    slide = pairs_a * _across(mass_a, inverse_a, middle_a, middle_slip)
    slide = slide + pairs_b * _across(mass_b, inverse_b, middle_b, middle_slip) + 1e-9
    upper = flag(t[PAIR.steep] > 0.0)
    at_a, at_b = [t[PAIR.at_a], t[PAIR.at_a + 1]], [t[PAIR.at_b], t[PAIR.at_b + 1]]
    carried = _balanced(
        near, [_blend(minus(a[:2], at_a), minus(b[:2], at_b), upper) for a, b in zip(arm_a, arm_b, strict=True)]
    )
    through = t[PAIR.through]
    impulses = []
    for c in range(POINTS):
        law = [t[PAIR.law + LAW * c + i] for i in range(LAW)]
        target_velocity, normal_gain, friction_gain, mu = _contact_law(
            law, t[PAIR.gap + c], t[PAIR.approach + c], restitution, friction
        )
        effective_inverse_mass_a, effective_inverse_mass_b = (
            mass_scale_a * t[PAIR.effective_inverse_mass_a + c],
            mass_scale_b * t[PAIR.effective_inverse_mass_b + c],
        )
        t[PAIR.target_velocity + c] = target_velocity
        t[PAIR.share + c] = normal_gain / (
            count_a * (effective_inverse_mass_a - 0.7 * mass_a)
            + count_b * (effective_inverse_mass_b - 0.7 * mass_b)
            + 1e-9
        )
        t[PAIR.friction_gain + c] = friction_gain / (
            count_a * mass_scale_a * t[PAIR.effective_inverse_mass_slip_a + c]
            + count_b * mass_scale_b * t[PAIR.effective_inverse_mass_slip_b + c]
            + 1e-9
        )
        t[PAIR.mu + c] = mu
        t[PAIR.part + c] = part[c]
        t[PAIR.whole + c] = part[c] / whole
        t[PAIR.slide + c] = part[c] / slide
        push = carried[c] * through * (1.0 + 0.1 * tanh(law[7]))
        t[PAIR.push + c] = push
        t.put(PAIR.rubbing + c, [through * 0.0] * 3, POINTS)
        impulses.append(times(normal[c], push))
    t.put(PAIR.respond_a, [-v for v in _respond(mass_a, inverse_a, arm_a, impulses)])
    t.put(PAIR.respond_b, _respond(mass_b, inverse_b, arm_b, impulses))


@emitted(Tile, Numbers)
def pair_sweep(t: Tile, weight: Numbers) -> None:
    """One sweep over the contacts of pairs."""
    mass_a, mass_b = t[PAIR.a + BODY.inverse_mass], t[PAIR.b + BODY.inverse_mass]
    inverse_a, inverse_b = t.matrix(PAIR.a + BODY.inverse), t.matrix(PAIR.b + BODY.inverse)
    twist_a = t.vector(PAIR.moving_a), t.vector(PAIR.moving_a + 3)
    twist_b = t.vector(PAIR.moving_b), t.vector(PAIR.moving_b + 3)
    normal, arm_a, arm_b = _points(t, PAIR.normal), _points(t, PAIR.arm_a), _points(t, PAIR.arm_b)
    part = _four(t, PAIR.part)
    relative = [_relative(twist_a, twist_b, a, b) for a, b in zip(arm_a, arm_b, strict=True)]
    speed = [dot(n, r) for n, r in zip(normal, relative, strict=True)]
    slip = [minus(r, times(n, s)) for r, n, s in zip(relative, normal, speed, strict=True)]
    lack = [g - s for g, s in zip(_four(t, PAIR.target_velocity), speed, strict=True)]
    mean = _sum([p * v for p, v in zip(part, lack, strict=True)])
    mean_slip = _centroid(part, slip)
    weights = [weight[i] for i in range(4)]
    impulses = []
    for c in range(POINTS):
        push = t[PAIR.push + c]
        pushed = relu(
            push + weights[0] * t[PAIR.share + c] * (lack[c] - mean) + weights[2] * t[PAIR.whole + c] * mean
        )  # fmt: skip
        own, common = weights[1] * t[PAIR.friction_gain + c], weights[3] * t[PAIR.slide + c]
        before = t.vector(PAIR.rubbing + c, POINTS)
        rubbed = [b - own * (s - m) - common * m for b, s, m in zip(before, slip[c], mean_slip, strict=True)]
        limit = t[PAIR.mu + c] * pushed
        rubbed = times(rubbed, at_most(limit / sqrt(dot(rubbed, rubbed) + 1e-16), 1.0))
        impulses.append(plus(minus(rubbed, before), times(normal[c], pushed - push)))
        t[PAIR.push + c] = pushed
        t.put(PAIR.rubbing + c, rubbed, POINTS)
    t.put(PAIR.respond_a, [-v for v in _respond(mass_a, inverse_a, arm_a, impulses)])
    t.put(PAIR.respond_b, _respond(mass_b, inverse_b, arm_b, impulses))


@emitted(Tile)
def pair_after(t: Tile) -> None:
    """What pairs have transmitted, how far that may scatter, and how much faster it can have made either."""
    push = _four(t, PAIR.push)
    t[PAIR.impulse] = _sum(push)
    open_ = [p * exp(t[PAIR.law + LAW * c + 6] - 3.0) for c, p in enumerate(push)]
    t[PAIR.square] = _sum([v * v for v in open_])
    mass_a, mass_b = t[PAIR.a + BODY.inverse_mass], t[PAIR.b + BODY.inverse_mass]
    restitution = _least([t[PAIR.a + BODY.restitution], t[PAIR.b + BODY.restitution]])
    given = (1.0 + restitution) / (mass_a + mass_b + 1e-9)
    given = given * given * flag(t[PAIR.impulse] > 0.0)
    t[PAIR.given_a] = given * mass_a * mass_a
    t[PAIR.given_b] = given * mass_b * mass_b


# -- what comes out


@emitted(Tile, Numbers)
def finish(t: Tile, weights: Numbers) -> None:
    """State after the step, impulses, deviations."""
    linear, angular = t.vector(BODY.linear), t.vector(BODY.angular)
    inverse_mass, inverse, falls = t[BODY.inverse_mass], t.matrix(BODY.inverse), t[BODY.falls]
    world_inertia, half, rounding = t.matrix(BODY.world_inertia), t.vector(BODY.half), t[BODY.rounding]
    push = _four(t, BODY.push)
    plane_impulse = _sum(push)
    linear_after, turning = t.vector(BODY.moving), t.vector(BODY.moving + 3)
    # Rolling and torsional resistance.
    stiffness = (inverse[0][0] + inverse[1][1]) * 0.5 + 1e-9
    roll = sqrt(turning[0] * turning[0] + turning[1] * turning[1] + 1e-12)
    keep = relu(1.0 - t[BODY.rolling] * plane_impulse * stiffness / roll)
    keep_spin = relu(1.0 - t[BODY.torsion] * plane_impulse * inverse[2][2] / (abs(turning[2]) + 1e-9))
    angular_after = [turning[0] * keep, turning[1] * keep, turning[2] * keep_spin]
    # None is faster after than what struck it can have made it.
    free_body = flag(inverse_mass > 0.0)
    limit = sqrt(t[BODY.start_square] + t[BODY.limit] + 1e-12) + FASTER_M_S
    linear_after = times(linear_after, at_most(limit / sqrt(dot(linear_after, linear_after) + 1e-12), 1.0))
    spin = _spin(world_inertia, inverse_mass, angular_after)
    angular_after = times(angular_after, at_most(limit / (spin + 1e-9), 1.0))
    # Deviations.
    open_ = [p * exp(t[BODY.law + LAW * c + 6] - 4.0) for c, p in enumerate(push)]
    impulse = sqrt(_sum([v * v for v in open_]) + t[BODY.square] + 1e-18)
    size = sqrt(dot(half, half)) + rounding + 0.01
    deviation = (at_most(impulse * inverse_mass, limit) + weights[WEIGHTS.floor]) * free_body * weights[WEIGHTS.scatter]
    t.put(BODY.deviation, [deviation, deviation / size])
    t[BODY.impulse] = plane_impulse
    # Poses.
    alone = flag(t[BODY.struck] <= 0.0) * falls
    flies = alone * flag(plane_impulse <= 0.0)
    position = t.vector(BODY.position)
    for i, mean in enumerate([alone, alone, flies]):
        step = linear_after[i] + 0.5 * mean * (linear[i] - linear_after[i])
        t[BODY.position_next + i] = position[i] + H * step
    x, y, z, w = (t[BODY.quaternion + i] for i in range(4))
    mean_angular = [a + 0.5 * alone * (b - a) for a, b in zip(angular_after, angular, strict=True)]
    speed = sqrt(dot(mean_angular, mean_angular) + 1e-12)
    sine, dw = sine_cosine(0.5 * H * speed)
    d = times(mean_angular, sine / speed)
    turned = [
        dw * x + d[0] * w + d[1] * z - d[2] * y,
        dw * y - d[0] * z + d[1] * w + d[2] * x,
        dw * z + d[0] * y - d[1] * x + d[2] * w,
        dw * w - d[0] * x - d[1] * y - d[2] * z,
    ]
    norm = sqrt(_sum([v * v for v in turned]) + 1e-12)
    turned = [v / norm for v in turned]
    t.put(BODY.quaternion_next, turned)
    # Angular momentum, not angular velocity, stays as the body turns; fast slender things keep their energy.
    momentum = turn(world_inertia, angular_after)
    carried = turn(in_world(_rotation(*turned), t.matrix(BODY.inverse_inertia)), momentum)
    spin_before = _spin(world_inertia, inverse_mass, angular_after)
    spin = sqrt(relu(dot(momentum, carried)) * inverse_mass + 1e-18)
    carried = times(carried, at_most((spin_before + 1e-9) / (spin + 1e-9), 1.0))
    angular_after = _blend(angular_after, carried, free_body)
    linear_after = times(linear_after, at_most(FASTEST_M_S / sqrt(dot(linear_after, linear_after) + 1e-12), 1.0))
    angular_after = times(
        angular_after, at_most(FASTEST_RAD_S / sqrt(dot(angular_after, angular_after) + 1e-12), 1.0)
    )  # fmt: skip
    t.put(BODY.linear_next, linear_after)
    t.put(BODY.angular_next, angular_after)
