"""The dynamics network: one step of a world of rigid things, with contacts that are learned.

What is known is built in, what is not is learned. Known: free flight, gravity, where two shapes are nearest, that a
contact pushes and never pulls, acts on both bodies with opposite impulses, and rubs no harder than friction allows. So
momentum is conserved, permuting things permutes the answer, and turning the world about gravity turns it. Learned: a
network over each contact's own invariants (gap, approach, slip, masses, friction, restitution, how many other contacts
share the body) gives the law of that contact - how much of the violation each sweep of message passing takes away, how
much bounces, how soft it is - and how far the outcome may scatter. Messages between bodies are impulses: bodies ->
contacts (relative velocity) -> network -> bodies.

Contacts are computed from shape parameters and points of hulls, four for each thing with the surface beneath it and
four for each near pair (``training.dynamics.convex_contacts``), so a shape never seen in training is no other input.
Sources: impulses with velocity-level constraints, Stewart and Trinkle 1996; Jacobi sweeps with mass splitting, Tonge,
Benevolenski and Voroshilov 2012.

Layout: components first, bodies (B) or pairs (P) last; SI units; world axes, z up; a body's frame has its origin at
the center of mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.dynamics.convex_contacts import Convex, convex_contacts
from wm_core.constants import GRAVITY_M_S2
from wm_dynamics.contact_step.body_tables import PARAMETERS, STEP_S

POINTS = 4
SWEEPS = 8
FEATURES = 10
FASTEST_M_S, FASTEST_RAD_S = 50.0, 200.0
"""No step leaves anything faster: a turn of more than half a circle a step cannot be told from one the other way."""
FASTER_M_S = 0.1
"""What a step may add to the speed that a blow can give."""
BORNE = 4.0
"""How many times its own weight a thing bears as what it is; under more it acts as if it were heavier."""
UPRIGHT = 30.0
"""Round things that lean by less than some 10 degrees (tangent squared 1 / 30) stand upright."""
_NEXT, _LAST = [1, 2, 0], [2, 0, 1]


@dataclass
class Stepped:
    """What one step gives: positions (3, B), quaternions xyzw (4, B), velocities (3, B) each; impulses [N s] with the
    surface beneath (B,) and between pairs (P,); standard deviations (2, B) of the velocities [m/s, rad/s] that the
    step leaves open; smallest gaps (B,) and (P,) before it, slack not counted [m].
    """

    position: Tensor
    quaternion: Tensor
    linear: Tensor
    angular: Tensor
    plane_impulse: Tensor
    pair_impulse: Tensor
    deviation: Tensor
    plane_gap: Tensor
    pair_gap: Tensor


def _dot(a: Tensor, b: Tensor) -> Tensor:
    x, y, z = (a * b).unbind(0)
    return x + y + z


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Of (3, ...) and (3, ...); few operations, as a step of few bodies is bound by their number."""
    return a[_NEXT] * b[_LAST] - a[_LAST] * b[_NEXT]


def _turn(matrix: Tensor, vector: Tensor) -> Tensor:
    """(3, 3, B) times (3, B) or (3, 4, B)."""
    if vector.dim() == 3:
        matrix = matrix.unsqueeze(2)
    one, two, three = matrix.unbind(1)
    x, y, z = vector.unbind(0)
    return one * x + two * y + three * z


def _turn_back(matrix: Tensor, vector: Tensor) -> Tensor:
    """The transpose of (3, 3, B) times (3, B) or (3, 4, B)."""
    if vector.dim() == 3:
        matrix = matrix.unsqueeze(2)
    one, two, three = matrix.unbind(0)
    x, y, z = vector.unbind(0)
    return one * x + two * y + three * z


def rotation_of(q: Tensor) -> Tensor:
    """(3, 3, B) rotation matrices of unit quaternions (4, B) xyzw."""
    x, y, z, w = q[0], q[1], q[2], q[3]
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]),
    ]
    return torch.stack(rows)


def _unit(vector: Tensor, floor: float = 1e-9) -> Tensor:
    return vector / torch.sqrt(_dot(vector, vector) + floor * floor)


