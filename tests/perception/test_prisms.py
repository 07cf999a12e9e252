"""Things that are not convex seen from above, as prisms: footprints, heights, and the partition itself."""

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seen_objects import PLACE, WHITE, eye_at, placed, seen_frame, seen_points, segment
from wm_core.rotations import about_z
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef, geom_points
from wm_perception.lifting.cloud import make_cloud
from wm_perception.shapes.part_frames import in_world
from wm_perception.shapes.prisms import convex_partition, find_prisms
from wm_perception.tracking.births import born
from wm_perception.tracking.shape_update import ShapeUpdater
from wm_sim import objects

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def box(size, center):
    return GeomDef(Shape.BOX, np.array(size), position=np.array(center), color=WHITE)


T_SHAPE = [box((0.12, 0.04, 0.04), (0.0, 0.04, 0.02)), box((0.04, 0.12, 0.04), (0.0, -0.04, 0.02))]
L_SHAPE = [box((0.12, 0.04, 0.05), (0.0, 0.04, 0.025)), box((0.04, 0.12, 0.05), (-0.04, -0.04, 0.025))]
HAMMER = [box((0.22, 0.024, 0.024), (0.0, 0.0, 0.012)), box((0.035, 0.1, 0.034), (0.11, 0.0, 0.017))]
CONVEX = {
    "box": [box((0.14, 0.05, 0.07), (0.0, 0.0, 0.035))],
    "can": [GeomDef(Shape.CYLINDER, np.array([0.08, 0.08, 0.1]), position=np.array([0.0, 0.0, 0.05]), color=WHITE)],
    "ball": [GeomDef(Shape.SPHERE, np.full(3, 0.09), position=np.array([0.0, 0.0, 0.045]), color=WHITE)],
}


def footprint(clouds):
    """Cells of 1 mm that hulls of points cover, seen from above."""
    image = np.zeros((500, 500), np.uint8)
    for points in clouds:
        hull = cv2.convexHull((1000.0 * points[:, :2] + 250.0).astype(np.float32))
        cv2.fillConvexPoly(image, np.round(hull).astype(np.int32), 1)
    return image > 0


def overlap(parts, solid, yaw):
    true = footprint([placed(geom_points(g), PLACE, about_z(yaw)) for g in solid])
    found = footprint([part.points() for part in parts])
    return (true & found).sum() / (true | found).sum()


@pytest.mark.parametrize("elevation", [30, 45, 70])
@pytest.mark.parametrize("yaw", [0.3, 2.0, -1.2])
@pytest.mark.parametrize(
    ("solid", "least"), [(T_SHAPE, 0.85), (L_SHAPE, 0.85), (HAMMER, 0.72)], ids=["T", "L", "hammer"]
)
def test_a_block_of_two_bars_is_about_two_prisms(solid, least, yaw, elevation):
    eye = eye_at(elevation)
    parts = find_prisms(seen_points(solid, eye, PLACE, about_z(yaw), noise=1.0), eye, 0.0)
    assert 2 <= len(parts) <= 3
    assert overlap(parts, solid, yaw) > least
    top = max(geom_points(g)[:, 2].max() for g in solid)
    tops = [part.points()[:, 2].max() for part in parts]
    assert abs(max(tops) - top) < 0.006
    assert all(abs(part.points()[:, 2].min()) < 1e-9 for part in parts)


@pytest.mark.parametrize("elevation", [8, 30, 45, 70])
@pytest.mark.parametrize("name", list(CONVEX))
def test_convex_things_are_not_cut(name, elevation):
    eye = eye_at(elevation)
    assert find_prisms(seen_points(CONVEX[name], eye, PLACE, about_z(0.4), noise=1.0), eye, 0.0) == ()


def test_a_notch_that_is_hidden_is_not_taken_for_empty():
    # Level with its top, only the front of a can is seen: a crescent from above.
    eye = np.array([-0.8, 0.0, 0.09])
    points = seen_points(CONVEX["can"], eye, PLACE, about_z(0.4), noise=0.0)
    assert find_prisms(points, eye, 0.0) == ()


def test_a_track_of_a_t_has_two_parts_and_a_bottle_its_neck():
    for solid, yaw in ((T_SHAPE, 0.7), (objects.bottle(0.07, 0.22, WHITE), 0.0)):
        eye = eye_at(40)
        updater = ShapeUpdater(0.5)
        track = None
        for n in range(4):
            o = segment(seen_points(solid, eye, PLACE, about_z(yaw), noise=1.0, seed=n))
            track = track or born(o, 1, [], eye, 0)
            updater.refit(track, o, [track], eye, n, "")
        parts = in_world(track.parts, track.position, track.quaternion)
        assert 2 <= len(parts) <= 4
        if solid is T_SHAPE:
            assert overlap(parts, solid, yaw) > 0.85
        else:
            neck = max(parts, key=lambda part: part.points()[:, 2].max())
            body = min(parts, key=lambda part: part.points()[:, 2].min())
            assert np.ptp(neck.points()[:, 0]) < 0.045 and abs(np.ptp(body.points()[:, 0]) - 0.07) < 0.01


def mask_of(bars):
    """Bars (row, column, rows, columns) that are joined at (30, 30)."""
    mask = np.zeros((60, 60), np.uint8)
    for up, left, rows, columns in bars:
        mask[30 - up : 30 - up + rows, 30 - left : 30 - left + columns] = 1
    return mask


bars = st.integers(4, 24).flatmap(
    lambda rows: st.integers(4, 24).flatmap(
        lambda columns: st.tuples(
            st.integers(1, rows - 1), st.integers(1, columns - 1), st.just(rows), st.just(columns)
        )
    )
)


@PROPERTY
@given(st.lists(bars, min_size=1, max_size=3), st.integers(2, 6))
def test_pieces_are_apart_cover_the_footprint_and_fill_their_hulls_better(given_bars, limit):
    mask = mask_of(given_bars)
    pieces = convex_partition(mask, limit)
    assert 1 <= len(pieces) <= limit
    assert np.array_equal(np.sum(pieces, axis=0), mask)
    filled = [_hull_cells(piece) for piece in pieces]
    assert sum(filled) <= _hull_cells(mask) + 1e-6 or len(pieces) == 1


def _hull_cells(mask):
    hull = cv2.convexHull(np.argwhere(mask).astype(np.int32))
    return cv2.contourArea(hull)


def test_what_another_object_hides_is_no_notch():
    flat = box((0.24, 0.18, 0.036), (0.0, 0.0, 0.018))
    # A good part of the box is behind it.
    post = box((0.05, 0.08, 0.14), (-0.125, 0.0, 0.07))
    eye = np.array([-0.7, 0.0, 0.55])
    frame, which = seen_frame([flat, post], eye)
    points = make_cloud(frame, 1, 4.0).points[which == 1].astype(float)
    points = points[points[:, 2] > 0.008]
    points = points[:: len(points) // 500]
    hidden_by = geom_points(post)
    levels = np.linspace(0.0, 0.14, 16)
    across = np.stack(np.meshgrid(*(np.linspace(*np.percentile(hidden_by[:, k], [0, 100]), 8) for k in (0, 1))), -1)
    surface = np.concatenate([np.column_stack([across.reshape(-1, 2), np.full(64, z)]) for z in levels])
    assert find_prisms(points, eye, 0.0) != ()
    assert find_prisms(points, eye, 0.0, lambda: surface) == ()
