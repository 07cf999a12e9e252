"""Objects of several parts that have been seen whole: what is fitted anew, and what stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seen_objects import eye_at, seen_points, segment
from wm_core.rotations import turn_about_z
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.shapes.surfaces import align
from wm_perception.tracking import motion_update
from wm_perception.tracking.births import born
from wm_perception.tracking.motion import MotionModels
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.pose_measuring import measure_pose, rows_to_align, without_wrong_turn
from wm_perception.tracking.seen_surface import SeenSurface
from wm_perception.tracking.shape_update import ShapeUpdater, is_due
from wm_perception.tracking.track import Track

EYE = eye_at(45.0, 1.1)
TEE = [
    GeomDef(Shape.BOX, np.array([0.05, 0.18, 0.04]), position=np.array([0.06, 0.0, 0.02])),
    GeomDef(Shape.BOX, np.array([0.13, 0.05, 0.04]), position=np.array([-0.03, 0.0, 0.02])),
]
STEP_S = 1.0 / 15.0


def observed(turn: float = 0.0, place: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> Observation:
    quaternion = Rotation.from_euler("z", turn).as_quat()
    return replace(segment(seen_points(TEE, EYE, (*place, 0.0), quaternion, noise=0.5, seed=seed)), noise_m=0.0025)


def known(looks: int = 6) -> tuple[Track, Observation]:
    """A T that was seen whole a few times, at rest."""
    o = observed()
    t = born(o, 1, [], EYE, 1)
    t.id, t.hits, t.motion.frames = 1, 20, 20
    for k in range(looks):
        ShapeUpdater(0.5).refit(t, observed(seed=k), [t], EYE, 1 + k, "")
    t.motion.sleeping = True
    assert len(t.parts) in (2, 3, 4) and t.evidence.whole
    return t, o


def test_parts_that_are_sure_are_not_fitted_anew() -> None:
    """Fits of the outline alone would outnumber those with parts one day, and the parts be lost."""
    late = 10**12
    t, o = known()
    assert len(t.parts) > 1 and not is_due(t, o, late)
    before = t.parts
    for k in range(30):
        if is_due(t, o, late + k * 10**10):
            ShapeUpdater(0.5).refit(t, o, [t], EYE, late, "")
    assert t.parts is before


@pytest.mark.parametrize("beyond_m", [0.0, 0.07])
def test_a_piece_of_what_was_seen_whole_changes_nothing_and_more_of_it_is_fitted(beyond_m: float) -> None:
    t, o = known()
    extents, parts = t.extents.copy(), t.parts
    end = o.points[o.points[:, 1] > 0.02] + [0.0, beyond_m, 0.0]
    piece = born(segment(end), 2, [], EYE, 1)
    piece.seen = SeenSurface.of(segment(end), piece.position, piece.quaternion, None)
    t.take_in(piece)
    if beyond_m:
        assert not t.evidence.fits and not t.evidence.whole and not t.parts
        whole = segment(np.concatenate([o.points, end]))
        assert is_due(t, whole, 10**12)
        ShapeUpdater(0.5).refit(t, whole, [t], EYE, 10**12, "")
        assert t.extents.max() > extents.max() + 0.5 * beyond_m
        # What there is of parts is of this fit: within its outline.
        for part in t.parts:
            assert (np.abs(part.points()) < 0.5 * t.extents + 0.01).all()
    else:
        assert t.evidence.whole and t.parts is parts and (t.extents == extents).all()


def measured(t: Track, o: Observation) -> tuple[float, float]:
    """A frame of a segment: the measured turn [rad] and way [m], after the track has been updated with it."""
    motion_update.predict(t, STEP_S, 1.0, MotionModels())
    rows = rows_to_align(t, o, False)
    pose = without_wrong_turn(t, o, rows, measure_pose(t, o, rows, t.position, EYE), EYE)
    t.hits += 1
    t.motion.frames += 1
    motion_update.update_motion(t, o, pose, STEP_S, t.motion.frames * STEP_S)
    return float(turn_about_z(pose.quaternion, t.quaternion)), float(np.linalg.norm(pose.position - t.position))


@pytest.mark.parametrize("turn_deg", [-25.0, -15.0, -9.0, -5.0, 5.0, 9.0, 15.0, 25.0])
def test_a_tee_that_was_pushed_is_found_where_it_is(turn_deg: float) -> None:
    """At rest it was held where it was: by its prior, and by the arm that is nearer than the right one."""
    t, _ = known()
    for k in range(4):
        measured(t, observed(seed=10 + k))
    first, place = t.quaternion.copy(), t.position.copy()
    way, turn = np.array([0.008, -0.004, 0.0]), np.radians(turn_deg)
    for k in range(12):
        measured(t, observed(turn, (way[0], way[1]), seed=20 + k))
    assert abs(np.degrees(turn_about_z(t.quaternion, first)) - turn_deg) < 2.0
    assert np.linalg.norm(t.position - Rotation.from_euler("z", turn).apply(place) - way) < 0.006


def test_a_tee_at_rest_stays_asleep() -> None:
    t, _ = known()
    first = t.quaternion.copy()
    for k in range(40):
        measured(t, observed(seed=50 + k))
        assert t.motion.sleeping, f"frame {k}"
    assert abs(turn_about_z(t.quaternion, first)) < np.radians(1.0)


def test_another_turn_is_looked_for_in_few_frames_where_the_shape_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that is another thing's: no turn explains it."""
    t, _ = known()
    rng = np.random.default_rng(0)
    o = segment(rng.uniform([-0.15, -0.15, 0.0], [0.15, 0.15, 0.12], (400, 3)))
    calls = []
    monkeypatch.setattr(
        "wm_perception.tracking.pose_measuring.align",
        lambda *args, **options: calls.append(1) or align(*args, **options),
    )
    for _ in range(16):
        rows = rows_to_align(t, o, False)
        without_wrong_turn(t, o, rows, measure_pose(t, o, rows, t.position, EYE), EYE)
    assert 16 < len(calls) <= 16 + 4 * 5
