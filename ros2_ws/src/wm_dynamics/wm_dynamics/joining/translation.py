"""Interventions on objects that are parts of one body, as interventions on that body.

What is done to a member moves the whole body: a push, a velocity, a pose or a path of the member's center. Removing a
member leaves the rest, still one body. A member's mass, friction, restitution and size are its share of the body's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from wm_core.interventions import Hypothesis, Intervention, InterventionKind, Property
from wm_core.rotations import conjugate, multiply, normalize_quaternion, quaternion_to_matrix
from wm_dynamics.base import Array
from wm_dynamics.interventions import MemberIntervention
from wm_dynamics.joining.compound import Compound, JoinedScene, geoms_of, placed
from wm_dynamics.mujoco.bodies import BodyDef, scaled_body


@dataclass(frozen=True)
class JoinedHypothesis:
    """A hypothesis as the joined scene has it.

    Attributes:
        hypothesis: for the backend.
        removed: row of a member -> time from which it is absent, though others of its compound may be there [s].
    """

    hypothesis: Hypothesis
    removed: dict[int, float] = field(default_factory=dict)


class _State:
    """A compound in the course of a future: which members are there, their bodies and masses by the mean [kg]."""

    def __init__(self, compound: Compound) -> None:
        self.compound = compound
        self.present = set(range(len(compound.rows)))
        self.bodies: list[BodyDef] = list(compound.bodies)
        self.masses: list[float] = compound.masses.tolist()

    def mass(self) -> float:
        """Of those that are there [kg]."""
        return sum(self.masses[n] for n in self.present)

    def reshaped(self, do: Intervention, before: float, keeps_foot: bool) -> MemberIntervention:
        """The compound becomes what is there now; ``before``: its mass until now [kg]."""
        c = self.compound
        parts = [p for n in sorted(self.present) for p in placed(self.bodies[n], c.places[n], c.turns[n])]
        gain = self.mass() / before
        return MemberIntervention(
            InterventionKind.MORPH,
            c.object_id,
            do.time_offset,
            scale=np.full(3, gain ** (1.0 / 3.0)),
            gain=gain,
            geoms=geoms_of(parts),
            keeps_foot=keeps_foot,
        )


def joined_hypothesis(scene: JoinedScene, hypothesis: Hypothesis) -> JoinedHypothesis:
    """The hypothesis with interventions on compounds in place of those on their members.

    An intervention on a member that was removed before has no effect, also where it would bring it back.
    """
    row_of = {int(scene.mean.ids[row]): row for row in scene.member_of}
    if not any(do.object_id in row_of for do in hypothesis.interventions):
        return JoinedHypothesis(hypothesis)
    states = {id(c): _State(c) for c in scene.compounds}
    translated: list[Intervention | None] = list(hypothesis.interventions)
    removed: dict[int, float] = {}
    # In order of time, as what is there then decides; the order among others, of which bodies are created, stays.
    for n in sorted(range(len(translated)), key=lambda n: hypothesis.interventions[n].time_offset):
        do = hypothesis.interventions[n]
        row = row_of.get(do.object_id)
        if row is None or do.creates_body:
            continue
        compound, member = scene.member_of[row]
        state = states[id(compound)]
        translated[n] = _translated(do, state, member) if member in state.present else None
        if do.kind == InterventionKind.REMOVE and row not in removed:
            removed[row] = do.time_offset
    kept = tuple(do for do in translated if do is not None)
    return JoinedHypothesis(replace(hypothesis, interventions=kept), removed)


def _translated(do: Intervention, state: _State, member: int) -> Intervention | None:
    """What an intervention on a member that is there is for its compound; the state becomes that after it."""
    c, kind, before = state.compound, do.kind, state.mass()
    place, turn = c.places[member], c.turns[member]
    if kind == InterventionKind.REMOVE:
        state.present.discard(member)
        return state.reshaped(do, before, False) if state.present else replace(do, object_id=c.object_id)
    if kind == InterventionKind.MORPH:
        state.bodies[member] = scaled_body(state.bodies[member], do.scale)
        state.masses[member] *= float(np.prod(do.scale))
        return state.reshaped(do, before, True)
    if kind == InterventionKind.SET_PROPERTY:
        return _property(do, state, member)
    if kind == InterventionKind.SET_POSE:
        positions, quaternions = _poses_of_compound(do.position[None], do.quaternion[None], place, turn)
        return replace(do, object_id=c.object_id, position=positions[0], quaternion=quaternions[0])
    if kind == InterventionKind.FOLLOW_PATH:
        positions, quaternions = _poses_of_compound(do.path_positions, do.path_quaternions, place, turn)
        return replace(do, object_id=c.object_id, path_positions=positions, path_quaternions=quaternions)
    if kind in (InterventionKind.SET_VELOCITY, InterventionKind.APPLY_IMPULSE):
        return MemberIntervention(
            kind,
            c.object_id,
            do.time_offset,
            linear_velocity=do.linear_velocity,
            angular_velocity=do.angular_velocity,
            impulse=do.impulse,
            point=do.point,
            arm=place,
        )
    return None  # how it looks is no matter of the dynamics


def _property(do: Intervention, state: _State, member: int) -> MemberIntervention:
    """A member's property changes: the mass by what the member's does, the others by its share of the mass."""
    before = state.mass()
    share = state.masses[member] / before
    gain, more = (1.0 + share * (do.value - 1.0), 0.0) if do.value_is_factor else (1.0 - share, do.value)
    value = do.value
    if do.property == Property.MASS:
        state.masses[member] = do.value * state.masses[member] if do.value_is_factor else do.value
        value = state.mass()
    elif not do.value_is_factor:
        more = share * do.value
    return MemberIntervention(
        do.kind,
        state.compound.object_id,
        do.time_offset,
        property=do.property,
        value=value,
        value_is_factor=do.value_is_factor and do.property != Property.MASS,
        gain=gain,
        more=more,
    )


def _poses_of_compound(positions: Array, quaternions: Array, place: Array, turn: Array) -> tuple[Array, Array]:
    """Poses (T, 3), (T, 4) of a compound at which a member at a place (3,) and turn (4,) in it has given ones."""
    turns = np.array([multiply(normalize_quaternion(q), conjugate(turn)) for q in quaternions]).reshape(-1, 4)
    return positions - quaternion_to_matrix(turns) @ place, turns
