"""Which neighboring segments of a frame are parts of one object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.structure import Structure
from wm_perception.lifting.walls import Wall
from wm_perception.segmentation.division import APART_PX
from wm_perception.segmentation.part_features import FEATURES, part_features
from wm_perception.segmentation.part_links import group, joined, with_links
from wm_perception.segmentation.part_network import shipped
from wm_perception.segmentation.structure_filter import without_structure
from wm_perception.types import Cloud, Frame, Segmentation

RED, BLUE = (200, 60, 60), (60, 60, 200)
SEAT, FAR = np.s_[10:18, 10:40], np.s_[10:30, 50:60]


def stool(
    color: tuple[int, int, int] = RED,
    step_m: float = 0.0,
    alike: float = 1.0,
    gap: int = 0,
    score: float = 0.6,
    apart: float = -2.0,
) -> tuple[Segmentation, NDArray[np.float32], NDArray[np.float32], Cloud, NDArray[np.float32]]:
    """A seat, its leg, and something else: segmentation, offsets to the middle of each, borders, cloud, heights."""
    rgb = np.full((48, 64, 3), 120, np.uint8)
    depth = np.full((48, 64), 1.0, np.float32)
    labels = np.zeros((48, 64), np.int32)
    leg = np.s_[18 + gap : 36 + gap, 20:28]
    offset = np.zeros((2, 48, 64), np.float32)
    rows, columns = np.mgrid[:48, :64].astype(np.float32)
    for number, (part, look) in enumerate(((SEAT, RED), (leg, color), (FAR, RED)), start=1):
        rgb[part], labels[part] = look, number
        offset[0][part] = columns[part].mean() - columns[part]
        offset[1][part] = rows[part].mean() - rows[part]
    depth[leg] += np.float32(step_m)
    camera = Camera(64, 48, 200.0, 200.0, 32.0, 24.0)
    cloud = make_cloud(Frame(1, rgb, depth, camera, np.eye(4)), 1, 4.0)
    embeddings = np.array([[1.0, 0.0], [alike, np.sqrt(1.0 - alike**2)], [1.0, 0.0]], np.float32)
    classes = np.full((3, 4), 0.25, np.float32)
    scores = np.full(3, score, np.float32)
    found = Segmentation(labels, np.full(3, -1, np.int64), ("object",) * 3, scores, embeddings, tuple("abcd"), classes)
    borders = np.full((len(APART_PX), 48, 64), apart, np.float32)
    return found, offset, borders, cloud, np.full((48, 64), 0.1, np.float32)


def odds(**changed) -> float:
    """Log-odds that seat and leg are one."""
    pairs, features = part_features(*stool(**changed))
    assert pairs.tolist() == [[1, 2]], "what lies apart is no neighbor, whatever it looks like"
    return float(shipped().log_odds(features)[0])


def test_parts_of_one_look_that_meet_without_a_step_are_likelier_one_thing() -> None:
    same = odds()
    assert same > 0.0
    assert odds(color=BLUE) < same - 2.0
    assert odds(color=BLUE, apart=3.0) < 0.0
    assert odds(step_m=0.05) < same - 0.5
    assert odds(alike=0.0) < same
    assert odds(apart=3.0) < same - 1.0, "the network sees a border"
    assert odds(score=0.95) < same - 0.2, "two segments that the network is sure of are two"


def test_what_does_not_touch_has_no_link() -> None:
    assert len(with_links(*stool(gap=3)).pairs) == 0


def test_features_are_named_finite_and_as_described() -> None:
    _, features = part_features(*stool())
    assert features.shape == (1, len(FEATURES)) and np.isfinite(features).all()
    of = dict(zip(FEATURES, features[0], strict=True))
    assert of["level"] == 1.0 and of["embedding"] == pytest.approx(1.0) and of["color"] == pytest.approx(0.0, abs=0.05)
    assert of["border"] == pytest.approx(np.log(8 / 12.0)) and of["small"] == pytest.approx(np.log(144 / 240))
    assert of["classes"] == pytest.approx(0.25) and of["score"] == of["score_both"] == pytest.approx(0.6)
    assert of["apart"] == of["apart_far"] == pytest.approx(-2.0)
    # Pixels on either side point at their own part's middle, all the way.
    assert of["vote_gap"] == pytest.approx(1.0, abs=0.05)
    _, without_depth = part_features(*stool()[:3], replace_depth(stool()[3]), stool()[4])
    assert np.isfinite(without_depth).all()


def replace_depth(cloud: Cloud) -> Cloud:
    """The cloud with nothing measured."""
    nothing = np.full_like(cloud.depth, np.nan)
    return replace(
        cloud, depth=nothing, points=np.full_like(cloud.points, np.nan), normals=np.full_like(cloud.normals, np.nan)
    )


def test_groups_weigh_all_their_links() -> None:
    pairs = np.array([[1, 2], [2, 3], [1, 3]])
    # Part 3 is like 2 and unlike 1, by more than it is like 2.
    assert group(4, pairs, np.array([3.0, 1.0, -2.0])).tolist() == [0, 1, 1, 2, 3]
    assert group(4, pairs, np.array([3.0, 1.0, -0.5])).tolist() == [0, 1, 1, 1, 2]
    assert group(4, pairs, np.array([-1.0, -1.0, -1.0])).tolist() == [0, 1, 2, 3, 4]
    assert group(0, np.zeros((0, 2), np.int64), np.zeros(0)).tolist() == [0]


@given(st.integers(2, 9), st.integers(0, 10**6))
def test_no_two_groups_would_be_joined_further(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = np.array([(a, b) for a in range(1, count + 1) for b in range(a + 1, count + 1) if rng.uniform() < 0.6])
    pairs = pairs.reshape(-1, 2).astype(np.int64)
    values = rng.normal(0.0, 2.0, len(pairs))
    new = group(count, pairs, values)
    assert new[0] == 0 and sorted(set(new[1:].tolist())) == list(range(1, int(new.max()) + 1))
    between: dict[tuple[int, int], float] = {}
    for (a, b), value in zip(new[pairs], values, strict=True):
        if a != b:
            key = (min(a, b), max(a, b))
            between[key] = between.get(key, 0.0) + value
    assert all(value <= 1e-9 for value in between.values())


def test_joined_segments_are_means_by_area() -> None:
    linked = with_links(*stool(alike=0.0))
    one = joined(linked, np.array([0, 1, 1, 2]))
    assert (one.labels[SEAT] == 1).all() and (one.labels[18:36, 20:28] == 1).all() and (one.labels[FAR] == 2).all()
    assert len(one.keys) == len(one.scores) == len(one.class_names) == 2 and len(one.pairs) == 0
    assert_allclose(np.linalg.norm(one.embeddings, axis=1), 1.0, atol=1e-6)
    assert one.embeddings[0, 0] / one.embeddings[0, 1] == pytest.approx(240 / 144, rel=1e-5)
    assert_allclose(one.class_probabilities.sum(axis=1), 1.0, atol=1e-6)
    assert joined(linked, np.arange(4)) is linked


def test_links_follow_their_segments_when_walls_are_taken_out() -> None:
    found, _, _, cloud, _ = stool(step_m=0.5)
    found = replace(found, pairs=np.array([[1, 2], [2, 3]]), log_odds=np.array([-1.0, 2.0]))
    # The seat and what lies apart are 1 m away, the leg is 1.5 m away: as if the seat were a wall.
    turned = replace(cloud, points=cloud.points[..., [2, 0, 1]] * np.float32([1, 1, -1]))
    left = turned.points[SEAT]
    wall = Wall(
        np.array([1.0, 0.0]),
        1.0,
        (float(left[..., 1].min()), float(left[..., 1].max())),
        (float(left[..., 2].min()), float(left[..., 2].max())),
    )
    kept, _ = without_structure(found, turned, np.full((48, 64), 0.1, np.float32), Structure((wall,)), 0.5)
    assert len(kept.keys) == 2
    assert kept.pairs.tolist() == [[1, 2]] and kept.log_odds.tolist() == [2.0]
