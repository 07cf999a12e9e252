"""What is far is as large as it is: its outermost pixels count, though their depth is not trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from seen_objects import Told, eye_at, seen_frame
from wm_core import rotations
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.mujoco.bodies import GeomDef
from wm_perception.lifting.cloud import depth_noise_m
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig

BAR, STEM, HIGH_M = 0.18, 0.13, 0.04
EYE = eye_at(40.0, 1.45)


def bar(size: tuple[float, float, float], place: tuple[float, float], yaw: float) -> GeomDef:
    """A box on the table, of a thing that is turned about the origin."""
    turn = Rotation.from_euler("z", yaw)
    center = turn.apply([*place, 0.5 * size[2]])
    return GeomDef(Shape.BOX, np.array(size), center, turn.as_quat(), color=(0.1, 0.4, 0.4, 1.0))


def tee(yaw: float) -> list[GeomDef]:
    """A T, whose center between its extents is at the origin."""
    return [bar((0.05, BAR, HIGH_M), (0.5 * STEM, 0.0), yaw), bar((STEM, 0.05, HIGH_M), (-0.025, 0.0), yaw)]


def tall_ell(yaw: float) -> list[GeomDef]:
    """An L of walls 16 cm high, of which a low camera sees the front and hardly any of the top."""
    return [bar((0.30, 0.08, 0.16), (0.0, 0.0), yaw), bar((0.08, 0.24, 0.16), (-0.11, 0.16), yaw)]


def seen(parts: list[GeomDef], eye: NDArray[np.float64], seed: int) -> tuple[Frame, NDArray[np.int32]]:
    """A frame with a depth camera's noise, whose edges lie between an object and what is behind; and the mask."""
    frame, which = seen_frame(parts, eye, (0.0, 0.0, 0.0))
    rng = np.random.default_rng(seed)
    table, _ = seen_frame([], eye, (0.0, 0.0, 0.0))
    mask = which > 0
    padded = np.pad(mask, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    share = np.where(mask & ~around, rng.uniform(0.0, 0.3, mask.shape), 0.0)
    mixed = (1.0 - share) * frame.depth_m + share * table.depth_m
    noisy = mixed + 0.5 * depth_noise_m(frame.depth_m) * rng.standard_normal(mask.shape)
    return replace(frame, depth_m=noisy.astype(np.float32)), mask.astype(np.int32)


def perceived(views: list[list[GeomDef]], eye: NDArray[np.float64] = EYE) -> list[SceneGraph]:
    """The scene after each of some things was looked at for half a second."""
    told = Told()
    config = PerceptionConfig(segmenter="geometric", stride=1, floor_below_camera_m=9.0)
    pipeline = PerceptionPipeline(config, segmenter=told)
    scenes, number = [], 0
    for parts in views:
        for _ in range(16):
            frame, told.labels = seen(parts, eye, number)
            number += 1
            scene = pipeline.process(replace(frame, stamp_ns=1 + number * 33_333_333)).scene
        scenes.append(scene)
    return scenes


def the_one(scene: SceneGraph) -> int:
    (row,) = np.flatnonzero(~scene.is_static)
    return int(row)


@pytest.mark.parametrize("yaw_deg", [0.0, 60.0, 130.0, 200.0, 290.0])
def test_a_far_tee_is_as_large_as_it_is(yaw_deg: float) -> None:
    (scene,) = perceived([tee(np.radians(yaw_deg))])
    row = the_one(scene)
    assert 2 <= len(scene.parts[row]) <= 4
    level = np.sort(scene.extents[row, :2])
    assert np.abs(level - np.sort([BAR, STEM + 0.05])).max() < 0.012
    assert np.linalg.norm(scene.positions[row, :2]) < 0.005


@pytest.mark.parametrize("turns_deg", [(0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0), (200.0, 185.0, 170.0, 155.0, 140.0)])
def test_a_far_tee_that_turns_keeps_its_center(turns_deg: tuple[float, ...]) -> None:
    """A row of pixels covers more at its far side than at its near one: lost, it moves the center with the turn."""
    scenes = perceived([tee(np.radians(t)) for t in turns_deg])
    offsets = []
    for turn_deg, scene in zip(turns_deg, scenes, strict=True):
        row = the_one(scene)
        offsets.append(Rotation.from_euler("z", -turn_deg, degrees=True).apply(scene.positions[row])[:2])
    assert np.ptp(offsets, axis=0).max() < 0.006


@pytest.mark.parametrize(("elevation_deg", "yaw_deg"), [(18.0, 110.0), (20.0, 80.0), (22.0, 110.0)])
def test_the_rim_of_a_front_is_no_notch(elevation_deg: float, yaw_deg: float) -> None:
    """Edges of a strip of top made thin parts out of one face, and the object tipped by 20 degrees and more."""
    (scene,) = perceived([tall_ell(np.radians(yaw_deg))], eye_at(elevation_deg, 2.2))
    row = the_one(scene)
    assert not scene.parts[row]
    assert rotations.matrix(scene.quaternions[row])[2, 2] > np.cos(np.radians(5.0))
