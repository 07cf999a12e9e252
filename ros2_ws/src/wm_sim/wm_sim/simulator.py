"""The simulated world: steps, images, ground truth, and counterfactual re-simulation.

ROS-free. The map frame's origin is on the floor below the table's center, x away from the camera, z up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.intervention_checks import validate_hypotheses
from wm_core.interventions import Hypothesis, Intervention, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.scene_graph import Predicate, Relation, SceneGraph, shape_volume
from wm_dynamics.mujoco.bodies import BodyDef
from wm_dynamics.mujoco.live_world import LiveWorld
from wm_dynamics.mujoco.simulator import Simulator as Stepper
from wm_dynamics.mujoco.trajectory import Action
from wm_dynamics.mujoco.world import World
from wm_sim.cameras import look_at, make_camera
from wm_sim.counterfactuals import GroundTruthRollout, Snapshot, draw_future, simulate_futures
from wm_sim.depth_noise import DepthNoise
from wm_sim.drawing import SceneDrawing
from wm_sim.rendering import decorator
from wm_sim.scene_model import SceneModel, load_scene
from wm_sim.scenes import BuiltScene, build_scene

Array = NDArray[np.float64]

FRAME_RATE_HZ = 30.0
STEPS_PER_FRAME = 16
"""Physics steps per frame: of 2.083 ms, half the step of the ``physics`` backend."""

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Frame:
    """The camera's images at an instant.

    Attributes:
        time_s: since the start of the scene.
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32 [m], 0 = no measurement.
        world_T_camera: (4, 4) optical frame in the map frame.
    """

    time_s: float
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    world_T_camera: Array


class Simulator:
    """A scene in motion.

    Args:
        scene: a ``SceneModel``, the name of a scene, a path to a YAML file, or a scene that is built already.
        seed: of the scene's colors, sizes and poses (unless it is built), and of the depth noise.
        width, height: of the images [pixels].
        noise: a model of depth errors; None: exact depth.
        quality: images with shadow maps and smoothed edges (slow).
        decorate: adds lights, textures and surroundings in place of the usual room (``rendering.decorator``).

    Attributes:
        scene: as built; camera: intrinsics of all images; timestep: of the physics [s].
        frame: frames (1/30 s) since the start of the scene.
        world: the compiled world; live: its state.
        drawing: what draws it.

    Scheduled actions of the scene (a ball set rolling at 3 s) happen in ``advance_to``. A robot cannot know of those
    still to come, so ``ground_truth_rollout`` leaves them out: a future is what follows from the state at its start.
    Pushers that are on their path stay on it.
    """

    def __init__(
        self,
        scene: SceneModel | BuiltScene | str = "demo",
        seed: int = 0,
        width: int = 640,
        height: int = 480,
        noise: DepthNoise | None = None,
        quality: bool = False,
        decorate: Callable[[mujoco.MjSpec], None] | None = None,
    ) -> None:
        if isinstance(scene, str):
            scene = load_scene(scene)
        self.scene: BuiltScene = scene if isinstance(scene, BuiltScene) else build_scene(scene, seed)
        self.seed, self.noise = seed, noise
        model = self.scene.model
        self.camera = make_camera(width, height, model.camera.vertical_fov)
        self.timestep = 1.0 / (FRAME_RATE_HZ * STEPS_PER_FRAME)
        self._decorate = decorate or decorator(width, height, model.walls, quality)
        self.world = World(self.scene.bodies, 0.0, self.timestep, self._decorate)
        self._stepper = Stepper()
        # A standing object need not press on its support at this instant: contacts count up to 1 mm apart.
        self._contact_model = copy.copy(self.world.model)
        self._contact_model.geom_margin[:] = 1e-3
        self._contact_data = mujoco.MjData(self._contact_model)
        self.drawing = SceneDrawing(self.scene, self.camera, self._world_for, quality)
        self._worlds: dict[object, World] = {}
        self.reset()

    def reset(self) -> None:
        """Back to the start of the scene."""
        self.frame = 0
        self._cursor = 0
        self.live = LiveWorld(
            self._stepper,
            self.world,
            self.world.model,
            self.scene.states,
            absent=self.scene.pushers,
            world_for=self._world_for,
        )
        self._act()

    def close(self) -> None:
        """Frees the rendering contexts."""
        self.drawing.close()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- time

    @property
    def time_s(self) -> float:
        """Time since the start of the scene [s]; a whole number of frames."""
        return self.frame / FRAME_RATE_HZ

    @property
    def stamp_ns(self) -> int:
        """The same in nanoseconds, exactly rounded."""
        return round(self.frame * NANOSECONDS / FRAME_RATE_HZ)

    @property
    def finished(self) -> bool:
        """True at and after the scene's duration."""
        return self.time_s >= self.scene.model.duration - 1e-9

    def step(self) -> None:
        """On by one frame (1/30 s)."""
        self.live.advance(STEPS_PER_FRAME)
        self.frame += 1
        self._act()

    def advance_to(self, time_s: float) -> None:
        """On, frame by frame, to the last frame that is not after a time [s].

        Raises:
            ValueError: that time has passed (``restore`` or ``reset`` goes back).
        """
        target = int(np.floor(time_s * FRAME_RATE_HZ + 1e-6))
        if target < self.frame:
            raise ValueError(f"time: got {time_s} s, expected {self.time_s} or later")
        while self.frame < target:
            self.step()

    def _act(self) -> None:
        schedule = self.scene.schedule
        while self._cursor < len(schedule) and schedule[self._cursor][1].time_offset <= self.time_s + 1e-9:
            index, action = schedule[self._cursor]
            self.live.apply(Action(index, action))
            self._cursor += 1

    # -- a pusher under command

    def command_pusher(self, times: ArrayLike, positions: ArrayLike, quaternions: ArrayLike, name: str = "") -> None:
        """From now on a pusher follows this path, in place of whatever it was following; it stays at its end.

        It goes on from where it is: the path's first pose counts as where to be at its first time, and if that is not
        where it is now, it goes there in a straight line, in one frame when the first time is 0.

        Args:
            times: (M,) [s] after now, ascending, first >= 0.
            positions: (M, 3) of its center [m], map frame; quaternions: (M, 4) x, y, z, w.
            name: of the pusher in the scene; empty: the only one.

        Raises:
            ValueError: no such pusher, or a path that is none.
        """
        index = self._pusher(name)
        t = np.asarray(times, dtype=np.float64).reshape(-1)
        p = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
        q = np.asarray(quaternions, dtype=np.float64).reshape(-1, 4)
        if not len(t) or len(p) != len(t) or len(q) != len(t):
            raise ValueError(f"path: got {len(t)} times, {len(p)} positions, {len(q)} quaternions, expected as many")
        if not (np.isfinite(t).all() and np.isfinite(p).all() and np.isfinite(q).all()):
            raise ValueError("path: has a value that is not finite")
        if t[0] < 0.0 or (np.diff(t) <= 0.0).any():
            raise ValueError(f"times: got {t[:8].tolist()}, expected ascending from 0 or later")
        if (np.abs(np.linalg.norm(q, axis=1) - 1.0) > 1e-3).any():
            raise ValueError("quaternions: expected unit quaternions")
        if not self.live.present[index]:
            raise ValueError(f"pusher {self.scene.names[index]!r}: it has been removed")
        here = self.live.states()[index]
        if np.linalg.norm(p[0] - here[POSITION]) > 1e-9 or t[0] > 0.0:
            late = t + (1.0 / FRAME_RATE_HZ if t[0] == 0.0 else 0.0)
            t = np.append(0.0, late)
            p, q = np.concatenate([here[None, POSITION], p]), np.concatenate([here[None, QUATERNION], q])
        path = Intervention(InterventionKind.FOLLOW_PATH, 0, 0.0, path_times=t, path_positions=p, path_quaternions=q)
        _, _, mass, inertia = self.live.paths[index]
        # Not an intervention: that would move objects apart that the pusher merely touches.
        self.live.paths[index] = (self.live.step, path, mass, inertia)

    def pusher_pose(self, name: str = "") -> tuple[Array, Array]:
        """Position (3,) [m] and quaternion (4,) of a pusher now; ValueError where there is no such pusher."""
        state = self.live.states()[self._pusher(name)]
        return state[POSITION].copy(), state[QUATERNION].copy()

    def _pusher(self, name: str) -> int:
        names = [self.scene.names[i] for i in self.scene.pushers]
        if name in names:
            return self.scene.pushers[names.index(name)]
        if not name and len(names) == 1:
            return self.scene.pushers[0]
        raise ValueError(f"pusher: got {name!r}, expected one of the scene's: {', '.join(names) or 'it has none'}")

    def snapshot(self) -> Snapshot:
        """The state now. Going on from it gives the same bytes."""
        return Snapshot(self.frame, self._cursor, self.live.branch())

    def restore(self, snapshot: Snapshot) -> None:
        """Back (or on) to a snapshot."""
        self.frame, self._cursor, self.live = snapshot.frame, snapshot.cursor, snapshot.live.branch()

    # -- the camera

    def world_T_camera(self, time_s: float | None = None) -> Array:
        """(4, 4) optical frame in the map frame at a time (None: now)."""
        spec = self.scene.model.camera
        t = self.time_s if time_s is None else time_s
        up = np.array([0.0, 0.0, self.scene.table_top_z])
        target, position = np.array(spec.target), np.array(spec.position)
        if spec.path:
            rows = np.array(spec.path)
            now = np.array([np.interp(t, rows[:, 0], column) for column in rows[:, 1:].T])
            position, target = now[:3], now[3:]
        elif spec.orbit is not None:
            swing = np.radians(spec.orbit.amplitude) * np.sin(2.0 * np.pi * t / spec.orbit.period)
            position = target + Rotation.from_euler("z", swing).as_matrix() @ (position - target)
        return look_at(position + up, target + up)

    # -- images

    def render(self) -> Frame:
        """What the camera measures now (with depth noise, if any)."""
        pose = self.world_T_camera()
        rgb, depth = self.drawing.color_and_depth(self.live.bodies, self.live.states(), self.live.present, pose)
        if self.noise is not None:
            depth = self.noise.apply(depth, np.random.default_rng([self.seed, self.frame]))
        return Frame(self.time_s, rgb, depth, pose)

    def instances(self) -> NDArray[np.int32]:
        """True object id (H, W) at each pixel now; 0: none (floor, wall, nothing)."""
        return self.drawing.instances(self.live.bodies, self.live.states(), self.live.present, self.world_T_camera())

    def look(
        self, states: Array, present: NDArray[np.bool_], world_T_camera: Array
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
        """Color (H, W, 3), exact depth (H, W) [m] and true ids (H, W) of the scene's bodies in given states.

        Args:
            states: (n, 13), present: (n,), in the order of the scene's bodies; world_T_camera: (4, 4).
        """
        bodies = self.scene.bodies
        rgb, depth = self.drawing.color_and_depth(bodies, states, present, world_T_camera)
        return rgb, depth, self.drawing.instances(bodies, states, present, world_T_camera)

    def visibility(self) -> dict[int, float]:
        """Fraction 0..1 of each present object's own image area that is seen now, by true id."""
        return self.drawing.visibility(self.live.bodies, self.live.states(), self.live.present, self.world_T_camera())

    def _world_for(self, bodies: Sequence[BodyDef]) -> World:
        key = tuple(b.shape_key() for b in bodies)
        if key == tuple(b.shape_key() for b in self.world.bodies):
            return self.world
        if key not in self._worlds:
            if len(self._worlds) >= 16:
                self._worlds.pop(next(iter(self._worlds)))
            self._worlds[key] = self.world.rebuilt(bodies)
        return self._worlds[key]

    # -- ground truth

    def ground_truth(self, with_visibility: bool = False) -> SceneGraph:
        """The true scene: every present object with its true id, class, pose, twist, shape and properties.

        Without uncertainty. Compound objects (mug, bowl, bottle) come with their convex parts, in a convex outline.
        Relations: ON, for what touches something beneath it.

        Args:
            with_visibility: measure how much of each is seen (one rendering per object); else 1.
        """
        scene, live = self.scene, self.live
        states = live.states()
        rows = np.flatnonzero(live.present)
        count = len(rows)
        bodies = [live.bodies[i] for i in rows]
        visible = self.visibility() if with_visibility else {}
        ids = [scene.ids[i] for i in rows]
        masses = np.array([max(b.mass, 1e-6) for b in bodies])
        table = [b.is_static for b in bodies]
        masses[table] = 400.0 * np.array([shape_volume(0, scene.extents[i]) for i in rows[table]])
        return SceneGraph.build(
            ids,
            states[rows, POSITION],
            scene.extents[rows],
            stamp_ns=self.stamp_ns,
            frame_id="map",
            class_names=[scene.class_names[i] for i in rows],
            quaternions=states[rows, QUATERNION],
            linear_velocities=states[rows, LINEAR_VELOCITY],
            angular_velocities=states[rows, ANGULAR_VELOCITY],
            shapes=[int(scene.shapes[i]) for i in rows],
            hulls=[scene.hulls[i] for i in rows],
            parts=[scene.parts[i] for i in rows],
            is_static=table,
            log_mass=np.log(masses),
            log_mass_std=np.zeros(count),
            friction=[b.friction for b in bodies],
            friction_std=np.zeros(count),
            restitution=[b.restitution for b in bodies],
            restitution_std=np.zeros(count),
            colors=scene.colors[rows],
            visibilities=[visible.get(i, 1.0) for i in ids],
            first_seen_ns=np.zeros(count),
            last_seen_ns=np.full(count, self.stamp_ns),
            relations=self._relations(states),
            world_T_camera=self.world_T_camera(),
        )

    def _relations(self, states: Array) -> tuple[Relation, ...]:
        data, model = self._contact_data, self._contact_model
        self.world.set_positions(data, states, self.live.present)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        index_of = {b: i for i, b in enumerate(self.world.body_ids)}
        on: set[tuple[int, int]] = set()
        for contact in data.contact:
            a = index_of.get(int(model.geom_bodyid[contact.geom1]), -1)
            b = index_of.get(int(model.geom_bodyid[contact.geom2]), -1)
            if min(a, b) < 0 or a == b or not (self.live.present[a] and self.live.present[b]):
                continue
            if abs(contact.frame[2]) > 0.7:
                upper, lower = (b, a) if contact.frame[2] > 0.0 else (a, b)
                on.add((self.scene.ids[upper], self.scene.ids[lower]))
        return tuple(Relation(a, Predicate.ON, b, 1.0, self.stamp_ns) for a, b in sorted(on))

    # -- counterfactuals

    def ground_truth_rollout(
        self,
        hypotheses: Sequence[Hypothesis],
        times: ArrayLike,
        snapshot: Snapshot | None = None,
    ) -> GroundTruthRollout:
        """True futures from an instant under interventions (object ids are true ids).

        The state is restored, the interventions carried out, and the world simulated again with its true masses,
        friction and compound shapes. Scheduled actions of the scene that are still to come
        are left out.

        Args:
            times: (T,) [s] after the instant, ascending, first 0.
            snapshot: the instant; None: now. The simulator itself does not move.

        Raises:
            wm_core.interventions.InterventionError: an intervention that cannot be carried out.
        """
        start = snapshot if snapshot is not None else self.snapshot()
        t = np.asarray(times, dtype=np.float64)
        current = self.snapshot()
        self.restore(start)
        graph = self.ground_truth()
        self.restore(current)
        validate_hypotheses(hypotheses, graph, float(t[-1]))
        return simulate_futures(self.scene, start, hypotheses, t, STEPS_PER_FRAME)

    def render_ground_truth(
        self,
        ground_truth: GroundTruthRollout,
        hypothesis: int,
        rows: Sequence[int] | None = None,
        world_T_camera: ArrayLike | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Exact images of a true future: color (F, H, W, 3) and depth (F, H, W) [m].

        Args:
            rows: indices of ``ground_truth.times`` to draw; None: all.
            world_T_camera: (4, 4); None: the camera's pose at the instant of the query.
        """
        pose = (
            self.world_T_camera(ground_truth.snapshot.frame / FRAME_RATE_HZ)
            if world_T_camera is None
            else np.asarray(world_T_camera, dtype=np.float64)
        )
        return draw_future(self.drawing, self.scene, ground_truth, hypothesis, rows, pose)
