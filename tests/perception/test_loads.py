"""A box is as deep as what it carries needs, and no deeper than its load can hide."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm_core.scene_graph import Shape
from wm_perception.shapes.free_space import FreeSpace
from wm_perception.shapes.surfaces import ShapeFit
from wm_perception.tracking.loads import under_its_load

EYE = np.array([-1.0, 0.0, 0.6])
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])


def _box(depth: float, front: float = 0.0, height: float = 0.05) -> ShapeFit:
    """A box of which the front is at this x, on z = 0."""
    extents = np.array([depth, 0.06, height])
    return ShapeFit(Shape.BOX, np.array([front + 0.5 * depth, 0.0, 0.5 * height]), UPRIGHT, extents, 0.001)


def _track(position: tuple[float, float, float], extents: tuple[float, float, float], moved: bool = False) -> Any:
    return SimpleNamespace(
        id=2,
        position=np.array(position),
        quaternion=UPRIGHT,
        extents=np.array(extents),
        vertical_extent=extents[2],
        motion=SimpleNamespace(moved=moved),
    )


CARRIER = _track((0.0, 0.0, 0.0), (0.1, 0.1, 0.1))


def test_the_lower_one_of_two_equal_blocks_is_as_deep_as_the_upper_one() -> None:
    fit = _box(0.03)
    upper = _track((0.03, 0.0, 0.075), (0.06, 0.06, 0.05))
    found = under_its_load(CARRIER, fit, [CARRIER, upper], EYE, None)
    assert found.extents.tolist() == pytest.approx([0.06, 0.06, 0.05])
    assert found.position.tolist() == pytest.approx([0.03, 0.0, 0.025])


def test_a_small_load_hides_no_more_than_it_covers() -> None:
    fit = _box(0.2)
    small = _track((0.23, 0.0, 0.075), (0.04, 0.04, 0.05))
    found = under_its_load(CARRIER, fit, [small], EYE, None)
    assert found.extents[0] == pytest.approx(0.25)  # it was 0.46 when the load was to stand in the middle
    assert found.position[0] == pytest.approx(0.125)


def test_what_the_camera_sees_past_a_box_is_not_its_inside() -> None:
    fit = _box(0.2)
    small = _track((0.23, 0.0, 0.075), (0.04, 0.04, 0.05))
    behind = np.column_stack([np.full(20, 0.24), np.linspace(-0.029, 0.029, 20), np.full(20, -0.001)])
    free = FreeSpace.up_to(EYE, behind, 0.0)
    assert under_its_load(CARRIER, fit, [small], EYE, free) is fit


def test_what_has_moved_or_stands_elsewhere_is_no_load() -> None:
    fit = _box(0.03)
    others = [
        _track((0.03, 0.0, 0.075), (0.06, 0.06, 0.05), moved=True),
        _track((0.03, 0.0, 0.1), (0.06, 0.06, 0.05)),
        _track((0.03, 0.2, 0.075), (0.06, 0.06, 0.05)),
    ]
    assert under_its_load(CARRIER, fit, others, EYE, None) is fit


@given(
    depth=st.floats(0.02, 0.3),
    loads=st.lists(st.tuples(st.floats(0.0, 0.35), st.floats(-0.05, 0.05), st.floats(0.02, 0.1)), max_size=4),
)
def test_its_front_stays_and_its_back_is_at_most_where_a_load_ends(
    depth: float, loads: list[tuple[float, float, float]]
) -> None:
    fit = _box(depth)
    tracks = [_track((x, y, 0.05 + 0.5 * size), (size, size, size)) for x, y, size in loads]
    found = under_its_load(CARRIER, fit, tracks, EYE, None)
    assert found.position[0] - 0.5 * found.extents[0] == pytest.approx(0.0, abs=1e-9)
    back = found.position[0] + 0.5 * found.extents[0]
    assert depth - 1e-9 <= back <= max([depth, *(x + 0.5 * size for x, _, size in loads)]) + 1e-9
