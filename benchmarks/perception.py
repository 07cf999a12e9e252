"""Perception against the truth on simulated scenes, and on a recorded clip where there is one.

Run: python benchmarks/perception.py [--help]. Prints a table and writes out/bench/perception_first_light.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from wm_perception.evaluation import PerceptionScore, score_sequence
from wm_perception.pipeline import Frame, PerceptionPipeline
from wm_sim.depth_noise import DepthNoise
from wm_sim.scenes import scene_names
from wm_sim.simulator import Simulator

SCENES = 8
HELD_OUT_SEED = 100
VISIBLE_PIXELS = 150
"""Least pixels in the image for a thing to count as one that can be seen."""
COMPARE_EVERY = 3
"""Frames between comparisons with the truth (perception runs on every frame)."""


def run_scene(name: str, seed: int, seconds: float, noise: bool) -> tuple[PerceptionScore, dict[str, float]]:
    """Score one scene at 30 Hz and its median stage times [s]."""
    pipeline = PerceptionPipeline()
    pairs, visible, times = [], [], []
    with Simulator(name, seed, noise=DepthNoise() if noise else None) as simulator:
        for n in range(int(seconds * 30)):
            simulator.advance_to(n / 30.0)
            image = simulator.render()
            start = time.perf_counter()
            result = pipeline.process(
                Frame(simulator.stamp_ns + 1, image.rgb, image.depth, simulator.camera, image.world_T_camera)
            )
            times.append({**result.timings_s, "total": time.perf_counter() - start})
            if n < 15 or n % COMPARE_EVERY:
                continue  # a thing needs a few frames to be believed
            truth = simulator.ground_truth()
            pairs.append((result.scene, truth))
            pixels = np.bincount(simulator.instances().ravel(), minlength=int(truth.ids.max()) + 1)
            rows = np.flatnonzero(~truth.is_static & (pixels[truth.ids] >= VISIBLE_PIXELS))
            visible.append(set(truth.ids[rows].tolist()))
    stages = {k: float(np.median([t[k] for t in times])) for k in times[0]}
    stages["total_p95"] = float(np.percentile([t["total"] for t in times], 95))
    return score_sequence(pairs, visible), stages


def _clip_folder() -> Path:
    root = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("WM_SHARED_DATA", root.parent / "shared")) / "real_rgbd"


def run_clip(folder: Path) -> dict[str, object]:
    """What becomes of a recorded clip: supports, things per frame, the longest lived thing, times. No truth exists."""
    from wm_bringup.sources.rgbd_folder import open_folder

    recording = open_folder(folder).registered().levelled()
    pipeline = PerceptionPipeline()
    things, lives, times = [], Counter(), []
    for index in range(len(recording.frames)):
        frame = recording.frame(index)
        start = time.perf_counter()
        scene = pipeline.process(frame).scene
        times.append(time.perf_counter() - start)
        ids = scene.ids[~scene.is_static].tolist()
        things.append(len(ids))
        lives.update(ids)
    return {
        "frames": len(things),
        "ids_ever": len(lives),
        "things_per_frame_mean": float(np.mean(things)),
        "frames_of_each_id": {str(k): v for k, v in lives.items()},
        "seconds": {"total": float(np.median(times)), "total_p95": float(np.percentile(times, 95))},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="*", help=f"names; default: the first {SCENES}")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="seed of the scenes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each scene (default: %(default)s)")
    parser.add_argument("--depth", choices=["perfect", "noisy", "both"], default="both", help="depth images")
    parser.add_argument(
        "--clip", type=Path, default=_clip_folder(), help="folder of a recorded clip (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench/perception_first_light.json"))
    arguments = parser.parse_args()
    names = arguments.scenes or list(scene_names())[:SCENES]
    kinds = {"perfect": [False], "noisy": [True], "both": [False, True]}[arguments.depth]
    # Wide enough for the table where the output is no terminal.
    console = Console(width=None if sys.stdout.isatty() else 150)
    rows: dict[str, dict[str, object]] = {}
    with Progress(console=console) as progress:
        task = progress.add_task("scenes", total=len(names) * len(kinds))
        for noise in kinds:
            for name in names:
                progress.update(task, description=f"{name} ({'noisy' if noise else 'perfect'} depth)")
                score, stages = run_scene(name, arguments.seed, arguments.seconds, noise)
                rows[f"{name}/{'noisy' if noise else 'perfect'}"] = {**score.as_dict(), "seconds": stages}
                progress.advance(task)
    table = Table(title=f"Perception, seed {arguments.seed}, {arguments.seconds:g} s of each scene")
    for column in ("scene/depth", "true", "found", "missed", "phantom", "id switches"):
        table.add_column(column)
    for column in ("position median", "position p90", "velocity median", "time median", "time p95"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        stages = row["seconds"]
        table.add_row(
            name,
            *(str(row[k]) for k in ("objects_true", "found", "missed", "phantom", "id_switches")),
            f"{1000 * row['position_error_median_m']:.1f} mm",
            f"{1000 * row['position_error_p90_m']:.1f} mm",
            f"{row['velocity_error_median_m_s']:.3f} m/s",
            f"{1000 * stages['total']:.0f} ms",
            f"{1000 * stages['total_p95']:.0f} ms",
        )
    console.print(table)
    if arguments.clip.is_dir():
        clip = run_clip(arguments.clip)
        rows["clip"] = clip
        console.print(
            f"clip {arguments.clip.name}: {clip['frames']} frames, {clip['ids_ever']} ids ever, "
            f"{clip['things_per_frame_mean']:.1f} things per frame, frames of each id {clip['frames_of_each_id']}, "
            f"{1000 * clip['seconds']['total']:.0f} ms"
        )
    machine = {
        "cores": os.cpu_count(),
        "device": platform.processor() or platform.machine(),
        "runtime": f"numpy {np.__version__}",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"rows": rows, "machine": machine}, indent=2))
    console.print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
