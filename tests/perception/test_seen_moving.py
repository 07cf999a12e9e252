"""A velocity is that of a surface that was seen to move: not of a mask that grows, nor of a place that is another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seen_objects import Told, seen_frame
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import depth_noise_m, make_cloud
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.tracking.motion import MotionFilter, MotionModels
from wm_perception.tracking.seen_through import SeenThrough
from wm_perception.tracking.surface_flow import SurfaceFlow
from wm_perception.types import Cloud, Frame, PerceptionConfig

Array = NDArray[np.float64]

RATE_HZ = 15.0
SIZE = np.array([0.2, 0.14, 0.08])


def box(place: Array, size: Array = SIZE, yaw: float = 0.4) -> GeomDef:
    """A box that stands on the table."""
    turn = np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])
    return GeomDef(Shape.BOX, size, place + [0.0, 0.0, 0.5 * size[2]], turn, color=(0.2, 0.4, 0.8, 1.0))


def look(
    parts: list[GeomDef], eye: Array, target: Array, rng: np.random.Generator, number: int
) -> tuple[Frame, NDArray[np.int32]]:
    """A frame with a depth camera's noise and grained surfaces, and which part each pixel shows, 0: none."""
    frame, which = seen_frame(parts, eye, target)
    noise = 0.5 * depth_noise_m(frame.depth_m) * rng.standard_normal(frame.depth_m.shape)
    depth = np.where(frame.depth_m > 0.0, frame.depth_m + noise, 0.0).astype(np.float32)
    # Grain that goes with each surface: waves in its own axes.
    v, u = np.indices(which.shape)
    rays = np.stack([(u - 159.5) / 290.0, (v - 119.5) / 290.0, np.ones(u.shape)], axis=-1)
    world = (rays * frame.depth_m[..., None]) @ frame.world_T_camera[:3, :3].T + frame.world_T_camera[:3, 3]
    origins = np.stack([np.zeros(3), *(p.position for p in parts)])[which]
    waves = np.sin((world - origins) @ np.array([[311.0, 97.0], [-128.0, 255.0], [205.0, -170.0]])).sum(axis=-1)
    color = np.clip(frame.color + 12.0 * waves[..., None], 0.0, 255.0).astype(np.uint8)
    stamp_ns = 1 + round(number / RATE_HZ * 1e9)
    return Frame(stamp_ns, color, depth, frame.camera, frame.world_T_camera), which


def perceive(
    frames: int,
    parts_at: Callable[[int], list[GeomDef]],
    view_at: Callable[[int], tuple[Array, Array]],
    marked: Callable[[int, NDArray[np.int32]], NDArray[np.int32]] = lambda n, which: which,
    seed: int = 0,
) -> list[Array]:
    """Velocities (N, 3) [m/s] of the perceived objects after each frame.

    Args:
        parts_at: the objects in a frame; view_at: eye and target of the camera; marked: labels from the true ones.
    """
    segmenter, rng = Told(), np.random.default_rng(seed)
    pipeline = PerceptionPipeline(PerceptionConfig(stride=1, reasoner="geometric"), segmenter)
    found = []
    for n in range(frames):
        frame, which = look(parts_at(n), *view_at(n), rng, n)
        segmenter.labels = marked(n, which)
        scene = pipeline.process(frame).scene
        found.append(scene.linear_velocities[~scene.is_static])
    return found


def fastest(velocities: list[Array]) -> float:
    return max(float(np.linalg.norm(v, axis=1).max(initial=0.0)) for v in velocities)


def around(n: int, speed: float) -> tuple[Array, Array]:
    """A camera that goes around the table's middle at a speed [rad per frame]."""
    return 0.9 * np.array([-np.cos(speed * n), -np.sin(speed * n), 0.7]), np.array([0.0, 0.0, 0.03])


