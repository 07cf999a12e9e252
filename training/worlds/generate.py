"""Makes a data set of simulated clips: `python -m training.worlds.generate --help`.

HDF5, because a clip is arrays of many kinds and lengths that are read a few frames at a time: chunked, compressed,
self-describing, readable from any language, one library. A shard is written beside its place and moved there when it is
whole, so a run that was cut off goes on where it stopped. States, depth and masks depend on the seeds alone; colors are
an OpenGL driver's, and may differ by a level or two of 255 in a few pixels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.worlds.appearance import depth_sensor, open_simulator
from training.worlds.motions import DURATION_S
from training.worlds.simulate import Clip, compile_world, simulate
from training.worlds.splits import SPLITS, Split
from training.worlds.worlds import random_scene
from wm_sim.scenes import BuiltScene

WIDTH, HEIGHT = 320, 240
"""Size of the images [pixels]: that of a camera of 640 x 480 at perception's stride of 2."""
DEPTH_UNIT_M = 1e-4
"""Meters per unit of the stored depth, 16 bits: up to 6.5 m."""
IMAGES = 8
"""Images that are drawn from a clip by default."""
SIBLINGS = 2
"""Counterfactual siblings of a clip by default: the same world without one of its objects."""
CLIPS_PER_SHARD = 20
"""Clips of a file. With more, an interrupted run loses more work."""
STATE_RATE_HZ = 30.0
"""States a second of a clip [Hz]."""


def image_rows(rng: np.random.Generator, rows: int, images: int) -> NDArray[np.int64]:
    """Ascending rows of the clip that are drawn: one at random from each of as many equal parts."""
    edges = np.linspace(0, rows, images + 1).astype(int)
    return np.array([int(rng.integers(a, max(b, a + 1))) for a, b in itertools.pairwise(edges)], np.int64)


