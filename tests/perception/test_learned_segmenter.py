"""From the network's maps to instances: perfect maps give perfect masks, bad input gives none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_core.camera import Camera
from wm_perception.lifting.cloud import make_cloud
from wm_perception.segmentation.division import APART_PX
from wm_perception.segmentation.learned import (
    CHANNELS,
    LearnedSegmenter,
    group_pixels,
    network_input,
    over_supports,
    pooled,
)
from wm_perception.types import Frame

VOCABULARY = ("box", "ball")


def perfect_maps(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network that makes no mistakes would say."""
    h, w = mask.shape
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    center, offset = np.zeros((h, w), np.float32), np.zeros((2, h, w), np.float32)
    for number in np.unique(mask[mask > 0]):
        inside = mask == number
        cy, cx = yy[inside].mean(), xx[inside].mean()
        center = np.maximum(center, np.exp(-0.5 * ((yy - cy) ** 2 + (xx - cx) ** 2) / 9.0).astype(np.float32))
        offset[0][inside], offset[1][inside] = (cx - xx[inside]) / 32.0, (cy - yy[inside]) / 32.0
    return (mask > 0).astype(np.float32), center, offset


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(9, 19), st.integers(9, 19)),
        min_size=1,
        max_size=10,
        unique_by=lambda b: b[:2],
    )
)
def test_perfect_maps_give_the_true_masks(boxes: list[tuple[int, int, int, int]]) -> None:
    mask = np.zeros((120, 160), np.int32)
    for number, (row, column, h, w) in enumerate(boxes, start=1):
        mask[20 * row : 20 * row + h, 20 * column : 20 * column + w] = number
    labels, scores = group_pixels(*perfect_maps(mask))
    assert len(scores) == len(boxes)
    assert (scores > 0.8).all()
    for number in range(1, len(boxes) + 1):
        of = labels[mask == number]
        assert (of == of[0]).all() and (labels == of[0]).sum() == (mask == number).sum()


def test_nothing_in_sight_gives_no_instances() -> None:
    empty = np.zeros((40, 60), np.float32)
    labels, scores = group_pixels(empty, empty, np.zeros((2, 40, 60), np.float32))
    assert not labels.any() and len(scores) == 0
    labels, scores = group_pixels(empty + 1.0, empty, np.zeros((2, 40, 60), np.float32))
    assert not labels.any() and len(scores) == 0


def test_disagreement_lowers_the_score() -> None:
    mask = np.zeros((60, 80), np.int32)
    mask[20:40, 20:40] = 1
    foreground, center, offset = perfect_maps(mask)
    noise = np.random.default_rng(0).normal(0.0, 0.3, offset.shape).astype(np.float32)
    _, sure = group_pixels(foreground, center, offset)
    _, unsure = group_pixels(foreground, center, offset + noise)
    assert unsure.max() < 0.9 * sure.max()


def frame(h: int, w: int, depth: float = 1.0) -> Frame:
    color = np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)
    return Frame(1, color, np.full((h, w), depth, np.float32), Camera(w, h, 200.0, 200.0, w / 2, h / 2), np.eye(4))


@pytest.mark.parametrize("depth", [0.0, np.nan, 1.0, 3.9])
def test_input_is_bounded_whatever_the_depth(depth: float) -> None:
    cloud = make_cloud(frame(48, 64, depth), 1, 4.0)
    height = np.full((48, 64), np.nan, np.float32)
    height[10:20] = 5.0
    image = network_input(cloud, height)
    assert image.shape == (len(CHANNELS), 48, 64) and image.dtype == np.float32
    assert np.isfinite(image).all() and (np.abs(image) <= 1.0 + 1e-6).all()
    assert image[4, 15].all() and not image[4, 30].any()


def test_odd_sizes_are_padded_and_masks_reach_over_pixels_without_depth() -> None:
    sizes = []

    def network(image: np.ndarray) -> tuple[np.ndarray, ...]:
        _, _, h, w = image.shape
        sizes.append((h, w))
        mask = np.zeros((h, w), np.int32)
        mask[10:30, 10:30] = 1
        foreground, center, offset = perfect_maps(mask)
        classes = np.zeros((1, 2, h // 2, w // 2), np.float32)
        classes[:, 1] = 5.0
        embedding = np.ones((1, 4, h // 2, w // 2), np.float32)
        logit = lambda p: np.log(np.clip(p, 1e-4, 1 - 1e-4) / (1 - np.clip(p, 1e-4, 1 - 1e-4)))  # noqa: E731
        apart = np.full((1, len(APART_PX), h, w), -5.0, np.float32)
        return logit(foreground)[None, None], logit(center)[None, None], offset[None], classes, embedding, apart

    f = frame(45, 61)
    f.depth_m[10:14] = 0.0
    cloud = make_cloud(f, 1, 4.0)
    known = np.isfinite(cloud.depth)
    found = LearnedSegmenter(network, VOCABULARY).segment(f, cloud, known, np.full((45, 61), np.nan, np.float32), [])
    assert sizes == [(46, 62)]
    assert found.labels.shape == (45, 61)
    assert len(found.scores) == 1 and found.class_names == ("ball",)
    assert found.labels[12, 15] == found.labels[25, 15] == 1
    assert np.linalg.norm(found.embeddings[0]) == pytest.approx(1.0)
    assert found.class_probabilities.shape == (1, 2)
    f.depth_m[10:30] = 0.0
    cloud = make_cloud(f, 1, 4.0)
    found = LearnedSegmenter(network, VOCABULARY).segment(f, cloud, known, np.full((45, 61), np.nan, np.float32), [])
    assert not found.labels.any() and not len(found.scores), "what has no depth at all cannot be lifted"


def test_means_over_labels() -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[:4], labels[4:] = 1, 2
    maps = np.stack([np.repeat(np.array([1.0, 1.0, 3.0, 3.0])[:, None], 4, 1)]).astype(np.float32)
    np.testing.assert_allclose(pooled(maps, labels, 3), [[1.0], [3.0], [0.0]])


def test_what_is_over_no_support_is_dropped_where_supports_are_known() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[2:8, 2:20], labels[15:25, 5:15], labels[15:25, 20:30] = 1, 2, 3
    height = np.full((30, 40), np.nan, np.float32)
    height[10:] = 0.05
    height[15:25, 20:30] = 0.9
    depth = np.ones((30, 40), np.float32)
    kept, scores = over_supports(labels, np.array([0.9, 0.8, 0.7], np.float32), height, depth, 0.6)
    assert scores.tolist() == pytest.approx([0.8])
    assert (kept[15:25, 5:15] == 1).all() and (kept == 1).sum() == 100 and kept.max() == 1
    unknown = np.full((30, 40), np.nan, np.float32)
    kept, scores = over_supports(labels, np.array([0.9, 0.8, 0.7], np.float32), unknown, depth, 0.6)
    assert len(scores) == 3 and kept is labels
    # What has hardly any depth cannot be lifted; what has some is judged by it.
    depth[2:8, 2:20], depth[15:25, 5:15] = np.nan, np.nan
    depth[15:18, 5:15], height[18:25, 5:15] = 1.0, np.nan
    kept, scores = over_supports(labels, np.array([0.9, 0.8, 0.7], np.float32), height, depth, 0.6)
    assert scores.tolist() == pytest.approx([0.8]) and (kept == 1).sum() == 100
