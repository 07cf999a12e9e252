"""Static scenes as perception sees them: simulated ones, and real frames of recordings.

A scene is the graph after the last image of a camera before which nothing moved. Perceiving is expensive, so graphs are
kept on disk (``store.cached``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.imagination.perceived import HEIGHT, WIDTH, sources
from benchmarks.imagination.store import ROOT, cached, fingerprint
from benchmarks.imagination.worlds import CAMERA_RATE_HZ, FIRST_SEED
from training.worlds.appearance import open_simulator, random_noise
from training.worlds.worlds import random_scene
from wm_core.camera import Camera
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig
from wm_sim.depth_noise import DepthNoise
from wm_sim.scenes import BuiltScene
from wm_sim.simulator import Simulator

SEEN_S = 1.2
"""Time [s] for which a scene is seen: objects are reported after several images, and what was set down has settled."""
LEAST_OBJECTS = 2
"""Scenes with fewer perceived objects are passed over: they cannot push one another."""
STATIC_M_S = 0.005
"""True speed [m/s] above which something in a simulated world still moves, so that it is passed over."""
BUILT_IN = ("demo", "crowd", "dominoes", "stack_knock", "billiard", "bowling")
"""Scenes of the simulator in which everything rests for the first seconds."""
CLIP_FRAMES = (15, 30, 45, 60)
"""Frames of the hand-held clip after which its graph is taken."""
GAZEBO_FRAMES = ("1_settled", "6_bottle_lies")
"""Moments of the recorded Gazebo world in which everything rests."""
SOURCES = ("real", "built-in", "seeds", "families")


@dataclass(frozen=True)
class StaticScene:
    """A scene in which nothing moves.

    Attributes:
        source: one of ``SOURCES``; name: for people.
        graph: as perceived.
    """

    source: str
    name: str
    graph: SceneGraph


Made = tuple[str, str, Callable[[], SceneGraph | None]]
"""Source and name of a scene, and what perceives it; None: not usable."""


def recordings_folder() -> Path:
    """Folder of recorded data that is not in the repository: WM_SHARED_DATA, or ``shared`` beside the checkout."""
    return Path(os.environ.get("WM_SHARED_DATA", ROOT.parent / "shared"))


def scenes_of(source: str, count: int, folder: Path) -> list[Made]:
    """The first ``count`` scenes of a source that may be usable; ``folder``: of the recordings."""
    if source == "real":
        found = [
            (source, path.name, partial(_still_frame, path))
            for path in sorted(p for p in (folder / "real_frames").glob("*") if p.is_dir())
        ]
        if (folder / "real_rgbd").is_dir():
            found += [(source, f"kitchen@{n}", partial(_clip, folder / "real_rgbd", n)) for n in CLIP_FRAMES]
        found += [
            (source, f"gazebo {name}", partial(_gazebo_frame, folder / "gazebo_frames", name))
            for name in GAZEBO_FRAMES
            if (folder / "gazebo_frames" / f"{name}.json").is_file()
        ]
        return list(found[:count])
    if source == "built-in":
        return [(source, name, partial(_built_in, name)) for name in BUILT_IN[:count]]
    return [
        (source, f"{source} {seed}", partial(_random, source, seed)) for seed in range(FIRST_SEED, FIRST_SEED + count)
    ]


def static_scene(made: Made) -> StaticScene | None:
    """The scene, from the disk where it was perceived before; None: not usable."""
    source, name, perceive = made
    # How bodies move decides little in a world at rest, and this benchmark is run after each change of it.
    files = [path for path in sources() if "wm_dynamics" not in path.parts]
    graph = cached(f"still-{name.replace(' ', '-')}", fingerprint([Path(__file__), *files]), perceive)
    if graph is None or int((~graph.is_static).sum()) < LEAST_OBJECTS:
        return None
    return StaticScene(source, name, graph)


def _perceived(frames: Sequence[Frame]) -> SceneGraph:
    pipeline = PerceptionPipeline(PerceptionConfig(inference_threads=1))
    for frame in frames:
        result = pipeline.process(frame)
    return result.scene


def _repeated(frame: Frame) -> list[Frame]:
    """A single image as a camera that stands still sees it."""
    step_ns = round(1e9 / CAMERA_RATE_HZ)
    return [replace(frame, stamp_ns=1 + n * step_ns) for n in range(round(SEEN_S * CAMERA_RATE_HZ))]


def _still_frame(folder: Path) -> SceneGraph:
    from wm_bringup.sources.layouts import open_folder
    from wm_bringup.sources.rgbd_folder import prepared

    return _perceived(_repeated(prepared(open_folder(folder)).frame(0)))


def _clip(folder: Path, count: int) -> SceneGraph:
    from wm_bringup.sources.layouts import open_folder

    recording = open_folder(folder).registered().leveled()
    return _perceived([recording.frame(k) for k in range(min(count, len(recording.frames)))])


def _gazebo_frame(folder: Path, name: str) -> SceneGraph:
    facts: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    color = cv2.imread(str(folder / f"{name}_color.png"))[:, :, ::-1]
    depth = cv2.imread(str(folder / f"{name}_depth.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) * 1e-3
    k = facts["K"]
    camera = Camera(facts["width"], facts["height"], k[0], k[4], k[2] - 0.5, k[5] - 0.5)
    pose = np.eye(4)
    pose[:3, :3] = quaternion_to_matrix(facts["camera_link_quaternion_xyzw"]) @ quaternion_to_matrix(
        facts["optical_in_link_quaternion_xyzw"]
    )
    pose[:3, 3] = facts["camera_position"]
    return _perceived(_repeated(Frame(1, np.ascontiguousarray(color), depth, camera, pose)))


def _built_in(name: str) -> SceneGraph | None:
    with Simulator(name, 0, noise=DepthNoise()) as simulator:
        return _seen(simulator)


def _random(split: str, seed: int) -> SceneGraph | None:
    scene: BuiltScene = random_scene(seed, split)  # type: ignore[arg-type]
    if scene.pushers or len(scene.ids) - 1 < LEAST_OBJECTS:
        return None
    noise = random_noise(seed, split, WIDTH)  # type: ignore[arg-type]
    with open_simulator(replace(scene, schedule=()), seed, WIDTH, HEIGHT, noise) as simulator:
        return _seen(simulator)


def _seen(simulator: Simulator) -> SceneGraph | None:
    """The graph of a simulated world after ``SEEN_S``; None where something moves then."""
    pipeline = PerceptionPipeline(PerceptionConfig(inference_threads=1))
    for number in range(round(SEEN_S * CAMERA_RATE_HZ)):
        simulator.advance_to(number / CAMERA_RATE_HZ)
        seen = simulator.render()
        frame = Frame(simulator.stamp_ns + 1, seen.rgb, seen.depth, simulator.camera, seen.world_T_camera)
        result = pipeline.process(frame)
    truth = simulator.ground_truth()
    speeds = np.linalg.norm(truth.linear_velocities, axis=1)
    return None if len(speeds) and speeds.max() > STATIC_M_S else result.scene
