"""The least change that parts bodies which lie in one another."""

from __future__ import annotations

import itertools
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.rollout import POSITION, QUATERNION
from wm_core.scene_graph import Predicate, Relation, SceneGraph, Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, rest_state
from wm_dynamics.mujoco.penetration import OVERLAP_M
from wm_dynamics.mujoco.world import World
from wm_dynamics.settling.preparation import BESIDE_GAP_M, ScenePreparation
from wm_dynamics.settling.projection import MOST_M, MinimumChange, PartPairs, deepest, movable_pairs

Array = NDArray[np.float64]

SIDE_M = 0.08
DEVIATION_M = 0.008
ROUNDING_M = 1e-5
"""What MuJoCo's convex distance is exact to."""
SHAPES = (Shape.BOX, Shape.CYLINDER, Shape.SPHERE)
EVERYWHERE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def body(shape: Shape, side: float = SIDE_M) -> BodyDef:
    return BodyDef((GeomDef(shape, np.full(3, side)),))


def parts_of(bodies: list[BodyDef], fixed: Array | None = None) -> PartPairs:
    world = World(bodies, None, 0.004, touch_sensors=False)
    still = np.zeros(len(bodies), dtype=bool) if fixed is None else fixed
    return PartPairs(world, mujoco.MjData(world.model), movable_pairs(still))


def states_at(positions: Any, yaws: Any = 0.0) -> Array:
    places = np.asarray(positions, dtype=np.float64)
    states = np.array([rest_state(p) for p in places])
    angles = np.broadcast_to(yaws, len(places))
    states[:, QUATERNION] = Rotation.from_rotvec(np.outer(angles, [0.0, 0.0, 1.0])).as_quat()
    return states


def depth(parts: PartPairs, states: Array) -> float:
    """Deepest overlap [m]."""
    return max((-o.distance for o in parts.near(states, 1e-6)), default=0.0)


def isotropic(count: int, deviation: float = DEVIATION_M) -> Array:
    return np.tile(np.eye(3) * deviation**2, (count, 1, 1))


def cost(change: Array, covariances: Array) -> float:
    """The sum of squared changes in standard deviations."""
    return float(sum(d @ np.linalg.solve(c, d) for d, c in zip(change, covariances, strict=True)))


ERRORS = st.lists(st.floats(-1.0, 1.0, width=32), min_size=12, max_size=12)
KINDS = st.lists(st.sampled_from(SHAPES), min_size=4, max_size=4)
GRID = np.array([(x, y, 0.0) for x, y in itertools.product((0.0, SIDE_M + 2 * BESIDE_GAP_M), repeat=2)])
"""Four things in a square that do not quite touch: where they truly are."""


@EVERYWHERE
@given(errors=ERRORS, kinds=KINDS)
def test_bodies_are_parted_by_no_more_than_their_errors(errors: list[float], kinds: list[Shape]) -> None:
    """Where they truly are they do not overlap, so that the least change costs no more than their errors."""
    error = DEVIATION_M * np.reshape(errors, (4, 3))
    parts, covariances = parts_of([body(k) for k in kinds]), isotropic(4)
    states = states_at(GRID + error)
    change = MinimumChange(parts, covariances, BESIDE_GAP_M)
    result = change.apply(states)
    assert depth(parts, result) <= OVERLAP_M + ROUNDING_M
    moved = result[:, POSITION] - states[:, POSITION]
    assert cost(moved, covariances) <= 1.05 * cost(error, covariances) + 1e-3
    np.testing.assert_array_equal(result[:, 3:], states[:, 3:])


@EVERYWHERE
@given(errors=ERRORS, kinds=KINDS)
def test_what_does_not_overlap_stays_exactly_where_it_is(errors: list[float], kinds: list[Shape]) -> None:
    parts = parts_of([body(k) for k in kinds])
    states = states_at(GRID * 1.5 + DEVIATION_M * np.reshape(errors, (4, 3)))
    assume(depth(parts, states) == 0.0)
    assert MinimumChange(parts, isotropic(4), BESIDE_GAP_M).apply(states) is states


@EVERYWHERE
@given(errors=ERRORS, kinds=KINDS, at=st.tuples(*[st.floats(-2.0, 2.0, width=32)] * 3), yaw=st.floats(-3.0, 3.0))
def test_where_the_world_lies_does_not_matter(
    errors: list[float], kinds: list[Shape], at: tuple[float, float, float], yaw: float
) -> None:
    parts = parts_of([body(k) for k in kinds])
    deviations = np.array([0.010, 0.006, 0.004])
    covariances = np.tile(np.diag(deviations**2), (4, 1, 1))
    places = GRID + DEVIATION_M * np.reshape(errors, (4, 3))
    here = MinimumChange(parts, covariances, BESIDE_GAP_M).apply(states_at(places))
    turn = Rotation.from_rotvec([0.0, 0.0, yaw]).as_matrix()
    elsewhere = MinimumChange(parts, turn @ covariances @ turn.T, BESIDE_GAP_M).apply(
        states_at(places @ turn.T + at, yaw)
    )
    np.testing.assert_allclose(elsewhere[:, POSITION], here[:, POSITION] @ turn.T + at, atol=2e-4)


