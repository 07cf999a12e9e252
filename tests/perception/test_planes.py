"""Level surfaces: floors that carry nothing, raised ones that do, boards full of things, boards at the eye's height."""

from __future__ import annotations

import numpy as np
import pytest

from traced_bins import lifted
from traced_table import CONFIG, Thing, camera_pose, frame
from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.planes import find_planes
from wm_perception.lifting.supports import carries

HIGH = camera_pose(eye=(-0.6, 0.0, 1.3), target=(0.05, 0.0, 0.0))


def _heights(things: list[Thing], pose: np.ndarray) -> list[float]:
    cloud = make_cloud(frame(0, things, pose), CONFIG.stride, CONFIG.max_depth_m)
    return [plane.height_m for plane, _ in find_planes(cloud, CONFIG)]


def test_a_table_far_below_the_camera_carries_where_the_floor_is_seen_beneath_it():
    thing = Thing((0.0, 0.0, 0.05), (0.1, 0.1, 0.1), (200, 50, 50))
    _, height, which, supports = lifted(frame(0, [thing], HIGH))
    table = [k for k, s in enumerate(supports) if abs(s.height_m) < 0.01]
    assert len(table) == 1 and any(s.height_m < -0.7 for s in supports)
    on_top = (which == table[0]) & (height > 0.08)
    assert on_top.sum() > 50
    # The floor, 2 m below, carries nothing.
    assert not any(supports[k].height_m < -0.7 for k in np.unique(which[which >= 0]))


@pytest.mark.parametrize(
    ("height", "lowest", "expected"),
    [(0.0, 0.0, False), (0.0, -0.75, True), (0.1, 0.0, False), (0.3, np.inf, True), (0.1, np.inf, False)],
)
def test_what_carries(height, lowest, expected):
    assert carries(height, lowest, 1.3, CONFIG) is expected


def test_a_board_that_things_divide_is_one_surface():
    board = Thing((0.1, 0.0, 0.3), (0.3, 0.7, 0.02), (160, 130, 90))
    # Rows of cartons leave strips, none of which is large enough by itself.
    things = [Thing((0.1, y, 0.37), (0.3, 0.03, 0.12), (90, 60, 150)) for y in (-0.24, -0.08, 0.08, 0.24)]
    pose = camera_pose(eye=(-0.7, 0.0, 0.95), target=(0.1, 0.0, 0.3))
    cloud = make_cloud(frame(0, [board, *things], pose), CONFIG.stride, CONFIG.max_depth_m)
    found = [(p.height_m, m) for p, m in find_planes(cloud, CONFIG)]
    mine = [m for h, m in found if abs(h - 0.31) < 0.006]
    assert len(mine) == 1
    # On both sides of the cartons.
    y = cloud.points[::2, ::2, 1][mine[0]]
    assert y.min() < -0.2 and y.max() > 0.2


def test_tops_of_things_side_by_side_are_no_surface():
    cartons = [
        Thing((x, y, 0.06), (0.16, 0.16, 0.12), (170, 120, 60)) for x in (-0.1, 0.12) for y in (-0.22, 0.0, 0.22)
    ]
    pose = camera_pose(eye=(-0.5, 0.0, 0.85), target=(0.0, 0.0, 0.05))
    assert not any(abs(h - 0.12) < 0.03 for h in _heights(cartons, pose))


def test_a_board_at_the_height_of_the_eye_is_found_and_the_underside_of_the_next_is_not():
    boards = [Thing((0.35, 0.0, z), (0.4, 0.9, 0.02), (150, 140, 120)) for z in (0.3, 0.65)]
    pose = camera_pose(eye=(-0.7, 0.0, 0.42), target=(0.35, 0.0, 0.36))
    found = _heights(boards, pose)
    assert any(abs(h - 0.31) < 0.008 for h in found)
    assert not any(abs(h - 0.64) < 0.03 for h in found)
