"""Distances to unions of convex parts, and alignment by them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import ConvexPart, hull_part
from wm_core.scene_graph import Shape
from wm_perception.shapes.surfaces import align, signed_distance, signed_distance_to_parts, surface_samples

TEE = (
    ConvexPart(Shape.BOX, np.array([0.04, 0.16, 0.04]), np.array([0.06, 0.0, 0.0])),
    ConvexPart(Shape.BOX, np.array([0.12, 0.04, 0.04]), np.array([-0.02, 0.0, 0.0])),
)


def seen_points(rng: np.random.Generator, count: int = 400) -> np.ndarray:
    """Points on the top and on the sides of the T."""
    points = []
    for part in TEE:
        surface, _ = surface_samples(Shape.BOX, part.extents, np.zeros((0, 3)), count)
        points.append(surface + part.position)
    cloud = np.concatenate(points)
    on_surface = np.abs(signed_distance_to_parts(TEE, cloud)[0]) < 1e-6
    chosen = cloud[on_surface & (cloud[:, 2] > -0.015)]
    return chosen + rng.normal(0.0, 0.001, chosen.shape)


def test_a_box_in_two_parts_is_as_far_away_as_the_box():
    rng = np.random.default_rng(0)
    halves = (
        ConvexPart(Shape.BOX, np.array([0.05, 0.06, 0.08]), np.array([0.025, 0.0, 0.0])),
        ConvexPart(Shape.BOX, np.array([0.05, 0.06, 0.08]), np.array([-0.025, 0.0, 0.0])),
    )
    points = rng.uniform(-0.1, 0.1, (300, 3))
    whole, normals = signed_distance(Shape.BOX, np.array([0.1, 0.06, 0.08]), points)
    found, gradients = signed_distance_to_parts(halves, points)
    outside = whole > 0.0
    np.testing.assert_allclose(found[outside], whole[outside], atol=1e-9)
    np.testing.assert_allclose(gradients[outside], normals[outside], atol=1e-9)
    # A hull's distance outside is that to its planes, a bound; what is in and what is out agrees.
    hulls = tuple(hull_part(h.points()) for h in halves)
    assert ((signed_distance_to_parts(hulls, points)[0] > 1e-6) == (whole > 1e-6)).all()


@pytest.mark.parametrize("turn_deg", [-12.0, 5.0, 15.0])
def test_a_turn_of_a_tee_is_found_by_its_parts_and_the_notches_are_no_solid(turn_deg):
    rng = np.random.default_rng(1)
    turn = Rotation.from_euler("z", turn_deg, degrees=True)
    points = turn.apply(seen_points(rng)) + [0.005, -0.004, 0.0]
    start = np.array([0.0, 0.0, 0.0, 1.0])
    options = {"prior_std_rad": (0.05, 0.3), "noise_m": 0.002}
    extents = np.array([0.16, 0.16, 0.04])
    found = align(Shape.BOX, extents, points, np.zeros(3), start, parts=TEE, iterations=10, **options)
    error = Rotation.from_quat(found.quaternion) * turn.inv()
    assert np.degrees(error.magnitude()) < 1.0
    assert np.linalg.norm(found.position - [0.005, -0.004, 0.0]) < 0.002 and found.residual_m < 0.002
    distance, _ = signed_distance_to_parts(TEE, np.array([[-0.05, 0.06, 0.0]]))
    assert distance[0] == pytest.approx(0.04, abs=1e-9)
