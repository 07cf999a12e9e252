"""What is no motion of an object at rest: new axes of its shape, a shape that does not fit, another one's segment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from seen_objects import seen_points, segment
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.shapes.surfaces import Alignment
from wm_perception.tracking import motion_update
from wm_perception.tracking.births import born
from wm_perception.tracking.motion import MotionModels
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.pose_measuring import measure_pose, rows_to_align
from wm_perception.tracking.shape_update import ShapeUpdater
from wm_perception.tracking.track import Track

STEP_S = 1.0 / 15.0
EYE = np.array([-0.6, 0.1, 0.55])
CUP = GeomDef(Shape.CYLINDER, np.array([0.08, 0.08, 0.1]), np.array([0.0, 0.0, 0.05]))
COVARIANCE = np.diag([0.001**2] * 3 + [0.02**2] * 3)
CHI2_3_99 = 11.345

MODELS = MotionModels()


def observed(seed: int = 0) -> Observation:
    return segment(seen_points([CUP], EYE, noise=1.0, seed=seed))


def track() -> tuple[Track, Observation]:
    """A track with an id whose shape has been fitted."""
    o = observed()
    t = born(o, 1, [], EYE, 1)
    ShapeUpdater(0.5).refit(t, o, [t], EYE, 1, "")
    t.id = 1
    t.motion.frames = 20
    return t, o


def see(t: Track, o: Observation, places: NDArray[np.float64], residual_m: float = 0.001) -> list[NDArray[np.float64]]:
    """Measure a track at places (T, 3), a frame each; its velocity after each."""
    found = []
    for place in places:
        motion_update.predict(t, STEP_S, 1.0, MODELS)
        t.motion.frames += 1
        pose = Alignment(place, t.quaternion.copy(), COVARIANCE, residual_m)
        motion_update.update_motion(t, o, pose, STEP_S, t.motion.frames * STEP_S)
        found.append(t.velocity.copy())
    return found


def test_new_axes_of_a_shape_are_no_turn() -> None:
    """What is round and seen as a box at first has any yaw; fitted again, it has another."""
    o = observed()
    t = born(o, 1, [], EYE, 1)
    place = t.position.copy()
    turned = Alignment(place, np.array([0.0, 0.0, np.sin(0.6), np.cos(0.6)]), COVARIANCE, 0.001)
    for n in range(3):
        motion_update.update_motion(t, o, turned, STEP_S, (n + 1) * STEP_S)
    ShapeUpdater(0.5).refit(t, o, [t], EYE, 1, "")
    for n in range(3, 9):
        motion_update.predict(t, STEP_S, 1.0, MODELS)
        pose = measure_pose(t, o, rows_to_align(t, o, False), t.position)
        motion_update.update_motion(t, o, pose, STEP_S, (n + 1) * STEP_S)
        assert np.linalg.norm(t.motion.angular_velocity) < 0.6, f"frame {n}"


@pytest.mark.parametrize("off_m", [0.0, 0.05])
def test_the_way_of_a_misplaced_box_is_not_that_of_the_object(off_m: float) -> None:
    """Until a shape is fitted, a box about the segment is followed: it counts where it was about the object."""
    o = observed()
    t = born(o, 1, [], EYE, 1)
    t.motion.filter.shift(np.array([off_m, 0.0, 0.0]))
    t.motion.frames = 20
    step = np.array([0.0, 0.02, 0.0])
    see(t, o, t.position + np.arange(1, 5)[:, None] * step)
    assert np.linalg.norm(t.velocity) > 0.2
    # It is where it was seen, and its center there.
    t.motion.filter.shift(-4.0 * step)
    ShapeUpdater(0.5).refit(t, o, [t], EYE, 1, "")
    assert (np.linalg.norm(t.velocity) > 0.2) == (off_m == 0.0)


@pytest.mark.parametrize("moving", [False, True])
def test_the_way_of_a_growing_part_is_not_that_of_the_object(moving: bool) -> None:
    """What comes into view at the image's edge is followed by the middle of what is in view until it is seen whole."""
    o = observed()
    part = replace(o, cut_share=0.5, on_border=True)
    t = born(part, 1, [], EYE, 1)
    ShapeUpdater(0.5).refit(t, part, [t], EYE, 1, "")
    assert t.evidence.fits and not t.evidence.whole
    t.id, t.motion.frames = 1, 20
    step = np.array([0.0, 0.02, 0.0])
    see(t, o, t.position + np.arange(1, 6)[:, None] * step)
    assert np.linalg.norm(t.motion.filter.velocity) > 0.2
    t.motion.filter.shift(-5.0 * step)
    t.motion.seen_moving = moving
    ShapeUpdater(0.5).refit(t, o, [t], EYE, 2, "")
    assert t.evidence.whole
    assert (np.linalg.norm(t.motion.filter.velocity) > 0.2) == moving


@pytest.mark.parametrize("fits", [True, False])
def test_poses_of_a_shape_that_does_not_fit_are_no_motion(fits: bool) -> None:
    """The same wandering poses: of a shape that explains its points the object moves, else it does not for sure."""
    t, o = track()
    angles = np.linspace(0.0, 2.0 * np.pi, 15)
    places = t.position + 0.06 * np.stack([np.cos(angles) - 1.0, np.sin(angles), 0.0 * angles], axis=1)
    sure = []
    for place in places:
        velocity = see(t, o, place[None], 0.001 if fits else 0.015)[0]
        covariance = t.twist_covariance()[:3, :3]
        sure.append(float(velocity @ np.linalg.solve(covariance, velocity)) > CHI2_3_99)
    assert any(sure) == fits
    assert fits or not np.any(t.motion.angular_velocity)


def test_a_jump_to_another_segment_is_no_motion_but_going_on_is() -> None:
    t, o = track()
    rests = np.tile(t.position, (4, 1)) + 0.001 * np.random.default_rng(0).standard_normal((4, 3))
    see(t, o, rests)
    assert not t.motion.sleeping
    jump = np.array([0.12, 0.05, 0.0])
    place = rests[-1] + jump
    assert not see(t, o, place[None])[0].any() and t.jumped
    velocity = see(t, o, place[None] + jump)[0]
    np.testing.assert_allclose(velocity, jump / STEP_S, rtol=0.35, atol=0.1)


def test_what_left_its_rest_has_its_velocity_at_once() -> None:
    t, o = track()
    see(t, o, np.tile(t.position, (20, 1)))
    assert t.motion.sleeping
    jump = np.array([0.06, 0.0, 0.0])
    velocity = see(t, o, (t.position + jump)[None])[0]
    assert t.motion.moved and not t.jumped
    np.testing.assert_allclose(velocity, jump / STEP_S, rtol=0.1, atol=0.02)


def test_what_falls_has_a_velocity_in_the_second_step() -> None:
    """It goes a third as far in the first step as in the second: one motion."""
    t, o = track()
    begin = t.position.copy()
    times = STEP_S * np.arange(5)
    places = begin - 0.5 * 9.81 * np.outer(times**2, [0.0, 0.0, 1.0])
    velocities = see(t, o, places)
    assert velocities[2][2] < -0.3 and not t.jumped
