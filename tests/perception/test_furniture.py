"""What stands on the floor beside a table is an object only where it is low and wholly seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seen_objects import segment, segmentation_of
from traced_scene import BALL, CAMERA, look_at, make_scene, trace
from wm_core.scene_graph import Shape
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.tracking.births import is_furniture
from wm_perception.types import Frame, PerceptionConfig

FLOOR_M = -0.6
"""Of traced scenes, beneath the table's top."""
ON_TABLE = (0.0, 0.1)
CONFIG = PerceptionConfig(reasoner="geometric", floor_below_camera_m=3.0)


class Masks:
    """A segmenter that knows the true masks."""

    def segment(self, frame, cloud, candidates, height, predicted):
        """As ``Segmenter.segment``."""
        return segmentation_of(self.ids[::2, ::2], least=30, score=0.9)


def found(
    size: tuple[float, float, float], place: tuple[float, float], table: bool, target: tuple[float, float, float]
) -> list[float]:
    """Heights of the objects found [m]: a box of 8 cm on the table, and one of a size there too, or on the floor."""
    bottom = 0.0 if table else FLOOR_M
    scene = make_scene((*ON_TABLE, 0.04), (*place, bottom + 0.5 * size[2]))
    scene = replace(
        scene, shapes=np.array([Shape.BOX] * 3), extents=np.array([scene.extents[0], (0.08, 0.08, 0.08), size])
    )
    pose = look_at((-1.5, 0.0, 1.0), target)
    color, depth, ids = trace(scene, pose)
    assert int((ids == BALL).sum()) > 300, "the other box is seen"
    masks = Masks()
    masks.ids = ids
    pipeline = PerceptionPipeline(CONFIG, masks)
    for k in range(10):
        scene = pipeline.process(Frame(1 + k * 66_666_667, color, depth, CAMERA, pose)).scene
    return sorted(scene.positions[~scene.is_static, 2].tolist())


@pytest.mark.parametrize(
    ("size", "place", "table", "objects"),
    [
        ((0.2, 0.15, 0.45), (-0.1, 0.62), False, 1),  # a stool
        ((0.12, 0.12, 0.1), (-0.1, 0.62), False, 2),  # what has fallen off the table
        ((0.1, 0.1, 0.4), (0.0, -0.15), True, 2),  # as high as the stool, on the table
    ],
)
def test_what_is_as_high_as_a_seat_on_the_floor_is_furniture(size, place, table, objects) -> None:
    heights = found(size, place, table, (0.0, 0.1, 0.0))
    assert len(heights) == objects and max(heights) > 0.0


def test_where_the_camera_looks_at_the_floor_high_things_are_objects() -> None:
    heights = found((0.2, 0.15, 0.45), (-0.1, 0.85), False, (-0.1, 1.4, FLOOR_M))
    assert len(heights) == 1 and heights[0] < 0.0


@pytest.mark.parametrize(
    ("changed", "furniture"),
    [
        ({}, True),
        ({"height_high": 0.2}, False),
        ({"height_high": 0.2, "on_border": True}, True),  # it may be higher
        ({"height_low": 0.4, "height_high": 0.55}, False),  # it falls off the table
        ({"height_low": 0.4, "height_high": 0.55, "hidden_fraction": 0.3}, True),  # the table hides its foot
        ({"beneath_m": 0.0, "on_border": True}, False),
    ],
)
def test_what_counts_as_furniture(changed, furniture) -> None:
    o = segment(np.random.default_rng(0).uniform(-0.1, 0.1, (60, 3)))
    seen = replace(o, **{"beneath_m": 0.7, "height_low": 0.01, "height_high": 0.4, **changed})
    assert is_furniture(seen) is furniture
