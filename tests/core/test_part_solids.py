"""Unions of convex parts: volumes, centers of mass and inertias that are known, and which points are within."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import ConvexPart, hull_part
from wm_core.part_solids import part_volume, solid_of, within_any, within_part
from wm_core.shapes import Shape

CUBE = np.array([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])


def box(size, position=(0.0, 0.0, 0.0), turn=None):
    quaternion = np.array([0.0, 0.0, 0.0, 1.0]) if turn is None else turn.as_quat()
    return ConvexPart(Shape.BOX, np.asarray(size, float), np.asarray(position, float), quaternion)


@pytest.mark.parametrize(
    ("part", "volume"),
    [
        (box([0.1, 0.2, 0.3]), 0.006),
        (ConvexPart(Shape.SPHERE, np.full(3, 0.2)), np.pi / 6.0 * 0.008),
        (ConvexPart(Shape.CYLINDER, np.array([0.2, 0.2, 0.5])), np.pi * 0.01 * 0.5),
        (ConvexPart(Shape.CAPSULE, np.array([0.2, 0.2, 0.5])), np.pi * 0.01 * 0.3 + 4.0 / 3.0 * np.pi * 0.001),
        (hull_part(CUBE * [0.1, 0.2, 0.3]), 0.006),
    ],
)
def test_one_part_has_its_own_volume_and_center(part, volume):
    moved = ConvexPart(part.shape, part.extents, np.array([0.3, -0.2, 0.1]), part.quaternion, part.hull)
    solid = solid_of([moved])
    assert part_volume(part) == pytest.approx(volume) == solid.volume
    assert solid.center == pytest.approx(moved.position, abs=1e-3)
    around = 0.5 * np.max(part.extents) * np.random.default_rng(0).uniform(-1.0, 1.0, (40_000, 3))
    share = within_part(part, around + part.position)
    assert share.mean() * np.max(part.extents) ** 3 == pytest.approx(volume, rel=0.05)


def test_inertia_of_a_box():
    x, y, z = size = np.array([0.1, 0.2, 0.3])
    expected = np.array([y**2 + z**2, x**2 + z**2, x**2 + y**2]) / 12.0
    turn = Rotation.from_euler("xyz", [0.3, -0.5, 0.8])
    solid = solid_of([box(size, turn=turn)])
    axes = turn.as_matrix().T @ solid.inertia @ turn.as_matrix()
    assert np.diag(axes) == pytest.approx(expected, rel=0.02)
    assert axes - np.diag(np.diag(axes)) == pytest.approx(0.0, abs=0.02 * expected.max())


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.2, 1.0))
def test_what_two_boxes_share_counts_once(apart, size):
    """Two boxes of one size, the second shifted: the union is as long as the shift more."""
    one, two = box([1.0, size, size]), box([1.0, size, size], [apart, 0.0, 0.0])
    solid = solid_of([one, two])
    assert solid.volume == pytest.approx((1.0 + apart) * size**2, rel=0.03)
    assert solid.center == pytest.approx([0.5 * apart, 0.0, 0.0], abs=0.02)


def test_a_hammer_has_its_center_of_mass_towards_its_head():
    handle, head = box([0.30, 0.02, 0.02]), box([0.04, 0.12, 0.04], [0.17, 0.0, 0.0])
    solid = solid_of([handle, head])
    volumes = np.array([part_volume(handle), part_volume(head)])
    assert solid.center == pytest.approx([0.17 * volumes[1] / volumes.sum(), 0.0, 0.0], abs=1e-3)


def test_the_cavity_of_a_bin_is_in_none_of_its_parts():
    walls = [box([0.01, 0.2, 0.1], [s * 0.095, 0.0, 0.05]) for s in (-1, 1)]
    walls += [box([0.2, 0.01, 0.1], [0.0, s * 0.095, 0.05]) for s in (-1, 1)]
    parts = [*walls, box([0.2, 0.2, 0.01], [0.0, 0.0, 0.005])]
    found = within_any(parts, [[0.0, 0.0, 0.05], [0.0, 0.0, 0.005], [0.095, 0.0, 0.05], [0.0, 0.0, 0.2]])
    assert found.tolist() == [False, True, True, False]


def test_no_parts_have_no_volume():
    with pytest.raises(ValueError, match="no parts"):
        solid_of([])