def face_points(direction: Tensor, half: Tensor, cylinder: Tensor, rims: Tensor) -> tuple[Tensor, Tensor]:
    """Four points of a core that lie farthest along a direction, and the middle of the face that they are on.

    Of a box the corners of the face that looks that way most; of a cylinder the foremost point of each rim, and of the
    rim that is ahead two more, a third of a turn to either side; of one that stands upright four points of that rim.

    Args:
        direction: (3, B) in the body's axes. half: (3, B) [m]. cylinder: (B,) 0 or 1.
        rims: (4, B) of round things radius and height of the lower rim, radius and height of the upper one [m].

    Returns:
        (3, 4, B) and (3, B) [m], about the geometric center, body axes.
    """
    size = direction.abs()
    sign = torch.where(direction < 0, -torch.ones_like(direction), torch.ones_like(direction))
    first = ((size[0] >= size[1]) & (size[0] >= size[2])).to(direction.dtype)
    second = (1 - first) * (size[1] >= size[2]).to(direction.dtype)
    axis = torch.stack([first, second, 1 - first - second])
    middle = axis * sign * half
    one = torch.stack([axis[2], axis[0], axis[1]]) * half
    two = torch.stack([axis[1], axis[2], axis[0]]) * half
    box = torch.stack([middle + one + two, middle + one - two, middle - one + two, middle - one - two], dim=1)

    upper = (direction[2] >= 0).to(direction.dtype)
    near_radius, near_height = rims[0] + upper * (rims[2] - rims[0]), rims[1] + upper * (rims[3] - rims[1])
    far_radius, far_height = rims[2] + upper * (rims[0] - rims[2]), rims[3] + upper * (rims[1] - rims[3])
    dx, dy = direction[0] + 1e-6, direction[1]
    norm = torch.sqrt(dx * dx + dy * dy + 1e-14)
    dx, dy = dx / norm, dy / norm
    nx, ny = near_radius * dx, near_radius * dy
    upright = (size[2] * size[2] > UPRIGHT * (direction[0] * direction[0] + direction[1] * direction[1])).to(
        direction.dtype
    )
    c, s = 0.5 * upright - 0.5, 0.8660254 + upright * (1.0 - 0.8660254)
    far_x, far_y = far_radius * dx, far_radius * dy
    far_x, far_y = far_x + upright * (-nx - far_x), far_y + upright * (-ny - far_y)
    rim = torch.stack(
        [
            torch.stack([nx, far_x, c * nx - s * ny, c * nx + s * ny]),
            torch.stack([ny, far_y, s * nx + c * ny, -s * nx + c * ny]),
            torch.stack([near_height, far_height + upright * (near_height - far_height), near_height, near_height]),
        ]
    )
    stands = (size[2] * size[2] > direction[0] * direction[0] + direction[1] * direction[1]).to(direction.dtype)
    lies = 0.5 * (1 - stands)
    rim_middle = torch.stack(
        [
            lies * (near_radius + far_radius) * dx,
            lies * (near_radius + far_radius) * dy,
            stands * near_height + lies * (near_height + far_height),
        ]
    )
    points = box + cylinder * (rim - box)
    return points, middle + cylinder * (rim_middle - middle)


class ContactNetwork(nn.Module):
    """The law of a contact from its invariants (FEATURES, ...): seven numbers each."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, FEATURES) / FEATURES**0.5)
        self.first_bias = nn.Parameter(torch.zeros(width, 1))
        self.second = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.second_bias = nn.Parameter(torch.zeros(width, 1))
        self.last = nn.Parameter(torch.zeros(8, width))
        self.last_bias = nn.Parameter(torch.zeros(8, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(8, M) of (FEATURES, M)."""
        hidden = torch.relu(self.first @ features + self.first_bias)
        hidden = hidden + torch.relu(self.second @ hidden + self.second_bias)
        return self.last @ hidden + self.last_bias


