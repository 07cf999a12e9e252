"""Results of a demonstration, for its video, report and files."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_bringup.demo.scenarios import Scenario
from wm_bringup.environment import workspace_root
from wm_bringup.report.comparison import HypothesisErrors
from wm_bringup.report.drawing import Picture
from wm_core.camera import Camera
from wm_core.rollout import Rollout
from wm_core.scene_graph import SceneGraph

BASELINES = ("straight", "still")
"""Backends without physics: constant velocity, and nothing moves."""

LABELS = {"imagined": "imagined", "straight": "straight lines", "still": "nothing moves"}
"""Names of the backends for people."""


@dataclass(frozen=True)
class Future:
    """The imagined future of one scenario, with the ground truth.

    Attributes:
        scenario: with object ids of the perceived scene.
        index: of the scenario in the rollouts.
        imagined, true: F pictures each, (H, W, 3) RGB; ``true`` empty: the ground truth is not known.
        imagined_depth, true_depth: F images each, (H, W) [m].
        errors: against the ground truth; None: not known.
    """

    scenario: Scenario
    index: int
    imagined: list[Picture]
    imagined_depth: list[NDArray[np.float32]]
    true: list[Picture] = field(default_factory=list)
    true_depth: list[NDArray[np.float32]] = field(default_factory=list)
    errors: HypothesisErrors | None = None


@dataclass(frozen=True)
class DemoResults:
    """All results of a demonstration: K scenarios, T times, M true objects, F pictures of each future.

    Attributes:
        scene_name, seed: of the simulation.
        graph: the perceived scene graph that the futures start from.
        ground_truth: the true scene graph of the same stamp.
        true_ids: perceived id -> true id.
        futures: K, in the order of the request.
        rollouts: by backend ("imagined", and ``BASELINES``), with the same hypotheses and times.
        true_states: (K, T, M, 13) [m, m/s, rad/s], as ``wm_core.rollout.Rollout.states``; NaN: not known.
        true_present: (K, T, M) whether a true object exists then.
        true_object_ids: (M,).
        frame_times: (F,) of the pictures [s] after ``graph``; camera: of the pictures.
        perception: wm_perception.evaluation.PerceptionScore as a dict; empty: not scored.
        latency: summary of the recorder, as ``split_latency`` gives it.
        timings: seconds by name.
        real_time_factor: simulated seconds that passed per second.
        notes: for the reader, e.g. that a scenario could not be scored.
        machine: see ``machine_facts``.
        topics: number of messages recorded, by topic.
    """

    scene_name: str
    seed: int
    graph: SceneGraph
    ground_truth: SceneGraph
    true_ids: dict[int, int]
    futures: list[Future]
    rollouts: dict[str, Rollout]
    true_states: NDArray[np.float32]
    true_present: NDArray[np.bool_]
    true_object_ids: NDArray[np.int64]
    frame_times: NDArray[np.float64]
    camera: Camera
    perception: dict[str, Any]
    latency: dict[str, Any]
    timings: dict[str, float]
    real_time_factor: float
    notes: list[str]
    machine: dict[str, str]
    topics: dict[str, int]

    def metrics(self, seconds_total: float) -> dict[str, Any]:
        """The figures for machines; a figure that could not be measured is null."""
        hypotheses = {}
        for future in self.futures:
            e = future.errors
            if e is None:
                continue
            hypotheses[future.scenario.name] = {
                "ade_m": _number(e.average("imagined")),
                "fde_m": _number(e.final("imagined")),
                "ade_straight_m": _number(e.average("straight")),
                "fde_straight_m": _number(e.final("straight")),
                "ade_still_m": _number(e.average("still")),
                "fde_still_m": _number(e.final("still")),
                "contacts": bool(e.contacts),
            }
        keys = ("objects_true", "found", "phantom", "missed", "id_switches", "position_error_median_m")
        return {
            "hypotheses": hypotheses,
            "perception": {key: _number(self.perception.get(key)) for key in keys},
            "latency": {
                "camera_to_graph_median_s": _number(self.latency.get("median_s")),
                "camera_to_graph_p95_s": _number(self.latency.get("p95_s")),
                "rate_hz": _number(self.latency.get("rate_to_hz")),
                "rollouts_64_s": _number(self.timings.get("rollouts_64_s")),
                "rollouts_256_s": _number(self.timings.get("rollouts_256_s")),
            },
            "seconds_total": round(seconds_total, 2),
        }

    def details(self) -> dict[str, Any]:
        """More figures: of moved objects alone, by object, timings, the machine."""
        futures = {}
        for future in self.futures:
            e = future.errors
            futures[future.scenario.name] = {
                "question": future.scenario.title,
                "detail": future.scenario.detail,
                "subject": future.scenario.subject,
                "moved_objects": None
                if e is None
                else {
                    backend: {
                        "ade_m": _number(e.average(backend, moved_only=True)),
                        "fde_m": _number(e.final(backend, moved_only=True)),
                    }
                    for backend in LABELS
                },
                "objects": []
                if e is None
                else [
                    {
                        "id": o.object_id,
                        "true_id": o.true_id,
                        "moved": o.moved,
                        **{f"fde_{b}_m": _number(float(v[-1])) for b, v in o.error_m.items()},
                    }
                    for o in e.objects
                ],
            }
        return {
            "scene": self.scene_name,
            "seed": self.seed,
            "query_stamp_ns": self.graph.stamp_ns,
            "true_ids": {str(k): v for k, v in self.true_ids.items()},
            "futures": futures,
            "perception": {k: _number(v) for k, v in self.perception.items()},
            "latency": {k: v for k, v in self.latency.items() if k != "stamps"},
            "timings": {k: _number(v) for k, v in self.timings.items()},
            "real_time_factor": self.real_time_factor,
            "topics": self.topics,
            "machine": self.machine,
            "notes": self.notes,
        }


def _number(value: Any) -> Any:
    """For JSON: floats rounded to six decimals, None for what is not finite."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    value = float(value)
    return round(value, 6) if np.isfinite(value) else None


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    root = workspace_root()
    if root is None:
        return "unknown"
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def machine_facts() -> dict[str, str]:
    """Processor, cores, versions of what was used."""
    from wm_core.inference.backends import available_backends

    runtimes = [f"{s.name} ({s.reason})" for s in available_backends() if s.available]
    return {
        "processor": _cpu_name(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "ROS 2": os.environ.get("ROS_DISTRO") or ("kilted (pip)" if "site-packages" in _rclpy_place() else "sourced"),
        "middleware": os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"),
        "rendering": os.environ.get("MUJOCO_GL", "default"),
        "mujoco": _package_version("mujoco"),
        "inference runtimes": ", ".join(runtimes) or "none",
        "commit": _commit(),
    }


def dynamics_facts(answered_by: Sequence[str]) -> dict[str, str]:
    """What imagined the futures, beside ``machine_facts``: names of the dynamics that answered them."""
    return {"dynamics of the futures": ", ".join(sorted(set(answered_by)))}


def _rclpy_place() -> str:
    module = sys.modules.get("rclpy")
    return str(getattr(module, "__file__", "") or "")
