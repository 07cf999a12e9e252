"""Simulation of a world without images: trajectories, touches, and counterfactual siblings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from training.worlds.tabletop import DURATION_S
from wm_core.interventions import Intervention
from wm_dynamics.mujoco.contacts import Touch, surface_distance
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.simulator import Simulator as Stepper
from wm_dynamics.mujoco.trajectory import Action, Trajectory
from wm_dynamics.mujoco.world import World
from wm_sim.scenes import BuiltScene
from wm_sim.simulator import FRAME_RATE_HZ, STEPS_PER_FRAME

Array = NDArray[np.float64]

FAR_M = 0.05
"""Upper limit [m] of the distances in a clip; MuJoCo's search is faster the smaller it is."""


@dataclass(frozen=True)
class Clip:
    """A trajectory of a world of N bodies (the table first) at T times.

    Attributes:
        times: (T,) [s]; ids: (N,) true ids; class_names: N names.
        states: (T, N, 13) position [m], quaternion xyzw, linear velocity [m/s], angular velocity [rad/s], map frame.
        present: (T, N); touches: (time [s], id a, id b, began) in time order.
        extents: (N, 3) [m]; shapes: (N,) ``Shape``; hulls: N arrays (P, 3) in the body frame.
        is_static: (N,); log_mass, friction, restitution: (N,).
        kinematic: (N,) bodies on a path; scheduled: (time [s], id) of the interventions.
        stable: False where the physics diverged; such clips are not used.
        distances: of the pairs of true ids (smaller first) of movable objects that ever touch, (T,) how far apart the
            surfaces of their parts are [m], up to ``FAR_M``; NaN while one is absent. Not kept in files.
    """

    times: Array
    ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    states: Array
    present: NDArray[np.bool_]
    touches: tuple[tuple[float, int, int, bool], ...]
    extents: Array
    shapes: NDArray[np.int64]
    hulls: tuple[Array, ...]
    is_static: NDArray[np.bool_]
    log_mass: Array
    friction: Array
    restitution: Array
    kinematic: NDArray[np.bool_]
    scheduled: tuple[tuple[float, int], ...]
    stable: bool
    distances: Mapping[tuple[int, int], Array] = field(default_factory=dict)


def compile_world(scene: BuiltScene) -> World:
    """The physics of a scene, without materials and meshes; reuse it for the siblings of one scene."""
    bare = [replace(b, geoms=tuple(replace(g, material="") for g in b.geoms if g.mesh is None)) for b in scene.bodies]
    return World(bare, 0.0, 1.0 / (FRAME_RATE_HZ * STEPS_PER_FRAME))


def simulate(
    scene: BuiltScene,
    seconds: float = DURATION_S,
    rate_hz: float = FRAME_RATE_HZ,
    remove: Sequence[int] = (),
    extra: Sequence[tuple[int, Intervention]] = (),
    world: World | None = None,
) -> Clip:
    """A clip from the scene's start, with its schedule.

    Args:
        remove: true ids that are absent from the start: the counterfactual sibling. The schedule of the others stays.
        extra: further (body index, ``Intervention``), time offsets from the start.
        world: ``compile_world(scene)``, if it was made before.
    """
    world = world or compile_world(scene)
    gone = {scene.ids.index(i) for i in remove}
    stepper = Stepper()
    absent = sorted({*scene.pushers, *gone})
    live = LiveWorld(stepper, world, world.model, scene.states, absent=absent)
    # Interventions after the end are not part of the clip.
    schedule = [(k, do) for k, do in (*scene.schedule, *extra) if do.time_offset < seconds]
    actions = [Action(index, do) for index, do in schedule if index not in gone]
    times = np.arange(int(seconds * rate_hz) + 1) / rate_hz
    trajectory = live.execute(actions, times, max_stretch=STEPS_PER_FRAME)
    ids = np.array(scene.ids, dtype=np.int64)
    bodies = scene.bodies
    kinematic = np.zeros(len(bodies), dtype=bool)
    kinematic[list(scene.pushers)] = True
    return Clip(
        times=times,
        ids=ids,
        class_names=scene.class_names,
        states=trajectory.states,
        present=trajectory.present,
        touches=tuple((t.time_s, int(ids[t.a]), int(ids[t.b]), t.began) for t in trajectory.touches),
        extents=scene.extents,
        shapes=np.array([int(s) for s in scene.shapes], dtype=np.int64),
        hulls=scene.hulls,
        is_static=np.array([b.is_static for b in bodies]),
        log_mass=np.log([max(b.mass, 1e-3) for b in bodies]),
        friction=np.array([b.friction for b in bodies]),
        restitution=np.array([b.restitution for b in bodies]),
        kinematic=kinematic,
        scheduled=tuple(
            sorted((float(do.time_offset), int(ids[index])) for index, do in schedule if index not in gone)
        ),
        stable=trajectory.stable,
        distances=_distances(world, trajectory, ids),
    )


def _distances(world: World, trajectory: Trajectory, ids: NDArray[np.int64]) -> dict[tuple[int, int], Array]:
    def free(touch: Touch) -> bool:
        return bool(world.movable[touch.a] and world.movable[touch.b])

    pairs = sorted({(min(t.a, t.b), max(t.a, t.b)) for t in trajectory.touches if free(t)}) if trajectory.stable else []
    found = {pair: np.full(len(trajectory.states), np.nan) for pair in pairs}
    data = mujoco.MjData(world.model)
    for t, (states, present) in enumerate(zip(trajectory.states, trajectory.present, strict=True)):
        if not pairs:
            break
        world.set_positions(data, states, present)
        mujoco.mj_kinematics(world.model, data)
        for a, b in pairs:
            if present[a] and present[b]:
                geoms = world.geom_ids
                found[a, b][t] = surface_distance(world.model, data, geoms[a], geoms[b], FAR_M)
    return {(int(min(ids[a], ids[b])), int(max(ids[a], ids[b]))): v for (a, b), v in found.items()}
