"""How fast futures are imagined and drawn: rollouts per second, frames per second, learning looks.

    python benchmarks/imagination.py                    # the core alone
    source tools/env.sh && python benchmarks/imagination.py   # and through the ROS service of a node it starts

Prints a table and writes out/bench/imagination_first_light.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_core.camera import Camera
from wm_core.geometry import pose_matrix
from wm_core.interventions import Hypothesis, apply_impulse
from wm_core.rollout import ImagineRequest
from wm_core.scene_graph import SceneGraph, Shape
from wm_imagination.appearance import AppearanceMemory
from wm_imagination.imagination import Imagination
from wm_imagination.renderer import Body, Renderer, cast_primitive, ray_directions, scene_bodies, shade

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = 8


def make_scene(moved: float = 0.0) -> SceneGraph:
    """A table with eight things on it (id 1 is the table), the things shifted by ``moved`` metres along y."""
    rng = np.random.default_rng(0)
    grid = [(0.18 * (i % 3) - 0.18, 0.22 * (i // 3) - 0.22) for i in range(OBJECTS)]
    shapes = [
        Shape.BOX,
        Shape.SPHERE,
        Shape.CYLINDER,
        Shape.BOX,
        Shape.CAPSULE,
        Shape.BOX,
        Shape.CYLINDER,
        Shape.SPHERE,
    ]
    extents = [(0.08, 0.08, 0.08), (0.07,) * 3, (0.07, 0.07, 0.12), (0.06, 0.1, 0.05)]
    extents += [(0.05, 0.05, 0.12), (0.1, 0.06, 0.15), (0.08, 0.08, 0.1), (0.08,) * 3]
    return SceneGraph.build(
        np.arange(1, OBJECTS + 2),
        [(0.0, 0.0, -0.02), *((x, y + moved, e[2] / 2) for (x, y), e in zip(grid, extents, strict=True))],
        [(1.0, 1.2, 0.04), *extents],
        shapes=[Shape.BOX, *shapes],
        class_names=["support", *["object"] * OBJECTS],
        is_static=[True, *[False] * OBJECTS],
        colors=rng.uniform(0.1, 0.9, (OBJECTS + 1, 3)),
    )


def camera_pose() -> np.ndarray:
    """(4, 4) optical frame that looks down on the table."""
    eye, target = np.array([-0.9, 0.0, 0.7]), np.array([0.0, 0.0, 0.0])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def observe(scene: SceneGraph, camera: Camera, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour, depth [m] and ids of the scene, drawn from its primitives on a floor."""
    rays = ray_directions(camera, (0, 0, camera.width, camera.height))
    color = np.full((camera.height, camera.width, 3), 120, np.uint8)
    camera_T_world = np.linalg.inv(pose)
    down = rays @ pose[2, :3].astype(np.float32)
    depth = np.where(down < -1e-3, (-0.7 - pose[2, 3]) / np.minimum(down, -1e-3), 8.0).astype(np.float32)
    depth = np.minimum(depth, 6.0)
    ids = np.zeros(depth.shape, np.uint16)
    poses = pose_matrix(scene.positions, scene.quaternions)
    for i in range(len(scene)):
        z, normals = cast_primitive(int(scene.shapes[i]), scene.extents[i], None, camera_T_world @ poses[i], rays)
        nearer = z < depth
        color[nearer] = shade(scene.colors[i], normals[nearer])
        depth[nearer] = z[nearer]
        ids[nearer] = 0 if scene.is_static[i] else scene.ids[i]
    return color, depth, ids


