"""MuJoCo worlds made of bodies, and interventions carried out on them.

The simulator (the truth) and the ``physics`` dynamics backend both build their worlds here, so that what is
imagined and what is true differ in what is known of the world, not in how it moves. Nothing here knows ROS or
scene graphs' beliefs.

Conventions
-----------
* A body's state is 13 numbers in the layout of ``wm_core.rollout``: position of the body frame [m],
  quaternion x, y, z, w, velocity of the body frame's origin [m/s] and angular velocity [rad/s], all in world
  axes, z up.
* Friction and restitution belong to the moving body: against a static support the body's own coefficients
  count; between two moving bodies the larger friction and the smaller restitution count. A static support's
  own coefficients count only once an intervention has set them (they then overrule those of whatever touches
  it).
* Restitution: contacts are spring-dampers in MuJoCo's direct format, ``solref = (-stiffness, -damping)``, in
  units of acceleration. The damping for a restitution e comes from a table that is made by running the very
  recursion of the time-stepper for one contact (v += h max(0, -k r - b v), r += h v), so that e is met at any
  time step (within 0.07; e below about 0.1 cannot be told from 0.1). Stiffness 1e4 1/s^2: contacts last about
  30 ms, a resting body sinks in by less than 0.1 mm, a ball that lands at 1 m/s by up to 6 mm.
* Kinematic bodies (pushers) are free bodies, a million times heavier than the heaviest thing, with an
  isotropic inertia, and feel the very force that takes them along their path from step to step. So, unlike a
  MuJoCo mocap body, whose velocity in contacts is zero, they push at their true speed. They do not collide
  with static things.
* Contacts between bodies are read at every physics step through MuJoCo contact sensors. Two contacts of one
  pair with less than 40 ms of air between them are one contact; any touch, however short, is reported.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from wm_core.geometry import interpolate_pose, normalize_quaternion, quaternion_to_matrix
from wm_core.interventions import BodySpec, Intervention, InterventionKind, Property
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.variants import ModelVariants

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

GRAVITY_M_S2 = 9.81
CONTACT_STIFFNESS = 1.0e4
CONTACT_GAP_S = 0.04
"""Air time below which two contacts of a pair count as one."""
PARK_POSITION_M = 500.0
"""Where bodies that do not exist (yet, or any more) are kept, without collisions."""
ROLLING_COEFFICIENT = 0.008
"""Rolling resistance over radius (dimensionless); hard balls on wood or laminate are around 0.005 to
0.015.
"""
TORSIONAL_COEFFICIENT_M = 0.003
OVERLAP_M = 2e-4
"""Depth down to which bodies that lie in one another are left so: the contact spring carries them there."""
_MOST_SCRATCH = 16
"""Worlds that a simulator keeps MuJoCo's data of: as many as the futures of a batch may have."""
_KINEMATIC_MASS_RATIO = 1.0e6
_MAX_HULL_VERTICES = 64

# Collision bits: moving things meet everything; static things and pushers meet moving things only.
_MOVING, _STATIC, _KINEMATIC = 1, 2, 4
_WARNING_NAMES = {
    int(w): name.removeprefix("mjWARN_") for name, w in mujoco.mjtWarning.__members__.items() if name != "mjNWARNING"
}
_FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
_QFRC = mujoco.mjtState.mjSTATE_QFRC_APPLIED.value


def _quiet_warning(message: str) -> None:
    # MuJoCo's default handler appends to MUJOCO_LOG.TXT in the working directory; states are checked here
    # instead.
    log.debug("mujoco: %s", message)


mujoco.set_mju_user_warning(_quiet_warning)


@dataclass(frozen=True)
class GeomDef:
    """One convex part of a body.

    Attributes:
        shape: ``CONVEX`` uses ``hull``; the others ``extents``, as in wm_msgs/SceneObject.
        extents: (3,) full sizes [m]. A sphere with unequal extents is an ellipsoid, a cylinder with unequal
            diameters an elliptic prism; a capsule takes the mean of its two diameters.
        position, quaternion: pose of the part in the body frame [m, xyzw].
        hull: (P, 3) points in the part's frame [m], for ``CONVEX``.
        color: (4,) rgba 0..1; material: name of a material that ``decorate`` adds, or "".
        visual_only: drawn, but without mass and collisions.
    """

    shape: Shape
    extents: Array
    position: Array = field(default_factory=lambda: np.zeros(3))
    quaternion: Array = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    hull: Array = field(default_factory=lambda: np.zeros((0, 3)))
    color: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 1.0)
    material: str = ""
    visual_only: bool = False


@dataclass(frozen=True)
class BodyDef:
    """A rigid body: parts, mass [kg], Coulomb friction, restitution 0..1.

    ``is_static`` bodies stay at ``static_state`` (13,) and have no mass. The state of the others is given per
    run.
    """

    geoms: tuple[GeomDef, ...]
    mass: float = 0.1
    friction: float = 0.5
    restitution: float = 0.1
    is_static: bool = False
    static_state: Array = field(default_factory=lambda: rest_state((0, 0, 0)))

    def shape_key(self) -> tuple[object, ...]:
        """Equal for bodies of the same geometry (mass, friction, restitution left out)."""
        parts = tuple(
            (
                int(g.shape),
                g.extents.tobytes(),
                g.position.tobytes(),
                g.quaternion.tobytes(),
                g.hull.tobytes(),
                g.color,
                g.material,
                g.visual_only,
            )
            for g in self.geoms
        )
        return parts, self.is_static, self.static_state.tobytes() if self.is_static else b""


def rest_state(position: ArrayLike, quaternion: ArrayLike = (0.0, 0.0, 0.0, 1.0)) -> Array:
    """State (13,) of a body at rest at a pose [m, xyzw]."""
    state = np.zeros(STATE_SIZE)
    state[POSITION] = position
    state[QUATERNION] = normalize_quaternion(quaternion)
    return state


def body_from_spec(spec: BodySpec) -> BodyDef:
    """The body that an ``ADD`` or ``FOLLOW_PATH`` intervention creates."""
    extents = np.asarray(spec.extents, dtype=np.float64)
    if spec.shape == Shape.SPHERE:
        extents = np.full(3, extents.mean())
    color = (*(float(c) for c in spec.color), 1.0)
    geom = GeomDef(Shape(spec.shape), extents, color=color)  # type: ignore[arg-type]
    return BodyDef((geom,), float(spec.effective_mass), float(spec.friction), float(spec.restitution))


def scaled_body(body: BodyDef, scale: ArrayLike) -> BodyDef:
    """The body scaled along its own axes about its frame's origin; mass scales with volume.

    A part that is turned within its body is scaled along the part's axes nearest to those of the body.
    """
    s = np.asarray(scale, dtype=np.float64)
    geoms = []
    for g in body.geoms:
        local = (
            np.abs(quaternion_to_matrix(g.quaternion)).T @ s / np.abs(quaternion_to_matrix(g.quaternion)).sum(axis=0)
        )
        geoms.append(replace(g, extents=g.extents * local, position=g.position * s, hull=g.hull * local))
    return replace(body, geoms=tuple(geoms), mass=body.mass * float(np.prod(s)))


