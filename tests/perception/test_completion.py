"""The side that is not seen of solids of no family."""

import numpy as np
import pytest

from seen_objects import PLACE, WHITE, eye_at, seen_points
from wm_core.rotations import about_z
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.evaluation import extents_error
from wm_perception.shapes.completion import completed_hull
from wm_perception.shapes.fitting import fit_shape


def solid(points):
    return [GeomDef(Shape.CONVEX, np.ptp(points, axis=0), hull=np.asarray(points, float), color=WHITE)]


ROOF = np.array([[x, y, z] for y in (-0.07, 0.07) for x, z in ((-0.06, 0.0), (0.06, 0.0), (0.0, 0.09))])
PYRAMID = np.array([[-0.06, -0.06, 0.0], [0.06, -0.06, 0.0], [0.06, 0.06, 0.0], [-0.06, 0.06, 0.0], [0.0, 0.0, 0.1]])


@pytest.mark.parametrize("elevation", [20, 35])
@pytest.mark.parametrize("yaw", [0.0, 0.4, -0.5])
@pytest.mark.parametrize("points", [ROOF, PYRAMID], ids=["roof", "pyramid"])
def test_the_far_slope_is_as_the_near_one(points, yaw, elevation):
    eye = eye_at(elevation)
    seen = seen_points(solid(points), eye, PLACE, about_z(yaw), noise=1.0)
    middle = PLACE + [0.0, 0.0, 0.5 * np.ptp(points[:, 2])]
    mirrored, alone = (completed_hull(seen, 0.0, e) for e in (eye, None))
    assert extents_error(mirrored.extents, np.ptp(points, axis=0)) < 0.16
    assert np.linalg.norm(mirrored.position - middle) < 0.018
    assert np.linalg.norm(mirrored.position - middle) <= np.linalg.norm(alone.position - middle) + 0.003
    fit = fit_shape(seen, 0.0, eye=eye)
    assert np.linalg.norm(fit.position - middle) < 0.018


@pytest.mark.parametrize("elevation", [35, 60])
def test_a_level_top_is_not_doubled(elevation):
    size = np.array([0.1, 0.07, 0.08])
    block = [GeomDef(Shape.BOX, size, position=np.array([0.0, 0.0, 0.04]), color=WHITE)]
    eye = eye_at(elevation)
    hull = completed_hull(seen_points(block, eye, PLACE, about_z(0.3), noise=0.0), 0.0, eye)
    assert np.abs(np.sort(hull.extents) - np.sort(size)).max() < 0.008


def test_flat_points_give_a_flat_box():
    flat = np.column_stack([np.linspace(0.0, 0.1, 50), np.zeros(50), np.zeros(50)])
    fit = completed_hull(flat, 0.0, np.array([-0.7, 0.0, 0.5]))
    assert np.isfinite(fit.position).all() and (fit.extents > 0.0).all()
