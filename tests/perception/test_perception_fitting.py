"""Solids fitted to the side of a thing that a camera sees."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from wm_core.scene_graph import Shape
from wm_perception.shapes.fitting import fit_revolution, fit_shape
from wm_perception.shapes.surfaces import align, hull_planes, signed_distance, surface_samples

EYE = np.array([-0.7, 0.0, 0.6])
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def visible(shape, extents, position, rotation, rng, noise=0.0, count=4000):
    """Points on the faces that are turned to the camera, some hundred of them, with noise along the ray."""
    half = 0.5 * np.asarray(extents)
    if shape == Shape.BOX:
        local = rng.uniform(-1.0, 1.0, (count, 3))
        axis = rng.choice(3, count, p=half.prod() / half / (half.prod() / half).sum())
        local[np.arange(count), axis] = np.sign(local[np.arange(count), axis])
        local *= half
        normals = np.zeros_like(local)
        normals[np.arange(count), axis] = np.sign(local[np.arange(count), axis])
    else:
        local = rng.uniform(-1.0, 1.0, (count, 3)) * (half + 0.02)
        for _ in range(6):
            distance, gradient = signed_distance(shape, extents, local)
            local = local - distance[:, None] * gradient
        distance, normals = signed_distance(shape, extents, local + 1e-6 * np.sign(local))
        local = local[np.abs(distance) < 1e-4]
        normals = normals[np.abs(distance) < 1e-4]
    world = local @ rotation.T + position
    facing = np.einsum("pi,pi->p", normals @ rotation.T, EYE - world) > 0.1 * np.linalg.norm(EYE - world, axis=1)
    world = world[facing & (world[:, 2] > 0.006)]
    rays = (world - EYE) / np.linalg.norm(world - EYE, axis=1)[:, None]
    world = world + noise * rng.standard_normal((len(world), 1)) * rays
    return world[rng.permutation(len(world))[:500]]


places = st.tuples(st.floats(-0.1, 0.3), st.floats(-0.3, 0.3))
sizes = st.floats(0.04, 0.14)
noises = st.sampled_from([0.0, 0.0015])


@PROPERTY
@given(places, sizes, sizes, sizes, st.floats(-0.7, 0.7), noises, st.integers(0, 9))
def test_a_box_is_known_from_the_faces_in_view(place, length, width, height, yaw, noise, seed):
    extents = np.array([length, width, height])
    rotation = Rotation.from_euler("z", yaw).as_matrix()
    center = np.array([*place, 0.5 * height])
    points = visible(Shape.BOX, extents, center, rotation, np.random.default_rng(seed), noise)
    fit = fit_shape(points, 0.0)
    assert fit.shape in (Shape.BOX, Shape.CONVEX, Shape.CYLINDER)
    assert np.linalg.norm(fit.position - center) < 0.008 + 2.0 * noise
    if fit.shape == Shape.BOX:
        assert np.abs(np.sort(fit.extents) - np.sort(extents)).max() < 0.012 + 4.0 * noise


@PROPERTY
@given(places, sizes, noises, st.integers(0, 9))
def test_a_ball_is_known_from_one_side(place, diameter, noise, seed):
    center = np.array([*place, 0.5 * diameter])
    points = visible(Shape.SPHERE, np.full(3, diameter), center, np.eye(3), np.random.default_rng(seed), noise)
    fit = fit_shape(points, 0.0)
    assert fit.shape == Shape.SPHERE
    assert np.linalg.norm(fit.position - center) < 0.002 + noise
    assert np.abs(fit.extents - diameter).max() < 0.004 + 2.0 * noise


@PROPERTY
@given(places, sizes, st.floats(0.06, 0.2), noises, st.integers(0, 9))
def test_a_standing_cylinder_is_known_from_one_side(place, diameter, height, noise, seed):
    extents = np.array([diameter, diameter, height])
    center = np.array([*place, 0.5 * height])
    points = visible(Shape.CYLINDER, extents, center, np.eye(3), np.random.default_rng(seed), noise)
    fit = fit_shape(points, 0.0)
    assert np.linalg.norm(fit.position - center) < 0.004 + 2.0 * noise
    assert np.abs(np.sort(fit.extents) - np.sort(extents)).max() < 0.008 + 4.0 * noise


@PROPERTY
@given(places, st.floats(0.04, 0.08), st.floats(1.6, 3.0), st.floats(-1.5, 1.5), st.integers(0, 9))
def test_a_lying_cylinder_is_known_from_one_side(place, diameter, slenderness, yaw, seed):
    extents = np.array([diameter, diameter, slenderness * diameter])
    rotation = (Rotation.from_euler("z", yaw) * Rotation.from_euler("y", np.pi / 2.0)).as_matrix()
    center = np.array([*place, 0.5 * diameter])
    points = visible(Shape.CYLINDER, extents, center, rotation, np.random.default_rng(seed))
    fit = fit_shape(points, 0.0)
    assert np.linalg.norm(fit.position - center) < 0.006
    assert np.abs(np.sort(fit.extents) - np.sort(extents)).max() < 0.012


def turned(profile, center, rng, count=1500):
    """Points on the camera's side of a solid of revolution; profile rows are (radius, height)."""
    z = rng.uniform(profile[0, 1], profile[-1, 1], count)
    radius = np.interp(z, profile[:, 1], profile[:, 0])
    azimuth = np.pi + rng.uniform(-1.4, 1.4, count)
    return np.column_stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z]) + [*center, 0.0]


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_a_bottle_is_a_solid_of_revolution(noise):
    rng = np.random.default_rng(1)
    bottle = np.array([[0.036, 0.0], [0.036, 0.14], [0.014, 0.18], [0.014, 0.23]])
    points = turned(bottle, (0.2, -0.1), rng) + noise * rng.standard_normal((1500, 3))
    fit = fit_shape(points, 0.0)
    assert fit.shape == Shape.CONVEX
    assert np.linalg.norm(fit.position - [0.2, -0.1, 0.115]) < 0.006
    assert np.abs(fit.extents - [0.072, 0.072, 0.23]).max() < 0.012