def simplify_hull(points: ArrayLike) -> Array | None:
    """At most 64 vertices (P, 3) of the convex hull of points (P', 3) [m]; None where they span no volume."""
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    p = p[np.isfinite(p).all(axis=1)]
    if len(p) < 4 or np.ptp(p, axis=0).min() < 1e-4:
        return None
    try:
        vertices = p[np.sort(ConvexHull(p).vertices)]
        if len(vertices) > _MAX_HULL_VERTICES:
            # Extreme points along evenly spread directions keep the silhouette from every side.
            index = np.arange(4 * _MAX_HULL_VERTICES) + 0.5
            polar, azimuth = np.arccos(1.0 - 2.0 * index / len(index)), np.pi * (1.0 + 5.0**0.5) * index
            directions = np.stack(
                [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
            )
            votes = np.bincount(np.argmax(vertices @ directions.T, axis=0), minlength=len(vertices))
            keep = np.argsort(-votes, kind="stable")[:_MAX_HULL_VERTICES]
            vertices = vertices[np.sort(keep[votes[keep] > 0])]
        if ConvexHull(vertices).volume < 1e-9:
            return None
    except (QhullError, ValueError):
        return None
    return vertices


def geom_points(geom: GeomDef) -> Array:
    """Points (P, 3) in the body frame [m] whose convex hull is (for round shapes: nearly) the part."""
    half = 0.5 * geom.extents
    if geom.shape == Shape.CONVEX and len(geom.hull):
        local = geom.hull
    elif geom.shape in (Shape.SPHERE, Shape.CAPSULE):
        index = np.arange(200) + 0.5
        polar, azimuth = np.arccos(1.0 - 2.0 * index / 200.0), np.pi * (1.0 + 5.0**0.5) * index
        unit = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
        unit = np.concatenate([unit, np.eye(3), -np.eye(3)])
        if geom.shape == Shape.SPHERE:
            local = unit * half
        else:
            radius = min(0.5 * (half[0] + half[1]), half[2])
            local = unit * radius
            local[:, 2] += np.sign(unit[:, 2]) * (half[2] - radius)
    elif geom.shape == Shape.CYLINDER:
        angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
        ring = np.stack([half[0] * np.cos(angle), half[1] * np.sin(angle), np.full(24, half[2])], axis=1)
        local = np.concatenate([ring, ring * [1.0, 1.0, -1.0]])
    else:
        local = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * half
    return local @ quaternion_to_matrix(geom.quaternion).T + geom.position


def body_points(body: BodyDef) -> Array:
    """Points (P, 3) in the body frame [m] whose convex hull is that of the body."""
    return np.concatenate([geom_points(g) for g in body.geoms if not g.visual_only])


def lowest_point(body: BodyDef, quaternion: ArrayLike) -> float:
    """Height [m] of the body's lowest point relative to its frame's origin, at an orientation (4,)."""
    return float(lowest_points(body, np.asarray(quaternion, dtype=np.float64)[None])[0])


def lowest_points(body: BodyDef, quaternions: ArrayLike) -> Array:
    """(S,) as ``lowest_point``, at orientations (S, 4)."""
    up = quaternion_to_matrix(quaternions)[:, 2]
    lowest = np.full(len(up), np.inf)
    for g in body.geoms:
        if g.visual_only:
            continue
        d, half = up @ quaternion_to_matrix(g.quaternion), 0.5 * g.extents
        if g.shape == Shape.CONVEX and len(g.hull):
            reach = -(d @ g.hull.T).min(axis=1)
        elif g.shape == Shape.SPHERE:
            reach = np.linalg.norm(half * d, axis=1)
        elif g.shape == Shape.CYLINDER:
            reach = np.hypot(half[0] * d[:, 0], half[1] * d[:, 1]) + half[2] * np.abs(d[:, 2])
        elif g.shape == Shape.CAPSULE:
            radius = min(0.5 * (half[0] + half[1]), half[2])
            reach = radius + (half[2] - radius) * np.abs(d[:, 2])
        else:
            reach = np.abs(d) @ half
        lowest = np.minimum(lowest, up @ g.position - reach)
    return lowest


@functools.lru_cache(maxsize=64)
def _restitution_table(timestep: float) -> tuple[Array, Array]:
    """Restitution that comes out (ascending) of damping ratios, by the recursion of the time-stepper."""
    ratios = np.concatenate([np.linspace(0.0, 0.3, 31), np.linspace(0.32, 1.2, 45)])
    phases = np.linspace(0.0, 1.0, 16, endpoint=False)
    damping = 2.0 * ratios[:, None] * np.sqrt(CONTACT_STIFFNESS)
    r = np.zeros((len(ratios), len(phases)))
    v = -np.ones_like(r)
    r = r + v * timestep * phases
    out = np.full_like(r, np.nan)
    for _ in range(int(0.5 / timestep)):
        force = np.where(r < 0.0, np.maximum(0.0, -CONTACT_STIFFNESS * r - damping * v), 0.0)
        v = v + timestep * force
        r = r + timestep * v
        out = np.where(np.isnan(out) & (r >= 0.0) & (v > 0.0), v, out)
    restitution = np.nan_to_num(out, nan=0.0).mean(axis=1)
    # np.interp needs ascending abscissae; the small wiggle of the discretisation is ironed out.
    return np.maximum.accumulate(restitution[::-1]), ratios[::-1]


def contact_solref(restitution: float, timestep: float) -> tuple[float, float]:
    """MuJoCo ``solref`` (-stiffness, -damping) that yields a restitution 0..1 at a time step [s]."""
    reached, ratios = _restitution_table(float(timestep))
    ratio = float(np.interp(np.clip(restitution, 0.0, 0.98), reached, ratios))
    return -CONTACT_STIFFNESS, -max(2.0 * ratio * float(np.sqrt(CONTACT_STIFFNESS)), 1e-3)


_GEOM_TYPE = {
    Shape.BOX: mujoco.mjtGeom.mjGEOM_BOX,
    Shape.CYLINDER: mujoco.mjtGeom.mjGEOM_CYLINDER,
    Shape.CAPSULE: mujoco.mjtGeom.mjGEOM_CAPSULE,
}


class World:
    """A compiled MuJoCo world of n bodies and a floor.

    Args:
        bodies: n of them; body i keeps index i in every state array.
        floor_z: height of the floor plane [m]; None: no floor.
        timestep: physics step [s].
        decorate: called with the ``mujoco.MjSpec`` before it is compiled, to add lights, cameras, textures.
        touch_sensors: report contacts between bodies (off for worlds that are only drawn).
    """

    def __init__(
        self,
        bodies: Sequence[BodyDef],
        floor_z: float | None,
        timestep: float,
        decorate: Callable[[mujoco.MjSpec], None] | None = None,
        touch_sensors: bool = True,
    ) -> None:
        self.bodies = tuple(bodies)
        self.floor_z = floor_z
        self.timestep = float(timestep)
        self._decorate = decorate
        self._touch_sensors = touch_sensors
        n = len(self.bodies)
        self.movable = np.array([not b.is_static for b in self.bodies], dtype=bool).reshape(n)
        self.pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if self.movable[i] or self.movable[j]]
        self.model = self._compile()
        self.body_ids = [self.model.body(f"body{i}").id for i in range(n)]
        self.geom_ids = [[g for g in range(self.model.ngeom) if self.model.geom_bodyid[g] == b] for b in self.body_ids]
        joints = [int(self.model.body_jntadr[b]) for b in self.body_ids]
        self.qpos_address = np.array([self.model.jnt_qposadr[j] if j >= 0 else -1 for j in joints], dtype=np.int64)
        self.qvel_address = np.array([self.model.jnt_dofadr[j] if j >= 0 else -1 for j in joints], dtype=np.int64)
        self.collides = [[bool(self.model.geom_contype[g]) for g in geoms] for geoms in self.geom_ids]
        for i, body in enumerate(self.bodies):
            if not body.is_static:
                self.set_mass(self.model, i, body.mass)
        self.pristine = copy.copy(self.model)

    def _compile(self) -> mujoco.MjModel:
        spec = mujoco.MjSpec()
        spec.memory = 8 << 20
        spec.option.timestep = self.timestep
        spec.option.gravity = [0.0, 0.0, -GRAVITY_M_S2]
        # Euler's explicit gyroscopic term drives what is long and spins fast: a bottle at 130 rad/s went to 10^9 m/s.
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10.0  # keeps resting stacks from creeping
        spec.option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        # What has come to rest (below 1 mm/s) is left alone until something touches it: 2 to 3 times faster,
        # and resting things keep their place exactly. Each native stretch starts with everything awake.
        spec.option.enableflags = int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        if self.floor_z is not None:
            floor = spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.0, 0.0, 0.1])
            floor.pos = [0.0, 0.0, self.floor_z]
            self._set_static_contact(floor)
        for i, body in enumerate(self.bodies):
            self._add_body(spec, i, body)
        if self._touch_sensors:
            body_type = mujoco.mjtObj.mjOBJ_BODY
            for i, j in self.pairs:
                spec.add_sensor(
                    type=mujoco.mjtSensor.mjSENS_CONTACT,
                    objtype=body_type,
                    objname=f"body{i}",
                    reftype=body_type,
                    refname=f"body{j}",
                    intprm=[1, 0, 1],
                )
        if self._decorate is not None:
            self._decorate(spec)
        return spec.compile()

    @staticmethod
    def _set_static_contact(geom: mujoco.MjsGeom) -> None:
        # Lowest friction and damping, so that in MuJoCo's mixing (larger friction, larger damping) the moving
        # body's count.
        geom.contype, geom.conaffinity, geom.condim = _STATIC, 0, 3
        geom.friction = [0.0, 0.0, 0.0]
        geom.solref = [-CONTACT_STIFFNESS, -1e-3]
        geom.solimp = [0.95, 0.99, 0.001, 0.5, 2.0]

    def _add_body(self, spec: mujoco.MjSpec, index: int, body: BodyDef) -> None:
        state = body.static_state if body.is_static else rest_state((PARK_POSITION_M, 10.0 * index, 0.0))
        added = spec.worldbody.add_body(name=f"body{index}", pos=state[POSITION], quat=_to_wxyz(state[QUATERNION]))
        if not body.is_static:
            added.add_freejoint()
        for j, part in enumerate(body.geoms):
            geom = added.add_geom(name=f"body{index}geom{j}", pos=part.position, quat=_to_wxyz(part.quaternion))
            geom.rgba = part.color
            geom.material = part.material
            _set_shape(spec, geom, part, f"body{index}geom{j}mesh")
            if part.visual_only:
                geom.contype = geom.conaffinity = 0
                geom.mass = 0.0
                continue
            geom.density = 1000.0  # set_mass scales the whole body to its mass
            if body.is_static:
                self._set_static_contact(geom)
                continue
            geom.contype, geom.conaffinity = _MOVING, _MOVING | _STATIC | _KINEMATIC
            rolls = part.shape in (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE)
            geom.condim = 6 if rolls else 4 if part.shape == Shape.CONVEX else 3
            radius = 0.25 * float(part.extents[0] + part.extents[1])
            geom.friction = [body.friction, TORSIONAL_COEFFICIENT_M, ROLLING_COEFFICIENT * radius]
            geom.solref = contact_solref(body.restitution, self.timestep)
            geom.solimp = [0.95, 0.99, 0.001, 0.5, 2.0]

    def rebuilt(self, bodies: Sequence[BodyDef]) -> World:
        """A world of other bodies, compiled with the same floor, step and decoration."""
        return World(bodies, self.floor_z, self.timestep, self._decorate, self._touch_sensors)

    # -- properties, on a copy of the model

    def set_mass(self, model: mujoco.MjModel, index: int, mass: float) -> None:
        """Give a moving body another mass [kg]; its inertia scales along."""
        if not self.movable[index]:
            return
        body, dof = self.body_ids[index], int(self.qvel_address[index])
        factor = mass / model.body_mass[body]
        model.body_mass[body] *= factor
        model.body_inertia[body] *= factor
        model.body_subtreemass[0] += model.body_mass[body] - model.body_subtreemass[body]
        model.body_subtreemass[body] = model.body_mass[body]
        model.body_invweight0[body] /= factor
        model.dof_invweight0[dof : dof + 6] /= factor
        model.dof_M0[dof : dof + 6] *= factor

    def set_friction(self, model: mujoco.MjModel, index: int, friction: float) -> None:
        """Give a body another friction; a static body's then overrules that of what touches it."""
        for geom in self.geom_ids[index]:
            model.geom_friction[geom, 0] = friction
            if not self.movable[index]:
                self._overrule(model, index, geom)

    def set_restitution(self, model: mujoco.MjModel, index: int, restitution: float) -> None:
        """Give a body another restitution; a static body's then overrules that of what touches it."""
        for geom in self.geom_ids[index]:
            model.geom_solref[geom] = contact_solref(restitution, self.timestep)
            if not self.movable[index]:
                self._overrule(model, index, geom)

    def _overrule(self, model: mujoco.MjModel, index: int, geom: int) -> None:
        # Priority hands MuJoCo all of the geom's coefficients, so those that were not set take the body's own
        # values.
        if model.geom_priority[geom] == 0:
            model.geom_priority[geom] = 1
            if model.geom_friction[geom, 0] == 0.0:
                model.geom_friction[geom, 0] = self.bodies[index].friction
            if model.geom_solref[geom, 1] == -1e-3:
                model.geom_solref[geom] = contact_solref(self.bodies[index].restitution, self.timestep)

    def disable(self, model: mujoco.MjModel, index: int) -> None:
        """Take a body's collisions away (it no longer exists)."""
        for geom in self.geom_ids[index]:
            model.geom_contype[geom] = model.geom_conaffinity[geom] = 0
        if not self.movable[index]:
            model.body_pos[self.body_ids[index]] = [PARK_POSITION_M, 10.0 * index, 0.0]

    def enable(self, model: mujoco.MjModel, index: int) -> None:
        """Give a body its collisions back (it exists from now on)."""
        for geom in self.geom_ids[index]:
            model.geom_contype[geom] = self.pristine.geom_contype[geom]
            model.geom_conaffinity[geom] = self.pristine.geom_conaffinity[geom]

    def make_kinematic(self, model: mujoco.MjModel, index: int) -> tuple[float, float]:
        """Turn a moving body into a pusher; returns its mass [kg] and its (isotropic) inertia [kg m^2]."""
        body, dof = self.body_ids[index], int(self.qvel_address[index])
        heaviest = max([b.mass for b in self.bodies if not b.is_static] + [0.1])
        mass = _KINEMATIC_MASS_RATIO * heaviest
        inertia = mass * max(float(np.max(model.geom_rbound[self.geom_ids[index]])), 0.02) ** 2
        model.body_mass[body] = mass
        model.body_inertia[body] = inertia
        model.body_ipos[body] = 0.0
        model.body_iquat[body] = [1.0, 0.0, 0.0, 0.0]
        model.body_subtreemass[body] = mass
        model.body_invweight0[body] = [1.0 / mass, 1.0 / inertia]
        model.dof_invweight0[dof : dof + 6] = [1.0 / mass] * 3 + [1.0 / inertia] * 3
        model.dof_M0[dof : dof + 6] = [mass] * 3 + [inertia] * 3
        model.tree_sleep_policy[model.body_treeid[body]] = mujoco.mjtSleepPolicy.mjSLEEP_NEVER
        for geom in self.geom_ids[index]:
            model.geom_contype[geom], model.geom_conaffinity[geom] = _KINEMATIC, 0
        return mass, inertia

    def place_static(self, model: mujoco.MjModel, index: int, pose: Sequence[float]) -> None:
        """Put a static body at a pose: position [m], quaternion xyzw."""
        body = self.body_ids[index]
        model.body_pos[body] = pose[:3]
        model.body_quat[body] = _to_wxyz(pose[3:])

    def with_properties(self, bodies: Sequence[BodyDef]) -> mujoco.MjModel:
        """A copy of the compiled model with the masses, frictions and restitutions of ``bodies`` (same
        shapes).
        """
        model = copy.copy(self.pristine)
        for i, (old, new) in enumerate(zip(self.bodies, bodies, strict=True)):
            if new.is_static:
                continue
            if new.mass != old.mass:
                self.set_mass(model, i, new.mass)
            if new.friction != old.friction:
                self.set_friction(model, i, new.friction)
            if new.restitution != old.restitution:
                self.set_restitution(model, i, new.restitution)
        return model

    # -- states

    @property
    def state_size(self) -> int:
        """Length of MuJoCo's full physics state."""
        return int(mujoco.mj_stateSize(self.model, _FULL))

    def pack(self, states: Array, time_s: float = 0.0) -> Array:
        """MuJoCo's full physics state of body states (n, 13)."""
        packed = np.zeros(self.state_size)
        packed[0] = time_s
        rows = np.flatnonzero(self.movable)
        if len(rows):
            q = 1 + self.qpos_address[rows][:, None] + np.arange(7)
            v = 1 + self.model.nq + self.qvel_address[rows][:, None] + np.arange(6)
            moving = np.asarray(states)[rows]
            quaternion = normalize_quaternion(moving[:, QUATERNION])
            inverse = quaternion * [-1.0, -1.0, -1.0, 1.0]
            packed[q] = np.concatenate([moving[:, POSITION], quaternion[:, 3:], quaternion[:, :3]], axis=1)
            packed[v] = np.concatenate(
                [moving[:, LINEAR_VELOCITY], _rotate(inverse, moving[:, ANGULAR_VELOCITY])], axis=1
            )
        return packed

    def pack_body(self, packed: Array, index: int, state: Array) -> None:
        """Write one moving body's state (13,) into MuJoCo's full physics state."""
        q = 1 + int(self.qpos_address[index])
        v = 1 + self.model.nq + int(self.qvel_address[index])
        quaternion = normalize_quaternion(state[QUATERNION])
        packed[q : q + 3] = state[POSITION]
        packed[q + 3 : q + 7] = _to_wxyz(quaternion)
        packed[v : v + 3] = state[LINEAR_VELOCITY]
        spin = state[ANGULAR_VELOCITY]
        packed[v + 3 : v + 6] = quaternion_to_matrix(quaternion).T @ spin if spin.any() else 0.0

    def unpack(self, packed: Array) -> Array:
        """Body states (T, n, 13) of MuJoCo states (T, nstate); static bodies at their static state."""
        count = len(packed)
        states = np.zeros((count, len(self.bodies), STATE_SIZE))
        for i in np.flatnonzero(~self.movable):
            states[:, i] = self.bodies[i].static_state
        rows = np.flatnonzero(self.movable)
        if len(rows) and count:
            q = 1 + self.qpos_address[rows][:, None] + np.arange(7)
            v = 1 + self.model.nq + self.qvel_address[rows][:, None] + np.arange(6)
            pose, twist = packed[:, q], packed[:, v]
            quaternion = np.concatenate([pose[..., 4:7], pose[..., 3:4]], axis=-1)
            states[:, rows, POSITION] = pose[..., :3]
            states[:, rows, QUATERNION] = quaternion
            states[:, rows, LINEAR_VELOCITY] = twist[..., :3]
            states[:, rows, ANGULAR_VELOCITY] = _rotate(quaternion, twist[..., 3:])
        return states

    def unpack_body(self, packed: Array, index: int) -> Array:
        """One moving body's state (13,) of a MuJoCo state (nstate,)."""
        q = 1 + int(self.qpos_address[index])
        v = 1 + self.model.nq + int(self.qvel_address[index])
        state = np.empty(STATE_SIZE)
        state[POSITION] = packed[q : q + 3]
        state[QUATERNION] = packed[[q + 4, q + 5, q + 6, q + 3]]
        state[LINEAR_VELOCITY] = packed[v : v + 3]
        state[ANGULAR_VELOCITY] = _rotate(state[QUATERNION], packed[v + 3 : v + 6])
        return state

    def set_positions(self, data: mujoco.MjData, states: Array, present: NDArray[np.bool_] | None = None) -> None:
        """Put bodies at states (n, 13) for drawing or distance queries; those not present are parked out
        of sight.
        """
        packed = self.pack(states)
        data.qpos[:] = packed[1 : 1 + self.model.nq]
        data.qvel[:] = 0.0
        if present is not None:
            for i in np.flatnonzero(self.movable & ~present):
                q = int(self.qpos_address[i])
                data.qpos[q : q + 3] = [PARK_POSITION_M, 10.0 * i, 0.0]

    def overlapping(self, states: Array, data: mujoco.MjData) -> NDArray[np.bool_]:
        """(S,) which of states (S, n, 13) have bodies that ``resolve_penetrations`` would move apart.

        Args:
            data: scratch of this world, whatever is in it.
        """
        found = np.zeros(len(states), dtype=bool)
        rows = np.flatnonzero(self.movable)
        if not len(rows):
            return found
        mujoco.mj_resetData(self.model, data)
        q = self.qpos_address[rows][:, None] + np.arange(7)
        quaternions = normalize_quaternion(states[:, rows, QUATERNION])
        poses = np.concatenate([states[:, rows, POSITION], quaternions[..., 3:], quaternions[..., :3]], axis=-1)
        for s, pose in enumerate(poses):
            data.qpos[q] = pose
            mujoco.mj_kinematics(self.model, data)
            mujoco.mj_comPos(self.model, data)
            mujoco.mj_collision(self.model, data)
            found[s] = data.ncon > 0 and data.contact.dist.min() < -OVERLAP_M
        return found

    def resolve_penetrations(
        self,
        model: mujoco.MjModel,
        states: Array,
        *,
        only: Sequence[int] | None = None,
        max_shift_m: float = 0.05,
        tolerance_m: float = OVERLAP_M,
        data: mujoco.MjData | None = None,
    ) -> Array:
        """States (n, 13) with overlapping bodies moved apart, without giving them any speed.

        The deepest contact of each pair moves its bodies along the normal: the upper one where the normal is
        steeper than 45 degrees, else both, by their inverse masses. At most ``max_shift_m`` per body; what is
        left is up to the contact spring.

        Args:
            only: resolve contacts that involve one of these bodies; None: all.
            data: scratch of this world, whatever is in it; None: made here.
        """
        states = states.copy()
        if not self.movable.any():
            return states
        if data is None:
            data = mujoco.MjData(model)
        else:
            mujoco.mj_resetData(model, data)
        start = states[:, POSITION].copy()
        index_of = {b: i for i, b in enumerate(self.body_ids)}
        for _ in range(25):
            self.set_positions(data, states)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_collision(model, data)
            deepest: dict[tuple[int, int], tuple[float, Array]] = {}
            for c in np.flatnonzero(data.contact.dist < -tolerance_m):
                contact = data.contact[int(c)]
                a = index_of.get(int(model.geom_bodyid[contact.geom1]), -1)
                b = index_of.get(int(model.geom_bodyid[contact.geom2]), -1)
                if only is not None and a not in only and b not in only:
                    continue
                if (a, b) not in deepest or contact.dist < deepest[a, b][0]:
                    deepest[a, b] = (float(contact.dist), np.array(contact.frame[:3]))
            if not deepest:
                break
            for (a, b), (distance, normal) in deepest.items():
                share_a, share_b = self._shares(model, a, b, normal)
                depth = -distance - 0.5 * tolerance_m
                for index, share, sign in ((a, share_a, -1.0), (b, share_b, 1.0)):
                    if share > 0.0:
                        moved = states[index, POSITION] + sign * share * depth * normal
                        shift = moved - start[index]
                        length = float(np.linalg.norm(shift))
                        states[index, POSITION] = start[index] + shift * min(1.0, max_shift_m / max(length, 1e-12))
        return states

    def _shares(self, model: mujoco.MjModel, a: int, b: int, normal: Array) -> tuple[float, float]:
        """How much of a penetration each body of a contact takes; ``normal`` points from a to b."""

        def free(index: int) -> bool:
            moves = index >= 0 and bool(self.movable[index])
            return moves and int(model.geom_contype[self.geom_ids[index][0]]) != _KINEMATIC

        free_a, free_b = free(a), free(b)
        if not (free_a and free_b):
            return float(free_a), float(free_b)
        if abs(normal[2]) > 0.7:
            return (0.0, 1.0) if normal[2] > 0.0 else (1.0, 0.0)
        mass_a, mass_b = model.body_mass[self.body_ids[a]], model.body_mass[self.body_ids[b]]
        return float(mass_b / (mass_a + mass_b)), float(mass_a / (mass_a + mass_b))