def draw_clip(scene: BuiltScene, clip: Clip, seed: int, split: Split, images: int) -> dict[str, NDArray[Any]]:
    """RGB, noisy depth, masks and camera of some instants of a clip.

    Returns:
        image_rows (F,), rgb (F, H, W, 3) uint8, depth (F, H, W) uint16 in units of 0.1 mm (0: nothing measured),
        mask (F, H, W) uint8 of true ids, world_T_camera (F, 4, 4), K (3, 3).
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), 7])
    rows = image_rows(rng, len(clip.times), images)
    measure = depth_sensor(scene, seed, split, WIDTH)
    rgbs, depths, masks, poses = [], [], [], []
    with open_simulator(scene, seed, WIDTH, HEIGHT) as simulator:
        for row in rows:
            pose = simulator.world_T_camera(float(clip.times[row]))
            rgb, depth, ids = simulator.look(clip.states[row], clip.present[row], pose)
            measured = measure(rgb, depth, ids, simulator.camera.fx, rng)
            rgbs.append(rgb)
            depths.append(np.clip(np.rint(measured / DEPTH_UNIT_M), 0, 65535).astype(np.uint16))
            masks.append(ids.astype(np.uint8))
            poses.append(pose)
        camera = simulator.camera
    matrix = np.array([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])
    return {
        "image_rows": rows,
        "rgb": np.stack(rgbs),
        "depth": np.stack(depths),
        "mask": np.stack(masks),
        "world_T_camera": np.stack(poses),
        "K": matrix,
    }


def _store(group: Any, arrays: dict[str, NDArray[Any]]) -> None:
    for name, value in arrays.items():
        picture = value.ndim >= 3 and name in ("rgb", "depth", "mask")
        group.create_dataset(
            name, data=value, **({"chunks": (1, *value.shape[1:]), "compression": "lzf"} if picture else {})
        )


def clip_arrays(clip: Clip) -> dict[str, NDArray[Any]]:
    """The trajectory as plain arrays."""
    touches = np.array([[t, a, b, began] for t, a, b, began in clip.touches], dtype=np.float64).reshape(-1, 4)
    return {
        "times": clip.times,
        "states": clip.states.astype(np.float32),
        "present": clip.present,
        "touches": touches,
        "scheduled": np.array(clip.scheduled, dtype=np.float64).reshape(-1, 2),
    }


def write_clip(group: Any, seed: int, split: Split, images: int, siblings: int) -> int:
    """One clip and its counterfactual siblings into an open HDF5 group; returns how many images."""
    scene = random_scene(seed, split)
    world = compile_world(scene)
    clip = simulate(scene, rate_hz=STATE_RATE_HZ, world=world, distances=False)
    if not clip.stable:
        group.attrs["unstable"] = True
        return 0
    group.attrs.update(seed=seed, split=split, table_top_m=scene.table_top_z, table_size_m=scene.extents[0])
    group.attrs["class_names"] = json.dumps(clip.class_names)
    group.attrs["names"] = json.dumps(scene.names)
    properties = np.stack([clip.log_mass, clip.friction, clip.restitution], axis=1)
    _store(
        group,
        {
            **clip_arrays(clip),
            "ids": clip.ids,
            "extents": clip.extents,
            "shapes": clip.shapes,
            "is_static": clip.is_static,
            "kinematic": clip.kinematic,
            "properties": properties,
        },
    )
    touched = [i for _, i in clip.scheduled] or clip.ids[1:].tolist()
    rng = np.random.default_rng([seed, SPLITS.index(split), 8])
    for k, gone in enumerate(rng.permutation(sorted(set(touched)))[:siblings]):
        sibling = simulate(scene, rate_hz=STATE_RATE_HZ, remove=[int(gone)], world=world, distances=False)
        child = group.create_group(f"siblings/{k}")
        child.attrs["intervention"] = json.dumps({"kind": "remove", "object": int(gone), "time_s": 0.0})
        _store(child, clip_arrays(sibling))
    if images:
        _store(group, draw_clip(scene, clip, seed, split, images))
    return images


def _write_shard(task: tuple[Path, Split, int, int, int, int]) -> tuple[str, int, int]:
    import h5py

    path, split, first, count, images, siblings = task
    part = path.with_suffix(".part")
    drawn = 0
    with h5py.File(part, "w") as file:
        file.attrs.update(split=split, first_seed=first, clips=count, depth_unit_m=DEPTH_UNIT_M, rate_hz=STATE_RATE_HZ)
        for seed in range(first, first + count):
            drawn += write_clip(file.create_group(f"{seed:06d}"), seed, split, images, siblings)
    part.rename(path)
    return path.name, count, drawn


def generate(
    folder: Path, split: Split, clips: int, images: int, siblings: int, workers: int, console: Console
) -> list[Path]:
    """Writes the shards that are missing; returns all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks, shards = [], []
    for first in range(0, clips, CLIPS_PER_SHARD):
        count = min(CLIPS_PER_SHARD, clips - first)
        path = folder / f"clips_{first // CLIPS_PER_SHARD:05d}.h5"
        shards.append(path)
        if not path.exists():
            tasks.append((path, split, first, count, images, siblings))
    if len(tasks) < len(shards):
        console.print(f"{folder}: {len(shards) - len(tasks)} of {len(shards)} shards are there already")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, multiprocessing.get_context("spawn").Pool(workers) as pool:
        bar = progress.add_task(f"{split}: clips", total=sum(t[3] for t in tasks))
        for _, count, _ in pool.imap_unordered(_write_shard, tasks):
            progress.advance(bar, count)
    return shards


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, default="train", help="default: %(default)s")
    parser.add_argument("--clips", type=int, default=1200, help=f"of {DURATION_S:g} s each (default: %(default)s)")
    parser.add_argument(
        "--images", type=int, default=IMAGES, help="drawn per clip; 0: states only (default: %(default)s)"
    )
    parser.add_argument(
        "--siblings", type=int, default=SIBLINGS, help="counterfactual siblings per clip (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/data"), help="folder; a folder per split (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.clips < 1 or arguments.images < 0 or arguments.workers < 1:
        parser.error("--clips and --workers must be at least 1, --images at least 0")
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = arguments.out / arguments.split
    shards = generate(
        folder, arguments.split, arguments.clips, arguments.images, arguments.siblings, arguments.workers, console
    )
    size = sum(p.stat().st_size for p in shards)
    console.print(f"{folder}: {len(shards)} shards, {arguments.clips} clips, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
