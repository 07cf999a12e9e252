"""Parts of tracks: from segment to segment, through new outlines, in the frame of the object."""

import numpy as np
import pytest

from seen_objects import PLACE, WHITE, ball_fits, contains, eye_at, pan, seen_points, segment, tray
from wm_core.rotations import about_z, matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.shapes.part_frames import in_world
from wm_perception.tracking.births import born
from wm_perception.tracking.parts_update import carried_parts
from wm_perception.tracking.shape_update import ShapeUpdater
from wm_sim import objects


def tracked(solid, elevation=40, yaw=0.6, fits=4):
    eye = eye_at(elevation)
    updater = ShapeUpdater(0.5)
    track = None
    for n in range(fits):
        o = segment(seen_points(solid, eye, PLACE, about_z(yaw), noise=1.0, seed=n))
        if track is None:
            track = born(o, 1, [], eye, 0)
        updater.refit(track, o, [track], eye, n, "")
    return track, o


@pytest.mark.parametrize(
    ("solid", "middle", "radius"),
    [
        (objects.mug(0.085, 0.1, WHITE), 0.055, 0.028),
        (objects.bowl(0.17, 0.065, WHITE), 0.06, 0.03),
        (pan(0.2, 0.05, 0.15), 0.045, 0.022),
        (tray(0.24, 0.16, 0.05, 0.005), 0.035, 0.022),
    ],
    ids=["mug", "bowl", "pan", "tray"],
)
def test_a_track_is_hollow_where_the_object_is(solid, middle, radius):
    track, o = tracked(solid)
    assert track.parts
    parts = in_world(track.parts, track.position, track.quaternion)
    held = np.any([contains(part, o.points, 0.008) for part in parts], axis=0)
    assert held.mean() > 0.85
    assert ball_fits(parts, PLACE + [0.0, 0.0, middle], radius)


def test_parts_go_where_the_object_goes():
    track, _ = tracked(objects.mug(0.085, 0.1, WHITE))
    before = in_world(track.parts, track.position, track.quaternion)
    place = np.concatenate([p.points() for p in before]).mean(axis=0) - track.position
    track.motion.filter.shift(np.array([0.3, -0.1, 0.0]))
    after = in_world(track.parts, track.position, track.quaternion)
    assert np.allclose(np.concatenate([p.points() for p in after]).mean(axis=0) - track.position, place)


def test_what_is_closed_has_no_parts():
    can = [GeomDef(Shape.CYLINDER, np.array([0.07, 0.07, 0.1]), position=np.array([0.0, 0.0, 0.05]), color=WHITE)]
    track, _ = tracked(can)
    assert track.parts == () and track.parts_evidence.solid >= 2


def test_parts_are_stretched_with_their_outline_and_stay_where_they_are_in_a_new_frame():
    track, _ = tracked(tray(0.24, 0.16, 0.05, 0.005))
    old = (track.position, track.quaternion, track.extents, track.shape)
    larger = carried_parts(track.parts, old, (old[0], old[1], 1.1 * old[2], old[3]))
    for a, b in zip(track.parts, larger, strict=True):
        assert np.allclose(1.1 * np.ptp(a.points(), axis=0), np.ptp(b.points(), axis=0))
    turned = (old[0] + [0.01, 0.0, 0.0], about_z(0.9), old[2], Shape.CONVEX)
    stayed = in_world(carried_parts(track.parts, old, turned), turned[0], turned[1])
    for a, b in zip(in_world(track.parts, old[0], old[1]), stayed, strict=True):
        assert np.allclose(a.points().min(axis=0), b.points().min(axis=0))
        assert np.allclose(a.points().max(axis=0), b.points().max(axis=0))


def test_a_hammer_is_as_long_as_its_handle_shows_wherever_it_points():
    def bar(size, center):
        return GeomDef(Shape.BOX, np.array(size), position=np.array(center), color=WHITE)

    hammer = [bar((0.24, 0.026, 0.026), (0.0, 0.0, 0.013)), bar((0.036, 0.11, 0.036), (0.12, 0.0, 0.018))]
    # Of its bounds: the head ends at 0.138, the handle at -0.12.
    middle, size = np.array([0.009, 0.0, 0.018]), np.array([0.258, 0.11, 0.036])
    for yaw in (0.2, 1.3, -0.9, 2.6):
        track, _ = tracked(hammer, 45, yaw)
        assert 2 <= len(track.parts) <= 3
        assert np.abs(np.sort(track.extents) - np.sort(size)).max() < 0.015
        assert np.linalg.norm(track.position - (matrix(about_z(yaw)) @ middle + PLACE)) < 0.01
