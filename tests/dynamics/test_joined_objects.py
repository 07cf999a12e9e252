"""Objects that are parts of one body are held together in every future; those that only touch are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from compound_things import Thing, boxes, compound, cup, solid
from dynamics_backends import shared_dynamics
from wm_core.convex_parts import MAX_PARTS
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Intervention,
    Property,
    apply_impulse,
    follow_path,
    morph,
    remove,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.part_solids import solid_of
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, ImagineRequest
from wm_core.scene_graph import Predicate, Relation, SceneGraph, Shape
from wm_dynamics.base import DynamicsResult
from wm_dynamics.belief import sample_belief
from wm_dynamics.joining.compound import JoinedScene
from wm_dynamics.joining.equilibrium import Touch, can_rest
from wm_imagination.answering import Progress
from wm_imagination.engine import Imagination

Array = NDArray[np.float64]

BOTH = ("learned", "physics")
TIMES = np.arange(61) / 30.0
SOON = np.arange(16) / 30.0
TABLE, BLOCK, BAR = 1, 2, 3
"""Ids of the objects of ``glued``."""
DEVIATION_M = 0.003
UP = (0.0, 0.0, 1.0)


def camera_at(x: float, y: float, z: float) -> Array:
    """(4, 4) pose of a camera at a place [m], whichever way it looks."""
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def seen(things: Sequence[Thing], touching: Sequence[tuple[int, int]], **more: Any) -> SceneGraph:
    """Uncertain things on a table of 1.2 m whose top is at 0, ids from 2, seen from a height at one side.

    Args:
        touching: pairs of ids that have touched since they were first seen, at 0 ns.
    """
    count = len(things) + 1
    covariance = np.diag([DEVIATION_M**2] * 3 + [0.02**2] * 3)
    given: dict[str, Any] = {
        "pose_covariances": np.tile(covariance, (count, 1, 1)),
        "relations": [Relation(a, Predicate.TOUCHING, b, 0.9, 0) for a, b in touching],
        "world_T_camera": camera_at(0.7, -0.4, 0.6),
        "log_mass": np.log([1.0, *(t.mass for t in things)]),
    }
    graph = SceneGraph.build(
        np.arange(1, count + 1),
        [(0.0, 0.0, -0.02), *(t.position for t in things)],
        [(1.2, 1.2, 0.04), *(t.extents for t in things)],
        quaternions=[(0.0, 0.0, 0.0, 1.0), *(t.quaternion for t in things)],
        shapes=[Shape.BOX, *(t.shape for t in things)],
        hulls=[np.zeros((0, 3)), *(t.hull for t in things)],
        class_names=["support", *["object"] * len(things)],
        is_static=[True, *[False] * len(things)],
        **(given | more),
    )
    return replace(graph, parts=((), *(t.parts for t in things)))


def glued(**more: Any) -> SceneGraph:
    """A block, and a bar that sticks out of its side into the air."""
    block = solid(Shape.BOX, (0.08, 0.08, 0.1), (0.0, 0.0, 0.05), 0.3)
    bar = solid(Shape.BOX, (0.15, 0.03, 0.03), (0.115, 0.0, 0.07), 0.1)
    return seen([block, bar], [(BLOCK, BAR)], **more)


def rollout(name: str, scene: SceneGraph, *do: Intervention, times: Array = TIMES, **more: Any) -> DynamicsResult:
    """The future in which nothing is done, and that of interventions."""
    return shared_dynamics(name).rollout([scene], [Hypothesis(""), Hypothesis("do", do)], times, **more)


def states_of(result: DynamicsResult, object_id: int, k: int = 1, sample: int = 0) -> Array:
    """(T, 13) of an object in a future."""
    row = result.object_ids.tolist().index(object_id)
    found: Array = result.states[k, sample, :, row].astype(np.float64)
    return found


def slip(one: Array, other: Array) -> tuple[float, float]:
    """How far [m] and how much [degrees] states (T, 13) move and turn relative to others."""
    turn = Rotation.from_quat(one[:, QUATERNION]).inv()
    place = turn.apply(other[:, POSITION] - one[:, POSITION])
    relative = turn * Rotation.from_quat(other[:, QUATERNION])
    turned = (relative * relative[0].inv()).magnitude().max()
    return float(np.linalg.norm(place - place[0], axis=1).max()), float(np.degrees(turned))


def are_one(one: Array, other: Array) -> bool:
    """Whether states (T, 13) are those of one rigid body, to a millimeter and a degree."""
    distance_m, degrees = slip(one, other)
    return distance_m <= 1e-3 and degrees <= 1.0


def moved(states: Array) -> float:
    """Largest distance from the start [m]."""
    return float(np.linalg.norm(states[:, POSITION] - states[0, POSITION], axis=1).max())


# -- what is one body


@settings(max_examples=40, deadline=None)
@given(
    height=st.floats(0.06, 0.2),
    width=st.floats(0.05, 0.12),
    length=st.floats(0.08, 0.2),
    thick=st.floats(0.015, 0.04),
    gap=st.floats(-0.01, 0.004),
    yaw=st.floats(-3.1, 3.1),
    mass=st.floats(0.02, 1.0),
)
def test_what_sticks_out_into_the_air_is_part_of_what_it_touches(
    height: float, width: float, length: float, thick: float, gap: float, yaw: float, mass: float
) -> None:
    assume(length * thick**2 < 0.5 * width**2 * height)
    # Within 1.5 cm, the error of its height here, it may stand on the table.
    assume(height - thick - 0.005 > 0.0155)
    turn = Rotation.from_euler("z", yaw)
    bar_at = turn.apply([0.5 * width + 0.5 * length + gap, 0.0, height - 0.5 * thick - 0.005])
    block = solid(Shape.BOX, (width, width, height), (0.0, 0.0, 0.5 * height), 0.3, turn)
    bar = solid(Shape.BOX, (length, thick, thick), bar_at, mass, turn)
    # Seen from beside the bar: along it, the bar would hide what is beneath it.
    scene = seen([block, bar], [(BLOCK, BAR)], world_T_camera=camera_at(*turn.apply([0.1, -0.6, 0.35])))
    assert shared_dynamics("physics").joined(scene) == ((BLOCK, BAR),)


COLORS = st.sampled_from([(0.5, 0.5, 0.5), (0.9, 0.1, 0.1)])


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["stacked", "beside", "mug on a book", "leaning"]),
    off=st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)),
    hover=st.floats(-0.003, 0.003),
    color=COLORS,
)
def test_what_stands_by_itself_is_not_part_of_what_it_touches(
    kind: str, off: tuple[float, float], hover: float, color: tuple[float, float, float]
) -> None:
    low = solid(Shape.BOX, (0.1, 0.1, 0.08), (0.0, 0.0, 0.04 + hover))
    if kind == "stacked":
        high = solid(Shape.BOX, (0.1, 0.1, 0.08), (*off, 0.12))
    elif kind == "beside":
        high = solid(Shape.BOX, (0.1, 0.1, 0.08), (0.1 + hover, off[0], 0.04))
    elif kind == "mug on a book":
        low = solid(Shape.BOX, (0.22, 0.15, 0.03), (0.0, 0.0, 0.015 + hover))
        high = compound(cup(), (*off, 0.03))
    else:
        high = solid(Shape.BOX, (0.015, 0.08, 0.2), (0.084, off[0], 0.1), turn=Rotation.from_euler("y", -0.25))
    colors = np.array([(0.7, 0.7, 0.7), color, color])
    for relations in ((), [Relation(3, Predicate.ON, 2, 0.9, 0)] if kind in ("stacked", "mug on a book") else ()):
        scene = seen([low, high], [(2, 3)], colors=colors)
        scene = replace(scene, relations=(*scene.relations, *relations))
        assert shared_dynamics("physics").joined(scene) == ()


def test_only_what_was_always_together_and_rests_can_be_one_body() -> None:
    dynamics = shared_dynamics("physics")
    assert dynamics.joined(glued()) == ((BLOCK, BAR),)
    later = [Relation(BLOCK, Predicate.TOUCHING, BAR, 0.9, 5_000_000_000)]
    assert dynamics.joined(glued(relations=later)) == ()
    assert dynamics.joined(glued(relations=())) == ()
    assert dynamics.joined(glued(pose_covariances=np.zeros((3, 6, 6)))) == ()
    moving = np.zeros((3, 3))
    moving[2, 0] = 0.3
    assert dynamics.joined(glued(linear_velocities=moving)) == ()
    assert shared_dynamics("still").joined(glued()) == ()


def test_what_may_stand_on_something_hidden_is_no_part_of_what_hides_it() -> None:
    """The upper half of a box behind a box looks as the bar does, but nobody sees that nothing is beneath it."""
    wall = solid(Shape.BOX, (0.04, 0.3, 0.1), (0.0, 0.0, 0.05))
    behind = solid(Shape.BOX, (0.08, 0.08, 0.05), (-0.06, 0.0, 0.09))
    for camera, joined in ((camera_at(0.8, 0.0, 0.35), ()), (camera_at(-0.8, 0.1, 0.35), ((2, 3),))):
        scene = seen([wall, behind], [(2, 3)], world_T_camera=camera)
        assert shared_dynamics("physics").joined(scene) == joined


@pytest.mark.parametrize("gap", [0.0, 0.02])
def test_what_bridges_two_is_part_of_neither(gap: float) -> None:
    """A bar from a box to another, whose top was seen too low."""
    left = solid(Shape.BOX, (0.06, 0.1, 0.1), (-0.1, 0.0, 0.05))
    right = solid(Shape.BOX, (0.06, 0.1, 0.1 - gap), (0.1, 0.0, 0.05 - 0.5 * gap))
    bar = solid(Shape.BOX, (0.25, 0.06, 0.03), (0.0, 0.0, 0.115))
    scene = seen([left, right, bar], [(2, 4)], world_T_camera=camera_at(0.0, -0.7, 0.3))
    assert shared_dynamics("physics").joined(scene) == ()


def test_a_touch_in_a_line_joins_nothing() -> None:
    """A can that seems to hover beside a box: it stands on something that was not found."""
    block = solid(Shape.BOX, (0.08, 0.08, 0.12), (0.0, 0.0, 0.06))
    can = solid(Shape.CYLINDER, (0.066, 0.066, 0.08), (0.074, 0.0, 0.075))
    assert shared_dynamics("physics").joined(seen([block, can], [(2, 3)])) == ()


def test_a_chain_of_parts_is_one_body_and_a_bystander_is_not() -> None:
    """A foot, an arm in the air, a tip at the arm's end, and a box that stands by."""
    foot = solid(Shape.BOX, (0.08, 0.07, 0.05), (0.0, 0.0, 0.025))
    arm = solid(Shape.BOX, (0.09, 0.03, 0.03), (0.085, 0.0, 0.035))
    tip = solid(Shape.BOX, (0.06, 0.02, 0.02), (0.16, 0.0, 0.035))
    box = solid(Shape.BOX, (0.08, 0.08, 0.1), (0.0, 0.075, 0.05))
    scene = seen([foot, arm, tip, box], [(2, 3), (3, 4), (2, 5)], world_T_camera=camera_at(0.1, -0.7, 0.3))
    assert shared_dynamics("physics").joined(scene) == ((2, 3, 4),)


