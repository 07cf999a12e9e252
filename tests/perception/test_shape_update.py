"""Outlines of tracks: of stacks, of which the upper object hides the top of the lower one, and of what has fallen."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from seen_objects import seen_frame, segment
from wm_core.rotations import about_z, matrix
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import make_cloud
from wm_perception.tracking.births import born
from wm_perception.tracking.shape_update import ShapeUpdater, is_due, is_impossible

BLUE, RED = (0.1, 0.2, 0.7, 1.0), (0.8, 0.1, 0.1, 1.0)
LOW, HIGH = np.array([0.069, 0.059, 0.074]), np.array([0.05, 0.05, 0.1])


def stack(yaw_low, yaw_high, shift):
    upper = np.array([*shift, LOW[2] + 0.5 * HIGH[2]])
    return [
        GeomDef(Shape.BOX, LOW, np.array([0.0, 0.0, 0.5 * LOW[2]]), about_z(yaw_low), color=BLUE),
        GeomDef(Shape.BOX, HIGH, upper, about_z(yaw_high), color=RED),
    ]


@pytest.mark.parametrize("reach", [0, 1], ids=["exact masks", "masks that reach into the other"])
@pytest.mark.parametrize(("yaw_low", "yaw_high", "shift"), [(0.12, 0.21, (0.0, -0.006)), (0.5, 0.1, (0.003, 0.002))])
def test_the_lower_block_of_a_stack_is_as_large_as_it_is(yaw_low, yaw_high, shift, reach):
    eye = np.array([-0.62, 0.0, 0.6])
    parts = stack(yaw_low, yaw_high, shift)
    frame, which = seen_frame(parts, eye)
    cloud = make_cloud(frame, 1, 4.0)
    rng = np.random.default_rng(0)
    updater, tracks = ShapeUpdater(0.5), []
    for n in range(3):
        for k in (0, 1):
            mask = (which == k + 1).astype(np.uint8)
            if reach:
                mask = cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8)) * (which > 0)
            points = cloud.points[mask > 0].astype(float)
            o = segment(points + 0.001 * rng.standard_normal(points.shape))
            if n == 0:
                tracks.append(born(o, k + 1, tracks, eye, 0))
                tracks[k].id = k + 1
            updater.refit(tracks[k], o, tracks, eye, n, "box")
    low, high = tracks
    assert low.shape == Shape.BOX and high.shape == Shape.BOX
    for track, size in ((low, LOW), (high, HIGH)):
        box = np.abs(matrix(track.quaternion)[:2, :2].T @ matrix(about_z(yaw_low))[:2, :2])
        named = track.extents if box[0, 0] > box[0, 1] or track is high else track.extents[[1, 0, 2]]
        assert np.abs(named - size).max() < 0.012 + 0.003 * reach


SECOND_NS = 1_000_000_000


def block(rng):
    """The segment of the lower block of the stack, alone, and the eye that sees it."""
    eye = np.array([-0.62, 0.0, 0.6])
    frame, which = seen_frame(stack(0.3, 0.0, (0.0, 0.0))[:1], eye)
    points = make_cloud(frame, 1, 4.0).points[which > 0].astype(float)
    return segment(points + 0.001 * rng.standard_normal(points.shape)), eye


@pytest.mark.parametrize("raised_m", [0.3, 0.08])
def test_what_was_fitted_while_it_fell_is_fitted_anew_where_it_lies(raised_m):
    """In the air it is thought to reach down to the support. When it lies there, that is impossible."""
    rng = np.random.default_rng(0)
    o, eye = block(rng)
    up = np.array([0.0, 0.0, raised_m])
    falling = segment(o.points + up)
    t = born(falling, 1, [], eye, 0)
    updater = ShapeUpdater(0.5)
    for n in range(3):
        updater.refit(t, falling, [t], eye, n, "")
    assert t.extents[2] > LOW[2] + 0.8 * raised_m
    t.motion.filter.shift(-up)
    t.motion.moved, t.motion.sleeping = True, True
    assert is_impossible(t, o) and is_due(t, o, SECOND_NS)
    assert not is_due(t, o, 10), "not in every frame"
    updater.refit(t, o, [t], eye, SECOND_NS, "")
    assert not is_impossible(t, o)
    assert np.abs(np.sort(t.extents) - np.sort(LOW)).max() < 0.015
    assert t.position == pytest.approx([0.0, 0.0, 0.5 * LOW[2]], abs=0.01)


def test_what_is_hidden_or_in_a_hand_may_reach_anywhere():
    rng = np.random.default_rng(0)
    o, eye = block(rng)
    t = born(o, 1, [], eye, 0)
    ShapeUpdater(0.5).refit(t, o, [t], eye, 0, "")
    t.motion.sleeping = True
    assert not is_impossible(t, o)
    t.motion.filter.shift(np.array([0.0, 0.0, -0.2]))
    assert is_impossible(t, o)
    assert not is_impossible(t, replace(o, cut_share=0.5)), "something hides its foot"
    assert not is_impossible(t, replace(o, height_low=0.1)), "it is held, or lies on something"
    assert not is_impossible(t, replace(o, bottom=None)), "no support is known"
