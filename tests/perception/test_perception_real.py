"""A hand-held camera's recording of a kitchen table: the table stays, the mug is one thing."""

import numpy as np
import pytest

from benchmarks.perception.real import MUG, TABLE, false_motion
from wm_core.scene_graph import EventKind
from wm_perception.lifting.gravity import estimate_up_direction
from wm_perception.pipeline import PerceptionPipeline

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(shared_data):
    from wm_bringup.sources.layouts import open_folder

    recording = open_folder(shared_data / "real_rgbd").registered().leveled()
    frames = [recording.frame(i) for i in range(len(recording.frames))]
    pipeline = PerceptionPipeline()
    return frames, [pipeline.process(f) for f in frames]


def test_the_clip_is_leveled(clip):
    frames, _ = clip
    up = estimate_up_direction(frames[:3])
    assert np.degrees(np.arccos(np.clip(up[2, 2], -1.0, 1.0))) < 1.5


def test_the_mug_is_one_thing_with_one_id(clip):
    _, results = clip
    # It stands here (leveled world, by hand from the pictures), and is 8 cm wide and high, its handle 3 cm more.
    place = np.array([-0.75, 1.77])
    ids = []
    for result in results:
        scene = result.scene.select(~result.scene.is_static)
        near = np.linalg.norm(scene.positions[:, :2] - place, axis=1) < 0.06
        ids.append(scene.ids[near].tolist())
    first = next(n for n, found in enumerate(ids) if found)
    assert first <= 5
    mug = ids[first][0]
    assert np.mean([found == [mug] for found in ids[first:]]) >= 0.98
    last = results[-1].scene
    across, _, along = np.sort(last.extents[last.index(mug)])
    assert abs(across - 0.08) < 0.03 and 0.05 < along < 0.13
    pixels = [int((r.instance_ids == mug).sum()) for r in results]
    assert max(pixels) > 800 and sum(p > 200 for p in pixels) >= 25


def test_the_table_is_one_support_that_the_mug_stands_on(clip):
    _, results = clip
    height = {}
    for n, result in enumerate(results):
        supports = result.scene.select(result.scene.is_static)
        tops = supports.positions[:, 2] + 0.5 * supports.extents[:, 2]
        inside = (np.linalg.norm(supports.positions[:, :2] - [-0.44, 1.6], axis=1) < 0.5) & (np.abs(tops + 0.82) < 0.04)
        height[n] = supports.ids[inside].tolist()
    first = next(n for n, found in height.items() if found)
    assert first <= 3
    assert np.mean([found == height[first] for n, found in height.items() if n >= first]) > 0.95


def test_few_things_are_invented(clip):
    _, results = clip
    # On the table there are a mug and magazines (three heaps at most).
    assert np.mean([(~r.scene.is_static).sum() for r in results]) < 5.0


def _kept(pattern, count):
    """Which frames of a clip arrive: all, every second, or all but a tenth of them at random."""
    if pattern == "all":
        return np.ones(count, bool)
    if pattern in ("even", "odd"):
        return np.arange(count) % 2 == (pattern == "odd")
    return np.random.default_rng(pattern).random(count) > 0.1


@pytest.mark.parametrize("pattern", ["all", "even", "odd", 0, 1, 2])
def test_nothing_moves_in_a_scene_that_only_the_camera_moves_in(clip, pattern):
    frames, results = clip
    if pattern != "all":
        pipeline = PerceptionPipeline()
        kept = np.flatnonzero(_kept(pattern, len(frames)))
        results = [pipeline.process(frames[i]) for i in kept]
    things = [r.scene.select(~r.scene.is_static) for r in results]
    # It was 0.03 to 0.12 while whatever shifted the middle of a segment counted as motion.
    assert false_motion(things) < 0.06
    last = things[-1]
    on_table = np.linalg.norm(last.positions[:, :2] - TABLE[:2], axis=1) < 0.5
    assert np.linalg.norm(last.positions[on_table, :2] - MUG, axis=1).min() < 0.06
    # Left alone, the mug must not be run into by the magazines beside it.
    speeds = np.linalg.norm(last.linear_velocities, axis=1)
    beside = np.linalg.norm(last.positions[:, :2] - MUG, axis=1) < 0.35
    # At half the rate, what was in view for seven frames may not be known to rest yet; a turn of the world by 0.1
    # degrees is enough to move its speed over 0.1 m/s.
    assert beside.sum() >= 2 and speeds[on_table].max() < (0.12 if pattern in ("even", "odd") else 0.1)
    assert speeds[beside].max() == 0.0 or pattern in ("even", "odd")
    named = set(last.ids[on_table].tolist())
    moves = [e for r in results for e in r.scene.events if e.kind == EventKind.MOVE and e.a in named]
    assert not [e for e in moves if e.probability > 0.5]
