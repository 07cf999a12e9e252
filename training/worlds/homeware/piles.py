"""Household things put down by physics: spread, side by side, in heaps, or into what is hollow; all at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from training.worlds.homeware.settings import Setting
from training.worlds.outlines import overlap
from wm_core.rollout import POSITION, STATE_SIZE
from wm_dynamics.mujoco.bodies import BodyDef, body_points, lowest_point, rest_state
from wm_dynamics.mujoco.world import World
from wm_sim.simulator import FRAME_RATE_HZ, STEPS_PER_FRAME

Array = NDArray[np.float64]

_FALL_S, _REST_S = 1.4, 0.4
"""Time to fall and come to rest, and time over which nothing may move any more [s]. Longer costs as much more."""
_DAMPING = 0.6
"""What is left of all velocities after each 0.1 s of the fall. Smaller brings rolling things to rest sooner."""
_STILL_M = 0.002
"""Way [m] in ``_REST_S`` beyond which a thing is left out: it rolls, slides, or is about to fall."""
_ROUNDS = 4
"""How often what moves is left out before the rest is taken as it is."""


@dataclass(frozen=True)
class Item:
    """A thing to be put down.

    Attributes:
        body: its parts; turn: how it is held, without its turn about the vertical; into: the index of the item that
            it is dropped into, or -1.
    """

    body: BodyDef
    turn: Rotation
    into: int = -1


def bare(body: BodyDef) -> BodyDef:
    """What collides of a body."""
    return replace(body, geoms=tuple(replace(g, material="") for g in body.geoms if not g.visual_only))


def laid_out(items: Sequence[Item], setting: Setting, heap: float, rng: np.random.Generator) -> tuple[Array, list[int]]:
    """First poses of items, none of which overlaps: states (K, 13), and the index of each.

    Args:
        heap: 0: everything stands apart on the support; 1: things are put on top of those that are in the way.
    """
    placed: list[tuple[Array, float, Array]] = []
    states, kept = [], []
    where: dict[int, tuple[Array, float]] = {}
    for index, item in enumerate(items):
        for _ in range(20):
            rotation = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)) * item.turn
            points = rotation.apply(body_points(item.body))
            outline = points[:, :2][ConvexHull(points[:, :2]).vertices]
            reach = np.maximum(
                setting.area - (0.0 if setting.kind == "table" else 1.0) * np.abs(outline).max(axis=0), 0.0
            )
            center = rng.uniform(-reach, reach)
            if item.into in where:
                center = where[item.into][0] + rng.uniform(-0.015, 0.015, 2)
            elif heap > 0.0:
                center = center * (1.0 - 0.6 * heap)
            shifted = outline + center
            below = [top for other, top, _ in placed if overlap(other, shifted)]
            if below and item.into not in where and rng.uniform() > heap:
                continue
            level = max([setting.top, *below]) + (0.004 if below else 0.0005)
            z = level - lowest_point(item.body, rotation.as_quat())
            top = z + float(points[:, 2].max())
            if top - setting.top > setting.low:
                continue
            placed.append((shifted, top, center))
            where[index] = (center, top)
            states.append(rest_state((center[0], center[1], z), rotation.as_quat()))
            kept.append(index)
            break
    return np.array(states).reshape(-1, STATE_SIZE), kept


def settled(bodies: Sequence[BodyDef], states: Array, setting: Setting) -> tuple[Array, NDArray[np.bool_]]:
    """Lets bodies fall until they rest.

    Args:
        bodies: K of them, without the support; states: (K, 13) first poses.

    Returns:
        states (K, 13) at rest, and which of them (K,) rest on the support.
    """
    keep = np.ones(len(bodies), dtype=bool)
    if not len(bodies):
        return states, keep
    world = World(
        [bare(setting.support), *map(bare, bodies)], 0.0, 1.0 / (FRAME_RATE_HZ * STEPS_PER_FRAME), touch_sensors=False
    )
    data = mujoco.MjData(world.model)
    everything = np.concatenate([setting.support.static_state[None], states])
    world.set_positions(data, everything)
    tenth = round(0.1 / world.timestep)
    for _ in range(round(_FALL_S / 0.1)):
        mujoco.mj_step(world.model, data, nstep=tenth)
        data.qvel[:] *= _DAMPING
    for _ in range(_ROUNDS):
        now = _states(world, data)
        away = ~_rests(now, setting)
        mujoco.mj_step(world.model, data, nstep=round(_REST_S / world.timestep))
        later = _states(world, data)
        away |= ~(np.linalg.norm(later[:, POSITION] - now[:, POSITION], axis=1) < _STILL_M)
        away &= keep
        if not away.any():
            return _resting(later), keep
        for row in np.flatnonzero(away):
            keep[row] = False
            world.disable(world.model, row + 1)
        world.set_positions(data, np.concatenate([everything[:1], _resting(later)]), np.append(True, keep))
        # What has lost its support falls.
        for _ in range(4):
            mujoco.mj_step(world.model, data, nstep=tenth)
            data.qvel[:] *= _DAMPING
    last = _states(world, data)
    keep &= _rests(last, setting)
    return _resting(last), keep


def _states(world: World, data: mujoco.MjData) -> Array:
    """(K, 13) of all bodies but the support."""
    packed = np.zeros(world.state_size)
    mujoco.mj_getState(world.model, data, packed, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
    return world.unpack(packed[None])[0, 1:]


def _resting(states: Array) -> Array:
    result = states.copy()
    result[:, 7:] = 0.0
    return result


def _rests(states: Array, setting: Setting) -> NDArray[np.bool_]:
    """Which (K,) are on the support: neither fallen off nor thrown away."""
    position = np.nan_to_num(states[:, POSITION], nan=1e6)
    within = (np.abs(position[:, :2]) < 0.5 * setting.size[:2]).all(axis=1)
    result: NDArray[np.bool_] = within & (position[:, 2] > setting.top - 0.002) & (position[:, 2] < setting.top + 1.0)
    return result
