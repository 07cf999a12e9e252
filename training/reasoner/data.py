"""What the reasoner is trained on: many simulated worlds as states alone, with their true events and what caused them.

``python -m training.reasoner.data`` simulates (no pictures, about 0.3 s per world and counterfactual sibling) and
writes shards of pickled-free NumPy archives that are read whole. A shard is written beside its place and moved there
when it is whole, so that a run that was cut off goes on, and depends on its seeds alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.spatial.transform import Rotation

from training.reasoner.events import CausedTruth, TrueEvent, caused_truth, true_events
from training.worlds.simulate import Clip, compile_world, simulate
from training.worlds.worlds import SPLITS, Split, random_scene
from wm_core.interventions import Intervention, InterventionKind
from wm_core.rollout import LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.scene_graph import EventKind, Shape
from wm_dynamics.mujoco.world import World
from wm_perception.reasoning.causes import ObservedEvent, cause_row
from wm_perception.reasoning.evidence import contact_row, log_mass_prior, shape_row, step_row
from wm_perception.reasoning.features import (
    CAUSE_FEATURES,
    CONTACT_FEATURES,
    CONTACT_LAG,
    EFFECTS,
    OBJECT_EVENTS,
    PAIR_EVENTS,
    SHAPE_FEATURES,
    STEP_FEATURES,
    STEP_LAG,
    STEP_S,
    VERSION,
)
from wm_perception.reasoning.history import MotionHistory
from wm_perception.reasoning.steps import Step
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]

SECONDS = 4.0
RATE_HZ = 30.0
CLIPS_PER_SHARD = 20
MOST_SIBLINGS = 7
RAMP = 6
"""Steps in which a handled thing comes to its speed."""


@dataclass(frozen=True)
class Lesson:
    """A clip with what happened in it and what caused what."""

    clip: Clip
    events: tuple[TrueEvent, ...]
    caused: CausedTruth
    table_height_m: float


def lively(scene: BuiltScene, seed: int) -> BuiltScene:
    """The world with more to see: further things are set in motion towards others, from its seed."""
    rng = np.random.default_rng([seed, 17])
    things = [k for k in range(1, len(scene.bodies)) if k not in scene.pushers]
    if len(things) < 2:
        return scene
    schedule = list(scene.schedule)
    for _ in range(int(rng.integers(1, 5))):
        k = int(rng.choice(things))
        other = int(rng.choice([o for o in things if o != k]))
        if rng.uniform() < 0.7:
            away = np.linalg.norm(scene.states[things, :2] - scene.states[k, :2], axis=1)
            other = things[int(np.argsort(away)[min(1 + int(rng.integers(2)), len(things) - 1)])]
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
    """The world with some starts as a hand makes them: speed rises over a fifth of a second, not at once."""
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
    """A function of a true id: the events of the world without it; None where it diverged or too many were asked."""
    asked = 0

    def sibling(who: int) -> tuple[TrueEvent, ...] | None:
        nonlocal asked
        asked += 1
        if asked > most:
            return None
        clip = simulate(scene, seconds, rate_hz, remove=[who], world=world)
        return true_events(clip) if clip.stable else None

    return sibling


def make_lesson(seed: int, split: Split, more: bool) -> Lesson | None:
    """Simulate the world of a seed; None where the physics diverged."""
    scene = random_scene(seed, split)
    if more:
        scene = handled(lively(scene, seed), seed)
    world = compile_world(scene)
    clip = simulate(scene, SECONDS, RATE_HZ, world=world)
    if not clip.stable:
        return None
    events = true_events(clip)
    caused = caused_truth(events, counterfactuals(scene, world, SECONDS, RATE_HZ))
    return Lesson(clip, events, caused, scene.table_top_z)


def pack(lesson: Lesson) -> dict[str, NDArray[Any]]:
    """A lesson as arrays by name."""
    clip = lesson.clip
    sizes = [len(h) for h in clip.hulls]
    events = np.array([(int(e.kind), e.a, e.b, e.time, e.mover) for e in lesson.events], dtype=np.float64)
    pairs = np.array([(*p, c) for p, c in zip(lesson.caused.pairs, lesson.caused.caused, strict=True)], dtype=np.int64)
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
        "table_height_m": np.array(lesson.table_height_m),
    }


def unpack(a: dict[str, NDArray[Any]]) -> Lesson:
    """The lesson of such arrays."""
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
    caused = CausedTruth(tuple((int(i), int(j)) for i, j, _ in a["caused"]), tuple(bool(c) for _, _, c in a["caused"]))
    return Lesson(clip, events, caused, float(a["table_height_m"]))


def _write_shard(task: tuple[Path, Split, int, int]) -> int:
    path, split, first, count = task
    arrays: dict[str, NDArray[Any]] = {}
    for seed in range(first, first + count):
        # Three of four worlds are livelier than a random one: else little happens in most.
        lesson = make_lesson(seed, split, more=seed % 4 != 0)
        if lesson is not None:
            arrays |= {f"{seed:06d}/{name}": value for name, value in pack(lesson).items()}
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    part.rename(path)
    return count


def read_shard(path: Path) -> list[Lesson]:
    """All lessons of a shard, by seed."""
    by_seed: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(path) as file:
        for name in file.files:
            seed, key = name.split("/")
            by_seed.setdefault(seed, {})[key] = file[name]
    return [unpack(by_seed[seed]) for seed in sorted(by_seed)]


# From a true clip to what perception makes of it.


def perceive(lesson: Lesson, rng: np.random.Generator) -> list[Step]:
    """The movable things of a clip at 15 Hz as a tracker would give them, with the true ids.

    What is at rest is held still, a few mm off, until it is 6 mm away; what moves is measured anew in each frame;
    hidden things go on and slow down; sizes are a few per cent wrong, shapes are mistaken, some things are found late.
    """
    clip = lesson.clip
    rows = np.arange(int(rng.integers(2)), len(clip.times), 2)
    times = clip.times[rows]
    things = np.flatnonzero(~clip.is_static)
    noise = 0.002 * float(np.exp(rng.normal(0.0, 0.4)))
    table = clip.states[0, 0, :2], 0.5 * clip.extents[0, :2]
    tracks = {int(k): _track(lesson, int(k), rows, noise, rng) for k in things}
    steps = []
    for n, time in enumerate(times):
        here = [k for k in things if tracks[k][0][n]]
        positions = np.array([tracks[k][1][n] for k in here]).reshape(-1, 3)
        over = (np.abs(positions[:, :2] - table[0]) < table[1] + 0.02).all(axis=1)
        over &= positions[:, 2] > lesson.table_height_m - 0.03
        steps.append(
            Step(
                time=float(time),
                ids=clip.ids[here],
                positions=positions,
                quaternions=np.array([tracks[k][2][n] for k in here]).reshape(-1, 4),
                velocities=np.array([tracks[k][3][n] for k in here]).reshape(-1, 3),
                extents=np.array([tracks[k][4] for k in here]).reshape(-1, 3),
                shapes=np.array([tracks[k][5] for k in here], dtype=np.int64),
                hulls=tuple(tracks[k][6] for k in here),
                visibilities=np.array([tracks[k][7][n] for k in here]),
                floors=np.where(over, lesson.table_height_m, -np.inf),
            )
        )
    return steps


def _mistaken(clip: Clip, k: int, rng: np.random.Generator) -> tuple[Array, int, Array]:
    extents = clip.extents[k] * (1.0 + rng.normal(0.0, 0.04, 3)) + rng.normal(0.0, 0.002, 3)
    extents = np.maximum(extents, 0.008)
    shape, hull = int(clip.shapes[k]), clip.hulls[k]
    if shape == Shape.CONVEX and rng.uniform() < 0.5:
        round_one = abs(extents[0] - extents[1]) < 0.15 * extents[0]
        shape, hull = int(Shape.CYLINDER if round_one and rng.uniform() < 0.8 else Shape.BOX), np.zeros((0, 3))
    elif shape == Shape.CONVEX:
        hull = hull * (extents / clip.extents[k])
    elif rng.uniform() < 0.06:
        shape = int(Shape.BOX if shape != Shape.BOX else Shape.CYLINDER)
    if shape == Shape.SPHERE:
        extents = np.full(3, extents.mean())
    return extents, shape, hull


def _track(lesson: Lesson, k: int, rows: NDArray[np.int64], noise: float, rng: np.random.Generator) -> Any:
    """Whether known (T,), positions, quaternions, velocities, extents, shape, hull, visibilities (T,)."""
    clip = lesson.clip
    count = len(rows)
    extents, shape, hull = _mistaken(clip, k, rng)
    offset = rng.normal(0.0, 0.0025, 3)
    offset[2] = rng.normal(0.0, 0.0015) + 0.5 * (extents[2] - clip.extents[k, 2]) * 0.5
    turn = Rotation.from_rotvec(rng.normal(0.0, 0.02, 3))
    known = clip.present[rows, k].copy()
    first = int(rng.integers(15, 30)) if rng.uniform() < 0.1 else int(rng.integers(0, 4))
    known[: int(np.argmax(known)) + first] = False
    visibility = np.clip(rng.uniform(0.5, 1.3) + rng.normal(0.0, 0.03, count), 0.05, 1.0)
    if rng.uniform() < 0.2:
        begin = int(rng.integers(0, count))
        visibility[begin : begin + int(rng.integers(2, 20))] = 0.0
    # Who leaves the view below the table is soon forgotten.
    below = np.flatnonzero(clip.states[rows, k, 2] < lesson.table_height_m - 0.25)
    if len(below):
        known[below[0] + int(rng.integers(0, 4)) :] = False
    truth = clip.states[rows, k]
    measured = truth[:, POSITION] + offset
    wander = np.zeros(3)
    positions, quaternions, velocities = measured.copy(), truth[:, QUATERNION].copy(), np.zeros((count, 3))
    resting, still, last, held, turned = True, 0, measured[0], measured[0], truth[0, QUATERNION]
    velocity = np.zeros(3)
    for n in range(count):
        wander = 0.6 * wander + rng.normal(0.0, 0.8 * noise, 3)
        seen = measured[n] + wander
        if n == 0 or not known[n]:
            held, last, resting = seen, seen, True
            turned = (turn * Rotation.from_quat(truth[n, QUATERNION])).as_quat()
            positions[n], quaternions[n] = seen, turned
            continue
        if visibility[n] == 0.0:
            velocity = velocity * 0.87
            if np.linalg.norm(velocity) < 0.15:
                velocity = np.zeros(3)
            last = last + velocity * STEP_S
            positions[n], velocities[n], quaternions[n] = last, velocity, turned
            held = last
            continue
        away = float(np.linalg.norm(seen - held))
        if resting and away > 0.006 + 2.0 * noise:
            resting = False
        if resting:
            velocity = np.zeros(3)
            last = held
        else:
            turned = Rotation.from_rotvec(rng.normal(0.0, 0.03, 3)) * turn * Rotation.from_quat(truth[n, QUATERNION])
            turned = turned.as_quat()
            velocity = 0.15 * velocity + 0.85 * (seen - last) / STEP_S
            last = seen
            still = still + 1 if np.linalg.norm(truth[n, LINEAR_VELOCITY]) < 0.035 else 0
            if still >= 4:
                resting, still = True, 0
                held = positions[max(n - 3, 0) : n].mean(axis=0)
                last = held
        positions[n], quaternions[n] = last, turned
        velocities[n] = velocity if np.linalg.norm(velocity) > 0.03 else 0.0
    return known, positions, quaternions, velocities, extents, shape, hull, visibility


@dataclass(frozen=True)
class Example:
    """What one clip teaches; N things, T steps, in the order of ``ids``.

    Attributes:
        objects (N, T, Fo), pairs (N, N, T, Fp): features; here (N, T).
        pair_events (N, N, T, 2), object_events (N, T, 4): 1 at the step in which it happened; touching (N, N, T).
        shapes (N, Fs); properties (N, 3): log mass less that of the volume, friction, restitution; free (N,): not
            carried along a path from outside.
        contact_rows (C, Fc), contact_of (C,); step_rows (M, Fm), step_of (M,): evidence and the index of its thing.
        cause_rows (Q, Fq), caused (Q,).
    """

    objects: NDArray[np.float16]
    pairs: NDArray[np.float16]
    here: NDArray[np.bool_]
    pair_events: NDArray[np.bool_]
    object_events: NDArray[np.bool_]
    touching: NDArray[np.bool_]
    shapes: NDArray[np.float32]
    properties: NDArray[np.float32]
    free: NDArray[np.bool_]
    contact_rows: NDArray[np.float32]
    contact_of: NDArray[np.int64]
    step_rows: NDArray[np.float32]
    step_of: NDArray[np.int64]
    cause_rows: NDArray[np.float32]
    caused: NDArray[np.bool_]


def make_example(
    lesson: Lesson,
    rng: np.random.Generator,
    steps: Sequence[Step] | None = None,
    names: Sequence[Mapping[int, int]] = (),
) -> Example:
    """What is to be said of a clip, beside what is perceived of it.

    Args:
        steps: what was perceived, at 15 Hz; None: it is imitated.
        names: per step {perceived id: true id}; not needed where it is imitated. What has no true id is a phantom, of
            which nothing is to be said; of things that are perceived only later, too.
    """
    clip = lesson.clip
    if steps is None:
        steps = perceive(lesson, rng)
        names = [{int(i): int(i) for i in step.ids} for step in steps]
    count = len(steps)
    history = MotionHistory(count)
    for step in steps:
        history.push(step)
    ids = sorted(history.slot)
    slots = [history.slot[i] for i in ids]
    where = {i: n for n, i in enumerate(ids)}
    n = len(ids)
    start = steps[0].time
    known = [{true: where[i] for i, true in mapping.items() if i in where} for mapping in names]

    def step_at(time: float) -> int:
        # A step holds what happened since the one before.
        return int(np.ceil((time - start) / STEP_S - 1e-6))

    def found(who: Sequence[int], k: int) -> list[int] | None:
        """Rows under which true things are perceived at a step, or near it."""
        rows = [
            next((known[j][w] for j in (k, k - 1, k + 1, k - 2, k + 2) if 0 <= j < count and w in known[j]), None)
            for w in who
        ]
        return None if None in rows or len(set(rows)) < len(rows) else [r for r in rows if r is not None]

    pair_events = np.zeros((n, n, count, len(PAIR_EVENTS)), dtype=bool)
    object_events = np.zeros((n, count, len(OBJECT_EVENTS)), dtype=bool)
    touching = np.zeros((n, n, count), dtype=bool)
    open_contacts: dict[tuple[int, int], int] = {}

    def touch(pair: tuple[int, int], begin: int, end: int) -> None:
        for k in range(max(begin, 0), min(end, count)):
            if pair[0] in known[k] and pair[1] in known[k]:
                a, b = known[k][pair[0]], known[k][pair[1]]
                touching[a, b, k] = touching[b, a, k] = True

    for e in lesson.events:
        k = step_at(e.time)
        if not 0 <= k < count:
            continue
        if e.kind in PAIR_EVENTS:
            if e.kind == EventKind.CONTACT:
                open_contacts[e.a, e.b] = k
            else:
                touch((e.a, e.b), open_contacts.pop((e.a, e.b), 0), k)
        rows = found(e.who, k)
        if rows is None:
            continue
        if e.kind in PAIR_EVENTS:
            a, b = rows
            pair_events[a, b, k, PAIR_EVENTS.index(e.kind)] = pair_events[b, a, k, PAIR_EVENTS.index(e.kind)] = True
        elif e.kind in OBJECT_EVENTS:
            object_events[rows[0], k, OBJECT_EVENTS.index(e.kind)] = True
    for pair, begin in open_contacts.items():
        touch(pair, begin, count)
    contact_rows, contact_of, step_rows, step_of = [], [], [], []
    for e in lesson.events:
        k = step_at(e.time)
        if e.kind != EventKind.CONTACT or not 2 <= k < count - CONTACT_LAG:
            continue
        both = found(e.who, k)
        k += int(rng.choice([0, 0, 0, 0, 1, -1]))
        for own, other in (both, both[::-1]) if both else ():
            row = contact_row(history, ids[own], ids[other], k)
            if row is not None:
                contact_rows.append(row)
                contact_of.append(own)
    for i in ids:
        for k in range(2, count - STEP_LAG):
            row = step_row(history, i, k)
            if row is not None:
                step_rows.append(row)
                step_of.append(where[i])
    happenings, kept = [], []
    for index, e in enumerate(lesson.events):
        k = step_at(e.time)
        rows = found(e.who, k)
        if e.kind not in EFFECTS or rows is None or rng.uniform() < 0.05:
            continue
        motion = tuple(history.motion_at(ids[r], k) for r in rows)
        happenings.append(ObservedEvent(e.kind, e.who, e.time + float(rng.normal(0.0, 0.015)), motion))
        kept.append(index)
    new = {index: n for n, index in enumerate(kept)}
    cause_rows, caused = [], []
    for (i, j), answer in zip(lesson.caused.pairs, lesson.caused.caused, strict=True):
        if i in new and j in new:
            cause_rows.append(cause_row(happenings, new[i], new[j]))
            caused.append(answer)
    # The true thing that each stood for most; the table (row 0) for phantoms, of which no properties are asked.
    body = {int(i): k for k, i in enumerate(clip.ids)}
    meant: list[list[int]] = [[] for _ in ids]
    for mapping in known:
        for true, row_of in mapping.items():
            meant[row_of].append(body[true])
    rows_of = np.array([max(sorted(set(m)), key=m.count) if m else 0 for m in meant], dtype=int)
    real = np.array([bool(m) for m in meant], dtype=bool)
    prior = np.array([log_mass_prior(*history.shape[i]) for i in ids])
    return Example(
        objects=history.objects[:count][:, slots].transpose(1, 0, 2).astype(np.float16),
        pairs=history.pairs[:count][:, slots][:, :, slots].transpose(1, 2, 0, 3).astype(np.float16),
        here=history.here[:count][:, slots].T.copy(),
        pair_events=pair_events,
        object_events=object_events,
        touching=touching,
        shapes=np.array([shape_row(*history.shape[i]) for i in ids], np.float32).reshape(n, len(SHAPE_FEATURES)),
        properties=np.stack(
            [clip.log_mass[rows_of] - prior, clip.friction[rows_of], clip.restitution[rows_of]], 1
        ).astype(np.float32),
        free=real & ~clip.kinematic[rows_of],
        contact_rows=np.array(contact_rows, np.float32).reshape(-1, len(CONTACT_FEATURES)),
        contact_of=np.array(contact_of, np.int64),
        step_rows=np.array(step_rows, np.float32).reshape(-1, len(STEP_FEATURES)),
        step_of=np.array(step_of, np.int64),
        cause_rows=np.array(cause_rows, np.float32).reshape(-1, len(CAUSE_FEATURES)),
        caused=np.array(caused, dtype=bool),
    )


def _examples_of(task: tuple[Path, Path, int]) -> int:
    path, target, views = task
    arrays: dict[str, NDArray[Any]] = {}
    n = 0
    for index, lesson in enumerate(read_shard(path)):
        for view in range(views):
            rng = np.random.default_rng([int("".join(c for c in path.stem if c.isdigit())), index, view])
            example = make_example(lesson, rng)
            if len(example.here):
                arrays |= {f"{n:03d}/{f.name}": getattr(example, f.name) for f in fields(example)}
                n += 1
    part = target.with_suffix(".part.npz")
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.rename(target)
    return 1


def load_examples(shards: list[Path], folder: Path, workers: int, console: Console, views: int = 1) -> list[Example]:
    """What the lessons of shards look like to perception; made where it is missing, and kept in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"{p.stem}_{views}_v{VERSION}.npz" for p in shards]
    tasks = [(p, t, views) for p, t in zip(shards, targets, strict=True) if not t.exists()]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if tasks:
        with (
            Progress(*columns, console=console) as progress,
            multiprocessing.get_context("spawn").Pool(workers) as pool,
        ):
            bar = progress.add_task(f"{folder.name}: perceived shards", total=len(tasks))
            for done in pool.imap_unordered(_examples_of, tasks):
                progress.advance(bar, done)
    examples = []
    for target in targets:
        by_number: dict[str, dict[str, NDArray[Any]]] = {}
        with np.load(target) as file:
            for name in file.files:
                number, key = name.split("/")
                by_number.setdefault(number, {})[key] = file[name]
        examples += [Example(**by_number[number]) for number in sorted(by_number)]
    return examples


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
    parser.add_argument("--split", choices=SPLITS, default="train", help="default: %(default)s")
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