@pytest.mark.slow
@pytest.mark.parametrize("camera", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(4))
def test_a_mask_that_grows_from_a_quarter_is_no_motion(seed: int, camera: float) -> None:
    """Toward any side, over two frames up to a second, at once or later; the camera stands or goes around."""
    rng = np.random.default_rng(seed)
    side, over, begin = seed, int(rng.integers(2, 16)), int(rng.integers(0, 12))

    def marked(n: int, which: NDArray[np.int32]) -> NDArray[np.int32]:
        part = float(np.clip(0.25 + 0.75 * (n - begin) / over, 0.25, 1.0))
        rows, columns = np.nonzero(which)
        along = (columns if side < 2 else rows) * (1.0 if side % 2 else -1.0)
        labels = np.zeros_like(which)
        kept = along <= np.quantile(along, part)
        labels[rows[kept], columns[kept]] = 1
        return labels

    velocities = perceive(30, lambda n: [box(np.zeros(3))], lambda n: around(n, camera), marked, seed)
    assert all(len(v) == 1 for v in velocities[12:])
    assert fastest(velocities) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_what_was_moved_unseen_does_not_go_on(seed: int) -> None:
    """The camera looks elsewhere meanwhile, for 0.13 to 1.3 s."""
    rng = np.random.default_rng(seed)
    angle, way, unseen = rng.uniform(-np.pi, np.pi), rng.uniform(0.03, 0.15), int(rng.integers(2, 20))
    moved = way * np.array([np.cos(angle), np.sin(angle), 0.0])

    def view(n: int) -> tuple[Array, Array]:
        eye, target = around(0, 0.0)
        return eye, target + ([0.0, 4.0, 0.0] if 22 <= n < 22 + unseen else [0.0, 0.0, 0.0])

    velocities = perceive(34 + unseen, lambda n: [box(moved if n > 22 else np.zeros(3))], view, seed=seed)
    assert all(len(v) for v in velocities[-10:])
    assert fastest(velocities) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_what_slides_into_view_has_its_velocity_at_once(seed: int) -> None:
    """From beyond the image's left or right edge; while the edge still cuts it off, too."""
    rng = np.random.default_rng(seed)
    angle, speed = rng.uniform(0.5, np.pi - 0.5), rng.uniform(0.3, 0.6)
    side = 1.0 if seed % 2 else -1.0
    velocity = -side * speed * np.array([np.cos(angle), np.sin(angle), 0.0])
    start = np.array([0.0, side * 0.62, 0.0])
    size = np.array([0.08, 0.12, 0.1])
    still = around(0, 0.0)

    def parts(n: int) -> list[GeomDef]:
        return [box(np.array([-0.05, 0.0, 0.0]), size), box(start + velocity * n / RATE_HZ, size)]

    first = next(n for n in range(24) if int((seen_frame(parts(n), *still)[1] == 2).sum()) > 150)
    velocities = perceive(first + 9, parts, lambda n: still, seed=seed)
    errors = [float(np.linalg.norm(v - velocity, axis=1).min()) for v in velocities[first + 3 :]]
    assert np.median(errors) < 0.06 and max(errors) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("speed", [0.3, 0.5])
def test_what_comes_down_is_not_as_high_as_it_hangs(speed: float) -> None:
    """It stands on nothing: what is below it is not its bottom."""
    segmenter, rng = Told(), np.random.default_rng(0)
    pipeline = PerceptionPipeline(PerceptionConfig(stride=1, reasoner="geometric"), segmenter)
    size = np.array([0.05, 0.1, 0.1])
    for n in range(12):
        hanging = box(np.array([0.0, 0.0, 0.42 - speed * n / RATE_HZ]), size)
        still = box(np.array([0.1, 0.3, 0.0]))
        frame, segmenter.labels = look([hanging, still], *around(0, 0.0), rng, n)
        scene = pipeline.process(frame).scene
    thing = min(
        np.flatnonzero(~scene.is_static), key=lambda k: np.linalg.norm((scene.positions[k] - hanging.position)[:2])
    )
    assert scene.extents[thing].max() < 0.14
    np.testing.assert_allclose(scene.positions[thing], hanging.position, atol=0.025)
    np.testing.assert_allclose(scene.linear_velocities[thing], [0.0, 0.0, -speed], atol=0.05)


