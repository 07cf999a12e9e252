"""Training data of the dynamics: simulated clips with many events, as the network's own tables.

Worlds are those of ``training.worlds.worlds`` with further interventions: objects slide, are knocked over, dropped,
thrown, removed, and pushed by a kinematic block. A clip holds true states (MuJoCo, with every part of a compound
object) and what a robot would know of the bodies (one primitive or one convex hull, mass, friction, restitution).

    python -m training.dynamics.data --clips 2000      # out/data/dynamics/train-*.h5, resumable
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.spatial.transform import Rotation

from training.worlds.motions import sweeping_pusher
from training.worlds.simulate import simulate
from training.worlds.splits import MEASURED_ONLY, SPLITS, Split
from training.worlds.worlds import random_scene
from wm_core.interventions import Intervention, InterventionKind
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Shape
from wm_dynamics.contact_step.body_tables import (
    HULL_POINTS,
    PARAMETER_ROWS,
    STEP_S,
    VERSION,
    BodyShape,
    body_shape,
    parameter_column,
    surface_rows,
)
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, rest_state
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parents[2] / "out" / "data" / "dynamics"
SECONDS = 2.6
"""Length of a clip [s]: the last intervention is at 2.0 s."""
SHARD = 100
"""Clips of one file."""
SEED_OFFSET = 500_000
"""Clips draw worlds from here on, apart from those of the other models' data."""


@dataclass(frozen=True)
class DynamicsClip:
    """A clip of N bodies (static ones first row or rows) at T steps of ``STEP_S``.

    Attributes:
        states: (T, N, 13) float32 in dynamics frames (origin at the center of mass as a robot would compute it).
        present: (T, N) whether a body is in the world.
        parameters: (N, PARAMETER_ROWS); bounds: (N,) radii about the centers of mass [m].
        hulls: (N, 3, HULL_POINTS) from the center of mass [m]; has_hull: (N,) whether it is a movable convex hull.
        surfaces: (S, PLANE_ROWS) tops of static bodies; floor_z: height of the floor [m].
        kinematic: (N,) whether a body follows a path; is_static: (N,).
        disturbed: (T,) True where an intervention began since the step before.
    """

    states: NDArray[np.float32]
    present: NDArray[np.bool_]
    parameters: NDArray[np.float32]
    bounds: NDArray[np.float32]
    hulls: NDArray[np.float32]
    has_hull: NDArray[np.bool_]
    surfaces: NDArray[np.float32]
    floor_z: float
    kinematic: NDArray[np.bool_]
    is_static: NDArray[np.bool_]
    disturbed: NDArray[np.bool_]


def known_body(scene: BuiltScene, row: int) -> BodyDef:
    """An object as a scene graph describes it: one primitive, or one hull."""
    body, shape = scene.bodies[row], Shape(int(scene.shapes[row]))
    if body.is_static:
        return body
    part = GeomDef(shape, np.asarray(scene.extents[row], float), hull=np.asarray(scene.hulls[row], float))
    return replace(body, geoms=(part,))


