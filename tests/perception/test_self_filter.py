"""Images without the robot's own body."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tabletop_images import BOXES, CAMERA, look_down, render
from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.self_filter import OwnBox, without_own_body
from wm_perception.lifting.working_size import reduced
from wm_perception.types import Frame


def frame() -> Frame:
    pose = look_down(45.0)
    color, depth = render(pose)
    return Frame(1, color, depth, CAMERA, pose)


def first_box() -> OwnBox:
    foot, size, _ = BOXES[0]
    return OwnBox(np.array(size), np.array(foot) + [0.0, 0.0, 0.5 * size[2]], np.array([0.0, 0.0, 0.0, 1.0]))


def test_the_body_is_left_out_and_the_rest_is_as_it_was():
    seen, box = frame(), first_box()
    color = np.array(BOXES[0][2])
    is_box = (np.abs(seen.color.astype(int) - color).max(axis=-1) < 70) & (seen.color[..., 0] > 100)
    is_box &= seen.color[..., 1] < 60
    assert is_box.sum() > 500
    result = without_own_body(seen, [box])
    left = result.depth_m
    assert (left[is_box] == 0.0).all()
    changed = left != seen.depth_m
    # Beside the body only its margin on the table goes.
    assert changed.sum() < 1.4 * is_box.sum() and changed.sum() >= is_box.sum()
    assert (left[~changed] == seen.depth_m[~changed]).all() and seen.depth_m[is_box].all()
    assert (result.own_depth_m == np.where(changed, seen.depth_m, 0.0)).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-3.0, 3.0), st.floats(-1.5, 1.5))
def test_what_is_left_out_lies_in_the_body(x, y, turn, tilt):
    seen = frame()
    rotation = Rotation.from_euler("zx", [turn, tilt])
    box = OwnBox(np.array([0.1, 0.2, 0.3]), np.array([x, y, 0.05]), rotation.as_quat())
    left = without_own_body(seen, [box], 0.0).depth_m
    v, u = np.nonzero((left == 0.0) & (seen.depth_m > 0.0))
    z = seen.depth_m[v, u].astype(float)
    points = np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], axis=1)
    world = points @ seen.world_T_camera[:3, :3].T + seen.world_T_camera[:3, 3]
    assert (np.abs(rotation.inv().apply(world - box.position)) <= 0.5 * box.extents + 1e-5).all()


@pytest.mark.parametrize("distance", [-1.0, 0.0, 30.0])
def test_bodies_behind_the_camera_around_it_and_out_of_view_are_no_error(distance):
    seen = frame()
    place = seen.world_T_camera[:3, 3] + distance * seen.world_T_camera[:3, 2]
    left = without_own_body(seen, [OwnBox(np.full(3, 0.2), place, np.array([0.0, 0.0, 0.0, 1.0]))])
    assert (left.depth_m == seen.depth_m).all() and not left.own_depth_m.any()


def test_unmeasured_depth_is_not_of_the_body():
    seen = frame()
    depth = seen.depth_m.copy()
    depth[::3] = np.nan
    left = without_own_body(replace(seen, depth_m=depth), [first_box()])
    assert not left.own_depth_m[::3].any() and left.own_depth_m.any()
    assert np.isnan(left.depth_m[::3]).all()


def test_the_body_is_nearest_where_it_is_and_an_own_depth_of_another_size_is_refused():
    seen = without_own_body(frame(), [first_box()])
    for factor, stride in ((1, 1), (1, 2), (2, 1)):
        small = reduced(seen, factor)
        cloud = make_cloud(small, stride, 4.0)
        own = small.own_depth_m[::stride, ::stride] > 0.0
        assert own.sum() > 100 and np.isnan(cloud.depth[own]).all()
        assert (cloud.nearest[own] == small.own_depth_m[::stride, ::stride][own]).all()
        np.testing.assert_array_equal(cloud.nearest[~own], cloud.depth[~own])
    with pytest.raises(ValueError, match=r"own depth: got shape \(2, 2\), expected \(240, 320\)"):
        replace(seen, own_depth_m=np.zeros((2, 2), np.float32))