@settings(max_examples=60, deadline=None)
@given(half=st.floats(0.01, 0.2), off=st.floats(-0.3, 0.3), margin=st.floats(0.0, 0.05), height=st.floats(0.01, 0.3))
def test_a_body_rests_where_its_center_is_over_what_bears_it(
    half: float, off: float, margin: float, height: float
) -> None:
    assume(abs(abs(off) - half - margin) > 1e-4)
    corners = half * np.array([(1.0, 1.0, 0.0), (-1.0, 1.0, 0.0), (-1.0, -1.0, 0.0), (1.0, -1.0, 0.0)])
    touch = Touch(corners, np.array(UP), 4.0 * half**2)
    assert can_rest((off, 0.0, height), (margin, 0.0), [touch], 0.5) == (abs(off) < half + margin)


def test_a_body_is_not_held_from_one_side_but_between_two() -> None:
    face = np.array([(0.0, 0.02, 0.02), (0.0, -0.02, 0.02), (0.0, -0.02, -0.02), (0.0, 0.02, -0.02)])
    left = Touch(face - [0.03, 0.0, 0.0], np.array([1.0, 0.0, 0.0]), 0.0016)
    right = Touch(face + [0.03, 0.0, 0.0], np.array([-1.0, 0.0, 0.0]), 0.0016)
    assert not can_rest(np.zeros(3), (0.01, 0.01), [left], 0.9)
    assert can_rest(np.zeros(3), (0.0, 0.0), [left, right], 0.9)
    assert not can_rest(np.zeros(3), (0.0, 0.0), [], 0.9)


