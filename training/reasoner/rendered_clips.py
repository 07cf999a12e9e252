"""Held-out clips with their ground truth: random worlds, and worlds in which objects are hidden for two seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from training.reasoner.data import lively
from training.worlds import families
from training.worlds.appearance import open_simulator, random_noise
from training.worlds.simulate import Clip, simulate
from training.worlds.splits import SPLITS, Split
from training.worlds.worlds import random_scene
from wm_core.camera import Camera
from wm_core.interventions import Intervention, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_points, lowest_point, rest_state
from wm_sim.objects import centered
from wm_sim.scenes import BuiltScene

Array = NDArray[np.float64]
Kind = Literal["random", "lively", "busy", "away", "behind", "passing"]
"""``lively`` is for training alone."""

WIDTH, HEIGHT = 640, 480
"""Size of the images [pixels]."""
FIRST_SEED = 50_000
"""Far from the seeds that validation during training draws."""
HIDDEN_S = 2.0
"""Time [s] for which objects are hidden at least."""
_HOLD_S = 2.4
"""Time [s] for which what hides them is held: HIDDEN_S and the time that covering them needs."""
_LEAST_S = {"random": 2.0, "busy": 5.6, "away": 5.6, "behind": 5.6, "passing": 5.6}
_CYCLE: tuple[Kind, ...] = (
    *("random", "away", "busy", "behind", "random", "busy", "passing", "random", "busy", "away"),
)
"""Kinds of every ten clips."""
_BUMPS_S = (0.7, 1.4, 2.1, 2.8, 3.5, 4.2)
"""Times [s] at which an object of a "busy" clip is sent into its neighbor."""

MIN_VISIBLE_PX = 100
"""Of the 640x480 image: an object of which less is seen is not scored: neither a miss nor a phantom."""
_GONE_PX = 20
"""An object of which fewer pixels are seen counts as hidden."""


@dataclass(frozen=True)
class ClipPlan:
    """A clip, which is determined by these.

    Attributes:
        split, seed: of its world; kind: what happens in it, see ``plan_clips``.
        seconds: length [s]; rate_hz: images a second.
    """

    split: Split
    seed: int
    kind: Kind
    seconds: float
    rate_hz: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.split} {self.seed} ({self.kind})"


@dataclass(frozen=True)
class TrueFrame:
    """One rendered frame with its ground truth.

    Attributes:
        stamp_ns: > 0 [ns].
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32 [m], with the sensor's errors, 0 = not measured.
        ids: (H, W) int32 true id of every pixel, 0 = no object (floor, walls, table).
        scene: the true scene graph, with ``visibilities`` as the seen part of each object's own image area.
        visible: true ids that are scored (``MIN_VISIBLE_PX``); gone: those that count as hidden (``_GONE_PX``).
    """

    stamp_ns: int
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    ids: NDArray[np.int32]
    scene: SceneGraph
    visible: frozenset[int]
    gone: frozenset[int]


@dataclass(frozen=True)
class RenderedClip:
    """A clip and its images.

    Attributes:
        plan: what determines it; world: the scene at its start; camera: pinhole camera of the images.
        ground_truth: states and touches at the frames' times; frames: T rendered frames.
    """

    plan: ClipPlan
    world: BuiltScene
    camera: Camera
    ground_truth: Clip
    frames: tuple[TrueFrame, ...]


def plan_clips(
    split: Split, clips: int, seconds: float, rate_hz: float, first_seed: int = FIRST_SEED
) -> list[ClipPlan]:
    """Of ten clips three are random worlds, three busy ones, four worlds in which objects are hidden for two seconds.

    All but the random ones last at least 5.6 s: seen, hidden for over two seconds, seen again. Those of ``household``
    are all random worlds, every second one at rest.
    """
    plans = []
    for number in range(clips):
        kind: Kind = "random" if split == "household" else _CYCLE[number % len(_CYCLE)]
        plans.append(ClipPlan(split, first_seed + number, kind, max(seconds, _LEAST_S[kind]), rate_hz))
    return plans


def build_scene(plan: ClipPlan) -> BuiltScene:
    """The world of a plan."""
    if plan.kind == "random":
        return random_scene(plan.seed, plan.split)
    if plan.kind == "lively":
        return lively(random_scene(plan.seed, plan.split), plan.seed)
    if plan.kind == "busy":
        return _busy(random_scene(plan.seed, plan.split))
    if plan.kind == "away":
        return _turned_away(random_scene(plan.seed, plan.split))
    return _hidden(plan.seed, plan.split, plan.kind == "behind")


def _busy(scene: BuiltScene) -> BuiltScene:
    """The same world, in which an object is sent into its neighbor every 0.7 s, so that pairs touch more than once."""
    rng = np.random.default_rng(int(scene.model.name.rsplit("-", 1)[1]))
    for number, time in enumerate(_BUMPS_S):
        clip = simulate(scene, time, 30.0)
        places = clip.states[-1, :, POSITION]
        there = [
            k
            for k in range(1, len(scene.ids))
            if k not in scene.pushers and clip.present[-1, k] and places[k, 2] > scene.table_top_z - 0.02
        ]
        if len(there) < 2:
            break
        apart = np.linalg.norm(places[there, None, :2] - places[None, there, :2], axis=-1)
        # Not those that stand on one another.
        apart[apart < 0.04] = np.inf
        if number % 3 == 2:  # every third one at random
            first = int(rng.integers(len(there)))
            second = int(apart[first].argmin())
        else:
            first, second = (int(k) for k in np.unravel_index(apart.argmin(), apart.shape))
            first, second = (first, second) if number % 2 else (second, first)
        if not np.isfinite(apart[first, second]):
            continue
        first, second = there[first], there[second]
        heading = places[second, :2] - places[first, :2]
        velocity = np.array([*(heading / max(float(np.linalg.norm(heading)), 1e-6) * rng.uniform(0.5, 0.9)), 0.0])
        bump = Intervention(
            InterventionKind.SET_VELOCITY, 0, time, linear_velocity=velocity, angular_velocity=np.zeros(3)
        )
        schedule = sorted((*scene.schedule, (first, bump)), key=lambda item: item[1].time_offset)
        scene = replace(scene, schedule=tuple(schedule))
    return scene


def _turned_away(scene: BuiltScene) -> BuiltScene:
    """The same world, with a camera that turns away for two seconds and comes back; nothing is set in motion."""
    camera = scene.model.camera
    position, target = np.array(camera.position), np.array(camera.target)
    rng = np.random.default_rng(int(scene.model.name.rsplit("-", 1)[1]))
    turn = float(rng.choice([-1.0, 1.0])) * np.radians(rng.uniform(100.0, 130.0))
    drift = rng.normal(0.0, 0.03, 3)

    def row(time: float, part: float, moved: float) -> list[float]:
        looking = Rotation.from_euler("z", part * turn).as_matrix() @ (target - position)
        place = position + moved * drift
        return [time, *place, *(place + looking)]

    begin, moves = 1.5, np.linspace(0.0, 1.0, 9)
    # Turning takes 0.5 s each way; for some of it objects are still in view.
    rows = [row(0.0, 0.0, 0.0)]
    rows += [row(begin + 0.5 * float(m), float(m), 0.5 * float(m)) for m in moves]
    back = begin + 0.5 + _HOLD_S - 0.2
    rows += [row(back + 0.5 * float(m), 1.0 - float(m), 0.5 + 0.5 * float(m)) for m in moves]
    rows.append(row(20.0, 0.0, 1.0))
    path = camera.model_copy(update={"path": rows, "orbit": None})
    model = scene.model.model_copy(update={"camera": path})
    schedule = tuple(item for item in scene.schedule if item[0] in scene.pushers)
    return replace(scene, model=model, schedule=schedule)


def _hidden(seed: int, split: Split, mover_hides: bool) -> BuiltScene:
    """Three objects and a large box: an object is carried behind the box, or the box in front of the objects.

    The camera stands still, low enough for the box to hide what is behind it.
    """
    rng = np.random.default_rng([SPLITS.index(split), seed, 11])
    base = random_scene(seed, split)
    height = base.table_top_z
    # Across the table's long side there is room to move.
    azimuth = float(rng.choice([0.0, np.pi]) + rng.uniform(-0.3, 0.3))
    elevation, distance = np.radians(rng.uniform(20.0, 27.0)), rng.uniform(0.7, 0.95)
    toward = np.array([np.cos(azimuth), np.sin(azimuth)])
    side = np.array([-toward[1], toward[0]])
    eye = distance * np.array([*(np.cos(elevation) * toward), np.sin(elevation)])
    camera = base.model.camera.model_copy(
        update={
            "position": eye.tolist(),
            "target": [0.0, 0.0, 0.04],
            "vertical_fov": float(rng.uniform(45.0, 55.0)),
            "path": [],
            "orbit": None,
        }
    )
    names, classes = [base.names[0]], [base.class_names[0]]
    bodies, states = [base.bodies[0]], [base.states[0]]
    extents, shapes, hulls = [base.extents[0]], [base.shapes[0]], [base.hulls[0]]

    def put(body: BodyDef, name: str, drawn: families.DrawnObject, full: Array, spot: Array, yaw: float) -> int:
        quaternion = Rotation.from_euler("z", yaw).as_quat()
        z = height - lowest_point(body, quaternion)
        names.append(name)
        classes.append(drawn.class_name)
        bodies.append(body)
        states.append(rest_state((*spot, z), quaternion))
        extents.append(full)
        shapes.append(drawn.shape)
        hulls.append(body_points(body) if drawn.shape == Shape.CONVEX else np.zeros((0, 3)))
        return len(bodies) - 1

    def make(drawn: families.DrawnObject, material: str) -> tuple[BodyDef, Array]:
        parts, full = centered(list(drawn.parts))
        parts = tuple(replace(p, material=material) if p.color == families.WHITE else p for p in parts)
        return BodyDef(parts, 400.0 * drawn.fill * float(np.prod(full)), 0.5, 0.1), full

    pool = families.HELD_OUT if split == "families" else families.TRAINING
    small: list[tuple[str, families.DrawnObject]] = []
    while len(small) < 3:
        family, drawn = families.draw(pool, rng)
        full = centered(list(drawn.parts))[1]
        if full[2] < 0.13 and full[:2].max() < 0.13 and not drawn.rolls:
            small.append((family, drawn))
    size = np.array([rng.uniform(0.05, 0.08), rng.uniform(0.19, 0.23), rng.uniform(0.24, 0.28)])
    wall = GeomDef(Shape.BOX, size, position=np.array([0.0, 0.0, 0.5 * size[2]]), color=families.WHITE)
    big = families.DrawnObject((wall,), "box", 1.0, shape=Shape.BOX)
    hidden_yaw = float(rng.uniform(-np.pi, np.pi))
    if mover_hides:
        body, full = make(big, f"material{len(bodies)}")
        put(body, "wall", big, full, 0.06 * toward, azimuth)
        for sign, (family, drawn) in zip((-1.0, 1.0), small[:2], strict=True):
            body, full = make(drawn, f"material{len(bodies)}")
            put(body, family, drawn, full, sign * 0.11 * side + 0.20 * toward, float(rng.uniform(-3.0, 3.0)))
        family, drawn = small[2]
        lane = -(0.5 * size[0] + 0.5 * float(np.hypot(*centered(list(drawn.parts))[1][:2])) - 0.06 + 0.02) * toward
        start, rest = lane + rng.choice([-1.0, 1.0]) * 0.30 * side, lane
        carried, yaw, stays = (family, drawn), hidden_yaw, drawn
    else:
        for offset, (family, drawn) in zip((-0.04, 0.30, -0.32), small, strict=True):
            body, full = make(drawn, f"material{len(bodies)}")
            put(body, family, drawn, full, offset * side - 0.05 * toward, float(rng.uniform(-3.0, 3.0)))
        lane = (0.04 + 0.5 * size[0] + 0.07) * toward
        start, rest = lane + rng.choice([-1.0, 1.0]) * 0.33 * side, lane - 0.04 * side
        carried, yaw, stays = ("wall", big), azimuth, big
    body, full = make(stays, "pusher")
    row = put(body, carried[0], carried[1], full, start, yaw)
    z = float(states[row][2]) + 0.003
    begin, travel = 0.8, 0.8
    out = start if rng.uniform() < 0.5 else 2.0 * rest - start
    moves = np.linspace(0.0, 1.0, 9)
    eased = moves**2 * (3.0 - 2.0 * moves)
    leave = begin + travel + _HOLD_S
    stops = [(0.0, start)]
    stops += [(begin + travel * float(m), start + float(e) * (rest - start)) for m, e in zip(moves, eased, strict=True)]
    stops += [(leave + travel * float(m), rest + float(e) * (out - rest)) for m, e in zip(moves, eased, strict=True)]
    stops.append((30.0, out))
    path = Intervention(
        InterventionKind.FOLLOW_PATH,
        0,
        0.0,
        path_times=np.array([t for t, _ in stops]),
        path_positions=np.array([[*p, z] for _, p in stops]),
        path_quaternions=np.tile(Rotation.from_euler("z", yaw).as_quat(), (len(stops), 1)),
    )
    model = base.model.model_copy(update={"camera": camera})
    return replace(
        base,
        model=model,
        names=tuple(names),
        class_names=tuple(classes),
        bodies=tuple(bodies),
        states=np.array(states),
        schedule=((row, path),),
        pushers=(row,),
        extents=np.array(extents),
        shapes=tuple(shapes),
        hulls=tuple(hulls),
        colors=np.full((len(bodies), 3), 0.5),
        ids=tuple(base.ids[0] + k for k in range(len(bodies))),
    )


def true_scene(clip: Clip, row: int, stamp_ns: int, world_T_camera: Array, visibilities: Array) -> SceneGraph:
    """The true scene graph at a row of a trajectory, of what is present; visibilities (N,) are of all bodies."""
    rows = np.flatnonzero(clip.present[row])
    states = clip.states[row, rows]
    return SceneGraph.build(
        clip.ids[rows],
        states[:, POSITION],
        clip.extents[rows],
        stamp_ns=stamp_ns,
        class_names=[clip.class_names[k] for k in rows],
        quaternions=states[:, QUATERNION],
        linear_velocities=states[:, LINEAR_VELOCITY],
        angular_velocities=states[:, ANGULAR_VELOCITY],
        shapes=clip.shapes[rows],
        hulls=[clip.hulls[k] for k in rows],
        is_static=clip.is_static[rows],
        log_mass=clip.log_mass[rows],
        friction=clip.friction[rows],
        restitution=clip.restitution[rows],
        visibilities=visibilities[rows],
        world_T_camera=world_T_camera,
    )


def image_area(points: Array, state: Array, camera: Camera, world_T_camera: Array) -> float:
    """Area [pixels] of the outline of an object's points (P, 3), in and beyond the image; inf behind the camera."""
    world = points @ quaternion_to_matrix(state[QUATERNION]).T + state[POSITION]
    local = (world - world_T_camera[:3, 3]) @ world_T_camera[:3, :3]
    if (local[:, 2] < 0.05).any():
        return float("inf")
    flat = local[:, :2] / local[:, 2:] * [camera.fx, camera.fy]
    try:
        return float(ConvexHull(flat).volume)
    except QhullError:
        return float("inf")