def clouds(parts_at: Callable[[int], list[GeomDef]], camera: float, seed: int) -> list[tuple[Cloud, Array]]:
    """Clouds of five frames, and the points (P, 3) of the first part in each."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(5):
        frame, which = look(parts_at(n), *around(n, camera), rng, n)
        cloud = make_cloud(frame, 1, 4.0)
        points = cloud.points[(which == 1) & np.isfinite(cloud.depth)].astype(np.float64)
        found.append((cloud, points))
    return found


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    camera=st.floats(-0.03, 0.03),
    low=st.floats(0.0, 0.8),
    height=st.floats(0.02, 0.15),
    seed=st.integers(0, 1000),
)
def test_no_part_of_what_rests_has_come(camera: float, low: float, height: float, seed: int) -> None:
    """Whichever part of it is marked, with the camera in motion, and with another one that leaves from before it."""
    own = np.array([0.15, 0.1, height])

    def parts(n: int) -> list[GeomDef]:
        return [box(np.zeros(3), own), box(np.array([-0.14, 0.03 * n, 0.0]), np.array([0.05, 0.08, 0.1]))]

    through = SeenThrough()
    for n, (cloud, points) in enumerate(clouds(parts, camera, seed)):
        some = points[(points[:, 1] >= np.quantile(points[:, 1], low))][::7]
        stamp_ns = 1 + round(n / RATE_HZ * 1e9)
        assert not through.has_come(some, 0.0015, stamp_ns)
        through.add(cloud, stamp_ns)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    angle=st.floats(-np.pi, np.pi),
    speed=st.floats(0.4, 0.8),
    camera=st.floats(-0.02, 0.02),
    seed=st.integers(0, 1000),
)
def test_what_moves_has_come_and_its_way_is_known(angle: float, speed: float, camera: float, seed: int) -> None:
    velocity = speed * np.array([np.cos(angle), np.sin(angle), 0.0])
    own = np.array([0.1, 0.1, 0.1])
    through, flow, came = SeenThrough(), SurfaceFlow(), []
    for n, (cloud, points) in enumerate(clouds(lambda n: [box(velocity * n / RATE_HZ, own)], camera, seed)):
        stamp_ns = 1 + round(n / RATE_HZ * 1e9)
        came.append(through.has_come(points[::7], 0.0015, stamp_ns))
        through.add(cloud, stamp_ns)
        flow.add(cloud, stamp_ns)
        way = flow.displacement_of(points, velocity * n / RATE_HZ, 0.0015)
        if n == 0:
            assert way is None
        else:
            assert way is not None
            assert np.linalg.norm(way.offset * RATE_HZ - velocity) < 0.1 + 0.1 * speed
    # Straight away from the camera its own place is left, and nothing comes where it was free.
    assert came[-1] or abs(angle) < 0.6


def test_ways_alone_tell_the_filter_its_velocity() -> None:
    """The mean velocity over each step; the place is hardly known."""
    rng = np.random.default_rng(0)
    dt, slowing = 1.0 / RATE_HZ, np.array([-1.5, 0.0, 0.0])
    start = np.array([0.9, -0.2, 0.0])
    tracked, models, errors = MotionFilter(np.zeros(3), 0.01, 0.5), MotionModels(), []
    for n in range(1, 8):
        tracked.predict(dt, models)
        way = dt * (start + slowing * dt * (n - 0.5)) + 0.001 * rng.standard_normal(3)
        tracked.update_way(way, np.eye(3) * 0.001**2, dt)
        errors.append(float(np.linalg.norm(tracked.velocity - start - slowing * dt * n)))
    assert max(errors[3:]) < 0.1
    assert np.sqrt(np.diag(tracked.covariance)[3:6]).max() < 0.1
    np.testing.assert_allclose(tracked.covariance, tracked.covariance.T, atol=1e-9)
