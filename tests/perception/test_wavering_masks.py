"""Something flat and far away at rest, whose mask wavers and comes in pieces while the camera moves, is not moved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seen_objects import seen_frame, segmentation_of
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.shapes.rim_error import RimError
from wm_perception.shapes.surfaces import align
from wm_perception.types import Frame, PerceptionConfig, Segmentation

RATE_HZ = 7.5
FRAMES = 36
RIM_PX = 2.2
"""Standard deviation [pixels] of where a side of the mask is."""
SIZE = np.array([0.28, 0.2, 0.02])


class Wavering:
    """A segmenter that knows the true mask, but for its rim, and divides it as it likes.

    Attributes:
        truth: (h, w) the object's pixels; pieces: (h, w) number of the piece that each is of, from 1 on.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.off = np.zeros(4)
        self.truth: NDArray[np.bool_] = np.zeros((0, 0), bool)
        self.pieces: NDArray[np.int32] = np.zeros((0, 0), np.int32)

    def segment(self, frame, cloud, candidates, height, predicted) -> Segmentation:
        """As ``Segmenter.segment``."""
        # Each side is off as a whole, and for some frames: outward or inward by some pixels.
        self.off = 0.7 * self.off + self.rng.normal(0.0, RIM_PX * np.sqrt(1.0 - 0.7**2), 4)
        mask = self.truth.copy()
        for (axis, way), off in zip(((0, -1), (0, 1), (1, -1), (1, 1)), np.rint(self.off).astype(int), strict=True):
            for k in range(1, abs(off) + 1):
                moved = np.roll(self.truth, np.sign(off) * way * k, axis)
                mask = mask | moved if off > 0 else mask & moved
        return segmentation_of(np.where(mask, np.maximum(self.pieces, 1), 0), least=61, score=0.9)


def follow(seed: int, in_pieces: bool, speed: float) -> tuple[list[SceneGraph], PerceptionPipeline]:
    """Scenes of a magazine that lies or slides on a table about 2 m away, seen by a camera on its way around it."""
    rng = np.random.default_rng(seed)
    segmenter = Wavering(rng)
    pipeline = PerceptionPipeline(PerceptionConfig(stride=1, reasoner="geometric"), segmenter)
    scenes = []
    yaw = float(rng.uniform(0.0, np.pi))
    way = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    across = np.array([-way[1], way[0], 0.0])
    for n in range(FRAMES):
        angle = 0.02 * n
        eye = 1.7 * np.array([-np.cos(angle), -np.sin(angle), 0.5])
        place = way * speed * n / RATE_HZ + [0.0, 0.0, 0.5 * SIZE[2]]
        quaternion = np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])
        item = GeomDef(Shape.BOX, SIZE, place, quaternion, color=(0.2, 0.3, 0.8, 1.0))
        frame, which = seen_frame([item], eye, (0.0, 0.0, 0.0))
        noise = depth_noise_m(frame.depth_m) * rng.standard_normal(frame.depth_m.shape)
        depth = np.where(frame.depth_m > 0.0, frame.depth_m + 0.5 * noise, 0.0).astype(np.float32)
        segmenter.truth = which == 1
        segmenter.pieces = np.ones(which.shape, np.int32)
        if in_pieces and n > 3:
            v, u = np.indices(which.shape)
            rays = np.stack([(u - 159.5) / 290.0, (v - 119.5) / 290.0, np.ones(u.shape)], axis=-1)
            world = (rays * depth[..., None]) @ frame.world_T_camera[:3, :3].T + frame.world_T_camera[:3, 3]
            segmenter.pieces = divided(world - place, way, across, int(rng.integers(0, 4)))
        stamp_ns = 1 + round(n / RATE_HZ * 1e9)
        result = pipeline.process(Frame(stamp_ns, frame.color, depth, frame.camera, frame.world_T_camera))
        scenes.append(result.scene.select(~result.scene.is_static))
    return scenes, pipeline


