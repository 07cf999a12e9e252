"""The way of a surface depends on the two frames that it is looked for in, and on nothing that was looked at before."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_perception.lifting.cloud import make_cloud
from wm_perception.tracking import surface_flow
from wm_perception.tracking.surface_flow import SurfaceFlow
from wm_perception.types import Cloud, Frame

DEPTH_M, FOCAL_PX, SHIFT_PX = 1.0, 290.0, 3


def wall(height: int, width: int, shift: int, seed: int) -> Cloud:
    """A grained wall across the view, ``DEPTH_M`` away, that has gone by ``shift`` pixels along its x axis."""
    grain = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(grain, (0, 0), 2.0), np.empty(0), 0, 255, cv2.NORM_MINMAX)
    depth = np.full((height, width), DEPTH_M, np.float32)
    camera = Camera(width, height, FOCAL_PX, FOCAL_PX, 0.5 * (width - 1), 0.5 * (height - 1))
    return make_cloud(Frame(1, np.roll(smooth, shift, axis=1), depth, camera, np.eye(4)), 1, 5.0)


def way_of(
    height: int, width: int, seed: int, window: tuple[slice, slice]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Displacement and covariance of what is in a window of a wall, None: not seen."""
    flow = SurfaceFlow()
    clouds = wall(height, width, 0, seed), wall(height, width, SHIFT_PX, seed)
    for stamp_ns, cloud in zip((1, 66_000_001), clouds, strict=True):
        flow.add(cloud, stamp_ns)
    points = clouds[1].points[window].reshape(-1, 3).astype(np.float64)
    found = flow.displacement_of(points, points.mean(axis=0), 0.0015)
    return None if found is None else (found.offset, found.covariance)


@st.composite
def views(draw: st.DrawFn) -> tuple[int, int, int, tuple[slice, slice]]:
    """Size of an image, seed of its grain, and a window in it, often at a rim."""
    height, width = draw(st.integers(5, 120)), draw(st.integers(5, 160))
    sides = []
    for size in (height, width):
        length = draw(st.integers(4, min(size, 40)))
        start = draw(st.sampled_from([0, size - length]) | st.integers(0, size - length))
        sides.append(slice(start, start + length))
    return height, width, draw(st.integers(0, 99)), (sides[0], sides[1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(view=views(), other=views())
def test_what_was_looked_at_before_does_not_matter(
    view: tuple[int, int, int, tuple[slice, slice]], other: tuple[int, int, int, tuple[slice, slice]]
) -> None:
    """Not for what a small crop at a rim had been, either: the search keeps what it chose for that one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface_flow, "_of_thread", threading.local())
        first = way_of(*view)
        patch.setattr(surface_flow, "_of_thread", threading.local())
        way_of(*other)
        again = way_of(*view)
    assert (first is None) == (again is None)
    if first is not None and again is not None:
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


@pytest.mark.parametrize("row", [0, 40, 88])
@pytest.mark.parametrize("column", [0, 60, 128])
def test_the_way_is_known_at_the_rim_and_within(row: int, column: int) -> None:
    found = way_of(120, 160, 5, (slice(row, row + 32), slice(column, column + 32)))
    assert found is not None
    np.testing.assert_allclose(found[0], [SHIFT_PX * DEPTH_M / FOCAL_PX, 0.0, 0.0], atol=0.004)


@pytest.mark.parametrize("size", [(5, 5), (12, 40), (47, 160)])
def test_in_an_image_of_a_few_pixels_no_way_is_known(size: tuple[int, int]) -> None:
    """OpenCV's search ends the process on some of these."""
    assert way_of(*size, 5, (slice(0, 5), slice(0, 5))) is None
