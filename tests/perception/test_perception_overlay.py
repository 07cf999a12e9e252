"""What the overlay draws."""

import numpy as np
import pytest

from traced_table import CONFIG, Thing, frame
from wm_core.colors import object_color
from wm_core.convex_parts import ConvexPart
from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.overlay import draw_overlay
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import PerceptionResult


@pytest.mark.slow
def test_every_object_is_drawn_in_its_color_and_the_frame_is_left_alone():
    pipeline = PerceptionPipeline(CONFIG)
    things = [Thing((0.0, -0.1, 0.04), 0.08, (220, 60, 40)), Thing((0.1, 0.15, 0.05), (0.08, 0.12, 0.1), (40, 80, 200))]
    for n in range(8):
        seen = frame(n, things)
        result = pipeline.process(seen)
    before = seen.color.copy()
    drawn = draw_overlay(seen, result)
    assert drawn.shape == before.shape and drawn.dtype == np.uint8
    assert np.array_equal(seen.color, before) and not np.array_equal(drawn, before)
    ids = result.scene.ids[~result.scene.is_static].tolist()
    assert len(ids) == 2
    for object_id in ids:
        close = np.abs(drawn.astype(int) - object_color(object_id)).max(axis=-1) < 12
        assert close.sum() > 60


def test_all_shapes_anywhere_can_be_drawn():
    seen = frame(0, [])
    n = 40
    rng = np.random.default_rng(0)
    hull = rng.normal(size=(30, 3)) * 0.05
    # Beside, behind and inside the camera too.
    scene = SceneGraph.build(
        range(1, n + 1),
        rng.uniform(-1.5, 1.5, (n, 3)),
        rng.uniform(0.02, 0.3, (n, 3)),
        shapes=rng.integers(0, 5, n),
        hulls=[hull if i % 2 else np.zeros((0, 3)) for i in range(n)],
        linear_velocities=rng.normal(0.0, 1.0, (n, 3)),
        visibilities=rng.uniform(0.0, 1.0, n).round(),
        is_static=[i == 0 for i in range(n)],
    )
    assert set(scene.shapes.tolist()) == {int(s) for s in Shape}
    drawn = draw_overlay(seen, PerceptionResult(scene, lambda: np.zeros(seen.depth_m.shape, np.uint16)))
    assert not np.array_equal(drawn, seen.color)


def test_few_parts_are_drawn_and_of_many_the_outline():
    """A T of two blocks has wires within its outline; a bowl of a dozen parts has those of its hull."""
    seen = frame(0, [])
    block = ConvexPart(Shape.BOX, np.array([0.2, 0.05, 0.05]), np.array([0.0, 0.06, 0.0]))
    stem = ConvexPart(Shape.BOX, np.array([0.05, 0.12, 0.05]), np.array([0.0, -0.025, 0.0]))
    hull = np.concatenate([block.points(), stem.points()])

    def drawn(parts):
        scene = SceneGraph.build(
            [5], [[0.0, 0.0, 0.03]], [[0.2, 0.17, 0.05]], shapes=[Shape.CONVEX], hulls=[hull], parts=[parts]
        )
        return draw_overlay(seen, PerceptionResult(scene, lambda: np.zeros(seen.depth_m.shape, np.uint16)))

    outline, few, many = drawn(()), drawn((block, stem)), drawn((block, stem) * 3)
    assert np.array_equal(outline, many)
    assert not np.array_equal(outline, few)
