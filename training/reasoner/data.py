"""Training data of the reasoner: simulated worlds as states alone, with their true events and causes.

``python -m training.reasoner.data`` simulates (no images, about 0.3 s per world and counterfactual sibling) and writes
shards as NumPy archives without pickles. A shard is written to a temporary name and renamed when it is complete, so
that an interrupted run can be resumed. It depends on its seeds alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.reasoner.events import CausedGroundTruth, TrueEvent, caused_ground_truth, true_events
from training.worlds.simulate import Clip, compile_world, simulate
from training.worlds.splits import MEASURED_ONLY, SPLITS, Split
from training.worlds.worlds import random_scene
from wm_core.interventions import Intervention, InterventionKind
from wm_core.scene_graph import EventKind
from wm_dynamics.mujoco.world import World
from wm_sim.scenes import BuiltScene

SECONDS = 4.0
"""Length of a clip [s]. Longer clips have more events and need more time to simulate."""
RATE_HZ = 30.0
"""States a second of a clip [Hz]."""
CLIPS_PER_SHARD = 20
"""Clips of a file. With more, an interrupted run loses more work."""
MOST_SIBLINGS = 7
"""Counterfactual worlds that are simulated for one clip; more would know more causes and need more time."""
RAMP = 6
"""Steps in which a start by hand reaches its speed."""


@dataclass(frozen=True)
class LabeledClip:
    """A clip with its true events and their causes.

    Attributes:
        clip: states and touches; events: in time order; caused: of pairs of these events.
        table_height_m: height of the table's top.
    """

    clip: Clip
    events: tuple[TrueEvent, ...]
    caused: CausedGroundTruth
    table_height_m: float


def lively(scene: BuiltScene, seed: int) -> BuiltScene:
    """The world with one to four further objects set in motion, mostly toward others; depends on its seed."""
    rng = np.random.default_rng([seed, 17])
    objects = [k for k in range(1, len(scene.bodies)) if k not in scene.pushers]
    if len(objects) < 2:
        return scene
    schedule = list(scene.schedule)
    for _ in range(int(rng.integers(1, 5))):
        k = int(rng.choice(objects))
        other = int(rng.choice([o for o in objects if o != k]))
        if rng.uniform() < 0.7:
            away = np.linalg.norm(scene.states[objects, :2] - scene.states[k, :2], axis=1)
            other = objects[int(np.argsort(away)[min(1 + int(rng.integers(2)), len(objects) - 1)])]
        direction = scene.states[other, :2] - scene.states[k, :2]
        direction = direction / max(float(np.linalg.norm(direction)), 1e-6)
        speed = float(rng.uniform(0.3, 1.5))
        linear = np.array([*(direction * speed), 0.0])
        do = Intervention(
            InterventionKind.SET_VELOCITY,
            0,
            float(rng.uniform(0.5, 3.0)),
            linear_velocity=linear,
            angular_velocity=np.zeros(3),
        )
        schedule.append((k, do))
    return replace(scene, schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)))


def handled(scene: BuiltScene, seed: int) -> BuiltScene:
    """The world with 4 of 10 starts as by hand: the speed rises over 0.1 to 0.4 s, not at once."""
    rng = np.random.default_rng([seed, 19])
    schedule: list[tuple[int, Intervention]] = []
    for k, do in scene.schedule:
        if do.kind != InterventionKind.SET_VELOCITY or rng.uniform() > 0.4:
            schedule.append((k, do))
            continue
        rises = float(rng.uniform(0.1, 0.4))
        for part in np.arange(1, RAMP + 1) / RAMP:
            linear, angular = part * do.linear_velocity, part * do.angular_velocity
            later = do.time_offset + rises * float(part - 1 / RAMP)
            schedule.append((k, replace(do, time_offset=later, linear_velocity=linear, angular_velocity=angular)))
    return replace(scene, schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)))


def counterfactuals(scene: BuiltScene, world: World, seconds: float, rate_hz: float, most: int = MOST_SIBLINGS) -> Any:
    """A function of a true id: the events of the world without it; None where it diverged, or after ``most`` worlds."""
    simulated = 0

    def sibling(who: int) -> tuple[TrueEvent, ...] | None:
        nonlocal simulated
        simulated += 1
        if simulated > most:
            return None
        clip = simulate(scene, seconds, rate_hz, remove=[who], world=world)
        return true_events(clip) if clip.stable else None

    return sibling


def make_labeled_clip(seed: int, split: Split, more: bool) -> LabeledClip | None:
    """Simulate the world of a seed; None where the physics diverged."""
    scene = random_scene(seed, split)
    if more:
        scene = handled(lively(scene, seed), seed)
    world = compile_world(scene)
    clip = simulate(scene, SECONDS, RATE_HZ, world=world)
    if not clip.stable:
        return None
    events = true_events(clip)
    caused = caused_ground_truth(events, counterfactuals(scene, world, SECONDS, RATE_HZ))
    return LabeledClip(clip, events, caused, scene.table_top_z)


def pack(labeled: LabeledClip) -> dict[str, NDArray[Any]]:
    """A labeled clip as arrays by name."""
    clip = labeled.clip
    sizes = [len(h) for h in clip.hulls]
    events = np.array([(int(e.kind), e.a, e.b, e.time, e.mover) for e in labeled.events], dtype=np.float64)
    pairs = np.array(
        [(*p, c) for p, c in zip(labeled.caused.pairs, labeled.caused.caused, strict=True)], dtype=np.int64
    )
    touches = np.array([(t, a, b, s) for t, a, b, s in clip.touches], dtype=np.float64)
    return {
        "times": clip.times,
        "ids": clip.ids,
        "states": clip.states.astype(np.float32),
        "present": clip.present,
        "touches": touches.reshape(-1, 4),
        "extents": clip.extents,
        "shapes": clip.shapes,
        "hulls": np.concatenate(clip.hulls).astype(np.float32),
        "hull_sizes": np.array(sizes),
        "is_static": clip.is_static,
        "kinematic": clip.kinematic,
        "properties": np.stack([clip.log_mass, clip.friction, clip.restitution]),
        "scheduled": np.array(clip.scheduled, dtype=np.float64).reshape(-1, 2),
        "class_names": np.array(clip.class_names),
        "events": events.reshape(-1, 5),
        "caused": pairs.reshape(-1, 3),
        "table_height_m": np.array(labeled.table_height_m),
    }


def unpack(a: dict[str, NDArray[Any]]) -> LabeledClip:
    """The labeled clip of such arrays."""
    ends = np.cumsum(a["hull_sizes"])
    hulls = tuple(np.asarray(h, dtype=np.float64) for h in np.split(a["hulls"], ends[:-1]))
    clip = Clip(
        times=a["times"],
        ids=a["ids"],
        class_names=tuple(str(c) for c in a["class_names"]),
        states=a["states"].astype(np.float64),
        present=a["present"],
        touches=tuple((float(t), int(i), int(j), bool(s)) for t, i, j, s in a["touches"]),
        extents=a["extents"],
        shapes=a["shapes"],
        hulls=hulls,
        is_static=a["is_static"],
        log_mass=a["properties"][0],
        friction=a["properties"][1],
        restitution=a["properties"][2],
        kinematic=a["kinematic"],
        scheduled=tuple((float(t), int(i)) for t, i in a["scheduled"]),
        stable=True,
    )
    events = tuple(TrueEvent(EventKind(int(k)), int(i), int(j), float(t), int(m)) for k, i, j, t, m in a["events"])
    caused = CausedGroundTruth(
        tuple((int(i), int(j)) for i, j, _ in a["caused"]), tuple(bool(c) for _, _, c in a["caused"])
    )
    return LabeledClip(clip, events, caused, float(a["table_height_m"]))


def _write_shard(task: tuple[Path, Split, int, int]) -> int:
    path, split, first, count = task
    arrays: dict[str, NDArray[Any]] = {}
    for seed in range(first, first + count):
        # Three of four worlds get further motion, because little happens in most random ones.
        labeled = make_labeled_clip(seed, split, more=seed % 4 != 0)
        if labeled is not None:
            arrays |= {f"{seed:06d}/{name}": value for name, value in pack(labeled).items()}
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    part.rename(path)
    return count


def read_shard(path: Path) -> list[LabeledClip]:
    """All labeled clips of a shard, by seed."""
    by_seed: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(path) as file:
        for name in file.files:
            seed, key = name.split("/")
            by_seed.setdefault(seed, {})[key] = file[name]
    return [unpack(by_seed[seed]) for seed in sorted(by_seed)]


def make_shards(
    folder: Path, split: Split, clips: int, workers: int, console: Console, first_seed: int = 0
) -> list[Path]:
    """Writes the shards that are missing; returns all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks, shards = [], []
    for first in range(first_seed, first_seed + clips, CLIPS_PER_SHARD):
        path = folder / f"lessons_{first:06d}.npz"
        shards.append(path)
        if not path.exists():
            tasks.append((path, split, first, min(CLIPS_PER_SHARD, first_seed + clips - first)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, multiprocessing.get_context("spawn").Pool(workers) as pool:
        bar = progress.add_task(f"{split}: worlds", total=sum(t[3] for t in tasks))
        for count in pool.imap_unordered(_write_shard, tasks):
            progress.advance(bar, count)
    return shards


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--split", choices=[s for s in SPLITS if s not in MEASURED_ONLY], default="train", help="default: %(default)s"
    )
    parser.add_argument("--clips", type=int, default=1000, help=f"of {SECONDS:g} s each (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/data/reasoner"), help="default: %(default)s")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = arguments.out / arguments.split
    make_shards(folder, arguments.split, arguments.clips, arguments.workers, console, arguments.first_seed)


if __name__ == "__main__":
    main()