def _to_wxyz(quaternion: ArrayLike) -> Array:
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    return np.array([w, x, y, z])


def _rotate(quaternion: Array, vectors: Array) -> Array:
    """Vectors (..., 3) turned by unit quaternions (..., 4) xyzw."""
    q = quaternion[..., :3]
    t = 2.0 * _cross(q, vectors)
    return vectors + quaternion[..., 3:4] * t + _cross(q, t)


def _cross(a: Array, b: Array) -> Array:
    """Cross products (..., 3); numpy's own spends most of its time on the shapes of small arrays."""
    out = np.empty_like(b)
    out[..., 0] = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    out[..., 1] = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    out[..., 2] = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return out


def _set_shape(spec: mujoco.MjSpec, geom: mujoco.MjsGeom, part: GeomDef, mesh_name: str) -> None:
    half = 0.5 * np.asarray(part.extents, dtype=np.float64)
    hull: Array | None = None
    if part.shape == Shape.CONVEX:
        hull = simplify_hull(part.hull)
    elif part.shape == Shape.CYLINDER and abs(half[0] - half[1]) > 0.02 * half.max():
        hull = geom_points(replace(part, position=np.zeros(3), quaternion=np.array([0.0, 0.0, 0.0, 1.0])))
    if hull is not None:
        spec.add_mesh(name=mesh_name, uservert=hull.astype(np.float32).ravel())
        geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, mesh_name
    elif part.shape == Shape.SPHERE:
        round_ = half.max() - half.min() < 1e-6
        geom.type = mujoco.mjtGeom.mjGEOM_SPHERE if round_ else mujoco.mjtGeom.mjGEOM_ELLIPSOID
        geom.size = half
    elif part.shape in (Shape.CYLINDER, Shape.CAPSULE):
        radius = 0.5 * (half[0] + half[1])
        if part.shape == Shape.CAPSULE and half[2] - radius < 1e-4:
            geom.type, geom.size = mujoco.mjtGeom.mjGEOM_SPHERE, [half[2], 0.0, 0.0]
        else:
            length = half[2] - radius if part.shape == Shape.CAPSULE else half[2]
            geom.type, geom.size = _GEOM_TYPE[part.shape], [radius, length, 0.0]
    else:  # a box, or points that span no volume
        geom.type, geom.size = mujoco.mjtGeom.mjGEOM_BOX, np.maximum(half, 5e-4)