def test_a_handle_makes_the_mug_longer_and_gives_it_a_direction():
    rng = np.random.default_rng(2)
    mug = np.array([[0.04, 0.0], [0.04, 0.09]])
    body = turned(mug, (0.1, 0.0), rng)
    # A bow on the -y side, from the wall out to 28 mm.
    bow = np.column_stack(
        [rng.uniform(-0.006, 0.006, 150) + 0.1, -rng.uniform(0.04, 0.068, 150), rng.uniform(0.02, 0.07, 150)]
    )
    result = fit_revolution(np.concatenate([body, bow]), 0.0, 0.09, np.array([0.1, 0.0]))
    assert result is not None
    fit = result[0]
    assert np.linalg.norm(fit.position - [0.1, -0.014, 0.045]) < 0.004
    assert np.abs(np.sort(fit.extents)[::-1] - [0.108, 0.09, 0.08]).max() < 0.006
    towards = Rotation.from_quat(fit.quaternion).apply([1.0, 0.0, 0.0])
    assert towards @ [0.0, -1.0, 0.0] > 0.95


def test_stray_points_between_surfaces_do_not_move_the_fit():
    rng = np.random.default_rng(3)
    center = np.array([0.1, 0.05, 0.05])
    points = visible(Shape.BOX, [0.08, 0.06, 0.1], center, np.eye(3), rng)
    behind = points[:25] + np.linspace(0.05, 0.4, 25)[:, None] * (points[:25] - EYE)
    fit = fit_shape(np.concatenate([points, behind]), 0.0)
    assert np.linalg.norm(fit.position - center) < 0.01


def test_too_few_points_are_refused_with_their_number():
    with pytest.raises(ValueError, match="got 5 points, expected at least 8"):
        fit_shape(np.zeros((5, 3)), None)


@pytest.mark.parametrize("points", [np.zeros((50, 3)), np.random.default_rng(0).normal(size=(60, 3)) * [1, 1, 0]])
def test_flat_and_coincident_points_give_some_solid(points):
    fit = fit_shape(points * 0.05, None)
    assert np.isfinite(fit.position).all() and (fit.extents > 0.0).all()


@PROPERTY
@given(
    st.sampled_from([Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE]),
    st.tuples(sizes, st.floats(1.1, 2.5)),
    st.integers(0, 99),
)
def test_distances_agree_with_their_gradients(shape, size, seed):
    diameter, slenderness = size
    extents = np.full(3, diameter)
    if shape != Shape.SPHERE:
        extents[2] *= slenderness
    p = np.random.default_rng(seed).uniform(-0.2, 0.2, (40, 3))
    distance, gradient = signed_distance(shape, extents, p)
    assert np.allclose(np.linalg.norm(gradient, axis=1), 1.0, atol=1e-6)
    ahead, _ = signed_distance(shape, extents, p + 1e-6 * gradient)
    # Exact but where the nearest face changes within the step.
    assert (np.abs((ahead - distance) / 1e-6 - 1.0) < 1e-2).mean() > 0.9


@PROPERTY
@given(st.tuples(*[st.floats(-0.015, 0.015)] * 3), st.floats(-0.15, 0.15), st.integers(0, 9))
def test_alignment_finds_a_pose_that_is_a_little_off(shift, turn, seed):
    extents = np.array([0.12, 0.07, 0.09])
    center = np.array([0.1, 0.0, 0.045])
    points = visible(Shape.BOX, extents, center, np.eye(3), np.random.default_rng(seed))[:150]
    start = Rotation.from_euler("z", turn).as_quat()
    found = align(Shape.BOX, extents, points, center + shift, start, noise_m=0.002, iterations=12)
    assert np.linalg.norm(found.position - center) < 0.003
    assert Rotation.from_quat(found.quaternion).magnitude() < 0.05
    assert (np.linalg.eigvalsh(found.covariance) > 0.0).all()


def test_alignment_leaves_the_turning_of_a_ball_unknown():
    points = visible(Shape.SPHERE, [0.08] * 3, np.zeros(3), np.eye(3), np.random.default_rng(0))
    found = align(Shape.SPHERE, np.full(3, 0.08), points, np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    assert np.allclose(found.quaternion, [0.0, 0.0, 0.0, 1.0], atol=1e-6)
    # The prior of 0.05 and 0.15 rad is all that is known.
    assert np.allclose(np.sqrt(np.diag(found.covariance))[3:], [0.05, 0.05, 0.15], rtol=1e-3)


def test_surface_samples_lie_on_the_surface():
    for shape in (Shape.BOX, Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE):
        extents = np.full(3, 0.08) if shape == Shape.SPHERE else np.array([0.06, 0.06, 0.12])
        points, normals = surface_samples(shape, extents, np.zeros((0, 3)))
        distance, _ = signed_distance(shape, extents, points)
        assert np.abs(distance).max() < 2e-3
        assert np.einsum("pi,pi->p", points, normals).min() > 0.0


def test_a_hull_without_volume_is_refused():
    with pytest.raises(ValueError, match="span no volume"):
        hull_planes(np.random.default_rng(0).normal(size=(20, 3)) * [1.0, 1.0, 0.0])
