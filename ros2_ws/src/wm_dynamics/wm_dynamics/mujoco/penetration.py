"""Bodies of a world that lie in one another: which do, and moving what is placed into another out of it without speed.

What was perceived in one another is moved apart elsewhere (``wm_dynamics.settling.projection``).
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import normalize_quaternion
from wm_dynamics.mujoco.bodies import Array
from wm_dynamics.mujoco.world import KINEMATIC, World

OVERLAP_M = 2e-4
"""Depth down to which bodies that lie in one another are left so: the contact spring carries them there."""
_STEEP = 0.7
"""Vertical component of a contact's normal from which on (45 degrees) the upper body alone is moved."""
_ROUNDS = 25
"""Times that contacts are computed and resolved: moving two bodies apart may move one into a third. More cost time;
what is left is up to the contact spring."""


def overlapping(world: World, states: Array, data: mujoco.MjData, beside_gap_m: float = 0.0) -> NDArray[np.bool_]:
    """(S,) which of states (S, n, 13) have bodies that are to be moved apart.

    Args:
        data: scratch data of the world, whatever is in it.
        beside_gap_m: wanted between bodies whose contact is less steep than 45 degrees [m]; 0: they may touch.
    """
    found = np.zeros(len(states), dtype=bool)
    rows = np.flatnonzero(world.movable)
    if not len(rows):
        return found
    mujoco.mj_resetData(world.model, data)
    q = world.qpos_address[rows][:, None] + np.arange(7)
    quaternions = normalize_quaternion(states[:, rows, QUATERNION])
    poses = np.concatenate([states[:, rows, POSITION], quaternions[..., 3:], quaternions[..., :3]], axis=-1)
    for s, pose in enumerate(poses):
        data.qpos[q] = pose
        mujoco.mj_kinematics(world.model, data)
        mujoco.mj_comPos(world.model, data)
        mujoco.mj_collision(world.model, data)
        found[s] = len(_deep(data, OVERLAP_M, beside_gap_m)) > 0
    return found


def _deep(data: mujoco.MjData, tolerance_m: float, beside_gap_m: float) -> NDArray[np.int64]:
    """Contacts that are to be resolved: deeper than a tolerance, or, where a gap is wanted, any beside one another."""
    if not data.ncon:
        return np.zeros(0, dtype=np.int64)
    distance = np.array(data.contact.dist)
    deep = distance < -tolerance_m
    if beside_gap_m > 0.0:
        deep |= (distance < 0.0) & (np.abs(np.array(data.contact.frame)[:, 2]) <= _STEEP)
    return np.flatnonzero(deep)


def resolve_penetrations(
    world: World,
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
    steeper than 45 degrees, else both, by their inverse masses. At most ``max_shift_m`` per
    body; what is left is up to the contact spring.

    Args:
        only: resolve contacts that involve one of these bodies; None: all.
        data: scratch data of the world, whatever is in it; None: made here.
    """
    states = states.copy()
    if not world.movable.any():
        return states
    if data is None:
        data = mujoco.MjData(model)
    else:
        mujoco.mj_resetData(model, data)
    start = states[:, POSITION].copy()
    index_of = {b: i for i, b in enumerate(world.body_ids)}
    for _ in range(_ROUNDS):
        world.set_positions(data, states)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        deepest: dict[tuple[int, int], tuple[float, Array]] = {}
        for c in _deep(data, tolerance_m, 0.0):
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
            share_a, share_b = _shares(world, model, a, b, normal)
            depth = -distance - 0.5 * tolerance_m
            for index, share, sign in ((a, share_a, -1.0), (b, share_b, 1.0)):
                if share > 0.0:
                    moved = states[index, POSITION] + sign * share * depth * normal
                    shift = moved - start[index]
                    length = float(np.linalg.norm(shift))
                    states[index, POSITION] = start[index] + shift * min(1.0, max_shift_m / max(length, 1e-12))
    return states


def _shares(world: World, model: mujoco.MjModel, a: int, b: int, normal: Array) -> tuple[float, float]:
    """Shares of a penetration by which each body of a contact is moved; ``normal`` points from a to b."""

    def free(index: int) -> bool:
        moves = index >= 0 and bool(world.movable[index])
        return moves and int(model.geom_contype[world.geom_ids[index][0]]) != KINEMATIC

    free_a, free_b = free(a), free(b)
    if not (free_a and free_b):
        return float(free_a), float(free_b)
    if abs(normal[2]) > _STEEP:
        return (0.0, 1.0) if normal[2] > 0.0 else (1.0, 0.0)
    mass_a, mass_b = model.body_mass[world.body_ids[a]], model.body_mass[world.body_ids[b]]
    return float(mass_b / (mass_a + mass_b)), float(mass_a / (mass_a + mass_b))