@dataclass(frozen=True)
class Touch:
    """Bodies ``a`` < ``b`` (indices) began (or ceased) to touch at a time [s]; begun at 0: they touched at
    the start.
    """

    time_s: float
    a: int
    b: int
    began: bool


@dataclass(frozen=True)
class SolverWarning:
    """MuJoCo warned at a time [s], and from there to the next intervention the states hold.

    ``kind`` is MuJoCo's name: ``BADQPOS``, ``BADQVEL``, ``BADQACC`` (not finite, or beyond 1e10), ``INERTIA``,
    ``CONTACTFULL``, ``CNSTRFULL``.
    """

    time_s: float
    kind: str


@dataclass(frozen=True)
class Trajectory:
    """States (T, n, 13), presence (T, n), touches in time order; ``stable`` False: the solver diverged
    (states then hold); ``warnings``: what MuJoCo warned of, also where the states stayed finite.
    """

    states: Array
    present: NDArray[np.bool_]
    touches: tuple[Touch, ...]
    stable: bool
    warnings: tuple[SolverWarning, ...] = ()


@dataclass(frozen=True)
class Action:
    """An intervention on a body index (instead of an object id), at ``intervention.time_offset``."""

    body: int
    intervention: Intervention


class Simulator:
    """Runs worlds with interventions; keeps MuJoCo's scratch data, so one per thread."""

    def __init__(self) -> None:
        self._rollout = mujoco.rollout.Rollout(nthread=0)
        self._data: dict[int, tuple[World, mujoco.MjData]] = {}

    def scratch(self, world: World) -> mujoco.MjData:
        """MuJoCo's data for models of a world; whoever takes it resets it first."""
        key = id(world)
        if key not in self._data:
            if len(self._data) >= _MOST_SCRATCH:
                self._data.pop(next(iter(self._data)))
            self._data[key] = (world, mujoco.MjData(world.model))
        return self._data[key][1]

    def run(
        self,
        world: World,
        model: mujoco.MjModel,
        states: Array,
        actions: Sequence[Action],
        times: ArrayLike,
        *,
        absent: Sequence[int] = (),
        bodies: Sequence[BodyDef] | None = None,
        world_for: Callable[[Sequence[BodyDef]], World] | None = None,
    ) -> Trajectory:
        """Simulate a world from states (n, 13), with interventions, and report it at times (T,) [s].

        Static bodies start where their definition says, whatever ``states`` holds for them.

        One native call per stretch between interventions. Interventions fall on the nearest physics step; of
        several at one step, the order given counts. Times between steps are reported by straight continuation
        of the last step.

        Args:
            model: the world's compiled model or a variant of it (``World.with_properties``); left unchanged.
            absent: bodies that do not exist until an ``ADD`` or ``FOLLOW_PATH`` brings them in.
            bodies: definitions with the properties of ``model``; None: those of the world.
            world_for: makes (or finds) the world of other bodies, for ``MORPH``; None: compiled on the spot.

        ``MORPH`` scales about the centre, then lifts or lowers the body so that its lowest point stays at the
        height it
        had: what stood on a support still stands on it. What it then overlaps sideways is moved apart without
        speed; so is what ``ADD`` and ``SET_POSE`` place into other bodies.
        """
        live = LiveWorld(self, world, model, states, absent, bodies, world_for)
        return live.execute(actions, np.asarray(times, dtype=np.float64))

    def native(
        self, world: World, model: mujoco.MjModel, state: Array, steps: int, control: Array | None
    ) -> tuple[Array, Array, tuple[str, ...]]:
        """States (steps, nstate) and sensor values (steps, pairs) of one stretch, and the kinds of MuJoCo's warnings.

        After a step with a warning, MuJoCo's rollout repeats the state.
        """
        out = np.empty((1, steps, len(state)))
        sensed = np.empty((1, steps, model.nsensordata))
        data = self.stretch(world, model, state[None].copy(), steps, control, out, sensed)
        return out[0], sensed[0], warning_kinds(data)

    def stretch(
        self,
        world: World,
        model: mujoco.MjModel,
        state: Array,
        steps: int,
        control: Array | None,
        out: Array,
        sensed: Array,
    ) -> mujoco.MjData:
        """One stretch from a state (1, nstate), with forces (1, steps, nv) or none, written into ``out``
        (1, steps, nstate) and ``sensed`` (1, steps, pairs); returns MuJoCo's data at its end.
        """
        data = self.scratch(world)
        mujoco.mj_resetData(model, data)  # wakes everything, so that a stretch depends on nothing before it
        self._rollout.rollout(
            [model],
            [data],
            state,
            control,
            control_spec=_QFRC if control is not None else 0,
            skip_checks=True,
            nstep=steps,
            state=out,
            sensordata=sensed,
        )
        return data


