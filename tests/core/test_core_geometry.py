"""Rigid-body geometry and the camera model: properties that hold for every input."""

import numpy as np
import pytest
import transforms3d
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from wm_core import geometry, rotations
from wm_core.camera import Camera

coordinates = st.floats(-5.0, 5.0, allow_nan=False)
vectors = hnp.arrays(np.float64, 3, elements=coordinates)
quaternions = hnp.arrays(np.float64, 4, elements=st.floats(-1.0, 1.0)).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(quaternions)
def test_rotation_matrix_agrees_with_transforms3d(quaternion):
    unit = quaternion / np.linalg.norm(quaternion)
    expected = transforms3d.quaternions.quat2mat([unit[3], unit[0], unit[1], unit[2]])
    assert np.allclose(rotations.quaternion_to_matrix(quaternion), expected, atol=1e-9)
    assert rotations.rotation_distance(rotations.matrix_to_quaternion(expected), unit) < 1e-6


@given(vectors, quaternions, vectors)
def test_inverse_transform_undoes_it(position, quaternion, point):
    transform = geometry.pose_matrix(position, quaternion)
    back = geometry.transform_points(
        geometry.invert_transform(transform), geometry.transform_points(transform, point[None])
    )
    assert np.allclose(back[0], point, atol=1e-9)


@given(vectors.filter(lambda v: np.linalg.norm(v) > 0.1), vectors.filter(lambda v: np.linalg.norm(v) > 0.1))
def test_rotation_between_turns_a_into_b(a, b):
    rotation = rotations.rotation_between(a, b)
    assert np.allclose(rotation @ (a / np.linalg.norm(a)), b / np.linalg.norm(b), atol=1e-6)
    assert np.isclose(np.linalg.det(rotation), 1.0)


def test_opposite_directions_still_have_a_rotation():
    rotation = rotations.rotation_between([0, 0, 1], [0, 0, -1])
    assert np.allclose(rotation @ [0, 0, 1], [0, 0, -1])


@given(quaternions)
def test_roll_pitch_and_yaw_are_about_fixed_axes(quaternion):
    roll, pitch, yaw = rotations.roll_pitch_yaw(quaternion)
    again = Rotation.from_euler("xyz", [roll, pitch, yaw]).as_matrix()
    assert np.allclose(again, rotations.quaternion_to_matrix(quaternion), atol=1e-6)


def test_zero_quaternion_is_identity_and_nan_is_refused():
    assert rotations.normalize_quaternion([0, 0, 0, 0]).tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="not finite"):
        rotations.normalize_quaternion([np.nan, 0, 0, 1])


def test_path_is_held_at_both_ends_and_linear_between():
    positions, quaternions_out = geometry.interpolate_pose(
        [0.0, 1.0], [[0, 0, 0], [1, 0, 0]], [[0, 0, 0, 1], [0, 0, 1, 0]], [-1.0, 0.5, 2.0]
    )
    assert positions[:, 0].tolist() == [0.0, 0.5, 1.0]
    assert np.isclose(rotations.rotation_distance(quaternions_out[1], [0, 0, 0, 1]), np.pi / 2)


@given(st.floats(0.3, 5.0), st.integers(0, 63), st.integers(0, 47))
def test_projection_inverts_back_projection(depth, u, v):
    camera = Camera.from_vertical_field_of_view(64, 48, 0.8)
    points = camera.back_project(np.full((48, 64), depth, np.float32))
    pixels, z = camera.project(points[v, u][None])
    assert np.allclose(pixels[0], [u, v], atol=1e-3)
    assert np.isclose(z[0], depth, rtol=1e-5)


def test_missing_depth_becomes_nan_and_points_behind_get_no_pixel():
    camera = Camera.from_vertical_field_of_view(4, 3, 0.8)
    depth = np.array([[0, 1, np.nan, np.inf]] * 3, np.float32)
    assert np.isnan(camera.back_project(depth)[:, [0, 2, 3]]).all()
    pixels, _ = camera.project(np.array([[0.0, 0.0, -1.0]]))
    assert np.isnan(pixels).all()


def test_camera_errors_name_found_and_expected():
    with pytest.raises(ValueError, match=r"got 0x48"):
        Camera(0, 48, 50, 50, 0, 0)
    with pytest.raises(ValueError, match="expected finite with fx, fy > 0"):
        Camera(64, 48, 0.0, 50, 0, 0)
    with pytest.raises(ValueError, match=r"got shape \(2, 2\), expected \(48, 64\)"):
        Camera(64, 48, 50, 50, 32, 24).back_project(np.ones((2, 2)))


def test_scaled_camera_sees_the_same_directions():
    camera = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
    half = camera.scaled(0.5)
    point = np.array([[0.2, -0.1, 1.0]])
    full_pixel, half_pixel = camera.project(point)[0][0], half.project(point)[0][0]
    assert np.allclose((full_pixel + 0.5) / 2.0 - 0.5, half_pixel)


@given(hnp.arrays(np.float64, (20, 3), elements=coordinates))
def test_nearest_pixels_are_of_points_before_the_camera_and_within_half_a_pixel(points):
    camera = Camera(64, 48, 40.0, 42.0, 31.5, 23.5)
    rows, columns, depths, inside = camera.nearest_pixels(points)
    pixels, _ = camera.project(points)
    assert np.allclose(depths, points[:, 2])
    assert (rows >= 0).all() and (rows < 48).all() and (columns >= 0).all() and (columns < 64).all()
    assert (np.abs(pixels[inside] - np.stack([columns, rows], axis=1)[inside]) <= 0.5).all()
    beyond = (points[:, 2] <= 1e-6) | ~((pixels > -0.5) & (pixels < np.array([63.5, 47.5]))).all(axis=1)
    assert (inside == ~beyond).all() and not rows[~inside].any() and not columns[~inside].any()