def render_clip(plan: ClipPlan) -> RenderedClip:
    """Simulate and draw a clip.

    Raises:
        ValueError: the physics of this world diverges.
    """
    scene = build_scene(plan)
    clip = simulate(scene, plan.seconds, plan.rate_hz)
    if not clip.stable:
        raise ValueError(f"clip {plan.name}: the simulation diverged")
    noise = random_noise(plan.seed, plan.split, WIDTH)
    rng = np.random.default_rng([SPLITS.index(plan.split), plan.seed, 13])
    points = [body_points(body) for body in scene.bodies]
    statics = clip.ids[clip.is_static]
    frames = []
    with open_simulator(scene, plan.seed, WIDTH, HEIGHT) as simulator:
        camera = simulator.camera
        for row, time in enumerate(clip.times):
            pose = simulator.world_T_camera(float(time))
            rgb, depth, ids = simulator.look(clip.states[row], clip.present[row], pose)
            pixels = np.bincount(ids.ravel(), minlength=int(clip.ids.max()) + 1)[clip.ids]
            areas = np.array([image_area(p, s, camera, pose) for p, s in zip(points, clip.states[row], strict=True)])
            seen = np.clip(pixels / np.maximum(areas, 1.0), 0.0, 1.0)
            there = clip.present[row] & ~clip.is_static
            stamp_ns = round(float(time) * 1e9) + 1
            frames.append(
                TrueFrame(
                    stamp_ns,
                    rgb,
                    noise.apply(depth, rng),
                    np.where(np.isin(ids, statics), 0, ids).astype(np.int32),
                    true_scene(clip, row, stamp_ns, pose, seen),
                    frozenset(clip.ids[there & (pixels >= MIN_VISIBLE_PX)].tolist()),
                    frozenset(clip.ids[there & (pixels < _GONE_PX)].tolist()),
                )
            )
    return RenderedClip(plan, scene, camera, clip, tuple(frames))
