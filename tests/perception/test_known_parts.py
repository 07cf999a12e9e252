"""Objects of several parts that have been seen whole: what is fitted anew, and what stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seen_objects import eye_at, seen_frame, seen_points, segment, segmentation_of
from wm_core.rotations import turn_about_z
from wm_core.scene_graph import EventKind, Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.shapes.surfaces import align
from wm_perception.tracking import motion_update
from wm_perception.tracking.births import born
from wm_perception.tracking.motion import MotionModels
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.pose_measuring import measure_pose, rows_to_align, without_wrong_turn
from wm_perception.tracking.seen_surface import SeenSurface
from wm_perception.tracking.shape_update import ShapeUpdater, is_due
from wm_perception.tracking.track import Track
from wm_perception.types import Cloud, Frame, PerceptionConfig, Segmentation

EYE = eye_at(45.0, 1.1)
TEE = [
    GeomDef(Shape.BOX, np.array([0.05, 0.18, 0.04]), position=np.array([0.06, 0.0, 0.02])),
    GeomDef(Shape.BOX, np.array([0.13, 0.05, 0.04]), position=np.array([-0.03, 0.0, 0.02])),
]
HAMMER = [
    GeomDef(Shape.BOX, np.array([0.03, 0.10, 0.03]), position=np.array([0.13, 0.0, 0.015])),
    GeomDef(Shape.BOX, np.array([0.24, 0.025, 0.025]), position=np.array([0.0, 0.0, 0.0125])),
]
SOLIDS = {"tee": TEE, "hammer": HAMMER}
STEP_S = 1.0 / 15.0


def observed(
    turn: float = 0.0, place: tuple[float, float] = (0.0, 0.0), seed: int = 0, parts: list[GeomDef] = TEE
) -> Observation:
    quaternion = Rotation.from_euler("z", turn).as_quat()
    return replace(segment(seen_points(parts, EYE, (*place, 0.0), quaternion, noise=0.5, seed=seed)), noise_m=0.0025)


def known(looks: int = 6, parts: list[GeomDef] = TEE) -> tuple[Track, Observation]:
    """A T, or another thing, that was seen whole a few times, at rest."""
    o = observed(parts=parts)
    t = born(o, 1, [], EYE, 1)
    t.id, t.hits, t.motion.frames = 1, 20, 20
    for k in range(looks):
        ShapeUpdater(0.5).refit(t, observed(seed=k, parts=parts), [t], EYE, 1 + k, "")
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


def measured(t: Track, o: Observation) -> tuple[float, float, list[EventKind]]:
    """A frame of a segment: measured turn [rad] and way [m], after the track has been updated with it, and events."""
    motion_update.predict(t, STEP_S, 1.0, MotionModels())
    rows = rows_to_align(t, o, False)
    pose = without_wrong_turn(t, o, rows, measure_pose(t, o, rows, t.position, EYE), EYE)
    t.hits += 1
    t.motion.frames += 1
    events = motion_update.update_motion(t, o, pose, STEP_S, t.motion.frames * STEP_S)
    turn = float(turn_about_z(pose.quaternion, t.quaternion))
    return turn, float(np.linalg.norm(pose.position - t.position)), events


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


@pytest.mark.parametrize("solid", ["tee", "hammer"])
def test_a_camera_that_drifts_moves_nothing(solid: str) -> None:
    """By 3 mm and half a degree, to and fro."""
    t, _ = known(parts=SOLIDS[solid])
    events = []
    for k in range(60):
        angle = np.radians(0.5) * np.sin(k / 8.0)
        turn = Rotation.from_euler("zy", [angle, 0.5 * angle])
        shift = np.array([0.003 * np.sin(k / 5.0), 0.003 * np.cos(k / 7.0), 0.002 * np.sin(k / 3.0)])
        o = observed(seed=100 + k, parts=SOLIDS[solid])
        o = replace(o, points=turn.apply(o.points - EYE) + EYE + shift)
        events += measured(t, o)[2]
        assert not np.linalg.norm(t.velocity)
    assert not events


@pytest.mark.parametrize("count", [20, 45, 90])
def test_an_end_of_a_resting_hammer_turns_nothing(count: int) -> None:
    """Something hides all but some points of one side."""
    t, _ = known(parts=SOLIDS["hammer"])
    first, place = t.quaternion.copy(), t.position.copy()
    t.visibility.cut, t.visibility.fraction = True, 0.15
    events = []
    for k in range(60):
        o = observed(seed=200 + k, parts=SOLIDS["hammer"])
        points = o.points[np.argsort(o.points[:, 1])[-count:]]
        events += measured(t, replace(o.with_points(points, 0.2), hidden_fraction=0.5))[2]
    assert not events
    assert abs(turn_about_z(t.quaternion, first)) < np.radians(2.0)
    assert np.linalg.norm(t.position - place) < 0.012


class _Told:
    """A segmenter that is told the masks."""

    ids = np.zeros((240, 320), np.int32)

    def segment(self, frame: Frame, cloud: Cloud, *_: object) -> Segmentation:
        step = self.ids.shape[0] // cloud.depth.shape[0]
        return segmentation_of(self.ids[::step, ::step], least=30, score=0.9)


@pytest.mark.parametrize("stays", [0, 1])
def test_two_things_that_were_one_are_told_apart_when_one_is_taken_away(stays: int) -> None:
    """Their shape had been seen often enough to be sure."""
    things = [
        GeomDef(Shape.BOX, np.array([0.05, 0.18, 0.04]), position=np.array([0.05, 0.0, 0.02])),
        GeomDef(Shape.BOX, np.array([0.12, 0.05, 0.04]), position=np.array([-0.036, 0.0, 0.02])),
    ]
    eye = eye_at(45.0, 0.9)
    segmenter = _Told()
    pipeline, rng = PerceptionPipeline(PerceptionConfig(), segmenter=segmenter), np.random.default_rng(0)
    number = 0
    for seen, frames in ((things, 120), ([things[stays]], 60)):
        frame, ids = seen_frame(seen, eye, (0.0, 0.0, 0.02))
        segmenter.ids = (ids > 0).astype(np.int32)
        for _ in range(frames):
            noise = 0.7 * depth_noise_m(frame.depth_m) * rng.standard_normal(ids.shape)
            depth = np.where(frame.depth_m > 0.0, frame.depth_m + noise, 0.0).astype(np.float32)
            number += 1
            scene = pipeline.process(replace(frame, stamp_ns=number * 66_666_667, depth_m=depth)).scene
        (row,) = np.flatnonzero(~scene.is_static)
        if len(seen) == 2:
            assert len(scene.parts[row]) > 1
    true = things[stays]
    assert not scene.parts[row]
    np.testing.assert_allclose(np.sort(scene.extents[row]), np.sort(true.extents), atol=0.012)
    assert np.linalg.norm(scene.positions[row] - true.position) < 0.01


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