@EVERYWHERE
@given(
    overlap=st.floats(0.001, 0.02),
    share=st.floats(0.0, 1.0),
    aside=st.floats(-0.02, 0.02),
    shapes=st.tuples(st.sampled_from(SHAPES), st.sampled_from(SHAPES)),
)
def test_two_move_by_what_they_overlap_and_by_their_variances(
    overlap: float, share: float, aside: float, shapes: tuple[Shape, Shape]
) -> None:
    parts = parts_of([body(s) for s in shapes])
    variances = 1e-4 * np.array([share, 1.0 - share]) + 1e-8
    covariances = variances[:, None, None] * np.eye(3)
    states = states_at([(0.0, 0.0, 0.0), (SIDE_M - overlap, aside, 0.0)])
    before = depth(parts, states)
    assume(before > 2.0 * OVERLAP_M)
    result = MinimumChange(parts, covariances, BESIDE_GAP_M).apply(states)
    lengths = np.linalg.norm(result[:, POSITION] - states[:, POSITION], axis=1)
    assert depth(parts, result) <= OVERLAP_M
    assert lengths.sum() <= before + BESIDE_GAP_M + 1e-4
    np.testing.assert_allclose(lengths / lengths.sum(), variances / variances.sum(), atol=1e-3)


def test_what_is_known_in_one_direction_moves_in_the_others() -> None:
    """Two balls aslant; only along x is anything uncertain."""
    parts = parts_of([body(Shape.SPHERE), body(Shape.SPHERE)])
    states = states_at([(0.0, 0.0, 0.0), (0.055, 0.05, 0.0)])
    covariances = np.tile(np.diag([1e-4, 1e-10, 1e-10]), (2, 1, 1))
    result = MinimumChange(parts, covariances, BESIDE_GAP_M).apply(states)
    moved = result[:, POSITION] - states[:, POSITION]
    assert depth(parts, result) <= OVERLAP_M
    assert np.abs(moved[:, 0]).min() > 1e-3 and np.abs(moved[:, 1:]).max() < 1e-5


def test_what_is_fixed_stays_and_a_row_between_walls_shares_the_change() -> None:
    fixed = np.array([True, False, False, True])
    parts = parts_of([body(Shape.BOX) for _ in range(4)], fixed)
    covariances = isotropic(4) * ~fixed[:, None, None]
    states = states_at([(0.0, 0.0, 0.0), (0.074, 0.0, 0.0), (0.164, 0.0, 0.0), (0.2406, 0.0, 0.0)])
    result = MinimumChange(parts, covariances, BESIDE_GAP_M).apply(states)
    np.testing.assert_array_equal(result[fixed], states[fixed])
    assert depth(parts, result) <= OVERLAP_M
    np.testing.assert_allclose(result[1:3, 0], [0.0802, 0.1604], atol=3e-4)


def test_what_no_error_of_poses_explains_stays_and_neither_moves_the_others() -> None:
    parts = parts_of([body(Shape.BOX) for _ in range(3)])
    states = states_at([(0.0, 0.0, 0.0), (SIDE_M - MOST_M - 0.005, 0.0, 0.0), (0.3, 0.0, 0.0)])
    change = MinimumChange(parts, isotropic(3), BESIDE_GAP_M)
    assert change.unexplained(states) == [(0, 1)]
    assert change.apply(states) is states
    # However uncertain their poses are.
    assert MinimumChange(parts, isotropic(3, 0.5)).unexplained(states) == [(0, 1)]


@pytest.mark.parametrize("lean", [0.0, 0.5])
def test_what_stands_stays_on_its_table_and_moves_along_it(lean: float) -> None:
    """Boxes beside one another, one of them with another on it, seen in one another by 6 mm and sunk into the table."""
    side = 0.08
    things = [(0.0, 0.5 * side - 0.003), (side - 0.006, 0.5 * side + 0.002), (side, 1.5 * side + 0.001)]
    tilt = Rotation.from_rotvec([0.0, np.radians(lean), 0.0]).as_quat()
    graph = SceneGraph.build(
        [1, 2, 3, 4],
        [(0.0, 0.0, -0.02), *((x, 0.0, z) for x, z in things)],
        [(1.0, 1.0, 0.04), *[(side, side, side)] * 3],
        quaternions=[(0.0, 0.0, 0.0, 1.0), *[tilt] * 3],
        shapes=[Shape.BOX] * 4,
        class_names=["support", *["box"] * 3],
        is_static=[True, False, False, False],
        relations=[Relation(4, Predicate.ON, 3, 0.9, 0)],
        pose_covariances=np.tile(np.diag([DEVIATION_M**2] * 3 + [0.02**2] * 3), (4, 1, 1)),
    )
    preparation = ScenePreparation(graph, None, 1.0 / 240.0)
    start = preparation.start(graph)
    parts = PartPairs(preparation.world, preparation.data, movable_pairs(graph.is_static))
    assert depth(parts, start) <= OVERLAP_M
    np.testing.assert_allclose(start[1:, 2], [0.5 * side, 0.5 * side, 1.5 * side], atol=4e-4)
    moved = start[1:, :2] - graph.positions[1:, :2]
    np.testing.assert_allclose(moved[:, 0], [-0.003, 0.003, 0.0], atol=6e-4)
    assert np.abs(moved[:, 1]).max() < 1e-4
    assert {pair for pair, o in deepest(parts.near(start, 1e-3)).items()} >= {(0, 1), (0, 2), (2, 3)}