# -- what becomes of it


@pytest.mark.parametrize("name", BOTH)
def test_parts_of_one_body_rest_and_move_together(name: str) -> None:
    result = rollout(name, glued(), apply_impulse(BAR, (0.05, 0.15, 0.0), at_s=0.1))
    for object_id in (BLOCK, BAR):
        assert moved(states_of(result, object_id, 0)) < 1e-4
        assert moved(states_of(result, object_id)) > 0.02
    assert are_one(states_of(result, BLOCK), states_of(result, BAR))
    assert result.object_ids.tolist() == [TABLE, BLOCK, BAR]
    assert result.present.all()
    assert not [c for c in result.contacts if {c.a, c.b} == {BLOCK, BAR}]


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    member=st.sampled_from([BLOCK, BAR]),
    push=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.0, 0.6)),
    point=st.tuples(st.floats(-0.01, 0.01), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01)),
    at_s=st.floats(0.0, 1.0),
)
def test_whatever_is_pushed_keeps_its_parts(
    name: str, member: int, push: tuple[float, ...], point: tuple[float, ...], at_s: float
) -> None:
    scenes = sample_belief(glued(), 3, 1)
    hypotheses = [Hypothesis(""), Hypothesis("push", (apply_impulse(member, push, point, at_s),))]
    result = shared_dynamics(name).rollout(scenes, hypotheses, TIMES)
    for sample in range(3):
        pair = [states_of(result, i, 1, sample) for i in (BLOCK, BAR)]
        assert are_one(*pair)
        # Velocities are those of the members' own centers: v_b - v_a = w x (p_b - p_a).
        block, bar = pair
        turning = np.cross(block[:, ANGULAR_VELOCITY], bar[:, POSITION] - block[:, POSITION])
        assert np.abs(bar[:, LINEAR_VELOCITY] - block[:, LINEAR_VELOCITY] - turning).max() < 1e-4
        assert np.abs(bar[:, ANGULAR_VELOCITY] - block[:, ANGULAR_VELOCITY]).max() < 1e-6


