"""Large images are perceived at a working size: the same objects at the same places, ids at the full size."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.perception.sizes import SIZES, enlarged_clip
from traced_scene import BALL, BOX, FRONT, make_scene, trace
from wm_core.camera import Camera
from wm_perception.lifting.working_size import enlarged, reduced, reduction
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig


@pytest.mark.parametrize(
    ("width", "working", "factor"),
    [
        (320, 640, 1),
        (640, 640, 1),
        (848, 640, 1),
        (1024, 640, 1),
        (1280, 640, 2),
        (1920, 640, 3),
        (3840, 640, 6),
        (9, 0, 1),
    ],
)
def test_how_much_images_are_brought_down(width: int, working: int, factor: int) -> None:
    assert reduction(width, working) == factor


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_points_and_ids_keep_their_places(factor: int, width: int, height: int, seed: int) -> None:
    camera = Camera(width, height, 50.0, 51.0, width / 2.3, height / 1.9)
    random = np.random.default_rng(seed)
    depth = random.uniform(0.5, 2.0, (height, width)).astype(np.float32)
    color = random.integers(0, 255, (height, width, 3)).astype(np.uint8)
    small = reduced(Frame(1, color, depth, camera, np.eye(4)), factor)
    assert small.depth_m.shape == (height // factor, width // factor) == small.color.shape[:2]
    wanted = camera.back_project(depth)[factor // 2 :: factor, factor // 2 :: factor]
    wanted = wanted[: height // factor, : width // factor]
    np.testing.assert_allclose(small.camera.back_project(small.depth_m), wanted, atol=1e-5)
    blocks = color[: height // factor * factor, : width // factor * factor]
    means = blocks.reshape(height // factor, factor, width // factor, factor, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small.color, means, atol=0.51)
    ids = random.integers(0, 9, small.depth_m.shape).astype(np.uint16)
    full = enlarged(ids, factor, height, width)
    assert full.shape == (height, width)
    np.testing.assert_array_equal(full[factor // 2 :: factor, factor // 2 :: factor][: len(ids), : ids.shape[1]], ids)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "scale"), [(1283, 722, 2.0), (1920, 1080, 3.0)])
def test_a_large_camera_finds_the_same_objects(width: int, height: int, scale: float) -> None:
    truth = make_scene()
    camera = Camera(width, height, 600.0 * scale, 600.0 * scale, (width - 1) / 2.0, (height - 1) / 2.0)
    color, depth, true_ids = trace(truth, FRONT, camera)
    pipeline = PerceptionPipeline(PerceptionConfig(segmenter="geometric", reasoner="geometric"))
    for k in range(8):
        result = pipeline.process(Frame(1 + k * 66_000_000, color, depth, camera, FRONT))
    assert result.instance_ids.shape == (height, width) and result.instance_ids.dtype == np.uint16
    found = result.scene
    for true_id in (BOX, BALL):
        errors = np.linalg.norm(found.positions - truth.positions[true_id - 1], axis=1)
        assert errors.min() < 0.008
        mask, true_mask = result.instance_ids == found.ids[errors.argmin()], true_ids == true_id
        assert (mask & true_mask).sum() / (mask | true_mask).sum() > 0.85


@dataclass(frozen=True)
class Drawn:
    """What the enlarging needs of a ``TrueFrame``."""

    rgb: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Clip:
    """What it needs of a ``RenderedClip``."""

    camera: Camera
    frames: tuple[Drawn, ...]
    plan: SimpleNamespace


def test_the_benchmark_enlarges_clips_about_the_same_rays() -> None:
    camera = Camera(640, 480, 580.0, 580.0, 319.5, 239.5)
    ramp = np.tile(np.arange(480, dtype=np.float32)[:, None], (1, 640))
    clip = Clip(camera, (Drawn(np.zeros((480, 640, 3), np.uint8), ramp),) * 6, SimpleNamespace(rate_hz=30.0))
    sizes = []
    for size in SIZES:
        large = enlarged_clip(clip, size)
        c, drawn = large.camera, large.frames[0]
        sizes.append((c.width, c.height, size.rate_hz, len(large.frames)))
        assert drawn.depth.shape == (c.height, c.width) == drawn.rgb.shape[:2]
        # The ray of a pixel's center is that of the block that it was enlarged from.
        row = (np.arange(c.height) - c.cy) / c.fy * camera.fy + camera.cy
        assert np.abs(row - drawn.depth[:, 0]).max() <= 0.5
    assert sizes == [(640, 480, 30.0, 6), (1280, 720, 15.0, 3), (1920, 1080, 10.0, 2)]