def eventful_scene(seed: int, split: Split = "train") -> BuiltScene:
    """The world of a seed with a schedule in which objects slide, topple, drop, fly, vanish and are pushed."""
    base = random_scene(seed, split)
    rng = np.random.default_rng([seed, 77])
    rows = [i for i, b in enumerate(base.bodies) if not b.is_static and i not in base.pushers]
    schedule: list[tuple[int, Intervention]] = [(i, do) for i, do in base.schedule if i in base.pushers]
    top = base.table_top_z
    for _ in range(int(rng.integers(2, 7)) if rows else 0):
        row, time = int(rng.choice(rows)), float(rng.uniform(0.03, 2.0))
        here = base.states[row]
        others = [k for k in rows if k != row]
        direction = rng.normal(size=2)
        if others and rng.uniform() < 0.8:
            distance = np.linalg.norm(base.states[others, :2] - here[:2], axis=1)
            near = np.array(others)[np.argsort(distance)[:3]]
            direction = base.states[int(rng.choice(near)), :2] - here[:2] + rng.normal(0.0, 0.015, 2)
        direction = direction / max(float(np.linalg.norm(direction)), 1e-6)
        kind, mass = rng.uniform(), base.bodies[row].mass
        height = float(base.extents[row][2])
        if kind < 0.40:
            speed = float(rng.uniform(0.1, 1.5))
            spin = np.array([0.0, 0.0, rng.normal(0.0, 3.0) * (rng.uniform() < 0.4)])
            if Shape(int(base.shapes[row])) == Shape.SPHERE and rng.uniform() < 0.8:
                spin = np.cross([0.0, 0.0, 1.0], [*direction, 0.0]) * speed / (0.5 * height)
            do = Intervention(
                InterventionKind.SET_VELOCITY, 0, time, linear_velocity=np.array([*(direction * speed), 0.0]),
                angular_velocity=spin,
            )  # fmt: skip
        elif kind < 0.65:
            impulse = np.array([*direction, 0.0]) * mass * rng.uniform(0.2, 1.2)
            point = np.array([0.0, 0.0, rng.uniform(0.0, 0.45) * height])
            do = Intervention(InterventionKind.APPLY_IMPULSE, 0, time, impulse=impulse, point=point)
        elif kind < 0.85:
            place = np.array([*(here[:2] + rng.normal(0.0, 0.06, 2)), here[2] + rng.uniform(0.01, 0.3)])
            tilt = Rotation.from_rotvec(rng.normal(0.0, 0.4, 3) * (rng.uniform() < 0.7))
            do = Intervention(
                InterventionKind.SET_POSE, 0, time, position=place,
                quaternion=(tilt * Rotation.from_quat(here[3:7])).as_quat(),
            )  # fmt: skip
        elif kind < 0.95:
            linear = np.array([*(direction * rng.uniform(0.2, 1.2)), rng.uniform(0.3, 1.5)])
            do = Intervention(
                InterventionKind.SET_VELOCITY, 0, time, linear_velocity=linear, angular_velocity=rng.normal(0.0, 4.0, 3)
            )
        else:
            do = Intervention(InterventionKind.REMOVE, 0, time)
        schedule.append((row, do))
    result = base
    if not base.pushers and rows and rng.uniform() < 0.35:
        body, path = sweeping_pusher(base.states[: len(base.bodies)], top, rng)
        index = len(base.bodies)
        schedule.append((index, path))
        result = replace(
            base,
            names=(*base.names, "pusher"),
            class_names=(*base.class_names, "object"),
            bodies=(*base.bodies, body),
            states=np.concatenate([base.states, rest_state(path.path_positions[0], path.path_quaternions[0])[None]]),
            pushers=(index,),
            extents=np.concatenate([base.extents, body.geoms[0].extents[None]]),
            shapes=(*base.shapes, Shape.BOX),
            hulls=(*base.hulls, np.zeros((0, 3))),
            colors=np.concatenate([base.colors, np.ones((1, 3))]),
            ids=(*base.ids, max(base.ids) + 1),
        )
    return replace(result, schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)))


def to_dynamics_frame(states: Array, offsets: Array) -> NDArray[np.float32]:
    """States (..., N, 13) of body frames as those of frames at the centers of mass, offsets (N, 3) in body frames
    [m].
    """
    result = np.array(states, dtype=np.float64)
    arm = np.einsum("...nij,nj->...ni", quaternion_to_matrix(states[..., 3:7]), offsets)
    result[..., 0:3] += arm
    result[..., 7:10] += np.cross(states[..., 10:13], arm)
    return result.astype(np.float32)


