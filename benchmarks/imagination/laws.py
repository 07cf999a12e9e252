"""Violations of physics in futures: penetration, and energy that nothing supplied."""

from __future__ import annotations

import mujoco
import numpy as np

from benchmarks.imagination.metrics import Array, Mask, energy_rise
from benchmarks.imagination.shapes import Worlds, put, rows_of, scene_stretches
from benchmarks.imagination.touching import STEP_OF_INTERVENTIONS_S
from wm_core.constants import GRAVITY_M_S2
from wm_core.interventions import Hypothesis, InterventionKind
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import targets

# Tolerances of ``created_energy``, which are added; larger ones find fewer violations.
_ENERGY_OF_KINETIC = 0.05
"""Part of the largest kinetic energy."""
_ENERGY_HEIGHT_M = 0.005
"""Height [m] by which what moves may be lifted."""
_ENERGY_NOISE_J = 1e-4
"""Energy [J] below which changes are rounding."""
_OVERLAP_AT_START_M = 0.0025
"""Depth [m] from which a contact counts, and from which a pair that has it at the start is left out."""


def penetrations(
    worlds: Worlds, scene: SceneGraph, hypothesis: Hypothesis, times: Array, states: Array, present: Mask
) -> Array:
    """(T, M) the largest penetration depth [m] of each object, by MuJoCo's collision of the known shapes.

    Pairs that overlap by more than 2.5 mm at the start, and pushers in what is static, are left out.
    """
    result = np.zeros(present.shape)
    kinematic = {m for m, i in targets(scene, hypothesis) if i.kind == InterventionKind.FOLLOW_PATH}
    skipped: set[tuple[int, int]] = set()
    for part, rows in rows_of(scene_stretches(scene, hypothesis), times):
        world, data = worlds.get(part.bodies)
        model = world.model
        index_of = np.full(model.nbody, -1)
        index_of[world.body_ids] = np.arange(len(part.bodies))
        for t in rows:
            put(world, data, states[t], present[t])
            mujoco.mj_comPos(model, data)
            mujoco.mj_collision(model, data)
            if not data.ncon:
                continue
            depth = -np.array(data.contact.dist)
            pairs = np.sort(index_of[model.geom_bodyid[np.array(data.contact.geom)]], axis=1)
            for c in np.flatnonzero(depth > _OVERLAP_AT_START_M):
                a, b = int(pairs[c, 0]), int(pairs[c, 1])
                if a < 0 or (a, b) in skipped:
                    continue
                if (a in kinematic and not world.movable[b]) or (b in kinematic and not world.movable[a]):
                    continue
                if t == 0:
                    skipped.add((a, b))
                    continue
                for i in (a, b):
                    if world.movable[i]:
                        result[t, i] = max(result[t, i], depth[c])
    return result


def created_energy(
    worlds: Worlds, scene: SceneGraph, hypothesis: Hypothesis, times: Array, states: Array, present: Mask
) -> float | None:
    """The largest rise [J] of the free bodies' energy beyond a tolerance, between interventions; None with a pusher.

    Tolerance: 5 % of the largest kinetic energy, and what lifts all that moves by 5 mm, and 0.1 mJ. Bodies that stay
    within a millimeter are left out. Backends carry interventions out at the nearest of their steps, so states within
    half of such a step of one are left out; its energy may be stored in a contact's spring for 30 ms.
    """
    if any(do.kind == InterventionKind.FOLLOW_PATH for do in hypothesis.interventions):
        return None
    edges = sorted({0.0, *(do.time_offset for do in hypothesis.interventions)})
    parts = scene_stretches(scene, hypothesis)
    worst = 0.0
    for n, begin in enumerate(edges):
        end = edges[n + 1] if n + 1 < len(edges) else np.inf
        since = begin + STEP_OF_INTERVENTIONS_S if begin > 0.0 else -1e-9
        rows = np.flatnonzero((times >= since) & (times < end - STEP_OF_INTERVENTIONS_S))
        if len(rows) < 2:
            continue
        bodies = [p for p in parts if p.from_s <= begin + 1e-9][-1].bodies
        world, _ = worlds.get(bodies)
        model = world.model
        there = np.asarray(present[rows].all(axis=0))
        free = [i for i in range(len(bodies)) if world.movable[i] and there[i]]
        kinetic, potential, moving = np.zeros(len(rows)), np.zeros(len(rows)), 0.0
        for i in free:
            body = world.body_ids[i]
            own = states[rows, i].astype(np.float64)
            # A heavy object that settles by a fraction of a millimeter would exceed the tolerance.
            if np.linalg.norm(own[:, POSITION] - own[0, POSITION], axis=1).max() < 1e-3:
                continue
            rotation = quaternion_to_matrix(own[:, QUATERNION])
            arm = rotation @ model.body_ipos[body]
            velocity = own[:, LINEAR_VELOCITY] + np.cross(own[:, ANGULAR_VELOCITY], arm)
            axes = rotation @ quaternion_to_matrix(np.roll(model.body_iquat[body], -1))
            turn = np.einsum("tij,ti->tj", axes, own[:, ANGULAR_VELOCITY])
            mass = float(model.body_mass[body])
            kinetic += 0.5 * mass * (velocity**2).sum(axis=1) + 0.5 * (turn**2 @ model.body_inertia[body])
            potential += mass * GRAVITY_M_S2 * (own[:, 2] + arm[:, 2])
            moving += mass
        allowed = _ENERGY_OF_KINETIC * float(kinetic.max()) + _ENERGY_HEIGHT_M * GRAVITY_M_S2 * moving
        allowed += _ENERGY_NOISE_J
        energy = kinetic + potential
        energy[0] = energy[:2].max()
        worst = max(worst, energy_rise(energy) - allowed)
    return worst