def divided(
    local: NDArray[np.float64], way: NDArray[np.float64], across: NDArray[np.float64], kind: int
) -> NDArray[np.int32]:
    """(h, w) numbers of pieces from 1 on: one, halves along one side or the other, or three."""
    x, y = local @ way, local @ across
    cuts: list[Callable[[], NDArray[np.int64]]] = [
        lambda: np.ones(x.shape, np.int64),
        lambda: 1 + (x > 0.02),
        lambda: 1 + (y > -0.01),
        lambda: 1 + (x > -0.04) + ((x > -0.04) & (y > 0.0)),
    ]
    return cuts[kind]().astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("in_pieces", [False, True])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
@example(seed=4)
def test_what_lies_has_no_velocity_and_falls_asleep(in_pieces: bool, seed: int) -> None:
    scenes, pipeline = follow(seed, in_pieces, 0.0)
    # A piece may be an object for a while.
    assert all(len(scene) == 1 or (in_pieces and len(scene)) for scene in scenes[8:])
    assert max(float(np.linalg.norm(scene.linear_velocities, axis=1).max(initial=0.0)) for scene in scenes) == 0.0
    oldest = min((t for t in pipeline.tracker.tracks if t.id), key=lambda t: t.first_seen_ns)
    assert oldest.motion.sleeping


@pytest.mark.slow
@pytest.mark.parametrize("in_pieces", [False, True])
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_what_slides_there_has_its_velocity_within_a_second(in_pieces: bool, seed: int) -> None:
    """The other side of it: 0.15 m/s is a pixel or two a frame."""
    scenes, _ = follow(seed, in_pieces, 0.15)
    speeds = [float(np.linalg.norm(scene.linear_velocities, axis=1).max(initial=0.0)) for scene in scenes]
    assert np.median(speeds[10:20]) == pytest.approx(0.15, abs=0.06)
    assert min(speeds[10:20]) > 0.0


@given(
    st.floats(0.2, 1.4),
    st.floats(-np.pi, np.pi),
    st.floats(0.0, np.pi),
    st.floats(-np.pi, np.pi),
    st.floats(0.5, 3.0),
)
def test_a_rim_is_off_by_as_much_as_a_turned_ray_moves_on_the_plane(
    slope: float, azimuth: float, polar: float, around: float, distance: float
) -> None:
    """By rays turned in every direction, against the plane through the point."""
    ray = np.array([0.0, 0.0, 1.0])
    normal = -np.array([np.cos(azimuth) * np.cos(slope), np.sin(azimuth) * np.cos(slope), np.sin(slope)])
    if -normal @ ray < 0.25:
        return
    gradient = np.array([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)])
    point, turn = distance * ray, 1e-5
    reached = []
    for angle in np.linspace(0.0, 2.0 * np.pi, 180):
        turned = ray + turn * np.array([np.cos(angle), np.sin(angle), 0.0])
        met = turned * (normal @ point) / (normal @ turned)
        reached.append(abs(gradient @ (met - point)))
    expected = RimError(normal[None], ray[None], distance * turn).std_m(gradient[None])[0]
    assert max(reached) == pytest.approx(expected, rel=2e-3, abs=1e-9)
    assert RimError(normal[None], ray[None], 0.01).std_m(normal[None])[0] == pytest.approx(0.0, abs=1e-12)


def test_the_place_in_the_plane_of_a_top_of_which_no_end_is_seen_is_not_measured() -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.05, 0.05, (100, 2)), np.full(100, 0.01)])
    start = np.array([0.03, -0.02, 0.008])
    found = align(Shape.BOX, np.array([0.3, 0.3, 0.02]), points, start, np.array([0.0, 0.0, 0.0, 1.0]))
    position, covariance = found.measured()
    assert np.sqrt(np.diag(found.covariance)[:2]).max() < 0.06, "the prior holds it"
    assert np.sqrt(np.diag(covariance)[:2]).min() > 0.2 and np.sqrt(covariance[2, 2]) < 0.02
    assert position[2] == pytest.approx(0.0, abs=0.002)