def make_clip(seed: int, split: Split = "train") -> DynamicsClip | None:
    """The clip of a seed; None where physics diverged or nothing can move."""
    scene = eventful_scene(seed, split)
    clip = simulate(scene, SECONDS, 1.0 / STEP_S)
    if not clip.stable or clip.is_static.all():
        return None
    bodies = [known_body(scene, i) for i in range(len(scene.bodies))]
    shapes: list[BodyShape] = [body_shape(b) for b in bodies]
    offsets = np.stack([np.zeros(3) if b.is_static else s.offset for b, s in zip(bodies, shapes, strict=True)])
    hulls = np.zeros((len(bodies), 3, HULL_POINTS), np.float32)
    for i, shape in enumerate(shapes):
        if shape.hull is not None and not bodies[i].is_static:
            hulls[i] = shape.hull
    steps = len(clip.times)
    disturbed = np.zeros(steps, dtype=bool)
    for _, do in scene.schedule:
        if do.kind == InterventionKind.FOLLOW_PATH and do.time_offset <= 0.0:
            continue
        disturbed[np.clip(np.arange(2) + int(np.floor(do.time_offset / STEP_S)), 0, steps - 1)] = True
    surfaces = [s for s in (surface_rows(b) for b in bodies) if s is not None]
    return DynamicsClip(
        states=to_dynamics_frame(clip.states, offsets),
        present=clip.present,
        parameters=np.stack(
            [parameter_column(b, s, bool(k)) for b, s, k in zip(bodies, shapes, clip.kinematic, strict=True)]
        ).reshape(len(bodies), PARAMETER_ROWS),
        bounds=np.array([s.bound for s in shapes], np.float32),
        hulls=hulls,
        has_hull=np.array([s.hull is not None and not b.is_static for s, b in zip(shapes, bodies, strict=True)]),
        surfaces=np.stack(surfaces) if surfaces else np.zeros((0, 7), np.float32),
        floor_z=0.0,
        kinematic=clip.kinematic,
        is_static=clip.is_static,
        disturbed=disturbed,
    )


_ARRAYS = ("states", "present", "parameters", "bounds", "hulls", "has_hull", "surfaces", "kinematic", "is_static",
           "disturbed")  # fmt: skip


def _write_shard(path: Path, split: Split, begin: int, count: int) -> int:
    temporary = path.with_suffix(".part")
    written = 0
    with h5py.File(temporary, "w") as file:
        for seed in range(begin, begin + count):
            clip = make_clip(seed, split)
            if clip is None:
                continue
            group = file.create_group(str(seed))
            for name in _ARRAYS:
                group.create_dataset(name, data=getattr(clip, name))
            group.attrs["floor_z"] = clip.floor_z
            written += 1
    os.replace(temporary, path)
    return written


def generate(clips: int, folder: Path = FOLDER, split: Split = "train", workers: int = 2) -> list[Path]:
    """Write the shards of the first ``clips`` worlds that are not there yet; returns all of them, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [
        (folder / f"{split}-v{VERSION}-{SEED_OFFSET + begin}.h5", SEED_OFFSET + begin, min(SHARD, clips - begin))
        for begin in range(0, clips, SHARD)
    ]
    missing = [s for s in shards if not s[0].is_file()]
    if missing:
        with ProcessPoolExecutor(workers) as pool, Progress() as progress:
            task = progress.add_task("simulate", total=len(missing))
            for done in as_completed([pool.submit(_write_shard, s[0], split, s[1], s[2]) for s in missing]):
                done.result()
                progress.advance(task)
    return [s[0] for s in shards]


def load(paths: list[Path]) -> list[DynamicsClip]:
    """All clips of shards."""
    clips = []
    for path in paths:
        with h5py.File(path) as file:
            for key in sorted(file, key=int):
                group = file[key]
                clips.append(DynamicsClip(floor_z=float(group.attrs["floor_z"]), **{n: group[n][()] for n in _ARRAYS}))
    return clips


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000, help="worlds to simulate (default %(default)s)")
    trained = [s for s in SPLITS if s not in MEASURED_ONLY]
    parser.add_argument("--split", choices=trained, default="train", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")
    arguments = parser.parse_args()
    for path in generate(arguments.clips, split=arguments.split, workers=arguments.workers):
        print(path)


if __name__ == "__main__":
    main()