@pytest.mark.parametrize("name", BOTH)
def test_split_objects_move_as_the_object_that_they_are(name: str) -> None:
    geoms = boxes(((0.08, 0.08, 0.1), (0.0, 0.0, 0.05)), ((0.15, 0.03, 0.03), (0.115, 0.0, 0.07)))
    whole = compound(geoms, (0.075, 0.0, 0.0), 0.4)
    push = apply_impulse(BLOCK, (0.0, 0.3, 0.0), point=(0.0, 0.0, 0.02))
    parts = rollout(name, glued(), push)
    block = states_of(parts, BLOCK)
    # The same push on the whole, whose center is elsewhere.
    offset = np.array([0.0, 0.0, 0.07]) - whole.position
    one = rollout(name, seen([whole], []), apply_impulse(2, (0.0, 0.3, 0.0), point=offset))
    body = states_of(one, 2)
    turn = Rotation.from_quat(body[:, QUATERNION])
    same = body[:, POSITION] + turn.apply(np.array([0.0, 0.0, 0.05]) - whole.position)
    assert np.linalg.norm(same - block[:, POSITION], axis=1).max() < 2e-3
    assert moved(block) > 0.03


@pytest.mark.parametrize("name", BOTH)
def test_a_member_is_removed_alone(name: str) -> None:
    for at_s in (0.0, 0.5):
        gone = at_s <= TIMES
        result = rollout(name, glued(), remove(BAR, at_s))
        assert (result.present[1, :, 2] == ~gone).all()
        assert result.present[1, :, :2].all()
        assert moved(states_of(result, BLOCK)) < 2e-3
        assert moved(states_of(result, BAR)) < 1e-6
        result = rollout(name, glued(), remove(BLOCK, at_s))
        assert (result.present[1, :, 1] == ~gone).all()
        assert states_of(result, BAR)[-1, 2] < 0.03  # it has fallen onto the table
        result = rollout(name, glued(), remove(BLOCK, at_s), remove(BAR, at_s), set_velocity(BAR, (1, 0, 0), at_s=1.0))
        assert not result.present[1, -1, 1:].any()