class DynamicsStep(nn.Module):
    """One step of ``STEP_S``; see the module's text."""

    up: Tensor
    level: Tensor
    up6: Tensor

    def __init__(self, width: int = 16, sweeps: int = SWEEPS, step_s: float = STEP_S) -> None:
        super().__init__()
        self.step_s, self.sweeps = step_s, sweeps
        self.network = ContactNetwork(width)
        self.register_buffer("up", torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1), persistent=False)
        self.register_buffer("level", torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1), persistent=False)
        self.register_buffer("up6", torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).view(6, 1), persistent=False)
        self.sweep_weights = nn.Parameter(torch.zeros(sweeps, 4))
        self.deviation_floor = nn.Parameter(torch.tensor([-9.0, -7.0]))

    def forward(
        self,
        position: Tensor,
        quaternion: Tensor,
        linear: Tensor,
        angular: Tensor,
        parameters: Tensor,
        plane: Tensor,
        pair_a: Tensor,
        pair_b: Tensor,
        hull_row: Tensor,
        hull_points: Tensor,
        plane_slack: Tensor,
        pair_slack: Tensor,
    ) -> Stepped:
        """One step.

        Args:
            position, linear, angular: (3, B); quaternion: (4, B) xyzw.
            parameters: (PARAMETER_ROWS, B), rows as in ``PARAMETERS``. plane: (PLANE_ROWS, B).
            pair_a, pair_b: (P,) int64 bodies of near pairs, the smaller one first.
            hull_row: (H,) int64 bodies that are hulls of hull_points (3, HULL_POINTS, H), body frame [m]. What is a
                cylinder too stands on its rims, what is not on its lowest points.
            plane_slack: (B,), pair_slack: (P,) depths [m] to which surfaces and pairs may overlap: as they did when
                first seen. What was seen overlapping touches; it is the shapes that are only nearly known.
        """
        h = self.step_s
        up, level = self.up, self.level
        sizes = list(PARAMETERS.values())
        (inverse_mass, inertia, inverse_inertia, center, half, rounding, cylinder, rims, friction, restitution,
         rolling, torsion, falls) = torch.split(parameters, sizes)  # fmt: skip
        inverse_mass, rounding, cylinder = inverse_mass[0], rounding[0], cylinder[0]
        friction, restitution, rolling, torsion, falls = friction[0], restitution[0], rolling[0], torsion[0], falls[0]
        rotation = rotation_of(quaternion)
        inverse = self._in_world(rotation, inverse_inertia)
        falling = -GRAVITY_M_S2 * h * falls
        gravity = self.up6 * falling

        # -- contacts with the surface beneath: arms (3, 4, B) from the center of mass, gaps (4, B)
        down = -rotation[2]
        points, middle = face_points(down, half, cylinder, rims)
        points, middle = points + center.unsqueeze(1), middle + center
        hull_lowest, hull_middle = self._hull_lowest(down, hull_row, hull_points)
        rolls = cylinder.index_select(0, hull_row)
        hull_lowest = hull_lowest + rolls * (points.index_select(2, hull_row) - hull_lowest)
        hull_middle = hull_middle + rolls * (middle.index_select(1, hull_row) - hull_middle)
        index = hull_row.view(1, 1, -1).expand(3, POINTS, -1)
        points = points.scatter(2, index, hull_lowest)
        middle = middle.scatter(1, hull_row.view(1, -1).expand(3, -1), hull_middle)
        arm, toward = _turn(rotation, points), _turn(rotation, middle)
        arm, valid = self._clip(arm, toward, position, plane)
        gap = position[2] + arm[2] - rounding - plane[0]
        gap = torch.where(valid, gap, torch.ones_like(gap)) + (1 - falls)
        plane_gap = gap.amin(0)
        gap = gap + plane_slack
        ground_arm = arm - up * rounding

        # -- contacts of pairs: arms (3, 4, P) from either center, normals from a to b, gaps (4, P)
        table = torch.cat(
            [position, rotation.reshape(9, -1), center, half, rounding.unsqueeze(0),
             cylinder.unsqueeze(0), inverse_mass.unsqueeze(0), inverse.reshape(9, -1), friction.unsqueeze(0),
             restitution.unsqueeze(0)]
        )  # fmt: skip
        of_a, of_b = table.index_select(1, pair_a), table.index_select(1, pair_b)
        pair_gap, normal, arm_a, arm_b = self._pair_contacts(
            of_a, of_b, pair_a, pair_b, hull_row, hull_points, position.shape[1]
        )  # fmt: skip
        least_gap = pair_gap.amin(0)
        pair_gap = pair_gap + pair_slack
        inverse_mass_a, inverse_mass_b = of_a[20], of_b[20]
        inverse_a, inverse_b = of_a[21:30].reshape(3, 3, -1), of_b[21:30].reshape(3, 3, -1)
        pair_friction = torch.maximum(of_a[30], of_b[30])
        pair_restitution = torch.minimum(of_a[31], of_b[31])

        # -- before the contacts act
        before_ground = linear.unsqueeze(1) + _cross(angular.unsqueeze(1), ground_arm)
        twist = torch.cat([linear, angular])
        twist_a, twist_b = twist.index_select(1, pair_a), twist.index_select(1, pair_b)
        before_pair = self._relative(twist_a, twist_b, arm_a, arm_b)
        approach_ground, approach_pair = before_ground[2], _dot(normal, before_pair)
        free = twist + gravity

        # How much inverse mass a contact meets, along its normal and across it.
        up_turn = _cross(ground_arm, up)
        k_ground = inverse_mass + _dot(up_turn, _turn(inverse, up_turn))
        slip_ground = before_ground * level
        k_ground_slip = self._across(inverse_mass, inverse, ground_arm, slip_ground)
        turn_a, turn_b = _cross(arm_a, normal), _cross(arm_b, normal)
        k_a = inverse_mass_a + _dot(turn_a, _turn(inverse_a, turn_a))
        k_b = inverse_mass_b + _dot(turn_b, _turn(inverse_b, turn_b))
        slip_pair = before_pair - normal * approach_pair
        k_a_slip = self._across(inverse_mass_a, inverse_a, arm_a, slip_pair)
        k_b_slip = self._across(inverse_mass_b, inverse_b, arm_b, slip_pair)

        # How many contacts share a body: each takes its part of the body's mass.
        nearly_ground = torch.sigmoid(-(gap + h * (approach_ground + falling)) / 5e-4)
        free_a, free_b = free.index_select(1, pair_a), free.index_select(1, pair_b)
        nearly_pair = torch.sigmoid(-(pair_gap + h * _dot(normal, self._relative(free_a, free_b, arm_a, arm_b))) / 5e-4)
        in_pairs = nearly_pair.sum(0)
        count = torch.clamp(nearly_ground.sum(0), min=1.0)
        crowd = torch.zeros_like(count).scatter_add(0, pair_a, in_pairs).scatter_add(0, pair_b, in_pairs)
        crowd = torch.clamp(crowd, min=1.0)
        count_a, count_b = crowd.index_select(0, pair_a), crowd.index_select(0, pair_b)
        shared_ground = count * k_ground
        shared_pair = count_a * k_a + count_b * k_b
        shared_ground_slip = count * k_ground_slip

        # -- the law of each contact
        law_ground = self._law(
            gap, approach_ground, slip_ground, friction, restitution, count, crowd,
            shared_ground / (inverse_mass + 1e-9), False
        )  # fmt: skip
        law_pair = self._law(
            pair_gap, approach_pair, slip_pair, pair_friction, pair_restitution, count_a, count_b,
            shared_pair / (inverse_mass_a + inverse_mass_b + 1e-9), True
        )  # fmt: skip
        goal_ground, take_ground, rub_ground, mu_ground = self._contact_law(
            law_ground, gap, approach_ground, restitution, friction
        )
        goal_pair, take_pair, rub_pair, mu_pair = self._contact_law(
            law_pair, pair_gap, approach_pair, pair_restitution, pair_friction
        )
        # What bears heavy things acts as if it had a good part of their mass: between them and the table, impulses
        # that pass through a light thing are so large beside its own that the sweeps would not find their balance.
        push_ground, push_pair, mass_scale = self._loads(
            nearly_ground,
            nearly_pair,
            normal,
            pair_a,
            pair_b,
            parameters[0],
            falls,
            law_ground[7],
            law_pair[7],
            arm,
            arm_a,
            arm_b,
            position,
        )
        own_inverse_mass = inverse_mass
        inverse_mass, inverse = mass_scale * inverse_mass, mass_scale * inverse
        k_ground, shared_ground_slip = mass_scale * k_ground, mass_scale * shared_ground_slip
        mass_scale_a, mass_scale_b = mass_scale.index_select(0, pair_a), mass_scale.index_select(0, pair_b)
        inverse_mass_a, inverse_mass_b = mass_scale_a * inverse_mass_a, mass_scale_b * inverse_mass_b
        inverse_a, inverse_b = mass_scale_a * inverse_a, mass_scale_b * inverse_b
        k_a, k_b = mass_scale_a * k_a, mass_scale_b * k_b
        shared_pair_slip = count_a * mass_scale_a * k_a_slip + count_b * mass_scale_b * k_b_slip
        # A sweep answers the mean violation of a body's (a pair's) contacts as one contact at their centroid, exactly,
        # and what is left of each by itself: contact by contact alone, a plate that lands flat would take many sweeps
        # to stop.
        share_ground = take_ground / (count * (k_ground - 0.7 * inverse_mass) + 1e-9)
        share_pair = take_pair / (
            count_a * (k_a - 0.7 * inverse_mass_a) + count_b * (k_b - 0.7 * inverse_mass_b) + 1e-9
        )
        part_ground = nearly_ground / (nearly_ground.sum(0) + 1e-3)
        part_pair = nearly_pair / (in_pairs + 1e-3)
        beside = nearly_pair.amax(0)
        pairs = torch.zeros_like(count).scatter_add(0, pair_a, beside).scatter_add(0, pair_b, beside)
        pairs = torch.clamp(pairs, min=1.0)
        pairs_a, pairs_b = pairs.index_select(0, pair_a), pairs.index_select(0, pair_b)
        middle_ground = self._centroid(part_ground, ground_arm)
        middle_a, middle_b = self._centroid(part_pair, arm_a), self._centroid(part_pair, arm_b)
        middle_normal = _unit(self._centroid(part_pair, normal), 1e-6)
        whole_ground = self._effective_inverse_mass(inverse_mass, inverse, middle_ground, up)
        whole_pair = pairs_a * self._effective_inverse_mass(inverse_mass_a, inverse_a, middle_a, middle_normal)
        whole_pair = whole_pair + pairs_b * self._effective_inverse_mass(
            inverse_mass_b, inverse_b, middle_b, middle_normal
        )
        slide_ground = self._across(inverse_mass, inverse, middle_ground, self._centroid(part_ground, slip_ground))
        middle_slip = self._centroid(part_pair, slip_pair)
        slide_pair = pairs_a * self._across(inverse_mass_a, inverse_a, middle_a, middle_slip)
        slide_pair = slide_pair + pairs_b * self._across(inverse_mass_b, inverse_b, middle_b, middle_slip)
        whole_ground, whole_pair = part_ground / (whole_ground + 1e-9), part_pair / (whole_pair + 1e-9)
        slide_ground, slide_pair = part_ground / (slide_ground + 1e-9), part_pair / (slide_pair + 1e-9)
        rub_ground = rub_ground / (shared_ground_slip + 1e-9)
        rub_pair = rub_pair / (shared_pair_slip + 1e-9)

        # -- sweeps
        rubbing_ground, rubbing_pair = torch.zeros_like(ground_arm), torch.zeros_like(normal)
        moving = free
        moving = moving + self._respond(inverse_mass, inverse, ground_arm, up * push_ground)
        impulse = normal * push_pair
        moving = moving.scatter_add(
            1, pair_a.unsqueeze(0).expand(6, -1), self._respond(inverse_mass_a, inverse_a, arm_a, -impulse)
        )
        moving = moving.scatter_add(
            1, pair_b.unsqueeze(0).expand(6, -1), self._respond(inverse_mass_b, inverse_b, arm_b, impulse)
        )
        for sweep in range(self.sweeps):
            weight = torch.exp(self.sweep_weights[sweep])
            of_a, of_b = moving.index_select(1, pair_a), moving.index_select(1, pair_b)
            relative = self._relative(of_a, of_b, arm_a, arm_b)
            speed = _dot(normal, relative)
            lack = goal_pair - speed
            mean = (part_pair * lack).sum(0)
            pushed = push_pair + weight[0] * share_pair * (lack - mean) + weight[2] * whole_pair * mean
            pushed = torch.relu(pushed)
            slip = relative - normal * speed
            mean_slip = self._centroid(part_pair, slip)
            rubbed = rubbing_pair - weight[1] * rub_pair * (slip - mean_slip) - weight[3] * slide_pair * mean_slip
            rubbed = self._cone(rubbed, mu_pair * pushed)
            impulse = rubbed - rubbing_pair + normal * (pushed - push_pair)
            push_pair, rubbing_pair = pushed, rubbed
            response_a = self._respond(inverse_mass_a, inverse_a, arm_a, -impulse)
            response_b = self._respond(inverse_mass_b, inverse_b, arm_b, impulse)
            moving = moving.scatter_add(1, pair_a.unsqueeze(0).expand(6, -1), response_a)
            moving = moving.scatter_add(1, pair_b.unsqueeze(0).expand(6, -1), response_b)

            velocity = moving[:3].unsqueeze(1) + _cross(moving[3:].unsqueeze(1), ground_arm)
            lack = goal_ground - velocity[2]
            mean = (part_ground * lack).sum(0)
            pushed = push_ground + weight[0] * share_ground * (lack - mean) + weight[2] * whole_ground * mean
            pushed = torch.relu(pushed)
            slip = velocity * level
            mean_slip = self._centroid(part_ground, slip)
            rubbed = rubbing_ground - weight[1] * rub_ground * (slip - mean_slip) - weight[3] * slide_ground * mean_slip
            rubbed = self._cone(rubbed, mu_ground * pushed)
            impulse = rubbed - rubbing_ground + up * (pushed - push_ground)
            push_ground, rubbing_ground = pushed, rubbed
            moving = moving + self._respond(inverse_mass, inverse, ground_arm, impulse)

        inverse_mass = own_inverse_mass
        linear_after, angular_after = moving[:3], moving[3:]
        plane_impulse, pair_impulse = push_ground.sum(0), push_pair.sum(0)
        angular_after = self._resist(angular_after, inverse, plane_impulse, rolling, torsion)
        # None is faster after than what struck it can have made it: overlapping or wedged things give the sweeps a
        # problem without a solution, and what they then find must not fly away. A blow of j gives i at most
        # (1 + e) m_j / (m_i + m_j) of the speed of j; turning counts by its energy.
        world_inertia = self._in_world(rotation, inertia)
        free_body = (inverse_mass > 0).to(linear.dtype)
        size = torch.sqrt(_dot(half, half)) + rounding
        spin = torch.sqrt(_dot(angular, angular) + 1e-12) * size * (1 - free_body)
        spin = spin + self._spin(world_inertia, inverse_mass, angular)
        sinking = linear[2] + falling
        square = linear[0] * linear[0] + linear[1] * linear[1] + sinking * sinking + spin * spin
        given = (1 + pair_restitution) / (inverse_mass_a + inverse_mass_b + 1e-9)
        given = given * given * (pair_impulse > 0).to(linear.dtype)
        to_a = given * inverse_mass_a * inverse_mass_a * square.index_select(0, pair_b)
        to_b = given * inverse_mass_b * inverse_mass_b * square.index_select(0, pair_a)
        limit = torch.sqrt(square.scatter_add(0, pair_a, to_a).scatter_add(0, pair_b, to_b) + 1e-12) + FASTER_M_S
        linear_after = linear_after * torch.clamp(limit / torch.sqrt(_dot(linear_after, linear_after) + 1e-12), max=1.0)
        spin = self._spin(world_inertia, inverse_mass, angular_after)
        angular_after = angular_after * torch.clamp(limit / (spin + 1e-9), max=1.0)

        # -- how far the outcome may scatter: contacts' deviations, by what they transmit
        deviation = self._deviation(
            law_ground, law_pair, push_ground, push_pair, inverse_mass, pair_a, pair_b, half, rounding, limit
        )

        # -- the poses follow; angular momentum, not angular velocity, stays as the body turns
        # A step's displacement is by its mean velocity (trapezoidal rule) where nothing strikes: exact in flight, and
        # second order for what friction slows down. What strikes goes on as it leaves, so that it does not dip in.
        struck = (
            torch.zeros_like(plane_impulse).scatter_add(0, pair_a, pair_impulse).scatter_add(0, pair_b, pair_impulse)
        )
        alone = (struck <= 0).to(linear.dtype) * falls
        flies = alone * (plane_impulse <= 0).to(linear.dtype)
        mean = torch.cat([alone.unsqueeze(0), alone.unsqueeze(0), flies.unsqueeze(0)])
        position_after = position + h * (linear_after + 0.5 * mean * (linear - linear_after))
        turned = self._integrate(quaternion, angular_after + 0.5 * alone * (angular - angular_after))
        rotation_after = rotation_of(turned)
        momentum = _turn(world_inertia, angular_after)
        carried = _turn(self._in_world(rotation_after, inverse_inertia), momentum)
        # Of fast slender things the step is too long for that: they keep their energy.
        spin_before = self._spin(world_inertia, inverse_mass, angular_after)
        spin = torch.sqrt(torch.relu(_dot(momentum, carried)) * inverse_mass + 1e-18)
        carried = carried * torch.clamp((spin_before + 1e-9) / (spin + 1e-9), max=1.0)
        angular_after = angular_after + free_body * (carried - angular_after)
        linear_after = linear_after * torch.clamp(
            FASTEST_M_S / torch.sqrt(_dot(linear_after, linear_after) + 1e-12), max=1.0
        )
        angular_after = angular_after * torch.clamp(
            FASTEST_RAD_S / torch.sqrt(_dot(angular_after, angular_after) + 1e-12), max=1.0
        )
        return Stepped(
            position_after,
            turned,
            linear_after,
            angular_after,
            plane_impulse,
            pair_impulse,
            deviation,
            plane_gap,
            least_gap,
        )

    # -- parts

    @staticmethod
    def _in_world(rotation: Tensor, matrix: Tensor) -> Tensor:
        """R M R^T (3, 3, B) of matrices (9, B) in body axes."""
        m = matrix.reshape(3, 3, -1)
        left = (rotation.unsqueeze(2) * m.unsqueeze(0)).sum(1)  # (i, k, B) = sum_j R_ij M_jk
        return (left.unsqueeze(1) * rotation.unsqueeze(0)).sum(2)

    @staticmethod
    def _hull_lowest(down: Tensor, hull_row: Tensor, hull_points: Tensor) -> tuple[Tensor, Tensor]:
        """Four points (3, 4, H) of hulls that are lowest as they tip a little to four sides, and their mean (3, H)."""
        d = down.index_select(1, hull_row)
        size = d.abs()
        first = ((size[0] >= size[1]) & (size[0] >= size[2])).to(d.dtype)
        second = (1 - first) * (size[1] >= size[2]).to(d.dtype)
        axis = torch.stack([first, second, 1 - first - second])
        one, two = torch.stack([axis[2], axis[0], axis[1]]), torch.stack([axis[1], axis[2], axis[0]])
        lean = 0.15
        tips = torch.stack([d + lean * one, d - lean * one, d + lean * two, d - lean * two], dim=1)  # (3, 4, H)
        reach = (tips.unsqueeze(2) * hull_points.unsqueeze(1)).sum(0)  # (4, HULL_POINTS, H)
        best = (reach >= reach.amax(1, keepdim=True) - 1e-7).to(d.dtype)
        best = best / best.sum(1, keepdim=True)
        lowest = (best.unsqueeze(0) * hull_points.unsqueeze(1)).sum(2)
        return lowest, lowest.mean(1)

    @staticmethod
    def _clip(arm: Tensor, toward: Tensor, position: Tensor, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Points of a face beyond the surface's edge, drawn along the face to the edge; whether they are over it at
        all.
        """
        c, s, cx, cy = plane[3], plane[4], plane[1], plane[2]
        x, y = position[0] + arm[0] - cx, position[1] + arm[1] - cy
        along = toward.unsqueeze(1) - arm
        lx, ly = c * x + s * y, c * y - s * x
        dx, dy = c * along[0] + s * along[1], c * along[1] - s * along[0]
        beyond_x, beyond_y = torch.relu(lx.abs() - plane[5]), torch.relu(ly.abs() - plane[6])
        inward_x, inward_y = -dx * torch.sign(lx), -dy * torch.sign(ly)
        share = torch.maximum(beyond_x / torch.clamp(inward_x, min=1e-6), beyond_y / torch.clamp(inward_y, min=1e-6))
        valid = share <= 2.0
        share = torch.clamp(share, max=2.0)
        return arm + share.unsqueeze(0) * along, valid

    @staticmethod
    def _pair_contacts(
        of_a: Tensor,
        of_b: Tensor,
        pair_a: Tensor,
        pair_b: Tensor,
        hull_row: Tensor,
        hull_points: Tensor,
        bodies: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gaps (4, P), normals from a to b, arms from a's and b's center of mass (3, 4, P) each."""
        # Hull 0: none.
        number = torch.zeros(bodies, dtype=torch.int64, device=hull_row.device)
        number = number.scatter(0, hull_row, torch.arange(1, hull_row.shape[0] + 1, device=hull_row.device))
        points = torch.cat([torch.zeros_like(hull_points[:, :, :1]).sum(2, keepdim=True), hull_points], dim=2)

        def side(of: Tensor, body: Tensor) -> Convex:
            hull = number.index_select(0, body)
            return Convex(of[12:15], of[15:18], of[18], of[19], points.index_select(2, hull), hull > 0)

        rotation_a, rotation_b = of_a[3:12].reshape(3, 3, -1), of_b[3:12].reshape(3, 3, -1)
        between = of_b[0:3] - of_a[0:3]
        turn = (rotation_a.unsqueeze(2) * rotation_b.unsqueeze(1)).sum(0)
        gap, normal, contact = convex_contacts(
            side(of_a, pair_a), side(of_b, pair_b), turn, _turn_back(rotation_a, between)
        )  # fmt: skip
        arm_a = _turn(rotation_a, contact)
        normal = _turn(rotation_a, normal).unsqueeze(1).expand(3, POINTS, -1)
        return gap, normal, arm_a, arm_a - between.unsqueeze(1)

    @staticmethod
    def _relative(twist_a: Tensor, twist_b: Tensor, arm_a: Tensor, arm_b: Tensor) -> Tensor:
        """Velocity (3, 4, P) of b's point of contact relative to a's."""
        at_a = twist_a[:3].unsqueeze(1) + _cross(twist_a[3:].unsqueeze(1), arm_a)
        at_b = twist_b[:3].unsqueeze(1) + _cross(twist_b[3:].unsqueeze(1), arm_b)
        return at_b - at_a

    @staticmethod
    def _across(inverse_mass: Tensor, inverse: Tensor, arm: Tensor, slip: Tensor) -> Tensor:
        """Inverse mass (4, M) met along the slip; where nothing slips, that of a mean direction."""
        turn = _cross(arm, slip)
        square = _dot(slip, slip)
        effective_inverse_mass = _dot(turn, _turn(inverse, turn)) / (square + 1e-8)
        trace = inverse[0, 0] + inverse[1, 1] + inverse[2, 2]
        mean = _dot(arm, arm) * trace * 0.25
        known = square / (square + 1e-6)
        return inverse_mass + mean + known * (effective_inverse_mass - mean)

    @staticmethod
    def _centroid(part: Tensor, value: Tensor) -> Tensor:
        """Mean (3, 1, M) of (3, 4, M) by shares (4, M)."""
        return (part * value).sum(1, keepdim=True)

    @staticmethod
    def _effective_inverse_mass(inverse_mass: Tensor, inverse: Tensor, arm: Tensor, normal: Tensor) -> Tensor:
        """Inverse mass (M,) that a contact meets at an arm (3, 1, M) along a normal (3, 1, M or 1)."""
        turn = _cross(arm, normal)
        return (inverse_mass + _dot(turn, _turn(inverse, turn)))[0]

    @staticmethod
    def _respond(inverse_mass: Tensor, inverse: Tensor, arm: Tensor, impulse: Tensor) -> Tensor:
        """Change (6, M) of a body's twist by impulses (3, 4, M) at arms."""
        return torch.cat([inverse_mass * impulse.sum(1), _turn(inverse, _cross(arm, impulse).sum(1))])

    @staticmethod
    def _cone(rubbing: Tensor, limit: Tensor) -> Tensor:
        size = torch.sqrt(_dot(rubbing, rubbing) + 1e-16)
        return rubbing * torch.clamp(limit / size, max=1.0)

    def _law(
        self,
        gap: Tensor,
        approach: Tensor,
        slip: Tensor,
        friction: Tensor,
        restitution: Tensor,
        count: Tensor,
        other: Tensor,
        leverage: Tensor,
        pair: bool,
    ) -> Tensor:
        """The network's numbers (8, 4, M) for contacts (4, M)."""
        like = torch.zeros_like(gap)
        speed = torch.sqrt(_dot(slip, slip) + 1e-10)
        reach = gap / self.step_s
        features = torch.stack(
            [
                torch.tanh(gap / 0.002),
                torch.tanh((reach + approach) / 0.3),
                torch.tanh(approach / 0.2),
                torch.tanh(approach / 1.5),
                torch.tanh(speed / 0.2),
                torch.tanh(speed / 1.5),
                like + friction,
                like + restitution,
                torch.log(like + count + other) * 0.5,
                torch.log(torch.clamp(leverage, 0.1, 100.0)) * 0.3 + (1.0 if pair else -1.0),
            ]
        )
        return self.network(features.reshape(FEATURES, -1)).reshape(8, POINTS, -1)

    def _contact_law(
        self, law: Tensor, gap: Tensor, approach: Tensor, restitution: Tensor, friction: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Least separation speed [m/s], share of the violation taken per sweep, the same for rubbing, friction: (4, M)
        each.
        """
        h = self.step_s
        bounce = restitution * (0.7 + 0.5 * torch.sigmoid(law[0] + 0.4))
        reaches = (gap + h * approach < 0.0).to(gap.dtype)
        back = torch.relu(-approach - (0.08 + 0.16 * torch.sigmoid(law[1]))) * bounce * reaches
        out = torch.relu(-gap - 2e-4) / h * 0.4 * torch.sigmoid(law[2])
        base = torch.where(gap >= 0, -gap / h, torch.clamp(out, max=1.0))
        target_velocity = torch.where(back > 0, torch.maximum(base, back), base)
        normal_gain = 2.0 * torch.sigmoid(law[3])
        friction_gain = 2.0 * torch.sigmoid(law[4])
        return target_velocity, normal_gain, friction_gain, friction * torch.exp(0.5 * torch.tanh(law[5]))

    def _loads(
        self,
        nearly_ground: Tensor,
        nearly_pair: Tensor,
        normal: Tensor,
        pair_a: Tensor,
        pair_b: Tensor,
        inverse_mass: Tensor,
        falls: Tensor,
        trust_ground: Tensor,
        trust_pair: Tensor,
        arm: Tensor,
        arm_a: Tensor,
        arm_b: Tensor,
        position: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Impulses (4, B) and (4, P) [N s] with which to begin: the weight of each thing and of what stands on it,
        handed down, and with it the point that it acts at.

        Without them a heavy thing would sink into a light one beneath it, which the sweeps alone move apart too slowly.
        Last, by what (B,) the inverse mass of each thing is to be multiplied for what it bears.
        """
        weight = GRAVITY_M_S2 * self.step_s * falls / torch.clamp(inverse_mass, min=1e-6)
        steep, holds = normal[2].mean(0), nearly_pair.amax(0)
        above_b = holds * torch.relu(steep - 0.3) / 0.7
        above_a = holds * torch.relu(-steep - 0.3) / 0.7
        on_ground = nearly_ground.amax(0)
        held_by = on_ground.scatter_add(0, pair_b, above_b).scatter_add(0, pair_a, above_a)
        held_by = torch.clamp(held_by, min=1.0)
        part_b = above_b / held_by.index_select(0, pair_b)
        part_a = above_a / held_by.index_select(0, pair_a)
        # Weight, and weight times its place: what is handed down keeps the vertical that it acts in.
        own = torch.stack([weight, weight * position[0], weight * position[1]])
        rows_a, rows_b = pair_a.unsqueeze(0).expand(3, -1), pair_b.unsqueeze(0).expand(3, -1)
        loads = own
        for _ in range(3):
            on_a, on_b = part_b * loads.index_select(1, pair_b), part_a * loads.index_select(1, pair_a)
            loads = own.scatter_add(1, rows_a, on_a).scatter_add(1, rows_b, on_b)
        load = loads[0]
        at = loads[1:] / torch.clamp(load, min=1e-9) - position[:2] * (load > 0).to(load.dtype)
        through = part_b * load.index_select(0, pair_b) + part_a * load.index_select(0, pair_a)
        ground = self._balanced(nearly_ground, arm[:2] - at.unsqueeze(1)) * (load * on_ground / held_by)
        upper = (steep > 0).to(weight.dtype)
        at_a, at_b = at.index_select(1, pair_a).unsqueeze(1), at.index_select(1, pair_b).unsqueeze(1)
        arm_a, arm_b = arm_a[:2] - at_a, arm_b[:2] - at_b
        pair = self._balanced(nearly_pair, arm_a + upper * (arm_b - arm_a)) * through
        mass_scale = torch.clamp(BORNE * weight / torch.clamp(load, min=1e-9), max=1.0)
        mass_scale = torch.where(weight > 0, mass_scale, torch.ones_like(weight))
        return ground * (1.0 + 0.1 * torch.tanh(trust_ground)), pair * (1.0 + 0.1 * torch.tanh(trust_pair)), mass_scale

    @staticmethod
    def _balanced(near: Tensor, arm: Tensor) -> Tensor:
        """Shares (4, M) of a load that contacts at arms (2, 4, M) from its vertical bear so that the body does not tip,
        as far as they can.
        """
        x, y = arm[0], arm[1]
        nx, ny = near * x, near * y
        sx, sy = nx.sum(0), ny.sum(0)
        sxx, syy, sxy = (nx * x).sum(0) + 1e-7, (ny * y).sum(0) + 1e-7, (nx * y).sum(0)
        determinant = torch.clamp(sxx * syy - sxy * sxy, min=1e-12)
        a = (-sx * syy + sy * sxy) / determinant
        b = (-sy * sxx + sx * sxy) / determinant
        share = near * torch.clamp(1.0 + a * x + b * y, 0.0, 10.0)
        return share / (share.sum(0) + 1e-3)

    def _resist(self, angular: Tensor, inverse: Tensor, push: Tensor, rolling: Tensor, torsion: Tensor) -> Tensor:
        """Angular velocity after rolling and torsional resistance to a push [N s] from beneath."""
        stiffness = (inverse[0, 0] + inverse[1, 1]) * 0.5 + 1e-9
        roll = torch.sqrt(angular[0] * angular[0] + angular[1] * angular[1] + 1e-12)
        # A rolling thing is slowed as a whole: what resists the turn also resists, through the ground, the travel.
        keep = torch.clamp(1.0 - rolling * push * stiffness / roll, min=0.0)
        spin = angular[2].abs() + 1e-9
        keep_spin = torch.clamp(1.0 - torsion * push * inverse[2, 2] / spin, min=0.0)
        return torch.stack([angular[0] * keep, angular[1] * keep, angular[2] * keep_spin])

    @staticmethod
    def _spin(world_inertia: Tensor, inverse_mass: Tensor, angular: Tensor) -> Tensor:
        """Speed (B,) [m/s] at which the body's mass would have the energy of its turning."""
        return torch.sqrt(torch.relu(_dot(angular, _turn(world_inertia, angular))) * inverse_mass + 1e-18)

    def _deviation(
        self,
        law_ground: Tensor,
        law_pair: Tensor,
        push_ground: Tensor,
        push_pair: Tensor,
        inverse_mass: Tensor,
        pair_a: Tensor,
        pair_b: Tensor,
        half: Tensor,
        rounding: Tensor,
        limit: Tensor,
    ) -> Tensor:
        """Standard deviations (2, B) [m/s, rad/s] of the velocities that this step leaves open, none above a limit."""
        ground = (push_ground * torch.exp(law_ground[6] - 4.0)) ** 2
        pair = ((push_pair * torch.exp(law_pair[6] - 3.0)) ** 2).sum(0)
        square = ground.sum(0).scatter_add(0, pair_a, pair).scatter_add(0, pair_b, pair)
        impulse = torch.sqrt(square + 1e-18)
        size = torch.sqrt(_dot(half, half)) + rounding + 0.01
        floor = torch.exp(self.deviation_floor)
        free = (inverse_mass > 0).to(impulse.dtype)
        linear = (torch.minimum(impulse * inverse_mass, limit) + floor[0]) * free
        # The outline scatters by its turning as by its travel.
        return torch.stack([linear, linear / size])

    def _integrate(self, quaternion: Tensor, angular: Tensor) -> Tensor:
        """Quaternions (4, B) turned by angular velocities over one step (exponential map)."""
        speed = torch.sqrt(_dot(angular, angular) + 1e-12)
        angle = 0.5 * self.step_s * speed
        scale = torch.sin(angle) / speed
        d = angular * scale
        dw = torch.cos(angle)
        x, y, z, w = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
        turned = torch.stack(
            [
                dw * x + d[0] * w + d[1] * z - d[2] * y,
                dw * y - d[0] * z + d[1] * w + d[2] * x,
                dw * z + d[0] * y - d[1] * x + d[2] * w,
                dw * w - d[0] * x - d[1] * y - d[2] * z,
            ]
        )
        return turned / torch.sqrt((turned * turned).sum(0) + 1e-12)
