"""The perceived scene graph of a case's instant: the pipeline on rendered images, in process."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from benchmarks.imagination.starts import Start
from benchmarks.imagination.store import ROOT, cached, fingerprint
from benchmarks.imagination.worlds import CAMERA_RATE_HZ, CASE_SOURCES, Case
from training.worlds.appearance import open_simulator, random_noise
from training.worlds.worlds import random_scene
from wm_core.scene_graph import SceneGraph
from wm_perception.evaluation import match
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig

WIDTH, HEIGHT = 640, 480
"""Size of the rendered images [pixels]."""
_PERCEPTION = ROOT / "ros2_ws/src/wm_perception/wm_perception"


def sources() -> list[Path]:
    """Files that a perceived graph depends on."""
    found = [Path(__file__), *CASE_SOURCES]
    found += [
        p for p in _PERCEPTION.rglob("*.py") if p.name not in ("node.py", "overlay.py") and p.parent.name != "ros"
    ]
    found += (_PERCEPTION.parent / "models").glob("*.onnx")
    return found


def perceived_graph(split: str, seed: int, start_s: float) -> SceneGraph:
    """The scene graph after the image at an instant [s], of a pipeline that saw the world from its start at 15 Hz."""
    scene = random_scene(seed, split)  # type: ignore[arg-type]
    pipeline = PerceptionPipeline(PerceptionConfig(inference_threads=1))
    noise = random_noise(seed, split, WIDTH)  # type: ignore[arg-type]
    with open_simulator(scene, seed, WIDTH, HEIGHT, noise) as simulator:
        for number in range(round(start_s * CAMERA_RATE_HZ) + 1):
            simulator.advance_to(number / CAMERA_RATE_HZ)
            seen = simulator.render()
            stamp_ns = simulator.stamp_ns + 1
            result = pipeline.process(Frame(stamp_ns, seen.rgb, seen.depth, simulator.camera, seen.world_T_camera))
    return result.scene


def start_from(case: Case, graph: SceneGraph) -> Start | None:
    """The perceived graph with the true ids of its objects, matched by position; None where none is matched."""
    rows = {int(case.scene.ids[t]): p for p, t, _ in match(graph, case.scene)}
    return Start(graph, rows) if rows else None


def perceive(case: Case) -> Start | None:
    """The start of a case from its perceived graph; on disk where it was perceived before. None: nothing was found."""
    name = f"perceived-{case.split}-{case.seed}"
    graph = cached(name, fingerprint(sources()), lambda: perceived_graph(case.split, case.seed, case.start_s))
    return start_from(case, graph)


def _job(case: Case) -> tuple[str, int]:
    perceive(case)
    return case.split, case.seed


def perceive_all(cases: Sequence[Case], processes: int, on_done: Callable[[str], None] | None = None) -> list[str]:
    """Fill the cache, several worlds at a time; returns what went wrong, a line for each world that failed."""
    failures = []
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = {pool.submit(_job, case): case for case in cases}
        for future in concurrent.futures.as_completed(waiting):
            try:
                future.result()
            except BrokenProcessPool:
                raise
            except Exception as error:
                failures.append(f"not perceived: {waiting[future].name}: {type(error).__name__}: {error}")
            if on_done is not None:
                on_done(waiting[future].name)
    return failures


def found_share(pairs: Sequence[tuple[Case, Start]]) -> float | None:
    """Fraction 0..1 of the true objects that were found."""
    true = sum(int((~case.scene.is_static).sum()) for case, _ in pairs)
    return sum(len(start.row_of) for _, start in pairs) / true if true else None


def position_error(pairs: Sequence[tuple[Case, Start]]) -> float | None:
    """Median distance [m] of the perceived centers."""
    errors = [
        float(np.linalg.norm(start.scene.positions[row] - case.scene.positions[case.scene.index(name)]))
        for case, start in pairs
        for name, row in start.row_of.items()
    ]
    return float(np.median(errors)) if errors else None