@pytest.mark.parametrize("name", BOTH)
def test_what_is_left_of_a_turning_body_goes_on(name: str) -> None:
    """Its center of mass is elsewhere from then on; its points have the velocities that they had."""
    up = set_pose(BLOCK, (0.0, 0.0, 1.0))
    spin = set_velocity(BLOCK, (0.0, 0.0, 0.0), (0.0, 0.0, 6.0))
    times = np.linspace(0.0, 0.2, 13)
    block = states_of(rollout(name, glued(), up, spin, remove(BAR, 0.1), times=times), BLOCK)
    before, after = block[5], block[7]  # a step before, and a step after
    change = np.diff(block[:6, LINEAR_VELOCITY], axis=0).mean(axis=0)
    assert np.linalg.norm((after - before)[LINEAR_VELOCITY][:2] - 2.0 * change[:2]) < 0.1
    assert np.abs(after - before)[ANGULAR_VELOCITY].max() < 0.3
    # With its center of mass in its middle, what is left flies straight on.
    later = block[7:, LINEAR_VELOCITY]
    assert np.abs(later[:, :2] - later[0, :2]).max() < 0.01


@pytest.mark.parametrize("name", BOTH)
def test_interventions_mean_what_they_say_of_a_member(name: str) -> None:
    scene = glued()
    lifted = (set_pose(BAR, (0.0, 0.0, 1.0), Rotation.from_euler("z", 1.2).as_quat().tolist(), 0.2),)
    turned = (*lifted, set_velocity(BAR, (0.2, 0.0, 0.0), (0.0, 0.0, 3.0), 0.3))
    result = rollout(name, scene, *turned, times=np.linspace(0.0, 0.3, 10))
    bar = states_of(result, BAR)
    assert np.abs(bar[6, POSITION] - [0.0, 0.0, 1.0]).max() < 5e-3
    assert np.degrees((Rotation.from_quat(bar[6, QUATERNION]) * Rotation.from_euler("z", -1.2)).magnitude()) < 1.0
    # What a free body's center has is velocity; gravity is the rest.
    assert np.abs(bar[-1, LINEAR_VELOCITY][:2] - [0.2, 0.0]).max() < 0.01
    assert np.abs(bar[-1, ANGULAR_VELOCITY] - [0.0, 0.0, 3.0]).max() < 0.05
    assert are_one(states_of(result, BLOCK), bar)

    path = follow_path([0.0, 0.5], [(0.115, 0.0, 0.07), (0.115, 0.1, 0.07)], object_id=BAR)
    result = rollout(name, scene, path)
    assert np.abs(states_of(result, BAR)[-1, POSITION] - [0.115, 0.1, 0.07]).max() < 2e-3
    assert np.abs(states_of(result, BLOCK)[-1, POSITION] - [0.0, 0.1, 0.05]).max() < 2e-3


