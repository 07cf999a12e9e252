"""Depths that a stereo camera makes up between an object's edge and what is behind it are no object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seen_objects import eye_at, seen_frame, seen_points, segment, segmentation_of
from wm_bringup.sources.layouts import open_folder
from wm_bringup.sources.rgbd_folder import prepared
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import make_cloud
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.tracking.births import is_between_surfaces, may_be_born
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.observing import observe
from wm_perception.types import Frame, PerceptionConfig

EYE = eye_at(40.0)
BOX = [GeomDef(Shape.BOX, np.array([0.08, 0.1, 0.12]), position=np.array([0.0, 0.0, 0.06]))]


def observation_of(frame: Frame, ids: np.ndarray) -> Observation:
    cloud = make_cloud(frame, 1, 4.0)
    height = cloud.points[..., 2]
    where = np.zeros(ids.shape, np.int32) - 1
    found = observe(cloud, height, where, [], segmentation_of(ids), height > 0.008, 2)
    assert len(found) == 1 and found[0] is not None
    return found[0]


def test_a_segment_says_how_much_of_it_has_depth_and_how_uneven_that_is() -> None:
    frame, ids = seen_frame(BOX, EYE)
    assert observation_of(frame, ids).measured_share == 1.0 and observation_of(frame, ids).uneven_m == 0.0
    depth = frame.depth_m.copy()
    rows = np.arange(depth.shape[0]) % 4 > 0
    depth[rows] = np.where(ids[rows] > 0, 0.0, depth[rows])
    some = observation_of(replace(frame, depth_m=depth), ids)
    assert some.measured_share == pytest.approx(0.25, abs=0.02)
    # The faces of a box of 12 cm are no plane.
    assert 0.005 < some.uneven_m < 0.08 and not is_between_surfaces(some)
    # What is behind leaks into the same pixels, more or less.
    rng = np.random.default_rng(0)
    mixed = np.where((ids > 0) & (depth > 0.0), depth + rng.uniform(0.0, 0.5, depth.shape), depth)
    made_up = observation_of(replace(frame, depth_m=mixed.astype(np.float32)), ids)
    assert made_up.uneven_m > 0.3 and is_between_surfaces(made_up)
    assert not may_be_born(made_up, PerceptionConfig()) and may_be_born(some, PerceptionConfig())


@pytest.mark.parametrize("share", [0.7, 0.5, 0.35])
@pytest.mark.parametrize("elevation", [25.0, 35.0, 45.0])
@pytest.mark.parametrize("size", [(0.14, 0.01, 0.01), (0.22, 0.012, 0.012), (0.4, 0.015, 0.015), (0.3, 0.04, 0.015)])
def test_thin_things_that_are_half_measured_and_seen_along_are_objects(
    size: tuple[float, float, float], elevation: float, share: float
) -> None:
    thing = [GeomDef(Shape.BOX, np.array(size), position=np.array([0.0, 0.0, 0.5 * size[2]]))]
    frame, ids = seen_frame(thing, eye_at(elevation), (0.0, 0.0, 0.02))
    lost = (ids > 0) & (np.random.default_rng(0).random(ids.shape) > share)
    o = observation_of(replace(frame, depth_m=np.where(lost, np.float32(0.0), frame.depth_m)), ids)
    assert o.measured_share < 0.8 and not is_between_surfaces(o)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.0, 0.4), st.floats(1e-5, 0.05))
def test_neither_gaps_alone_nor_depth_alone_make_a_segment_nothing(share: float, uneven: float, area: float) -> None:
    o = replace(segment(seen_points(BOX, EYE)), measured_share=share, uneven_m=uneven, area_m2=area)
    assert may_be_born(replace(o, measured_share=1.0), PerceptionConfig())
    assert may_be_born(replace(o, uneven_m=0.0), PerceptionConfig())
    assert may_be_born(o, PerceptionConfig()) == (not is_between_surfaces(o))


def test_slivers_of_mixed_depth_beside_a_real_hammer_are_no_objects(shared_data: Path) -> None:
    """Two cartons, a hand and a hammer: beside its handle the camera measured little, and that wrongly."""
    recording = prepared(open_folder(shared_data / "real_frames" / "hammer_rs"))
    pipeline = PerceptionPipeline()
    for k in range(10):
        scene = pipeline.process(recording.frame(k)).scene
    assert 2 <= int((~scene.is_static).sum()) <= 4
