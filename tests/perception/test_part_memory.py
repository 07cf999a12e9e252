"""Segments that touch are one object or two by what all frames say of them, and by how they move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from seen_objects import segment, segmentation_of
from traced_scene import BALL, BOX, CAMERA, FRONT, make_scene, trace
from wm_core.camera import Camera
from wm_core.scene_graph import EventKind, SceneGraph, Shape
from wm_perception.lifting.cloud import make_cloud
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.tracking.births import born
from wm_perception.tracking.part_memory import PartMemory
from wm_perception.tracking.pieces import remember
from wm_perception.tracking.track import Track
from wm_perception.types import Cloud, Frame, PerceptionConfig, Segmentation

EXTENTS = ((0.1, 0.1, 0.1), (0.05, 0.12, 0.05))
"""A block, and a bar beside it [m]."""
BLOCK_Y, BAR_Y = -0.05, 0.06


class Parts:
    """A segmenter that knows the true masks.

    Attributes:
        ids: true ids of every pixel. odds: log-odds that block and bar are one; None: it sees them as one segment.
    """

    def __init__(self) -> None:
        self.ids: NDArray[np.uint16] = np.zeros((0, 0), np.uint16)
        self.odds: float | None = None

    def segment(self, frame, cloud, candidates, height, predicted) -> Segmentation:
        """As ``Segmenter.segment``."""
        ids = self.ids[::2, ::2].copy()
        if self.odds is None:
            ids[ids == BALL] = BOX
        found = segmentation_of(ids, score=0.9)
        if self.odds is None or len(found.keys) < 2:
            return found
        return replace(found, pairs=np.array([[1, 2]]), log_odds=np.array([self.odds]))


class Watched:
    """A pipeline that sees block and bar; ``see`` gives the scene of one frame."""

    def __init__(self) -> None:
        self.parts = Parts()
        self.pipeline = PerceptionPipeline(PerceptionConfig(reasoner="geometric"), self.parts)
        self.frames = 0
        self.events: list[tuple[EventKind, int]] = []
        self._seen: dict[tuple[float, float], tuple[NDArray, NDArray, NDArray]] = {}

    def see(self, odds: float | None, block_x: float = 0.0, bar_x: float = 0.0) -> SceneGraph:
        """One frame, 1/15 s after the one before, with both at these places [m]."""
        if (block_x, bar_x) not in self._seen:
            scene = make_scene((block_x, BLOCK_Y, 0.05), (bar_x, BAR_Y, 0.025))
            shapes = np.array([Shape.BOX] * 3)
            boxes = replace(scene, shapes=shapes, extents=np.array([scene.extents[0], *EXTENTS]))
            self._seen[block_x, bar_x] = trace(boxes)
        color, depth, self.parts.ids = self._seen[block_x, bar_x]
        self.parts.odds = odds
        self.frames += 1
        found = self.pipeline.process(Frame(1 + self.frames * 66_666_667, color, depth, CAMERA, FRONT)).scene
        self.events += [(e.kind, int(e.a)) for e in self.pipeline.tracker.events]
        return found

    def watch(self, odds: Sequence[float | None]) -> list[list[int]]:
        """The ids in the scene after each of some frames at rest."""
        return [objects(self.see(o)) for o in odds]


def objects(scene: SceneGraph) -> list[int]:
    return sorted(scene.ids[~scene.is_static].tolist())


def test_a_flicker_of_one_frame_makes_neither_a_birth_nor_another_id() -> None:
    watched = Watched()
    before = watched.watch([None] * 15)[-1]
    assert len(before) == 1
    watched.events.clear()
    after = watched.watch([-2.0, *[None] * 4, -2.0, *[None] * 4])
    assert all(ids == before for ids in after)
    assert watched.events == []
    assert len(watched.pipeline.tracker.tracks) == 1, "nor a track without an id"


def test_parts_are_one_object_where_most_frames_say_so() -> None:
    watched = Watched()
    ids = watched.watch([-0.8, 1.5] * 15)
    assert ids[-1] == ids[10] and len(ids[-1]) == 1


def test_objects_stay_two_where_one_frame_says_one() -> None:
    watched = Watched()
    before = watched.watch([-2.0] * 20)[-1]
    assert len(before) == 2
    after = watched.watch([3.0, -2.0, 3.0, -2.0, -2.0])
    assert all(ids == before for ids in after)


def test_what_was_joined_at_first_is_divided_when_it_is_seen_to_be_two() -> None:
    watched = Watched()
    before = watched.watch([1.0] * 12)[-1]
    assert len(before) == 1
    after = watched.watch([-2.0] * 40)
    assert len(after[-1]) == 2 and before[0] in after[-1]
    assert len(after[2]) == 1, "not at once"


def test_two_tracks_become_one_with_the_older_id_and_the_whole_size() -> None:
    watched = Watched()
    before = watched.watch([-1.0] * 15)[-1]
    assert len(before) == 2
    first = {t.id: t.first_seen_ns for t in watched.pipeline.tracker.tracks}
    watched.events.clear()
    after = watched.watch([2.0] * 30)
    assert len(after[-1]) == 1
    assert after[-1][0] in before and first[after[-1][0]] == min(first.values())
    gone = next(iter(set(before) - set(after[-1])))
    assert watched.events == [(EventKind.LEAVE, gone)]
    scene = watched.see(2.0)
    row = scene.index(after[-1][0])
    size = np.sort(scene.extents[row])
    assert size[2] == pytest.approx(EXTENTS[0][1] + EXTENTS[1][1], rel=0.12)
    assert scene.positions[row, 1] == pytest.approx(0.5 * (BLOCK_Y - 0.05 + BAR_Y + 0.06), abs=0.02)


def slide(watched: Watched, odds: float, block: Callable[[float], float], bar: Callable[[float], float]) -> SceneGraph:
    """A slide of 8 cm in 24 frames, then a second of rest."""
    for k in range(1, 40):
        way = 0.08 * min(k / 24.0, 1.0)
        scene = watched.see(odds, -block(way), -bar(way))
    return scene


def test_what_moves_together_is_one_where_its_look_leaves_it_open() -> None:
    still, moved = Watched(), Watched()
    for watched in (still, moved):
        assert len(watched.watch([-0.5] * 20)[-1]) == 2
    assert len(objects(slide(still, 0.4, lambda x: 0.0, lambda x: 0.0))) == 2
    assert len(objects(slide(moved, 0.4, lambda x: x, lambda x: x))) == 1


def test_what_is_pushed_along_stays_another_object_where_it_looks_like_one() -> None:
    watched = Watched()
    before = watched.watch([-3.0] * 20)[-1]
    scene = slide(watched, -3.0, lambda x: x, lambda x: x)
    assert objects(scene) == before


def test_what_moves_apart_is_two_from_then_on() -> None:
    watched = Watched()
    before = watched.watch([-0.5] * 20)[-1]
    assert len(before) == 2
    scene = slide(watched, -0.5, lambda x: 0.0, lambda x: x)
    assert objects(scene) == before
    for _ in range(10):
        scene = watched.see(1.5, 0.0, -0.08)
    assert objects(scene) == before


def test_a_track_in_two_groups_is_of_one_of_them() -> None:
    """Four segments in a row, of which the middle two lie on one track, are joined two and two."""
    cloud, tracks = row_of_tracks()
    labels = np.zeros(cloud.depth.shape, np.int32)
    for k in range(4):
        labels[20:40, 10 + 15 * k : 25 + 15 * k] = k + 1
    found = Segmentation(
        labels,
        np.full(4, -1, np.int64),
        ("object",) * 4,
        np.full(4, 0.9, np.float32),
        pairs=np.array([[1, 2], [2, 3], [3, 4]]),
        log_odds=np.array([6.0, -6.0, 6.0]),
    )
    result, merged = PartMemory().join(found, tracks, cloud)
    assert len(result.keys) == 2
    assert len({gone.key for _, gone in merged}) == len(merged)
    named = [key for key in result.keys.tolist() if key >= 0]
    assert len(set(named)) == len(named)
    assert not {gone.key for _, gone in merged} & set(named)


def row_of_tracks() -> tuple[Cloud, list[Track]]:
    """A wall 1 m before the camera, and tracks on it: left, middle and right of what is 60 pixels wide."""
    camera = Camera(80, 60, 100.0, 100.0, 39.5, 29.5)
    frame = Frame(1, np.full((60, 80, 3), 128, np.uint8), np.full((60, 80), 1.0, np.float32), camera, np.eye(4))
    cloud = make_cloud(frame, 1, 4.0)
    tracks = []
    for key, (left, right) in enumerate(((10, 25), (25, 55), (55, 70)), start=1):
        o = segment(cloud.points[20:40, left:right].reshape(-1, 3).astype(float))
        t = born(o, key, [], np.zeros(3), key)
        remember(t, o, cloud, anew=True)
        tracks.append(t)
    return cloud, tracks


def test_two_objects_are_not_joined_by_what_lies_between_them() -> None:
    cloud, tracks = row_of_tracks()
    left, _, right = tracks
    left.id, right.id = 1, 2
    labels = np.zeros(cloud.depth.shape, np.int32)
    for k, columns in enumerate((np.s_[10:25], np.s_[25:55], np.s_[55:70]), start=1):
        labels[20:40, columns] = k
    found = Segmentation(
        labels,
        np.full(3, -1, np.int64),
        ("object",) * 3,
        np.full(3, 0.9, np.float32),
        pairs=np.array([[1, 2], [2, 3]]),
        log_odds=np.array([2.0, 1.0]),
    )
    result, merged = PartMemory().join(found, [left, right], cloud)
    assert merged == []
    assert sorted(result.keys.tolist()) == [-1, left.key], "the middle is of the one that it is likelier of"


@pytest.mark.parametrize("strays", [0.0, 0.05, 0.2])
def test_pixels_that_show_what_is_far_behind_do_not_make_one_of_two(strays: float) -> None:
    """At an outline some pixels are of the background: a segment lies over no more of its neighbor for these."""
    cloud, (left, middle, _) = row_of_tracks()
    labels = np.zeros(cloud.depth.shape, np.int32)
    labels[20:40, 10:25], labels[20:40, 25:55] = 1, 2
    rows, columns = np.nonzero(labels == 1)
    random = np.random.default_rng(0)
    far = random.permutation(len(rows))[: int(strays * len(rows))]
    cloud.points[rows[far], columns[far]] = random.uniform((-1.0, -1.0, 1.0), (1.0, 1.0, 3.0), (len(far), 3))
    found = Segmentation(
        labels,
        np.full(2, -1, np.int64),
        ("object",) * 2,
        np.full(2, 0.9, np.float32),
        pairs=np.array([[1, 2]]),
        log_odds=np.array([-0.2]),
    )
    memory = PartMemory()
    for _ in range(20):
        result, merged = memory.join(found, [left, middle], cloud)
        assert not merged and len(result.keys) == 2