@pytest.mark.parametrize("name", BOTH)
def test_a_members_mass_and_size_are_shares_of_the_bodys(name: str) -> None:
    """In the air, an impulse through the center of mass gives a body its size over the mass."""
    scene, height = glued(), set_pose(BLOCK, (0.0, 0.0, 1.0))
    volume = {BLOCK: 0.08 * 0.08 * 0.1, BAR: 0.15 * 0.03 * 0.03}
    center = np.array([0.115, 0.0, 0.02]) * volume[BAR] / sum(volume.values())
    for change, mass in (
        ((), 0.4),
        ((set_property(BAR, Property.MASS, 0.7),), 1.0),
        ((set_property(BLOCK, Property.MASS, 2.0, factor=True),), 0.7),
        ((set_property(BLOCK, Property.MASS, 0.5, factor=True), set_property(BAR, Property.MASS, 0.05)), 0.2),
    ):
        result = rollout(name, scene, height, *change, apply_impulse(BLOCK, (0.0, 0.2, 0.0), center), times=SOON[:3])
        assert states_of(result, BLOCK)[1, LINEAR_VELOCITY][1] == pytest.approx(0.2 / mass, rel=0.02)
    result = rollout(name, scene, height, morph(BAR, (0.5, 1.0, 1.0)), set_velocity(BLOCK, UP), times=SOON[:3])
    assert are_one(states_of(result, BLOCK), states_of(result, BAR))


@pytest.mark.parametrize("name", BOTH)
def test_a_contact_is_of_the_member_that_is_touched(name: str) -> None:
    pusher = BodySpec(shape=Shape.SPHERE, extents=np.full(3, 0.03))
    path = follow_path([0.0, 1.0], [(0.15, -0.15, 0.07), (0.15, 0.1, 0.07)], body=pusher)
    result = rollout(name, glued(), path)
    touched = {c.a for c in result.contacts if c.hypothesis == 1 and c.b == 4 and c.began}
    assert touched == {BAR}
    assert moved(states_of(result, BLOCK)) > 0.01
    first = [(c.a, c.b) for c in result.contacts if c.hypothesis == 0]
    assert (TABLE, BLOCK) in first
    assert (TABLE, BAR) not in first


def test_more_parts_than_one_body_has() -> None:
    pot = compound(cup(0.12, 0.08), (0.0, 0.0, 0.0), 0.4)
    grip = compound(
        boxes(((0.1, 0.02, 0.02), (0.0, 0.0, 0.01)), ((0.03, 0.024, 0.024), (-0.065, 0.0, 0.01))),
        (float(pot.position[0] - 0.5 * pot.extents[0]) - 0.063, 0.0, 0.05),
        0.05,
    )
    scene = seen([pot, grip], [(2, 3)], world_T_camera=camera_at(-0.1, -0.7, 0.4))
    joined = JoinedScene(scene, [(1, 2)])
    whole = joined.joined(scene)
    assert len(scene.parts[1]) + len(scene.parts[2]) > MAX_PARTS
    assert len(whole.parts[1]) == MAX_PARTS
    assert whole.ids.tolist() == [1, 3]
    assert whole.masses[1] == pytest.approx(0.45)
    volume = sum(solid_of(scene.parts[i]).volume for i in (1, 2))
    assert volume * 0.95 < solid_of(whole.parts[1]).volume < 1.5 * volume
    for name in BOTH:
        assert shared_dynamics(name).joined(scene) == ((2, 3),)
        result = rollout(name, scene, apply_impulse(3, (0.0, 0.25, 0.0)))
        assert moved(states_of(result, 3, 0)) < 1e-4
        assert are_one(states_of(result, 2), states_of(result, 3))
        assert moved(states_of(result, 2)) > 0.01


def test_answers_of_a_request_are_by_object_and_valid() -> None:
    imagination = Imagination()
    try:
        light = glued(log_mass=np.log([1.0, 2.0, 0.005]))
        hypotheses = (
            Hypothesis(""),
            Hypothesis("fast", (set_velocity(BAR, (0.0, 4.0, 0.0)),)),
            Hypothesis("high", (set_pose(BAR, (0.0, 0.0, 3.0)),)),
        )
        for backend in ("learned", "physics"):
            request = ImagineRequest(
                hypotheses=hypotheses, horizon_s=1.0, step_s=0.05, samples=4, backend=backend, want_events=True
            )
            told: list[Progress] = []
            answer = imagination.imagine(request, light, on_progress=told.append)
            assert answer.valid.all(), answer.invalid_reasons
            assert answer.object_ids.tolist() == [TABLE, BLOCK, BAR]
            assert np.nanmin(answer.effect[1, 1:]) > 0.1
            assert {p.hypothesis for p in told} == {0, 1, 2}
            assert not [e for e in answer.events if e.hypothesis == 0]
    finally:
        imagination.close()
