"""Contacts of two convex objects: against exact answers, for primitives and for hulls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from wm_dynamics.contact_step.body_tables import HULL_POINTS
from wm_dynamics.contact_step.formulas.nearest import Apart, Core, Hull, contacts_of

Array = NDArray[np.float64]
Convex = tuple[Core | Hull, float]
"""A shape, and the radius about it."""


def core(half: tuple[float, ...], rounding: float = 0.0, cylinder: bool = False) -> Convex:
    return Core(np.zeros((3, 1, 1)), np.array(half, float)[:, None, None], np.array([[float(cylinder)]])), rounding


def hull(points: Array) -> Convex:
    filled = np.concatenate([points, np.repeat(points[:1], HULL_POINTS - len(points), axis=0)])
    none, _ = core((0.0, 0.0, 0.0))
    assert isinstance(none, Core)
    return Hull(none, filled.T[:, :, None], np.array([[True]])), 0.0


def contacts(
    a: Convex, b: Convex, offset: tuple[float, ...] | Array, turn: Rotation | None = None
) -> tuple[Array, Array, Array]:
    """Gaps (4,), normal (3,), points (4, 3)."""
    matrix = (turn or Rotation.identity()).as_matrix()[:, :, None, None]
    apart = Apart(a[0], b[0], matrix, np.asarray(offset, float)[:, None, None])
    gap, normal, points = contacts_of(apart, np.array([[a[1]]]), np.array([[b[1]]]))
    return gap[:, 0], normal[:, 0, 0], points[:, :, 0].T


BOX, PLATE = core((0.03, 0.04, 0.05)), core((0.2, 0.2, 0.01))


def test_a_box_upon_a_plate_rests_on_the_sides_of_its_face() -> None:
    gap, normal, points = contacts(BOX, PLATE, (0.05, 0.02, -0.0595))
    np.testing.assert_allclose(gap, -0.0005, atol=1e-6)
    np.testing.assert_allclose(normal, [0.0, 0.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(np.ptp(points, axis=0)[:2], [0.06, 0.08], atol=1e-4)
    np.testing.assert_allclose(points[:, 2], -0.04975, atol=1e-5)


def test_what_stands_half_over_an_edge_touches_only_what_is_beneath() -> None:
    _, _, points = contacts(BOX, PLATE, (0.22, 0.0, -0.06))
    assert points[:, 0].min() > 0.0199 and points[:, 0].max() < 0.0301


@given(st.floats(-np.pi, np.pi), st.floats(-np.pi, np.pi), st.floats(-0.01, 0.02))
@settings(max_examples=40, deadline=None)
def test_balls_and_standing_cylinders(around: float, yaw: float, apart: float) -> None:
    way = np.array([np.cos(around), np.sin(around), 0.0])
    turn = Rotation.from_euler("z", yaw)
    gap, normal, _ = contacts(core((0, 0, 0), 0.03), core((0, 0, 0), 0.05), way * (0.08 + apart), turn)
    np.testing.assert_allclose(gap, apart, atol=1e-6)
    np.testing.assert_allclose(normal, way, atol=1e-5)
    one, two = core((0.03, 0.03, 0.05), cylinder=True), core((0.05, 0.05, 0.08), cylinder=True)
    gap, normal, points = contacts(one, two, way * (0.08 + apart) + [0.0, 0.0, 0.03], turn)
    assert gap.min() == pytest.approx(apart, abs=1e-4)
    np.testing.assert_allclose(normal, way, atol=1e-3)
    np.testing.assert_allclose([points[:, 2].min(), points[:, 2].max()], [-0.05, 0.05], atol=1e-3)


def test_a_ball_by_a_corner_is_as_far_as_the_corner() -> None:
    way = np.array([1.0, 1.0, 1.0]) / np.sqrt(3.0)
    gap, normal, _ = contacts(core((0.05, 0.05, 0.05)), core((0, 0, 0), 0.02), np.full(3, 0.05) + way * 0.025)
    np.testing.assert_allclose(gap, 0.005, atol=2e-4)
    np.testing.assert_allclose(normal, way, atol=2e-2)


def test_boxes_that_cross_overlap() -> None:
    """Neither has a corner in the other."""
    bar = core((0.1, 0.01, 0.01))
    gap, normal, _ = contacts(bar, bar, (0.0, 0.0, 0.015), Rotation.from_euler("z", np.pi / 2))
    np.testing.assert_allclose(gap, -0.005, atol=1e-5)
    np.testing.assert_allclose(normal, [0.0, 0.0, 1.0], atol=1e-5)


def _random_hull(rng: np.random.Generator) -> Array:
    points = rng.normal(size=(24, 3))
    points *= rng.uniform(0.02, 0.07, 3) / np.linalg.norm(points, axis=1, keepdims=True)
    return points[ConvexHull(points).vertices] if rng.uniform() < 0.5 else np.sign(points) * rng.uniform(0.02, 0.07, 3)


@pytest.mark.slow
def test_overlapping_hulls_are_as_deep_as_their_difference_says() -> None:
    """The depth is the distance of the origin to the hull of all differences of points. Of those that overlap by less
    than a centimeter, however turned: half to a tenth of a millimeter, nine in ten to 1.5 mm, none by half a millimeter
    too shallow.
    """
    rng = np.random.default_rng(4)
    errors = []
    while len(errors) < 120:
        one, two, turn = _random_hull(rng), _random_hull(rng), Rotation.random(random_state=int(rng.integers(1 << 31)))
        turned = turn.apply(two)
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        offset = way * ((one @ way).max() - (turned @ way).min() - rng.uniform(0.0, 0.02))
        offsets = ConvexHull((turned[:, None] + offset - one[None]).reshape(-1, 3)).equations[:, 3]
        if (offsets > -1e-3).any() or offsets.max() < -0.01:
            continue
        gap, _, _ = contacts(hull(one), hull(two), offset, turn)
        errors.append(offsets.max() - gap.min())
    error = np.array(errors)
    assert error.min() > -5e-4
    assert np.median(error) < 1e-4 and np.quantile(error, 0.9) < 1.5e-3, np.quantile(error, [0.5, 0.9, 1.0])


def test_the_other_way_round_is_the_same() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        one, two = hull(_random_hull(rng)), core(tuple(rng.uniform(0.02, 0.05, 3)))
        turn = Rotation.random(random_state=int(rng.integers(1 << 31)))
        offset = rng.normal(size=3)
        offset *= 0.09 / np.linalg.norm(offset)
        there, normal, _ = contacts(one, two, offset, turn)
        back, opposite, _ = contacts(two, one, turn.inv().apply(-offset), turn.inv())
        if min(there.min(), back.min()) < -0.01:
            continue  # of several ways out of one another
        assert there.min() == pytest.approx(back.min(), abs=1.5e-3)
        if abs(there.min() - back.min()) < 1e-5:
            np.testing.assert_allclose(turn.apply(opposite), -normal, atol=0.1)
