"""Contacts of bodies in MuJoCo: restitution, beginnings and ends of touches, distances."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

from wm_core.constants import SIMULATED_CONTACT_GAP_S
from wm_dynamics.mujoco.bodies import Array

CONTACT_STIFFNESS = 1.0e4
"""Of the contact spring [1/s^2], see ``mujoco.world``: larger, and contacts need shorter steps; smaller, and bodies
visibly sink in."""


@functools.lru_cache(maxsize=64)
def _restitution_table(timestep: float) -> tuple[Array, Array]:
    """Restitution (ascending) that damping ratios give, and the ratios, by the recursion of the time-stepper."""
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
    # np.interp needs ascending abscissae, so the small ripple of the discretization is removed.
    return np.maximum.accumulate(restitution[::-1]), ratios[::-1]


def contact_solref(restitution: float, timestep: float) -> tuple[float, float]:
    """MuJoCo ``solref`` (-stiffness, -damping) that gives a restitution 0..1 at a time step [s]."""
    reached, ratios = _restitution_table(float(timestep))
    ratio = float(np.interp(np.clip(restitution, 0.0, 0.98), reached, ratios))
    return -CONTACT_STIFFNESS, -max(2.0 * ratio * float(np.sqrt(CONTACT_STIFFNESS)), 1e-3)


@dataclass(frozen=True)
class Touch:
    """Two bodies began or ceased to touch.

    Attributes:
        time_s: [s]; 0: they touched at the start.
        a, b: indices of the bodies, a < b.
        began: else they ceased.
    """

    time_s: float
    a: int
    b: int
    began: bool


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


def find_touches(touching: NDArray[np.bool_], pairs: Sequence[tuple[int, int]], timestep: float) -> tuple[Touch, ...]:
    """Beginnings and ends of contacts from per-step flags (steps, pairs); gaps below ``SIMULATED_CONTACT_GAP_S`` are
    closed.
    """
    gap = max(1, round(SIMULATED_CONTACT_GAP_S / timestep))
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
