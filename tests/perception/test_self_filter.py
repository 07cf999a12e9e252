"""Images without the robot's own body."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tabletop_images import BOXES, CAMERA, look_down, render
from wm_perception.lifting.self_filter import OwnBox, without_own_body
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
    left = without_own_body(seen, [box])
    assert (left[is_box] == 0.0).all()
    changed = left != seen.depth_m
    # Beside the body only its margin on the table goes.
    assert changed.sum() < 1.4 * is_box.sum() and changed.sum() >= is_box.sum()
    assert (left[~changed] == seen.depth_m[~changed]).all() and seen.depth_m[is_box].all()


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-3.0, 3.0), st.floats(-1.5, 1.5))
def test_what_is_left_out_lies_in_the_body(x, y, turn, tilt):
    seen = frame()
    rotation = Rotation.from_euler("zx", [turn, tilt])
    box = OwnBox(np.array([0.1, 0.2, 0.3]), np.array([x, y, 0.05]), rotation.as_quat())
    left = without_own_body(seen, [box], 0.0)
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
    assert (left == seen.depth_m).all()