def best_of(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    function()
    durations = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        durations.append(time.perf_counter() - begin)
    return float(np.median(durations))


def hypotheses(count: int) -> tuple[Hypothesis, ...]:
    """Pushes of one thing after another in all directions, by velocity changes of up to 0.5 m/s."""
    result = []
    scene = make_scene()
    for k in range(count):
        angle = 2.0 * np.pi * k / max(count, 1)
        row = 1 + k % OBJECTS
        size = 0.5 * float(scene.masses[row])
        impulse = (size * np.cos(angle), size * np.sin(angle), 0.0)
        result.append(Hypothesis(f"push {k}", (apply_impulse(int(scene.ids[row]), impulse),)))
    return tuple(result)


def bench_core(rows: dict[str, Any], counts: list[int], repeats: int) -> None:
    """Rollouts of 1 s by the physics backend, in this process."""
    imagination, scene = Imagination(), make_scene()
    for count in counts:
        request = ImagineRequest(hypotheses(count), 1.0)
        seconds = best_of(lambda request=request: imagination.imagine(request, scene), repeats)
        rows[f"core_rollouts_{count}"] = {"seconds": seconds, "rollouts_per_s": count / seconds}


def bench_renderer(rows: dict[str, Any], repeats: int) -> None:
    """Frames with all eight things moving, making a renderer, and learning a frame."""
    for width, height in ((320, 240), (640, 480)):
        camera = Camera(width, height, 0.9 * width, 0.9 * width, (width - 1) / 2.0, (height - 1) / 2.0)
        pose, scene, memory = camera_pose(), make_scene(), AppearanceMemory()
        frame = observe(scene, camera, pose)
        stamp = iter(range(1, 10_000))
        learn = best_of(
            lambda c=camera, f=frame, p=pose, m=memory, s=stamp, g=scene: m.integrate(
                next(s), f[0], f[1], c, p, f[2], g
            ),
            repeats,
        )
        looks = memory.snapshot()
        make = best_of(lambda a=looks, g=scene: Renderer(a, g), repeats)
        renderer, shift = Renderer(looks, scene), itertools.cycle(np.linspace(0.01, 0.2, 40))
        draw = best_of(lambda r=renderer, s=shift: r.render(scene_bodies(make_scene(next(s)))), 5 * repeats)
        still: list[Body] = scene_bodies(scene)
        at_rest = best_of(lambda r=renderer, b=still: r.render(b), 5 * repeats)
        beside = pose.copy()
        beside[1, 3] += 0.15
        novel = best_of(lambda a=looks, g=scene, p=beside: Renderer(a, g, None, p), repeats)
        rows[f"render_{width}x{height}_{OBJECTS}_moving"] = {"seconds": draw, "frames_per_s": 1.0 / draw}
        rows[f"render_{width}x{height}_at_rest"] = {"seconds": at_rest, "frames_per_s": 1.0 / at_rest}
        rows[f"background_{width}x{height}_same_view"] = {"seconds": make}
        rows[f"background_{width}x{height}_other_view"] = {"seconds": novel}
        rows[f"learn_frame_{width}x{height}"] = {"seconds": learn, "frames_per_s": 1.0 / learn}


def bench_service(rows: dict[str, Any], counts: list[int], repeats: int) -> None:
    """The same rollouts asked of a node in a process of its own."""
    import rclpy
    from wm_msgs.srv import ImagineRollouts

    from wm_core.messages import request_to_msg

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    node_process = subprocess.Popen(
        [sys.executable, "-m", "wm_imagination.node"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    rclpy.init()
    node = rclpy.create_node("imagination_benchmark", namespace="wm")
    try:
        client = node.create_client(ImagineRollouts, "imagine_rollouts")
        if not client.wait_for_service(30.0):
            print("the node did not offer its service within 30 s; rows of the service are left out", file=sys.stderr)
            return
        for count in counts:
            request = request_to_msg(ImagineRequest(hypotheses(count), 1.0, initial_state=make_scene()))

            def call(request: Any = request) -> None:
                future = client.call_async(ImagineRollouts.Request(request=request))
                rclpy.spin_until_future_complete(node, future, timeout_sec=120.0)
                answer = future.result()
                if answer is None or answer.error_code:
                    raise RuntimeError(f"service: {answer.error_msg if answer else 'no answer within 120 s'}")

            seconds = best_of(call, repeats)
            rows[f"service_rollouts_{count}"] = {"seconds": seconds, "rollouts_per_s": count / seconds}
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        os.killpg(node_process.pid, signal.SIGINT)
        try:
            node_process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(node_process.pid, signal.SIGKILL)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    import mujoco

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": "cpu",
        "runtime": f"MuJoCo {mujoco.__version__}, NumPy {np.__version__}, OpenCV {cv2.__version__}",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 64, 256], help="hypotheses per request")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per row; the median counts")
    parser.add_argument("--no-service", action="store_true", help="leave out the ROS service")
    parser.add_argument("--one-core", action="store_true", help="pin the process to one core while drawing")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "imagination_first_light.json")
    chosen = parser.parse_args()

    rows: dict[str, Any] = {}
    bench_core(rows, chosen.counts, chosen.repeats)
    if chosen.one_core:
        cv2.setNumThreads(1)
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
    bench_renderer(rows, chosen.repeats)
    if chosen.one_core:
        os.sched_setaffinity(0, allowed)
    ros = all(importlib.util.find_spec(m) is not None for m in ("rclpy", "wm_msgs"))
    if ros and not chosen.no_service:
        bench_service(rows, chosen.counts, chosen.repeats)
    elif not chosen.no_service:
        print("no ROS here (source tools/env.sh): rows of the service are left out", file=sys.stderr)

    print(f"{'row':40} {'ms':>10} {'per second':>12}")
    for name, row in rows.items():
        rate = next((v for k, v in row.items() if k.endswith("_per_s")), None)
        print(
            f"{name:40} {1e3 * row['seconds']:10.2f} {rate:12.1f}"
            if rate
            else f"{name:40} {1e3 * row['seconds']:10.2f}"
        )
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"machine": machine(), **rows}, indent=2) + "\n")
    print(f"written: {chosen.out}")


if __name__ == "__main__":
    main()
