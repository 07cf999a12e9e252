"""Walls and bins: found by their geometry, taken out of instances, and published as one object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traced_bins import around, bin_of, lifted, seen
from traced_table import CONFIG, Thing
from wm_core.scene_graph import Predicate
from wm_perception.lifting.container_object import CLASS_NAME, container_parts
from wm_perception.lifting.enclosures import Enclosure, find_enclosures
from wm_perception.lifting.structure import Container, Structure, StructureMap
from wm_perception.lifting.walls import find_walls
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.segmentation.structure_filter import without_structure
from wm_perception.types import Segmentation

STEEP_VIEW = around(0.4, np.radians(52.0), 0.85)
THINGS = [
    Thing((0.05, -0.06, 0.046), 0.08, (200, 60, 40)),
    Thing((-0.07, 0.05, 0.031), (0.08, 0.06, 0.05), (60, 180, 70)),
]


def _found(frame) -> list[Enclosure]:
    cloud, height, which, supports = lifted(frame)
    return find_enclosures(cloud, height, which, supports)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    length=st.floats(0.28, 0.5),
    width=st.floats(0.24, 0.34),
    high=st.floats(0.06, 0.16),
    yaw=st.floats(-3.1, 3.1),
    azimuth=st.floats(-3.1, 3.1),
    elevation=st.floats(0.75, 1.3),
    noise=st.floats(0.0, 0.002),
)
def test_a_bin_is_found_where_it_is(length, width, high, yaw, azimuth, elevation, noise):
    pose = around(azimuth, elevation, 0.95)
    found = _found(seen(0, [*bin_of((0.02, -0.03), (length, width, high)), *THINGS], pose, yaw, noise))
    assert len(found) == 1
    bin_ = found[0]
    c, s = np.cos(yaw), np.sin(yaw)
    assert bin_.center == pytest.approx([c * 0.02 + s * 0.03, s * 0.02 - c * 0.03], abs=0.012)
    assert sorted(bin_.sizes) == pytest.approx(sorted((length, width)), abs=0.022)
    assert bin_.top_m - bin_.bottom_m == pytest.approx(high, abs=0.012)
    # Its first axis is along its walls.
    assert np.sin(2.0 * (bin_.yaw - yaw)) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    "things",
    [
        [],
        [Thing((0.0, 0.0, 0.06), (0.34, 0.26, 0.12), (150, 110, 60))],
        # Boxes around a free place, with gaps at the corners.
        [
            Thing((0.18, 0.0, 0.05), (0.08, 0.16, 0.10), (150, 40, 40)),
            Thing((-0.18, 0.0, 0.08), (0.06, 0.12, 0.16), (40, 150, 40)),
            Thing((0.0, 0.15, 0.04), (0.18, 0.07, 0.08), (40, 40, 150)),
            Thing((0.0, -0.15, 0.07), (0.14, 0.06, 0.14), (150, 150, 40)),
        ],
        [Thing((0.1 * k - 0.2, 0.08 * (k % 2) - 0.04, 0.04), 0.08, (40 * k, 90, 200)) for k in range(5)],
    ],
    ids=["nothing", "a closed box", "boxes in a ring", "balls"],
)
def test_what_is_no_bin_is_not_found(things):
    for azimuth in (0.0, 0.9, 2.4):
        assert _found(seen(0, things, around(azimuth, 0.9, 0.9), 0.3, 0.001)) == []


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 1.0), st.floats(0.2, 1.0), st.floats(-4.0, 4.0), st.floats(0.0, 1.0), st.floats(-1.0, 1.0))
def test_distances_from_the_walls(length, width, yaw, along, across):
    bin_ = Enclosure(np.array([0.3, -0.2]), np.array([length, width]), yaw, 0.0, 0.1, 1, 0.016)
    c, s = np.cos(yaw), np.sin(yaw)

    def inward(x: float, y: float) -> float:
        place = np.array([[0.3 + c * x - s * y, -0.2 + s * x + c * y]], np.float32)
        return float(bin_.inward_m(place)[0])

    assert inward(0.0, 0.0) == pytest.approx(0.5 * min(length, width), abs=1e-5)
    assert inward(0.5 * length, 0.5 * across * width) == pytest.approx(0.0, abs=1e-5)
    assert inward(0.5 * length + 0.05 + along, 0.0) < -0.04


def test_walls_are_found_and_cartons_are_not():
    wall = Thing((0.3, 0.0, 0.25), (0.02, 0.9, 0.5), (180, 180, 170))
    carton = Thing((-0.05, 0.1, 0.15), (0.08, 0.2, 0.3), (200, 120, 40))
    cloud, height, _, _ = lifted(seen(0, [wall, carton], around(np.pi, 0.5, 0.95), 0.5, 0.001))
    found = find_walls(cloud, height, CONFIG)
    assert len(found) == 1
    assert found[0].normal == pytest.approx([-np.cos(0.5), -np.sin(0.5)], abs=0.03)
    assert found[0].offset_m == pytest.approx(-0.29, abs=0.01)
    points, depth = cloud.points.reshape(-1, 3), cloud.depth.ravel()
    on = Structure(tuple(found)).on_walls(points, depth)
    c, s = np.cos(0.5), np.sin(0.5)
    x = c * points[:, 0] + s * points[:, 1]
    of_wall = (x > 0.28) & (points[:, 2] > 0.02) & (points[:, 2] < 0.49) & (np.abs(x - 0.29) < 0.005)
    assert on[of_wall].mean() > 0.95
    assert not on[(x < 0.2) & np.isfinite(x)].any()


def _labels(height: np.ndarray, cloud, masks) -> Segmentation:
    labels = np.zeros(height.shape, np.int32)
    for number, mask in enumerate(masks, start=1):
        labels[mask] = number
    n = len(masks)
    return Segmentation(
        labels,
        np.full(n, -1, np.int64),
        tuple(f"kind{k}" for k in range(n)),
        np.linspace(0.6, 0.9, n, dtype=np.float32),
        np.eye(n, dtype=np.float32),
    )


def _bin_view():
    """A bin with a ball seen from above, its structure, and where (h, w) its ball and its walls are."""
    cloud, height, which, supports = lifted(seen(0, [*bin_of((0.0, 0.0), (0.4, 0.3, 0.12)), THINGS[0]], STEEP_VIEW))
    structure = Structure((), tuple(Container(9, e, 1, 1) for e in find_enclosures(cloud, height, which, supports)))
    points = cloud.points
    ball = np.linalg.norm(points - np.array([0.05, -0.06, 0.046], np.float32), axis=-1) < 0.043
    inward = structure.containers[0].shape.inward_m(points[..., :2])
    wall = (np.abs(inward) < 0.014) & (height > 0.01) & ~ball
    return cloud, height, structure, ball, wall, points


def test_pieces_of_sides_are_dropped_and_cut_off():
    cloud, height, structure, ball, wall, points = _bin_view()
    left, right = wall & (points[..., 0] < -0.1), wall & (points[..., 0] > 0.1)
    given_labels = _labels(
        height,
        cloud,
        [left, ball | (right & (points[..., 2] > 0.1) & (points[..., 1] > 0.1)), right & (points[..., 2] < 0.1)],
    )
    result, whole = without_structure(given_labels, cloud, height, structure, 0.5)
    assert whole == {}
    assert result.class_names == ("kind1",)
    assert result.scores == pytest.approx([0.75])
    assert result.embeddings.shape == (1, 3)
    assert set(np.unique(result.labels)) == {0, 1}
    assert (result.labels[ball] == 1).mean() > 0.98
    # The rim faces up, as the top of a thing does.
    assert (result.labels[right] > 0).mean() < 0.05


def test_a_tray_that_is_seen_whole_stays_a_thing():
    cloud, height, structure, ball, wall, _ = _bin_view()
    one = _labels(height, cloud, [wall, ball])
    result, whole = without_structure(one, cloud, height, structure, 0.5)
    assert whole == {0: 1}
    assert (result.labels == one.labels).all()
    # Larger than any thing, it is none.
    result, whole = without_structure(one, cloud, height, structure, 0.35)
    assert whole == {}
    assert result.class_names == ("kind1",)


def test_nothing_is_changed_without_structure():
    cloud, height, _, ball, wall, _ = _bin_view()
    one = _labels(height, cloud, [wall, ball])
    result, whole = without_structure(one, cloud, height, Structure(), 0.5)
    assert result is one and whole == {}


def _updated(structure: StructureMap, things: list[Thing], count: int, start: int) -> None:
    cloud, height, which, supports = lifted(seen(0, things, STEEP_VIEW, noise_m=0.001, seed=start))
    for k in range(count):
        structure.update(cloud, height, which, supports, start + k)


def test_a_bin_keeps_its_id_while_it_is_pushed_and_is_forgotten_when_it_is_gone():
    ids = iter(range(40, 99))
    structure = StructureMap(CONFIG, lambda: next(ids))
    _updated(structure, bin_of((0.0, 0.0), (0.36, 0.28, 0.1)), 4, 1)
    before = structure.snapshot()
    _updated(structure, bin_of((0.06, 0.02), (0.36, 0.28, 0.1)), 12, 5)
    after = structure.snapshot()
    assert [c.id for c in before.containers] == [c.id for c in after.containers] == [40]
    assert before.containers[0].shape.center == pytest.approx([0.0, 0.0], abs=0.01)
    assert after.containers[0].shape.center == pytest.approx([0.06, 0.02], abs=0.012)
    _updated(structure, [], 45, 20)
    assert structure.snapshot().containers == ()


def test_searches_wait_while_supports_are_searched_for():
    structure = StructureMap(CONFIG, iter(range(1, 9)).__next__)
    cloud, height, which, supports = lifted(seen(0, bin_of((0.0, 0.0), (0.36, 0.28, 0.1)), STEEP_VIEW))
    searched = []
    for stamp in range(1, 16):
        structure.update(cloud, height, which, supports, stamp, busy=stamp % 4 == 0)
        searched.append(structure.searched)
    assert searched[:3] == [True, True, True]
    assert not any(s and stamp % 4 == 0 for stamp, s in enumerate(searched[3:], start=4))
    assert 1 <= sum(searched[3:]) <= 3


def test_parts_are_four_sides_and_a_floor():
    shape = Enclosure(np.array([0.1, 0.2]), np.array([0.4, 0.3]), 0.3, 0.7, 0.82, 1, 0.02)
    parts = container_parts(shape)
    points = np.concatenate([p.points() for p in parts])
    assert len(parts) == 5
    assert np.ptp(points, axis=0) == pytest.approx([0.41, 0.31, 0.12])
    assert points.mean(axis=0)[:2] == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.fixture(scope="module")
def published():
    """The last result of a geometric pipeline on a bin with a ball and a box in it, and how it was without them."""
    config = replace(CONFIG, segmenter="geometric", reasoner="geometric")
    pipeline = PerceptionPipeline(config)
    things = [*bin_of((0.0, 0.0), (0.4, 0.3, 0.12)), *THINGS]
    for k in range(24):
        result = pipeline.process(seen(k, things, STEEP_VIEW, noise_m=0.0008, seed=k))
    return result


@pytest.mark.slow
def test_a_bin_is_one_object_and_its_things_are_inside(published):
    scene = published.scene
    names = np.array(scene.class_names)
    assert (names == CLASS_NAME).sum() == 1
    row = int(np.flatnonzero(names == CLASS_NAME)[0])
    assert len(scene.parts[row]) == 5
    assert not scene.is_static[row]
    assert scene.positions[row] == pytest.approx([0.0, 0.0, 0.06], abs=0.012)
    things = np.flatnonzero(~scene.is_static & (names != CLASS_NAME))
    assert len(things) == 2  # and no piece of a wall
    inside = {r.subject for r in scene.relations if r.predicate == Predicate.INSIDE and r.object == scene.ids[row]}
    assert inside == set(scene.ids[things].tolist())
    assert (published.instance_ids == scene.ids[row]).sum() > 2000