class LiveWorld:
    """A world in progress: its state, which bodies exist, which follow a path, and what interventions have
    changed.

    Its state is complete: everything that the next stretch depends on is in it (MuJoCo's solver starts each
    stretch without memory), so a ``branch`` goes on bit for bit as the original does, if advanced by the same
    stretches.

    Args:
        simulator: MuJoCo's scratch data of this thread; the others as in ``Simulator.run``.
        variants: models that futures of equal edits share; None: an edited model is a copy of this world's own.
    """

    def __init__(
        self,
        simulator: Simulator,
        world: World,
        model: mujoco.MjModel,
        states: Array,
        absent: Sequence[int] = (),
        bodies: Sequence[BodyDef] | None = None,
        world_for: Callable[[Sequence[BodyDef]], World] | None = None,
        variants: ModelVariants | None = None,
    ) -> None:
        self.simulator, self.world, self.model = simulator, world, model
        self.owns_model = False
        self.variants = variants
        self.warnings: tuple[SolverWarning, ...] = ()
        self.bodies = list(bodies if bodies is not None else world.bodies)
        self.world_for = world_for or world.rebuilt
        self.step = 0
        self.packed = world.pack(np.asarray(states, dtype=np.float64))
        self.statics = {int(i): world.bodies[i].static_state.copy() for i in np.flatnonzero(~world.movable)}
        self.present = np.ones(len(self.bodies), dtype=bool)
        self.present[list(absent)] = False
        self.paths: dict[int, tuple[int, Intervention, float, float]] = {}
        self.overruled: list[tuple[int, Property, float]] = []
        for index in absent:
            self._change("disable", index)
            self._park(index)

    def branch(self, created: Sequence[BodyDef] = (), world: World | None = None) -> LiveWorld:
        """A copy that goes its own way, with room for bodies that are to be created (absent so far).

        Args:
            created: bodies appended to those of this world.
            world: the compiled world of all of them (same order); None: made here.
        """
        twin = copy.copy(self)
        twin.model, twin.owns_model = (
            (copy.copy(self.model) if self.owns_model else self.model),
            self.owns_model,
        )
        twin.bodies, twin.packed, twin.present = list(self.bodies), self.packed.copy(), self.present.copy()
        twin.statics = {i: s.copy() for i, s in self.statics.items()}
        twin.paths, twin.overruled = dict(self.paths), list(self.overruled)
        if created:
            count = len(self.bodies)
            twin.bodies.extend(created)
            twin.present = np.concatenate([twin.present, np.zeros(len(created), dtype=bool)])
            old_nq, old_nv = self.world.model.nq, self.world.model.nv
            twin._rebuild(world or self.world_for(tuple(twin.bodies)))
            packed = twin.world.pack(np.tile(rest_state(np.zeros(3)), (len(twin.bodies), 1)))
            # New bodies come last, so the old ones' coordinates are copied as they are.
            packed[: 1 + old_nq] = self.packed[: 1 + old_nq]
            start = 1 + twin.world.model.nq
            packed[start : start + old_nv] = self.packed[1 + old_nq :]
            twin.packed = packed
            for index in range(count, len(twin.bodies)):
                twin._park(index)
        return twin

    @property
    def time_s(self) -> float:
        """Time since the start [s]."""
        return self.step * self.world.timestep

    def states(self) -> Array:
        """(n, 13) states now; bodies that do not exist are parked far away."""
        return self.unpacked(self.packed[None])[0]

    def _rebuild(self, world: World) -> None:
        """Go over to another compiled world of the same bodies (with others' shapes, or more bodies)."""
        self.world = world
        if self.variants is not None:
            self.model = self.variants.with_properties(world, self.bodies)
        else:
            self.model, self.owns_model = world.with_properties(self.bodies), True
        for i in np.flatnonzero(~self.present):
            self._change("disable", int(i))
        for i, still in self.statics.items():
            if self.present[i]:
                self._place(i, still)
        for i, (begin, path, _, _) in list(self.paths.items()):
            self._follow(i, begin, path)
        for i, name, value in self.overruled:
            self._change("set_friction" if name == Property.FRICTION else "set_restitution", i, value)

    def _change(self, edit: str, index: int, *values: float | tuple[float, ...]) -> None:
        """Edit the model by a method of the world: a copy of its own, or one shared with all of the same edits."""
        if self.variants is not None:
            self.model = self.variants.edited(self.world, self.model, edit, index, *values)
            return
        if not self.owns_model:
            self.model, self.owns_model = copy.copy(self.model), True
        getattr(self.world, edit)(self.model, index, *values)

    def _follow(self, index: int, begin: int, path: Intervention) -> None:
        """Make a body follow a path from a step on."""
        self._change("make_kinematic", index)
        body = self.world.body_ids[index]
        self.paths[index] = (begin, path, float(self.model.body_mass[body]), float(self.model.body_inertia[body, 0]))

    def _park(self, index: int) -> None:
        if self.world.movable[index]:
            self.world.pack_body(self.packed, index, rest_state((PARK_POSITION_M, 10.0 * index, 0.0)))

    def _body_state(self, index: int) -> Array:
        if not self.world.movable[index]:
            return self.statics[index].copy()
        return self.world.unpack_body(self.packed, index)

    def advance(self, steps: int) -> tuple[Array, NDArray[np.bool_], bool]:
        """Simulate a stretch; returns MuJoCo states (steps, nstate), touching pairs (steps, pairs), and
        whether it is stable.
        """
        control = self.control(self.step, self.step + steps)
        out, sensed, kinds = self.simulator.native(self.world, self.model, self.packed, steps, control)
        stable = self.hold_unstable(out, kinds)
        self.packed = out[-1].copy()
        self.step += steps
        return out, sensed[:, : len(self.world.pairs)] > 0.5, stable

    def hold_unstable(self, out: Array, kinds: Sequence[str]) -> bool:
        """Hold the last finite state in a stretch (steps, nstate) that starts now, in place, and note what was warned
        of; returns whether the solver stayed stable.
        """
        finite = np.isfinite(out).all(axis=1)
        if kinds:
            frozen = np.flatnonzero(np.diff(out[:, 0]) == 0.0)
            steps = int(frozen[0]) + 1 if len(frozen) else len(out)
            at = (self.step + steps) * self.world.timestep
            self.warnings += tuple(SolverWarning(at, kind) for kind in kinds)
        if not finite.all():
            first = int(np.argmin(finite))
            out[first:] = out[first - 1] if first else self.packed
            out[first:, 1 + self.world.model.nq :] = 0.0
        return bool(finite.all()) and not any(kind.startswith("BAD") for kind in kinds)

    def execute(self, actions: Sequence[Action], times: Array, max_stretch: int | None = None) -> Trajectory:
        """Go on with interventions; times (T,) [s] and the interventions' offsets count from now.

        Args:
            max_stretch: longest native call [steps]; None: as long as can be.
        """
        h, origin = self.world.timestep, self.step
        rows = np.floor(times / h + 1e-6).astype(np.int64)
        total = int(np.ceil(times[-1] / h - 1e-6)) if len(times) else 0
        schedule = sorted(
            ((min(round(a.intervention.time_offset / h), total), a) for a in actions),
            key=lambda item: item[0],
        )
        n = len(self.bodies)
        states, present = np.zeros((len(times), n, STATE_SIZE)), np.zeros((len(times), n), dtype=bool)
        touching = np.zeros((total, len(self.world.pairs)), dtype=bool)
        stable, step, cursor = True, 0, 0
        while True:
            while cursor < len(schedule) and schedule[cursor][0] <= step:
                self.apply(schedule[cursor][1])
                cursor += 1
            end = min(schedule[cursor][0], total) if cursor < len(schedule) else total
            if max_stretch is not None:
                end = min(end, step + max_stretch - (origin + step) % max_stretch)
            stretch = self.packed[None]
            if end > step:
                out, touching[step:end], finite = self.advance(end - step)
                stable &= finite
                stretch = np.concatenate([stretch, out])
            # Rows of this stretch: from its start to before its end (the next begins there, after
            # interventions).
            last = end >= total and cursor >= len(schedule)
            chosen = np.flatnonzero((rows >= step) & ((rows < end) | last))
            if len(chosen):
                states[chosen] = self.unpacked(stretch[np.minimum(rows[chosen], end) - step])
                present[chosen] = self.present
            step = end
            if last:
                break
        late = np.clip(times - rows * h, 0.0, h)
        states[..., POSITION] += late[:, None, None] * states[..., LINEAR_VELOCITY] * present[..., None]
        hold_absent(states, present)
        return Trajectory(states, present, find_touches(touching, self.world.pairs, h), stable, self.warnings)

    def unpacked(self, packed: Array) -> Array:
        """Body states (T, n, 13) of MuJoCo states (T, nstate), static bodies where they are now."""
        states = self.world.unpack(packed)
        for index, state in self.statics.items():
            states[:, index] = state
        return states

    def control(self, start: int, end: int) -> Array | None:
        """Generalised forces (1, steps, nv) that keep kinematic bodies on their paths; None where there
        are none.
        """
        if not self.paths:
            return None
        force = np.zeros((1, end - start, self.world.model.nv))
        self.steer(start, end, force[0])
        return force

    def steer(self, start: int, end: int, force: Array) -> None:
        """Write the forces of kinematic bodies from step ``start`` to ``end`` into (steps, nv), and put them on their
        paths.
        """
        h, model = self.world.timestep, self.model
        for index, (begin, path, mass, inertia) in self.paths.items():
            position, quaternion = self._path_at(path, begin, np.arange(start, end + 1))
            linear = np.diff(position, axis=0) / h
            v = int(self.world.qvel_address[index])
            at = 1 + model.nq + v
            # Semi-implicit stepping: the velocity after a step carries the body over that step. What
            # interventions elsewhere left of the pose is put right at each stretch.
            self.world.pack_body(self.packed, index, rest_state(position[0], quaternion[0]))
            self.packed[at : at + 3] = linear[0]
            force[1:, v : v + 3] = mass * np.diff(linear, axis=0) / h
            force[0, v : v + 3] = 0.0
            force[:, v + 2] += mass * GRAVITY_M_S2
            if (quaternion == quaternion[0]).all():
                self.packed[at + 3 : at + 6] = force[:, v + 3 : v + 6] = 0.0
                continue
            turn = Rotation.from_quat(quaternion[:-1]).inv() * Rotation.from_quat(quaternion[1:])
            angular = turn.as_rotvec() / h
            self.packed[at + 3 : at + 6] = angular[0]
            force[:, v + 3 : v + 6] = inertia * np.diff(angular, axis=0, prepend=angular[:1]) / h

    def _path_at(self, path: Intervention, begin: int, steps: NDArray[np.int64]) -> tuple[Array, Array]:
        return interpolate_pose(
            path.path_times, path.path_positions, path.path_quaternions, (steps - begin) * self.world.timestep
        )

    def _place(self, index: int, state: Array) -> None:
        if self.world.movable[index]:
            self.world.pack_body(self.packed, index, state)
        else:
            still = rest_state(state[POSITION], state[QUATERNION])
            self.statics[index] = still
            self._change("place_static", index, tuple(still[:7].tolist()))

    def _separate(self, index: int) -> None:
        """Move apart, without speed, what ``index`` was placed into."""
        if not self._overlaps(index):
            return
        states = self.unpacked(self.packed[None])[0]
        # A thing that is placed right into another has to go out of it altogether, or the contact would fling
        # it away.
        moved = self.world.resolve_penetrations(
            self.model, states, only=[index], max_shift_m=0.2, data=self.simulator.scratch(self.world)
        )
        for i in np.flatnonzero((moved != states).any(axis=1)):
            self.world.pack_body(self.packed, int(i), moved[i])

    def _overlaps(self, index: int, tolerance_m: float = 2e-4) -> bool:
        """Whether a body is inside another by more than ``resolve_penetrations`` leaves."""
        model, data = self.model, self.simulator.scratch(self.world)
        mujoco.mj_resetData(model, data)
        data.qpos[:] = self.packed[1 : 1 + model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        deep = data.contact.geom[data.contact.dist < -tolerance_m]
        return bool((model.geom_bodyid[deep] == self.world.body_ids[index]).any())

    def apply(self, action: Action) -> None:
        """Carry an intervention out now (whatever its time offset)."""
        index, do = action.body, action.intervention
        kind = do.kind
        if kind in (InterventionKind.ADD, InterventionKind.FOLLOW_PATH):
            self._change("enable", index)
            self.present[index] = True
            if kind == InterventionKind.ADD:
                assert do.body is not None
                state = rest_state(do.body.position, do.body.quaternion)
                state[LINEAR_VELOCITY], state[ANGULAR_VELOCITY] = (
                    do.body.linear_velocity,
                    do.body.angular_velocity,
                )
                self._place(index, state)
                self._separate(index)
            else:
                self._follow(index, self.step, do)
                position, quaternion = self._path_at(do, self.step, np.array([self.step]))
                self._place(index, rest_state(position[0], quaternion[0]))
                self._separate(index)
            return
        if not self.present[index]:
            return  # an intervention on a thing that has been removed before changes nothing
        if kind == InterventionKind.REMOVE:
            self.present[index] = False
            self.paths.pop(index, None)
            self._change("disable", index)
            self._park(index)
        elif kind == InterventionKind.SET_POSE:
            if index not in self.paths:
                self._place(index, rest_state(do.position, do.quaternion))
                self._separate(index)
        elif kind == InterventionKind.SET_VELOCITY:
            state = self._body_state(index)
            state[LINEAR_VELOCITY], state[ANGULAR_VELOCITY] = do.linear_velocity, do.angular_velocity
            self._place(index, state)
        elif kind == InterventionKind.APPLY_IMPULSE:
            self._push(index, do)
        elif kind == InterventionKind.SET_PROPERTY:
            self._set_property(index, do)
        elif kind == InterventionKind.MORPH:
            self._morph(index, do)
        # RESTYLE changes images only.

    def _push(self, index: int, do: Intervention) -> None:
        """Velocity change by an impulse J at an offset r from the body frame's origin: dv = J/m, dw = I^-1
        ((r - c) x J).
        """
        if not self.world.movable[index] or index in self.paths:
            return
        body, model = self.world.body_ids[index], self.model
        state = self._body_state(index)
        rotation = quaternion_to_matrix(state[QUATERNION])
        to_mass_centre = rotation @ model.body_ipos[body]
        principal = rotation @ quaternion_to_matrix(np.roll(model.body_iquat[body], -1))
        torque = np.cross(do.point - to_mass_centre, do.impulse)
        turn = principal @ ((principal.T @ torque) / model.body_inertia[body])
        # The state holds the velocity of the frame's origin, which also moves when the body turns about its
        # mass centre.
        state[LINEAR_VELOCITY] += do.impulse / model.body_mass[body] - np.cross(turn, to_mass_centre)
        state[ANGULAR_VELOCITY] += turn
        self.world.pack_body(self.packed, index, state)

    def _set_property(self, index: int, do: Intervention) -> None:
        body = self.bodies[index]
        name = {Property.MASS: "mass", Property.FRICTION: "friction", Property.RESTITUTION: "restitution"}[do.property]
        value = do.value * getattr(body, name) if do.value_is_factor else do.value
        if do.property == Property.RESTITUTION:
            value = float(np.clip(value, 0.0, 1.0))
        self.bodies[index] = replace(body, **{name: float(value)})  # type: ignore[arg-type]
        if do.property == Property.MASS:
            if index not in self.paths:
                self._change("set_mass", index, float(value))
        elif do.property == Property.FRICTION:
            self._change("set_friction", index, float(value))
        else:
            self._change("set_restitution", index, float(value))
        if body.is_static and do.property != Property.MASS:
            self.overruled.append((index, do.property, float(value)))

    def _morph(self, index: int, do: Intervention) -> None:
        state = self._body_state(index)
        old = self.bodies[index]
        new = scaled_body(old, do.scale)
        state[2] += lowest_point(old, state[QUATERNION]) - lowest_point(new, state[QUATERNION])
        if old.is_static:
            # A support keeps its top where things stand on it.
            state = self.statics[index].copy()
            flip = Rotation.from_rotvec([np.pi, 0.0, 0.0]) * Rotation.from_quat(state[QUATERNION])
            state[2] -= lowest_point(old, flip.as_quat()) - lowest_point(new, flip.as_quat())
            new = replace(new, static_state=state, mass=old.mass)
        self.bodies[index] = new
        # Another geometry is another compiled world, of the same bodies in the same order.
        self._rebuild(self.world_for(tuple(self.bodies)))
        self._place(index, state)
        self._separate(index)


def warning_kinds(data: mujoco.MjData) -> tuple[str, ...]:
    """Names of what MuJoCo has warned of since its data were reset."""
    counts = data.warning.number
    return tuple(_WARNING_NAMES[int(i)] for i in np.flatnonzero(counts)) if counts.any() else ()


def surface_distance(
    model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[int], others: Sequence[int], far_m: float
) -> float:
    """Shortest distance [m] between the geoms of two bodies, negative where they overlap, ``far_m`` where further.

    Where the geoms are must be known to ``data`` (``mj_kinematics``).
    """
    a, b = np.asarray(geoms, dtype=np.int64), np.asarray(others, dtype=np.int64)
    apart = np.linalg.norm(data.geom_xpos[a][:, None] - data.geom_xpos[b][None], axis=-1)
    apart -= model.geom_rbound[a][:, None] + model.geom_rbound[b][None]
    nearest = far_m
    for k in np.argsort(apart, axis=None):
        if apart.flat[k] >= nearest:
            break
        one, other = int(a[k // len(b)]), int(b[k % len(b)])
        nearest = min(nearest, mujoco.mj_geomDistance(model, data, one, other, far_m, None))
    return float(nearest)


def hold_absent(states: Array, present: NDArray[np.bool_]) -> None:
    """Where a body is absent, give it the last pose before (or the first after) at zero velocity, in
    place.
    """
    for i in np.flatnonzero(~present.all(axis=0)):
        here = np.flatnonzero(present[:, i])
        for t in np.flatnonzero(~present[:, i]):
            if not len(here):
                states[t, i] = rest_state(np.zeros(3))
                continue
            before = here[here < t]
            source = before[-1] if len(before) else here[0]
            states[t, i] = rest_state(states[source, i, POSITION], states[source, i, QUATERNION])


def find_touches(touching: NDArray[np.bool_], pairs: Sequence[tuple[int, int]], timestep: float) -> tuple[Touch, ...]:
    """Beginnings and ends of contacts from per-step flags (steps, pairs); gaps below ``CONTACT_GAP_S`` are
    closed.
    """
    gap = max(1, round(CONTACT_GAP_S / timestep))
    columns = np.flatnonzero(touching.any(axis=0))
    edges = np.zeros((len(columns), len(touching) + 2), dtype=np.int8)
    edges[:, 1:-1] = touching[:, columns].T
    edges = np.diff(edges, axis=1)
    of, begins = np.nonzero(edges == 1)  # runs, ordered by pair and time
    ends = np.nonzero(edges == -1)[1] - 1
    apart = (of[1:] != of[:-1]) | (begins[1:] - ends[:-1] > gap)
    first, last = np.append(True, apart)[: len(of)], np.append(apart, True)[: len(of)]
    touches = []
    before = -1
    for p, begin, end in zip(of[first].tolist(), begins[first].tolist(), ends[last].tolist(), strict=True):
        if p != before and begin <= 2:
            begin = 0  # what only just touches at the start makes contact a step or two later
        before = p
        a, b = pairs[columns[p]]
        touches.append(Touch(float(begin * timestep), a, b, True))
        if end + gap < len(touching):
            touches.append(Touch(float((end + 1) * timestep), a, b, False))
    return tuple(sorted(touches, key=lambda t: (t.time_s, t.a, t.b, t.began)))
